"""Answer classes: one string for all ways to write the same answer, for majority votes."""

from __future__ import annotations

from vllm_rast.evaluation.grading.numbers import read_decimal


def answer_class(answer: str | None, kind: str = "math") -> str:
    """The class of an answer; answers of one class vote together. No answer is the empty class."""
    if answer is None:
        return ""
    value = read_decimal(answer.strip(" $."))
    return answer.strip() if value is None else str(value)
