"""Sets of real numbers: intervals, unions, inequalities in one unknown, brought to one form that can be compared."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from functools import cmp_to_key
from typing import Any, NamedTuple

from vllm_rast.grading.latex.parse import Node
from vllm_rast.grading.latex.tokens import Unreadable
from vllm_rast.grading.meaning.values import ball, is_real, real, same_value, symbols, value

INFINITY = float("inf")
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
INEQUALITIES = frozenset({"<", ">", "<=", ">=", "!="})


class Interval(NamedTuple):
    """From low to high, each end included or not; a point has equal ends."""

    low: Any
    low_in: bool
    high: Any
    high_in: bool


Region = list[Interval]
LINE = Interval(-INFINITY, False, INFINITY, False)


def looks_like_region(node: Node) -> bool:
    """Whether a tree can only mean a set of real numbers."""
    if node.kind in {"union", "inter", "minus", "reals", "where"}:
        return True
    if node.kind == "seq":
        return len(node.args) == 4 and (node.args[:2] != ("(", ")") or any(_is_infinite(x) for x in node.args[2:]))
    if node.kind == "rel":
        operators = set(node.args[0])
        return bool(operators & INEQUALITIES) or operators == {"in"}
    if node.kind != "list" or not all(looks_like_region(item) or _is_pair(item) for item in node.args):
        return False
    return any(map(looks_like_region, node.args))


def region(node: Node) -> Region:
    """The normal form of a set of real numbers. Raises Unreadable if a tree is none."""
    return _merged(_intervals(node))


def same_region(a: Region, b: Region) -> bool:
    return len(a) == len(b) and all(
        _compare(x.low, y.low) == 0 and _compare(x.high, y.high) == 0 and x[1] == y[1] and x[3] == y[3]
        for x, y in zip(a, b, strict=True)
    )


def unknown_of(node: Node) -> str | None:
    """The unknown of an inequality or of x in S, or None."""
    if node.kind == "rel":
        names = {member.args[0] for member in node.args[1] if member.kind == "sym"}
        return names.pop() if len(names) == 1 else None
    if node.kind in {"list", "inter", "union"}:
        names = {unknown_of(item) for item in node.args} - {None}
        return names.pop() if len(names) == 1 else None
    return None


def _is_pair(node: Node) -> bool:
    return node.kind == "seq" and len(node.args) == 4


def _is_infinite(node: Node) -> bool:
    return node.kind == "inf" or (node.kind == "neg" and _is_infinite(node.args[0]))


def _end(node: Node) -> Any:
    if _is_infinite(node):
        return -INFINITY if node.kind == "neg" else INFINITY
    if symbols(node):
        raise Unreadable("an end that is not a number")
    end = value(node)
    if not is_real(end):
        raise Unreadable("an end that is not real")
    return end


def _compare(a: Any, b: Any) -> int:
    if _infinite(a) or _infinite(b):
        low, high = (x if _infinite(x) else 0 for x in (a, b))
        return (low > high) - (low < high)
    if same_value(a, b):
        return 0
    return -1 if (a < b if isinstance(a, Fraction) and isinstance(b, Fraction) else real(a) < real(b)) else 1


def _infinite(end: Any) -> bool:
    return isinstance(end, float)


def _intervals(node: Node) -> Region:
    kind, args = node
    if kind == "seq" and len(args) == 4:
        low, high = _end(args[2]), _end(args[3])
        if _compare(low, high) > 0:
            raise Unreadable("an interval that goes backwards")
        return [Interval(low, args[0] == "[", high, args[1] == "]")]
    if kind == "set":
        return [Interval(end, True, end, True) for end in map(_end, args)]
    if kind == "reals":
        return [LINE]
    if kind == "empty":
        return []
    if kind == "list" and any(arg.kind == "rel" and "!=" in arg.args[0] for arg in args):
        return _intersection(*(region(arg) for arg in args))  # x in R, x != 2
    if kind in {"union", "list"}:
        return [interval for arg in args for interval in _intervals(arg)]
    if kind == "inter":
        return _intersection(*(region(arg) for arg in args))
    if kind == "minus":
        return _intersection(region(args[0]), _complement(region(args[1])))
    if kind == "where":
        return _intervals(_condition(*args))
    if kind == "rel":
        return _relation(*args)
    raise Unreadable(f"a {kind} is not a set of numbers")


def _condition(element: Node, condition: Node) -> Node:
    """The condition of a set-builder, which must be on its element: {x | x > 2}, {x in R | x > 2}."""
    if element.kind == "rel" and element.args[0] == ("in",) and element.args[1][1].kind == "reals":
        element = element.args[1][0]
    if element.kind != "sym" or symbols(condition) != symbols(element):
        raise Unreadable("a set of something else")
    return condition


def _relation(operators: tuple[str, ...], members: tuple[Node, ...]) -> Region:
    """The solutions of a chain such as -2 <= x < 7, x != 3 or x in S."""
    result: Region = [LINE]
    for operator, left, right in zip(operators, members, members[1:], strict=False):
        if operator == "in" and left.kind == "sym":
            step = region(right)
        elif operator in _FLIPPED and not symbols(right):
            step = _solved(left, operator, right)
        elif operator in _FLIPPED and not symbols(left):
            step = _solved(right, _FLIPPED[operator], left)
        else:
            raise Unreadable("an inequality that is not solved")
        result = _intersection(result, step)
    return result


def _solved(side: Node, operator: str, bound: Node) -> Region:
    """The solutions of side < bound, where the side is linear in its unknown or the absolute value of such."""
    if side.kind == "sym":
        return _half_line(operator, _end(bound))
    if side.kind == "fn" and side.args[0] == "abs" and operator != "=":
        low = _solved(side.args[1], _FLIPPED[operator], Node("neg", (bound,)))
        high = _solved(side.args[1], operator, bound)
        return _intersection(low, high) if operator in {"<", "<=", "!="} else _merged([*low, *high])
    names = symbols(side)
    if len(names) != 1:
        raise Unreadable("an inequality in several unknowns")
    at = {x: value(side, dict.fromkeys(names, Fraction(x))) for x in (0, 1, -5, 17, 29)}
    if not all(isinstance(y, Fraction) for y in at.values()):
        raise Unreadable("an inequality that is not solved")
    slope = at[1] - at[0]
    if slope == 0 or any(y != at[0] + slope * x for x, y in at.items()):
        raise Unreadable("an inequality that is not linear")
    end = _end(bound)
    exact = isinstance(end, Fraction)
    solution = (end - at[0]) / slope if exact else end if _infinite(end) else (ball(end) - ball(at[0])) / ball(slope)
    return _half_line(operator if slope > 0 else _FLIPPED[operator], solution)


def _half_line(operator: str, end: Any) -> Region:
    if operator == "=":
        return [Interval(end, True, end, True)]
    if operator == "!=":
        return [Interval(-INFINITY, False, end, False), Interval(end, False, INFINITY, False)]
    if operator in {"<", "<="}:
        return [Interval(-INFINITY, False, end, operator == "<=")]
    return [Interval(end, operator == ">=", INFINITY, False)]


def _merged(intervals: Iterable[Interval]) -> Region:
    """Sorted, without empty ones, those that touch joined."""
    kept = [
        i for i in intervals if _compare(i.low, i.high) < 0 or (_compare(i.low, i.high) == 0 and i.low_in and i.high_in)
    ]
    kept.sort(key=cmp_to_key(_by_start))
    result: Region = []
    for interval in kept:
        last = result[-1] if result else None
        gap = _compare(last.high, interval.low) if last else -1
        if last and (gap > 0 or (gap == 0 and (last.high_in or interval.low_in))):
            further = _compare(last.high, interval.high)
            high_in = (
                last.high_in if further > 0 else interval.high_in if further < 0 else last.high_in or interval.high_in
            )
            high = last.high if further >= 0 else interval.high
            result[-1] = Interval(last.low, last.low_in, high, high_in)
        else:
            result.append(interval)
    return result


def _by_start(a: Interval, b: Interval) -> int:
    return _compare(a.low, b.low) or int(b.low_in) - int(a.low_in)


def _intersection(*regions: Region) -> Region:
    result = regions[0]
    for other in regions[1:]:
        result = _merged(_overlap(a, b) for a in result for b in other)
    return result


def _overlap(a: Interval, b: Interval) -> Interval:
    low = _compare(a.low, b.low)
    high = _compare(a.high, b.high)
    return Interval(
        a.low if low >= 0 else b.low,
        a.low_in and b.low_in if low == 0 else a.low_in if low > 0 else b.low_in,
        a.high if high <= 0 else b.high,
        a.high_in and b.high_in if high == 0 else a.high_in if high < 0 else b.high_in,
    )


def _complement(intervals: Region) -> Region:
    result, low, low_in = [], -INFINITY, False
    for interval in intervals:
        result.append(Interval(low, low_in, interval.low, not interval.low_in))
        low, low_in = interval.high, not interval.high_in
    result.append(Interval(low, low_in, INFINITY, False))
    return _merged(i for i in result if not (_infinite(i.low) and i.low == i.high))
