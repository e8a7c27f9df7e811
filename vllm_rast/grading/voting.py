"""Which answers to one question vote together: those that the grader calls the same.

Each spelling joins the largest group all of whose members it is the same as, so that 5 cm and 5 m stay apart although 5
is the same as either. The outcome depends on which answers there are and how often, and not on their order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from vllm_rast.grading.answer import Answer
from vllm_rast.grading.canonical import answer_class
from vllm_rast.grading.decide import decide

MAX_COMPARED = 2000  # comparisons for one question, at a tenth of a millisecond each; after that, classes decide


class _Spelling(NamedTuple):
    """One way to write an answer; a plain number is its own class and needs no comparison with another."""

    text: str
    number: Fraction | None

    @classmethod
    def of(cls, text: str) -> _Spelling:
        answer = Answer.of(text)
        return cls("" if answer.number is not None else answer.compact, answer.number)


def voting_classes(answers: Sequence[str | None]) -> list[str | None]:
    """For each answer to one question the class that it votes for; None for no answer."""
    spellings = [None if answer is None else _Spelling.of(answer) for answer in answers]
    written: dict[_Spelling, str] = {}
    for spelling, answer in zip(spellings, answers, strict=True):
        if spelling is not None and answer is not None:
            written[spelling] = min(written.get(spelling, answer), answer, key=lambda text: (len(text), text))
    sizes = Counter(spelling for spelling in spellings if spelling is not None)
    order = sorted(sizes, key=lambda spelling: (-sizes[spelling], len(written[spelling]), written[spelling]))
    groups = _grouped(order, written)
    return [None if spelling is None else groups[spelling] for spelling in spellings]


def _grouped(order: Sequence[_Spelling], written: dict[_Spelling, str]) -> dict[_Spelling, str]:
    """The class of every spelling, named after its group's first; the most frequent spellings come first."""
    left = MAX_COMPARED
    groups: list[list[_Spelling]] = []
    result: dict[_Spelling, str] = {}
    for spelling in order:
        name = answer_class(written[spelling])
        home = None
        for group in sorted(groups, key=lambda group: result[group[0]] != name):  # the likeliest first
            left -= len(group)
            if all(_same(spelling, member, written, asked=left > 0) for member in group):
                home = group
                break
        if home is None:
            home = []
            groups.append(home)
        home.append(spelling)
        result[spelling] = result.get(home[0], name)
    return _distinct_names(groups, result)


def _distinct_names(groups: Sequence[Sequence[_Spelling]], result: dict[_Spelling, str]) -> dict[_Spelling, str]:
    """Groups that share a class's name although their answers differ get numbers."""
    seen: Counter[str] = Counter()
    for group in groups:
        name = result[group[0]]
        seen[name] += 1
        for spelling in group:
            result[spelling] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return result


def _same(a: _Spelling, b: _Spelling, written: dict[_Spelling, str], asked: bool) -> bool:
    if a.number is not None and b.number is not None:
        return a.number == b.number
    first, second = written[a], written[b]
    if not asked:
        return answer_class(first) == answer_class(second)
    return decide(first, second).verdict is True or decide(second, first).verdict is True
