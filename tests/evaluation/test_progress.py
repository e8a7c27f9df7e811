"""Progress on stderr: lines without a terminal, a bar on one."""

from __future__ import annotations

import sys

import pytest

from vllm_rast.evaluation.runs import progress as module
from vllm_rast.evaluation.runs.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the display believes in."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_ten_seconds_and_one_at_the_end(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("decoding", done=10) as progress:
        for done in range(11, 41):
            clock[0] += 1
            progress(done, 50, tokens=5)
        clock[0] += 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "vllm-rast: decoding: 20 of 50 samples, 1.0 samples/s, 5 tokens/s, about 0:00:30 left",
        "vllm-rast: decoding: 30 of 50 samples, 1.0 samples/s, 5 tokens/s, about 0:00:20 left",
        "vllm-rast: decoding: 40 of 50 samples, 1.0 samples/s, 5 tokens/s, about 0:00:10 left",
        "vllm-rast: decoding: 40 of 50 samples, 1.0 samples/s, 5 tokens/s, about 0:00:10 left",
    ]


def test_short_work_without_tokens_is_silent(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("grading") as progress:
        for done in range(1, 6):
            clock[0] += 1
            progress(done, 5)
    with Progress("grading"):
        pass
    assert capsys.readouterr().err == ""


def test_a_bar_that_begins_where_the_work_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("grading", done=3) as progress:
        progress(4, 8)
        progress(8, 8)
        assert (progress.bar.n, progress.bar.total, progress.bar.initial) == (8, 8, 3)
    assert "grading: 100%" in capsys.readouterr().err
