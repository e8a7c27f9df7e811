"""Graded samples: a run's samples joined with their grades.

A grade belongs to a sample's key, to the text that was graded and to the grader that marked it (name and
version). It counts only while all three are as they were, so a text that changed, or a better grader, is
graded again and nothing else is. One line of grades.jsonl:

    {"benchmark", "row", "problem", "sample", "correct", "answer", "how", "status", "ms", "class",
    "text_hash", "grader"}
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs.folder import Key, RunFolder, Sample
from vllm_rast.evaluation.runs.jsonl import read_lines

GRADES = "grades.jsonl"


@dataclass(frozen=True, slots=True)
class GradedSample:
    """One sample and how it was marked."""

    benchmark: str
    row: str
    problem: str
    sample: int
    seed: int
    text: str
    finish_reason: str
    tokens: int
    correct: bool
    answer: str | None
    how: str
    status: str
    ms: float
    answer_class: str | None

    @property
    def tier(self) -> str:
        """What compared the answer: text, exact, rounded, formula, math-verify; or why nothing was compared."""
        if self.status != "ok":
            return self.status.replace("_", " ")
        return self.how.rpartition(", ")[2].partition(" (")[0]


def text_hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()


def read_grades(run: RunFolder, grader: str, elsewhere: Path | None = None) -> dict[Key, dict[str, Any]]:
    """The latest grade of each sample by `grader` ("name/version"), from the run folder and then from another file."""
    grades = {}
    for path in (run.path / GRADES, elsewhere):
        for _, record in read_lines(path) if path else ():
            if record.get("grader") == grader:
                grades[Key(record["benchmark"], record["row"], record["problem"], record["sample"])] = record
    return grades


def is_current(grade: dict[str, Any] | None, sample: Sample) -> bool:
    return grade is not None and grade["text_hash"] == text_hash(sample.text)


def join(sample: Sample, grade: dict[str, Any]) -> GradedSample:
    return GradedSample(
        benchmark=sample.benchmark,
        row=sample.row,
        problem=sample.problem,
        sample=sample.sample,
        seed=sample.seed,
        text=sample.text,
        finish_reason=sample.finish_reason,
        tokens=sample.tokens,
        correct=grade["correct"],
        answer=grade["answer"],
        how=grade["how"],
        status=grade["status"],
        ms=grade["ms"],
        answer_class=grade["class"],
    )


def merge_runs(runs: Sequence[tuple[str, Sequence[GradedSample]]]) -> list[GradedSample]:
    """The samples of several runs, (name, samples) each, as if of one.

    A row that two runs decoded on one benchmark is distinguished by its run: "run:row".
    """
    owners: dict[tuple[str, str], set[str]] = {}
    for name, samples in runs:
        for sample in samples:
            owners.setdefault((sample.benchmark, sample.row), set()).add(name)
    twice = {row for (_, row), names in owners.items() if len(names) > 1}
    return [
        replace(sample, row=f"{name}:{sample.row}") if sample.row in twice else sample
        for name, samples in runs
        for sample in samples
    ]


def require_samples(samples: list[GradedSample], without_gold: int, runs: Iterable[object]) -> None:
    """Raise UserError if there is nothing to evaluate."""
    names = ", ".join(str(run) for run in runs)
    if not samples and without_gold:
        raise UserError(f'{names}: no problem has an answer to grade by; add "answer" to the lines of the --input file')
    if not samples:
        raise UserError(f"{names}: no finished sample; run `vllm-rast generate` on it first")
