"""Longest first: the order of a run's samples, which changes none of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from fake_decoding import FakeBackend

from vllm_rast.cli.main import main
from vllm_rast.evaluation.runs import backends
from vllm_rast.evaluation.runs.decode import Completion, Job
from vllm_rast.evaluation.runs.folder import RunFolder

LENGTHS = {"a": 3, "b": 50, "c": 9, "d": 7}  # of the answers to a problem, by the first letter of its prompt


class Lengths(FakeBackend):
    def finish(self, job: Job) -> tuple[Job, Completion]:
        job, done = super().finish(job)
        return job, Completion(done.text, "stop", done.prompt_tokens, LENGTHS[job.prompt[0]])

    def stream(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Completion]]:
        for job in jobs:  # in order
            yield self.finish(job)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Lengths:
    fake = Lengths()
    monkeypatch.setattr(backends, "open_backend", lambda plan: fake)
    return fake


def generate(run: Path, backend: Lengths, *more: str) -> list[str]:
    """The problems of what was made, in order."""
    (run.parent / "p.jsonl").write_text("".join(json.dumps({"id": one, "prompt": f"{one}?"}) + "\n" for one in LENGTHS))
    before = len(backend.made)
    command = ["generate", "--model", "org/base", "--positive", "org/positive", "--negative", "org/negative"]
    assert main([*command, "--input", str(run.parent / "p.jsonl"), "--run", str(run), "--n", "2", *more]) == 0
    return [job.key.problem for job in backend.made[before:]]


def test_nothing_is_known_of_a_new_run(backend: Lengths, tmp_path: Path) -> None:
    assert generate(tmp_path / "run", backend, "--rows", "base,rast") == list("aaaabbbbccccdddd")


def test_longest_first_once_lengths_are_known(backend: Lengths, tmp_path: Path) -> None:
    """Of another row; a problem without an answer counts as one of mean length, 26.5 tokens here."""
    run = tmp_path / "run"
    generate(run, backend, "--rows", "base", "--limit", "2")
    assert generate(run, backend, "--rows", "base,rast") == list("bb" + "cccc" + "dddd" + "aa")


def test_one_row_tells_the_next_in_the_same_sitting(backend: Lengths, tmp_path: Path) -> None:
    backend.rows_apart = True
    assert generate(tmp_path / "run", backend, "--rows", "base,rast") == list("aabbccdd" + "bbccddaa")


def test_the_samples_are_the_same(backend: Lengths, tmp_path: Path) -> None:
    runs = [tmp_path / "at-once", tmp_path / "in-two"]
    generate(runs[0], backend, "--rows", "base,rast")
    generate(runs[1], backend, "--rows", "base")
    generate(runs[1], backend, "--rows", "base,rast")
    once, two = ({sample.key: sample for sample in RunFolder(run).samples()} for run in runs)
    assert len(once) == 16 and once == two
