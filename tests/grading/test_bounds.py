"""No text stops the grader, and none costs more than its length: by rules on the patterns and by counted calls."""

from __future__ import annotations

import importlib
import re
import re._constants as constants
import re._parser as parser
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_rast.grading import GradeItem, Grader
from vllm_rast.grading.answering import answering
from vllm_rast.grading.boxes import boxes, last_boxes
from vllm_rast.grading.extract import candidates

# These see whole outputs, of any length, or whole sentences.
WHOLE_OUTPUTS = (
    "answering",
    "boxes",
    "choices",
    "extract",
    "mathematics",
    "phrases",
    "prose_numbers",
    "qualifiers",
    "statements",
)


def patterns(module: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    for name, value in vars(importlib.import_module(f"vllm_rast.grading.{module}")).items():
        found = value if isinstance(value, list | tuple) else [value]
        yield from ((name, pattern) for pattern in found if isinstance(pattern, re.Pattern))


def unbounded(tree: Any, inside: bool = False) -> Iterator[bool]:
    """For every repeat without a bound whether it stands in another one, which is what makes a search explode."""
    for operation, argument in tree:
        if operation in {constants.MAX_REPEAT, constants.MIN_REPEAT, constants.POSSESSIVE_REPEAT}:
            endless = argument[1] == constants.MAXREPEAT
            if endless:
                yield inside
            yield from unbounded(argument[2], inside or endless)
        elif operation is constants.SUBPATTERN:
            yield from unbounded(argument[3], inside)
        elif operation is constants.BRANCH:
            for branch in argument[1]:
                yield from unbounded(branch, inside)
        elif operation in {constants.ASSERT, constants.ASSERT_NOT}:
            yield from unbounded(argument[1], inside)


@pytest.mark.parametrize("module", WHOLE_OUTPUTS)
def test_no_repeat_without_a_bound_in_another(module: str) -> None:
    found = list(patterns(module))
    assert found
    for name, pattern in found:
        nested = list(unbounded(parser.parse(pattern.pattern, pattern.flags)))
        assert not any(nested), f"{module}.{name} repeats a repeat"


def calls(function: Callable[..., Any], *arguments: Any) -> int:
    """Python and C calls that a call makes."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return count


REPEATED = {
    "newlines between boxes": lambda n: "\\boxed{1}" + "\n" * n + "So \\boxed{2}",
    "spaces between boxes": lambda n: "\\boxed{1}" + " " * n + "\\boxed{2}",
    "boxes in boxes": lambda n: "\\boxed{" * n + "5" + "}" * n,
    "boxes beside boxes": lambda n: "\\boxed{5}, " * n,
    "open boxes": lambda n: "\\boxed{" * n,
    "questions": lambda n: "Question:\n" * n,
    "questions and answers": lambda n: "Question: 1?\nThe answer is 2.\n" * n,
    "thoughts": lambda n: "<think>a</think>" * n,
    "answer tags": lambda n: "<answer>" * n + "</answer>" * n,
    "answer tags beside each other": lambda n: "<answer>5</answer> or " * n,
    "hints": lambda n: "The last digit of the answer is 5. The answer begins with 5. " * n,
    "hashes": lambda n: "####\n" * n,
    "phrases": lambda n: "the answer is " * n,
    "dollars": lambda n: "$1 and " * n,
    "numbers": lambda n: "1,111" * n,
    "options": lambda n: "option A is " * n,
    "options that are denied": lambda n: "option A is wrong. " * n,
    "boxes that are denied": lambda n: "not \\boxed{5}. " * n,
    "boxes with other boxes beside them": lambda n: "\\boxed{5} or " * n,
    "answers that are denied": lambda n: "The answer is not 5. " * n,
    "answers that are asked": lambda n: "The answer is 5? " * n,
    "words that change nothing": lambda n: "not " + "the " * n + "5",
    "corrections": lambda n: "The answer is 5. " + "wait " * n,
}


@pytest.mark.parametrize("kind", REPEATED)
def test_work_grows_with_the_length_and_no_faster(kind: str) -> None:
    def work(n: int) -> int:
        text = REPEATED[kind](n)
        return sum(
            calls(function, *arguments)
            for function, *arguments in (
                (lambda text: list(candidates(text, numeric=True, choice=True, words=True)), text),
                (last_boxes, text, 3),
            )
        )

    work(10)  # what is only made once
    assert work(2000) <= 2.5 * work(1000) + 500


HOSTILE = {
    "factorial": "\\boxed{2024!}",
    "power": "\\boxed{2^{20000}}",
    "e-notation": "\\boxed{1e4500}",
    "in a tuple": "\\boxed{(2024!, 1)}",
    "in a set": "\\boxed{\\{10^{4999}, 2024!\\}}",
    "with a name": "\\boxed{x = 2024!}",
    "half a character": "\\boxed{5\ud83d}",
    "only halves": "\ud800" * 3000,
    "nested powers": "\\boxed{" + "2^" * 700 + "2}",
    "many signs": "\\boxed{" + "-" * 700 + "5}",
    "a long repeating decimal": "\\boxed{0." + "3" * 2900 + "...}",
    "a long period": "\\boxed{0." + "1234567" * 400 + "...}",
    "4,000 boxes": "\\boxed{" * 4000 + "5" + "}" * 4000,
    "brackets": "\\boxed{" + "(" * 300 + "5" + ")" * 300 + "}",
    "functions of functions": "\\boxed{" + "f(" * 35 + "x" + ")" * 35 + "}",
    "vector products": "\\boxed{" + "\\mathbf{a}\\times" * 150 + "\\mathbf{b}}",
    "declarations": "\\boxed{k" + ", k\\in\\mathbb{Z}" * 180 + "}",
    "spaces before a declaration": "\\boxed{k" + " ," * 1400 + "k}",
    "a determinant of twenty rows": "\\boxed{\\begin{vmatrix}"
    + "\\\\".join(["&".join("7" * 20)] * 20)
    + "\\end{vmatrix}}",
    "cases in cases": "\\boxed{" + "\\begin{cases}" * 150 + "x" + "\\end{cases}" * 150 + "}",
    "congruences": "\\boxed{5" + "\\pmod 7" * 300 + "}",
    "null": "\x00\x01\x02\\boxed{\x01}",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "qwen"])
def test_hostile_texts_are_graded(name: str) -> None:
    items = [GradeItem(text, gold) for text in HOSTILE.values() for gold in ("7", "\\frac{1}{2}", "1, 2", "C")]
    with Grader(name, timeout_s=1.0) as grader:
        grades = list(grader.grade_many(items))
    assert not any(grade.correct for grade in grades)
    assert {grade.status for grade in grades} <= {"ok", "no_answer", "timeout"}


def test_an_error_is_counted_and_the_rest_is_graded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a text does inside the grader."""
    from vllm_rast.grading import grader as module

    def fail(item: GradeItem) -> Any:
        if "bad" in item.prediction:
            raise RecursionError
        return real(item)

    real = module._mark
    monkeypatch.setattr(module, "_mark", fail)
    with Grader() as grader:
        grades = list(grader.grade_many([GradeItem(text, "5") for text in ("\\boxed{5}", "bad", "5")]))
    assert [grade.status for grade in grades] == ["ok", "error", "ok"]
    assert [grade.correct for grade in grades] == [True, False, True]
    assert "RecursionError" in grades[1].how


@settings(deadline=None, max_examples=200)
@given(
    st.text(st.characters(), max_size=80),
    st.text(st.sampled_from("\\boxed{}$^_(),.=|<>!%&#0123456789xabfrcsqt \n"), max_size=80),
)
def test_any_text_has_a_grade(text: str, formula: str) -> None:
    for output in (text, formula, f"\\boxed{{{formula}}}", f"The answer is {text}"):
        assert isinstance(answering(output), str)
        assert boxes(output) is not None
        list(candidates(output, numeric=True, choice=True))
