"""`vllm-rast generate` with the engine and the shipped models: killed and resumed, and against the reference loop."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from watching import lines

from vllm_rast.cli.main import main
from vllm_rast.evaluation.runs import backends
from vllm_rast.evaluation.runs.folder import RunFolder
from vllm_rast.mix.model_names import TINY_FOLDER

pytest.importorskip("vllm")
pytestmark = pytest.mark.skipif(not (TINY_FOLDER / "base").exists(), reason="the shipped models are not there")

OPTIONS = ["--limit", "12", "--n", "4", "--rows", "base,rast,cool=0.5@0.5", "--max-num-seqs", "16"]


@pytest.fixture(scope="module")
def one_engine() -> Iterator[None]:
    """Every run in this process uses the same engine."""
    engines = []

    def open_once(plan):
        if not engines:
            engines.append(backends.VllmBackend(plan))
        return engines[0]

    patch = pytest.MonkeyPatch()
    real = backends.open_backend
    patch.setattr(backends, "open_backend", lambda plan: open_once(plan) if plan.backend == "vllm" else real(plan))
    yield
    patch.undo()
    for engine in engines:
        engine.llm.llm_engine.engine_core.shutdown()


def test_killed_and_resumed_equals_uninterrupted(one_engine, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = [sys.executable, "-m", "vllm_rast", "generate", *OPTIONS, "--run", str(broken)]
    environment = {name: value for name, value in os.environ.items() if name != "VLLM_LOGGING_LEVEL"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    try:
        while lines(broken).total() < 20:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
    finally:
        process.kill()
        out, _ = process.communicate()
    assert out == b""  # vLLM's log goes elsewhere: stdout is for results
    there = lines(broken)
    assert 20 <= there.total() < 144
    assert main(["generate", *OPTIONS, "--run", str(whole)]) == 0
    assert there <= lines(whole)
    assert main(["generate", *OPTIONS, "--run", str(broken)]) == 0
    assert lines(broken) == lines(whole)
    assert lines(whole).total() == 144


def test_the_same_texts_as_the_reference(one_engine, tmp_path):
    """Greedy, in float32, token for token; prompts, stops and finish reasons included."""
    texts = {}
    for backend in backends.BACKENDS:
        run = tmp_path / backend
        rows = ["base,rast,positive,strong=2", 'late={"alpha": 2, "warmup": 9}']
        options = ["--limit", "5", "--temperature", "0", "--rows", *rows, "--backend", backend]
        assert main(["generate", *options, "--run", str(run)]) == 0
        samples = list(RunFolder(run).samples())
        texts[backend] = {one.key: (one.text, one.finish_reason, one.prompt_tokens, one.tokens) for one in samples}
    assert len(texts["vllm"]) == 25
    assert texts["vllm"] == texts["transformers"]
