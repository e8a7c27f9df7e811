"""In which order samples are made: what will take longest begins first, so that it is not what all wait for at the end.

A sample depends on its problem, its number and the seed alone, so the order changes none.
"""

from __future__ import annotations

from collections.abc import Iterable

from vllm_rast.evaluation.runs.folder import Key
from vllm_rast.evaluation.runs.plan import Task
from vllm_rast.evaluation.tasks.benchmark import Problem


class ExpectedLengths:
    """The mean length of each problem's answers, in tokens, over all rows: of earlier sittings, and of this one."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, str], tuple[int, int]] = {}  # of (benchmark, problem): tokens, and answers
        self.tokens = self.answers = 0

    def add(self, key: Key, tokens: int) -> None:
        before, number = self.sums.get((key.benchmark, key.problem), (0, 0))
        self.sums[key.benchmark, key.problem] = before + tokens, number + 1
        self.tokens, self.answers = self.tokens + tokens, self.answers + 1

    def of(self, problem: Problem) -> float:
        """A problem that has no answer yet is expected to be as long as the others are in the mean."""
        tokens, number = self.sums.get((problem.benchmark, problem.id), (self.tokens, self.answers))
        return tokens / number if number else 0.0

    def longest_first(self, problems: Iterable[tuple[Task, Problem]]) -> list[tuple[Task, Problem]]:
        """Problems as they came if nothing is known of any."""
        return sorted(problems, key=lambda one: -self.of(one[1]))
