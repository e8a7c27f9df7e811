"""A grader for tests that are not about grading: the last box, compared as text, with faults on demand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import pytest

from vllm_rast.evaluation.scores import grade_run
from vllm_rast.grading import Grade, GradeItem


class StubGrader:
    """Marks "TIMEOUT" and "ERROR" in a text as those faults; counts what it was asked to grade."""

    def __init__(self) -> None:
        self.graded = 0
        self.version = "stub/1"

    def __enter__(self) -> StubGrader:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def grade_many(self, items: Iterable[GradeItem]) -> Iterator[Grade]:
        for item in items:
            self.graded += 1
            yield self.grade(item.gold, item.prediction)

    def grade(self, gold: object, text: str) -> Grade:
        boxes = re.findall(r"\\boxed\{(.*?)\}", text)
        answer = boxes[-1] if boxes else None
        status = "timeout" if "TIMEOUT" in text else "error" if "ERROR" in text else "ok"
        status = "no_answer" if status == "ok" and answer is None else status
        how = "the last box" if answer else "no box"
        return Grade(status == "ok" and answer == gold, answer, how, status, ms=0.1, answer_class=answer or "")


@pytest.fixture
def stub_grader(monkeypatch: pytest.MonkeyPatch) -> StubGrader:
    """Every run of the test is graded by this one."""
    stub = StubGrader()
    monkeypatch.setattr(grade_run, "grader_identity", lambda name: stub.version)
    monkeypatch.setattr(grade_run, "open_grader", lambda name, timeout_s, workers: stub)
    return stub
