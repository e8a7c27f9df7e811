"""`generate --trace K`: a trace beside every sample, whatever stops the run; with a backend that needs no model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traced import TinyBackend

from vllm_rast.cli.main import main
from vllm_rast.evaluation.runs import backends
from vllm_rast.evaluation.runs.decode import Completion, Job, TokenTrace
from vllm_rast.evaluation.runs.folder import RunFolder
from vllm_rast.evaluation.runs.traces import FOLDER, TraceFolder, read_parts
from vllm_rast.kernels.token_trace import likeliest_columns
from vllm_rast.mix.config import RastConfig

COLUMNS = likeliest_columns(RastConfig.build("o/base", "o/positive", "o/negative"), 2)


class TracingBackend(TinyBackend):
    """Ends after `at_most` samples, as Ctrl-C would."""

    def __init__(self, at_most: int | None = None) -> None:
        super().__init__()
        self.at_most = at_most

    def stream(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Completion]]:
        for number, (job, completion) in enumerate(super().stream(jobs)):
            if number == self.at_most:
                raise KeyboardInterrupt
            values = np.arange(completion.tokens, dtype=np.float32)
            trace = TokenTrace(range(completion.tokens), {name: values for name in COLUMNS})
            yield job, replace(completion, trace=trace)


def generate(run: Path, *more: str) -> int:
    options = ("--limit", "3", "--n", "2", "--benchmark", "tiny", "--rows", "base,rast")
    return main(["generate", "--run", str(run), *options, *more])


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    used: list[TracingBackend] = []

    def use(at_most: int | None = None) -> TracingBackend:
        used.append(TracingBackend(at_most))
        monkeypatch.setattr(backends, "open_backend", lambda plan: used[-1])
        return used[-1]

    return use


def traces_of(run: Path) -> tuple[Path, set[Any]]:
    (folder,) = (run / FOLDER).iterdir()
    names = ["benchmark", "row", "problem", "sample"]
    keys = read_parts(folder, names).group_by(names).aggregate([]).select(names).to_pylist()
    return folder, {tuple(one.values()) for one in keys}


def test_a_trace_beside_every_sample(backend: Any, tmp_path: Path) -> None:
    backend(at_most=5)
    assert generate(tmp_path, "--trace", "2") == 130
    done = RunFolder(tmp_path).done()
    assert len(done) == 5 and traces_of(tmp_path)[1] == done
    second = backend()
    assert generate(tmp_path, "--trace", "2") == 0
    assert len(second.made) == 12 - 5
    folder, traced = traces_of(tmp_path)
    done = RunFolder(tmp_path).done()
    assert traced == done and len(done) == 12
    table = read_parts(folder)
    assert table.num_rows == sum(sample.tokens for sample in RunFolder(tmp_path).samples())
    assert str(table.schema.field("mix_top2").type) == "int32"
    assert str(table.schema.field("mix_top2_logprob").type) == "float"
    assert (folder / "vocabulary.parquet").exists()


def test_no_sample_without_its_trace_and_no_trace_twice(
    backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace is on the disk before its sample is. A writer that was killed between the two makes the sample again."""
    monkeypatch.setattr(TraceFolder, "__exit__", lambda self, *exception: self._lock.release())  # as kill -9
    backend(at_most=4)
    assert generate(tmp_path, "--trace", "2") == 130
    assert RunFolder(tmp_path).done() == set(), "neither was written"
    monkeypatch.undo()
    backend()
    monkeypatch.setattr(RunFolder, "append", lambda self, sample: None)  # killed after the traces
    generate(tmp_path, "--trace", "2")
    assert len(traces_of(tmp_path)[1]) == 12 and not RunFolder(tmp_path).done()
    monkeypatch.undo()
    backend()
    assert generate(tmp_path, "--trace", "2") == 0
    folder, traced = traces_of(tmp_path)
    assert traced == RunFolder(tmp_path).done()
    assert read_parts(folder).num_rows == sum(sample.tokens for sample in RunFolder(tmp_path).samples())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--trace", "21"], "--trace: expected an integer from 0 to 20, got 21"),
        (["--trace", "5", "--backend", "transformers"], "--trace: --backend transformers keeps no traces"),
    ],
)
def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    assert generate(tmp_path / "run", *options) == 2
    assert said in capsys.readouterr().err
