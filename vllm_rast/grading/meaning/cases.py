"""Functions by cases: the same values under the same conditions, in any order."""

from __future__ import annotations

from collections.abc import Callable

from vllm_rast.grading.latex.parse import OTHERWISE, Node
from vllm_rast.grading.latex.tokens import Unreadable
from vllm_rast.grading.meaning.regions import region, same_region
from vllm_rast.grading.meaning.rules import Verdict
from vllm_rast.grading.meaning.values import Undefined
from vllm_rast.grading.meaning.words import qualities

Row = tuple[Node, Node]
_EVEN, _ODD = frozenset(["even"]), frozenset(["odd"])


def same_cases(gold: Node, answer: Node, same: Callable[[Node, Node], Verdict]) -> Verdict:
    """Whether two functions by cases are the same."""
    if gold.kind != answer.kind or len(gold.args) != len(answer.args):
        return False
    left = _spelt_out(answer, gold)
    for result, condition in _spelt_out(gold, answer):
        found = next((row for row in left if _same_row((result, condition), row, same)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def _same_row(gold: Row, row: Row, same: Callable[[Node, Node], Verdict]) -> bool:
    if OTHERWISE in {gold[1], row[1]}:
        return gold[1] == row[1] and same(gold[0], row[0]) is True
    return _same_condition(gold[1], row[1], same) and same(gold[0], row[0]) is True


def _same_condition(gold: Node, answer: Node, same: Callable[[Node, Node], Verdict]) -> bool:
    if "minus" in {gold.kind, answer.kind}:  # spelt out from "otherwise"
        try:
            return same_region(region(gold), region(answer))
        except (Unreadable, Undefined):
            return False
    return same(gold, answer) is True


def _spelt_out(cases: Node, other: Node) -> list[Row]:
    """The rows of a function, with what "otherwise" means if only this function says it."""
    rows = list(cases.args)
    conditions = [condition for _, condition in rows if condition != OTHERWISE]
    if len(conditions) == len(rows) or any(condition == OTHERWISE for _, condition in other.args):
        return rows
    rest = _rest(conditions)
    return [(result, rest if condition == OTHERWISE else condition) for result, condition in rows]


def _rest(conditions: list[Node]) -> Node:
    """The condition that none of some conditions holds."""
    said = qualities(conditions[0]) if len(conditions) == 1 else None
    if said and said[0] and said[1] in (_EVEN, _ODD):
        return Node("unit", (Node("sym", (said[0],)), "odd" if said[1] == _EVEN else "even"))
    return Node("minus", (Node("reals"), Node("union", tuple(conditions))))
