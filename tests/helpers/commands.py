"""The command line, called in this process."""

from __future__ import annotations

import pytest

from vllm_rast.cli.main import main


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line that a wrong command gets."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("vllm-rast: error: ")
    return captured.err.removeprefix("vllm-rast: error: ").rstrip()
