"""The grader: answers found, compared, and given a status each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vllm_rast.errors import UserError
from vllm_rast.evaluation.grading.extract import candidates
from vllm_rast.evaluation.grading.numbers import read_decimal

GRADERS = ("default", "qwen")
STATUSES = ("ok", "no_answer", "timeout", "error")
TIMEOUT_S = 3.0  # for one comparison in a worker


@dataclass(frozen=True)
class GradeItem:
    """What is graded: a whole model output or a bare answer, against a gold. See Problem for the other fields."""

    prediction: str
    gold: str | tuple[str, ...]
    kind: str = "math"
    ordered: bool = False
    unit: str | None = None
    error: str | None = None
    boxed_only: bool = False

    @classmethod
    def of(cls, problem: Any, prediction: str) -> GradeItem:
        """A prediction for a Problem."""
        return cls(
            prediction,
            problem.gold,
            problem.kind,
            problem.ordered,
            problem.unit,
            problem.error,
            problem.boxed_only,
        )


@dataclass(frozen=True)
class Grade:
    """A marked prediction: the answer found, how it was found and compared, its status (see STATUSES), milliseconds."""

    correct: bool
    answer: str | None
    how: str
    status: str
    ms: float


class Grader:
    """Grades predictions. A context manager: leaving it ends the worker processes, which start when first needed."""

    def __init__(self, name: str = "default", timeout_s: float = TIMEOUT_S, workers: int = 2):
        if name not in GRADERS:
            raise UserError(f"--grader {name}: known are {', '.join(GRADERS)}")
        self.name, self.timeout_s, self.workers = name, timeout_s, workers

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def grade_many(self, items: Iterable[GradeItem]) -> Iterator[Grade]:
        """One Grade for each item, in order."""
        for item in items:
            start = time.perf_counter()
            found = next(candidates(item.prediction, item.boxed_only), None)
            ms = 1000 * (time.perf_counter() - start)
            if found is None:
                yield Grade(False, None, "none", "no_answer", ms)
            else:
                value = read_decimal(found.answer.strip(" $."))
                right = found.answer.strip() == str(item.gold).strip() or (
                    value is not None and value == read_decimal(str(item.gold))
                )
                yield Grade(right, found.answer, found.how, "ok", ms)
