"""Formulas compared by their values: numbers in balls, functions at several points."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from vllm_rast.grading.latex.parse import Node
from vllm_rast.grading.meaning.rules import Rules, Verdict
from vllm_rast.grading.meaning.values import (
    Undefined,
    UndefinedAnswer,
    ball,
    is_real,
    points,
    real,
    same_value,
    symbols,
    value,
)
from vllm_rast.grading.meaning.values import same as same_at

# A decimal with so many digits is a printed float: it stands for the value it is the rounding of.
FLOAT_DIGITS = 10


def proportional(a: Node, b: Node, signed: bool) -> Verdict:
    """Whether a is a constant multiple of b (a positive one if `signed`) as functions of their unknowns."""
    if symbols(a) != symbols(b) or not symbols(a):
        return False
    ratio = None
    seen = 0
    for at in points(a, b):
        try:
            x, y = value(a, at), value(b, at)
        except Undefined:
            continue
        if same_value(y, Fraction(0)) or same_value(x, Fraction(0)):
            return None
        this = x / y if isinstance(x, Fraction) and isinstance(y, Fraction) else ball(x) / ball(y)
        if ratio is not None and not same_value(ratio, this):
            return False
        ratio, seen = this, seen + 1
    if seen < 2:
        return None
    return not signed or (is_real(ratio) and bool(real(ratio) > 0))


def same_formula(gold: Node, answer: Node, rules: Rules) -> Verdict:
    if "empty" in {gold.kind, answer.kind} or "inf" in {gold.kind, answer.kind}:
        return gold == answer
    if not symbols(gold) and not symbols(answer):
        return _same_number(gold, answer, rules)
    agreed = undefined = 0
    tried = points(gold, answer)
    for at in tried:
        try:
            verdict = same_at(gold, answer, at)
        except UndefinedAnswer:
            undefined += 1
            continue
        except Undefined:
            continue
        if verdict is None:
            return None
        if verdict:
            agreed += 1
        elif at is not tried[-1] or _are_real(gold, answer, at):  # at negative values, roots and logarithms may part
            return False
    return True if agreed >= 2 else False if undefined >= 2 else None


def _are_real(gold: Node, answer: Node, at: Any) -> bool:
    return is_real(value(gold, at)) and is_real(value(answer, at))


def _same_number(gold: Node, answer: Node, rules: Rules) -> Verdict:
    try:
        verdict = same_at(gold, answer)
    except UndefinedAnswer:
        return False
    except Undefined:
        return None
    if verdict is not False:
        return verdict
    a, b = value(gold), value(answer)
    if rules.tolerance is not None and is_real(a) and is_real(b):
        if isinstance(a, Fraction) and isinstance(b, Fraction):
            return abs(a - b) <= rules.tolerance
        return bool(abs(real(a) - real(b)) <= real(rules.tolerance))
    return _is_float_of(a, b) or _is_float_of(b, a)


def _is_float_of(decimal: Any, exact: Any) -> bool:
    """Whether one is a decimal of FLOAT_DIGITS digits or more and the other what it was rounded or cut from."""
    if not isinstance(decimal, Fraction) or decimal.denominator == 1 or not is_real(exact):
        return False
    places = _decimal_places(decimal)
    if places is None or (isinstance(exact, Fraction) and _decimal_places(exact) is not None):
        return False
    written = abs(decimal.numerator * 10**places // decimal.denominator)
    near = abs(real(decimal) - real(exact)) <= real(Fraction(1, 10**places))
    return written >= 10 ** (FLOAT_DIGITS - 1) and bool(near)


def _decimal_places(number: Fraction) -> int | None:
    """The digits after the point of a number that is a finite decimal, or None."""
    twos = (number.denominator & -number.denominator).bit_length() - 1
    rest, fives = number.denominator >> twos, 0
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None
