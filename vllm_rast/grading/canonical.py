"""Answer classes: one string for all ways to write the same answer, for majority votes.

A number's class is its exact value, a formula's its values at the points at which formulas are compared, a set's the
sorted classes of its members. What cannot be read votes as the text it is.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from functools import lru_cache
from typing import Any

from vllm_rast.grading.latex.clean import clean
from vllm_rast.grading.latex.numbers import read_decimal
from vllm_rast.grading.latex.parse import Node, parse
from vllm_rast.grading.latex.tokens import MAX_CHARS, Unreadable
from vllm_rast.grading.meaning.compare import tidy
from vllm_rast.grading.meaning.names import unnamed
from vllm_rast.grading.meaning.regions import looks_like_region, region
from vllm_rast.grading.meaning.values import TooLarge, Undefined, digits, new_effort, points, symbols, value
from vllm_rast.grading.meaning.words import spelt

SHOWN = 15  # significant digits of an irrational number
MAX_CLASS = 200  # characters; longer classes are hashed


@lru_cache(maxsize=8192)
def answer_class(answer: str | None, kind: str = "math") -> str:
    """The class of an answer; answers of one class vote together. No answer is the empty class."""
    if answer is None:
        return ""
    if len(answer) > MAX_CHARS:
        return hashlib.sha256("".join(answer.split()).encode()).hexdigest()
    text = clean(answer)
    number = read_decimal(text)
    if number is not None:
        return str(number)
    new_effort()
    try:
        name = _class(parse(answer))
    except (Unreadable, TooLarge, Undefined, RecursionError):
        name = "".join(text.split()).casefold()
    return name if len(name) <= MAX_CLASS else hashlib.sha256(name.encode()).hexdigest()


def _class(node: Node) -> str:
    node = tidy(node)
    kind, args = node
    if kind in {"unit", "pct"}:
        return _class(args[0])
    if kind == "rel" and unnamed(node) is not node:
        return _class(unnamed(node))
    if looks_like_region(node):
        return _region_class(node)
    if kind in {"list", "set"}:
        return "{" + ", ".join(sorted(map(_class, args))) + "}"
    if kind == "seq":
        return args[0] + ", ".join(map(_class, args[2:])) + args[1]
    if kind == "matrix":
        return "[" + "; ".join(", ".join(map(_class, row)) for row in args) + "]"
    if kind in {"time", "colon"}:
        return ":".join(map(_class, args))
    if kind == "base":
        return f"{args[0]}_{args[1]}"
    words = spelt(node) if kind in {"word", "empty", "reals"} else None
    return words if words is not None else _formula_class(node)


def _region_class(node: Node) -> str:
    ends = [
        ("[" if i.low_in else "(") + _shown(i.low) + ", " + _shown(i.high) + ("]" if i.high_in else ")")
        for i in region(node)
    ]
    return " u ".join(ends)


def _formula_class(node: Node) -> str:
    if node.kind == "inf" or node == Node("neg", (Node("inf"),)):
        return "inf" if node.kind == "inf" else "-inf"
    names = symbols(node)
    if not names:
        return _shown(value(node))
    values = [_shown(value(node, at)) for at in points(node)[:2]]
    return f"{','.join(sorted(names))}: {hashlib.sha256(' '.join(values).encode()).hexdigest()[:16]}"


def _shown(number: Any) -> str:
    return str(number) if isinstance(number, Fraction | float) else digits(number, SHOWN)
