"""Families of answers, one for each value of a declared letter: \\pi/4 + k\\pi, k in Z."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import permutations
from typing import Any

from vllm_rast.grading.latex.parse import Node
from vllm_rast.grading.latex.tokens import Unreadable
from vllm_rast.grading.meaning.names import is_named, unnamed
from vllm_rast.grading.meaning.renaming import rename
from vllm_rast.grading.meaning.rules import Verdict
from vllm_rast.grading.meaning.tidy import FORMULAS, contains_pi
from vllm_rast.grading.meaning.values import (
    Undefined,
    difference,
    quotient,
    same_value,
    simple_rational,
    symbols,
    times,
    value,
)

COUNTING = frozenset("klmnj")  # letters that count even if nobody says so
_INTEGERS = "Z"

Compare = Callable[[Node, Node], Verdict]
Letters = Sequence[tuple[str, str]]  # and their domains


def same_families(gold: Node, answer: Node, same: Compare) -> Verdict:
    """What a declared letter is called says nothing; what it stands for does.

    If only one side declares its letter, the other's may have another name only if it is one that counts, in a formula
    with \\pi: n + 1 is not k + 1.
    """
    (gold_head, gold_letters), (head, letters) = _declared(gold), _declared(answer)
    if gold_letters and letters:
        orders = [order for order in permutations(gold_letters) if _domains(order) == _domains(letters)]
        verdicts = [_same_family(gold_head, _with_letters(head, letters, order), order, same) for order in orders]
        return True if True in verdicts else None if None in verdicts else False
    ours, theirs = symbols(gold_head) - symbols(head), symbols(head) - symbols(gold_head)
    if len(ours) == len(theirs) == 1:
        (our,), (their,) = ours, theirs
        name, other = (our, their) if gold_letters else (their, our)
        counts = dict(gold_letters or letters).get(name, "R")[0] in "ZN" and other in COUNTING
        if counts and contains_pi(gold_head):
            head = rename(head, [their], [our])
    return same(gold_head, head)


def _declared(node: Node) -> tuple[Node, Letters]:
    return (node.args[0], node.args[1:]) if node.kind == "family" else (node, ())


def _domains(letters: Letters) -> list[str]:
    return [domain for _, domain in letters]


def _with_letters(head: Node, old: Letters, new: Letters) -> Node:
    return rename(head, [name for name, _ in old], [name for name, _ in new])


def _same_family(gold: Node, answer: Node, letters: Letters, same: Compare) -> Verdict:
    """Whether two families are the same, or one progression begun elsewhere or run backwards: 2k + 1 and 2k - 1."""
    verdict = same(gold, answer)
    if verdict is not False or _domains(letters) != [_INTEGERS]:
        return verdict
    if is_named(gold) and is_named(answer) and gold.args[1][0] != answer.args[1][0]:
        return False
    first, second = (_progression(unnamed(side), letters[0][0]) for side in (gold, answer))
    if first is None or second is None:
        return False
    (start, step), (other_start, other_step) = first, second
    if same_value(step, Fraction(0)) or not (same_value(step, other_step) or same_value(step, -other_step)):
        return False
    steps = quotient(difference(other_start, start), step)
    whole = steps if isinstance(steps, Fraction) else simple_rational(steps)
    return whole is not None and whole.denominator == 1


def _progression(node: Node, name: str) -> tuple[Any, Any] | None:
    """Start and step of a formula that is linear in its one letter."""
    if node.kind not in FORMULAS or symbols(node) != {name}:
        return None
    try:
        at = {x: value(node, {name: Fraction(x)}) for x in (0, 1, 2, 7)}
    except (Undefined, Unreadable):
        return None
    step = difference(at[1], at[0])
    linear = all(same_value(difference(at[x], at[0]), times(step, Fraction(x))) for x in (2, 7))
    return (at[0], step) if linear else None
