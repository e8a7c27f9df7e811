"""`vllm-rast preflight` with the shipped models, in an engine of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from paths import ROOT

from vllm_rast.cli.main import main


def test_the_tiny_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, options = (
        tmp_path / "look",
        ("--benchmark", "tiny", "--problems", "6", "--ceiling", "tiny:ceiling", "--n", "2"),
    )
    assert main(["preflight", "--run", str(run), *options, "--alphas", "0.5,1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["answers"]) == list(said["tokens"]) == ["base", "alpha=0.5", "alpha=1"]
    rows = {"tiny:base": 1088, "tiny:positive": 1024, "tiny:negative": 1024, "tiny:ceiling": 1088}
    assert said["vocabularies"] == rows
    assert "KV cache" in said["memory"]
    for row in said["answers"].values():
        assert row["answers"] == 6 and row["right"] is not None
    tokens = said["tokens"]["alpha=1"]
    assert tokens["covered"][0] > 0.5 and tokens["cosine"] is not None and tokens["drafted"][0] > 0.5
    count = len((ROOT / "datasets" / "tiny.jsonl").read_text().splitlines())
    assert said["speed"]["samples"] == 3 * 2 * count, "of the whole run: base, rast and positive, twice each"
    assert said["speed"]["hours"] > 0 and said["warnings"] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--problems", "0"], "--problems 0: at least 1"),
        (["--backend", "transformers"], "--backend transformers: it keeps no token traces"),
        (["--alphas", "x"], "--rows alpha=x=x: 'x' is neither a model nor a number"),
    ],
)
def test_what_is_refused(capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    assert main(["preflight", *options]) == 2
    assert said in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_decoded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preflight", "--dry-run", "--problems", "3"]) == 0
    out = capsys.readouterr().out
    assert "alpha=0.3" in out and "3 problems" in out
