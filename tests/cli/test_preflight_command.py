"""`vllm-rast preflight` with the shipped models, in an engine of its own."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import ROOT

from vllm_rast.cli.main import main
from vllm_rast.evaluation.analysis.answers import chosen_samples
from vllm_rast.evaluation.analysis.entropy import forking
from vllm_rast.evaluation.analysis.moved_tokens import most_moved
from vllm_rast.evaluation.analysis.sparsity import MOVED
from vllm_rast.evaluation.analysis.table import TraceTable
from vllm_rast.evaluation.runs.folder import RunFolder
from vllm_rast.evaluation.runs.traces import FOLDER


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The run folder of a look at the tiny world, and what was said of it."""
    run, out = tmp_path_factory.mktemp("preflight") / "look", io.StringIO()
    options = ["--benchmark", "tiny", "--problems", "12", "--ceiling", "tiny:ceiling", "--n", "2", "--alphas", "0.5,1"]
    with redirect_stdout(out):
        assert main(["preflight", "--run", str(run), *options, "--json"]) == 0
    return run, json.loads(out.getvalue())


@pytest.mark.engine
def test_the_tiny_world(look: tuple[Path, dict[str, Any]]) -> None:
    _, said = look
    assert list(said["answers"]) == list(said["tokens"]) == ["base", "alpha=0.5", "alpha=1"]
    rows = {"tiny:base": 1088, "tiny:positive": 1024, "tiny:negative": 1024, "tiny:ceiling": 1088}
    assert said["vocabularies"] == rows
    assert "KV cache" in said["memory"]
    for row in said["answers"].values():
        assert row["answers"] == 12 and row["right"] is not None
    tokens = said["tokens"]["alpha=1"]
    assert tokens["covered"][0] > 0.5 and tokens["cosine"] is not None and tokens["drafted"][0] > 0.5
    count = len((ROOT / "datasets" / "tiny.jsonl").read_text().splitlines())
    assert said["speed"]["samples"] == 3 * 2 * count, "of the whole run: base, rast and positive, twice each"
    assert said["speed"]["hours"] > 0 and said["warnings"] == []


@pytest.mark.engine
def test_the_paper_s_claims_hold_in_the_tiny_world(look: tuple[Path, dict[str, Any]]) -> None:
    """The change is sparse, lies at the forks, is alike at both sizes where it matters, and falls on the words that
    reasoning begins with here; with room, since 12 problems are few."""
    run, said = look
    (traces,) = (run / FOLDER).iterdir()
    keys = [sample.key for sample in chosen_samples(RunFolder(run), ["alpha=1"], samples=1, problems=12)]
    table = TraceTable.read(traces, keys)
    mix = said["tokens"]["alpha=1"]
    assert mix["covered"][0] > 0.9, "the base takes nearly all of the mix's tokens itself"
    assert 0.005 < mix["moved"][0] < 0.1, "few tokens are moved"
    js, forks = np.nan_to_num(table["js_mix_base"]), forking(table)
    assert js[forks].sum() > 0.8 * js.sum(), "and those lie where the base is unsure"
    moved, cosine = js > MOVED, table["delta_cosine_ceiling"]
    assert cosine[moved].mean() > 0.5 > cosine.mean() + 0.2, "the sizes agree there, and need not elsewhere"
    up, down = (most_moved(table, model)[0].text for model in ("mix", "base"))
    assert down.strip() == "The" and up.strip() != "The", "an answer begins with a step, and no longer with the answer"


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
