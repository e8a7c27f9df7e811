"""Answer classes: one string for all ways to write the same answer, for majority votes.

A number's class is its exact value, a formula's its values at the points at which formulas are compared, a set's the
sorted classes of its members. What cannot be read votes as the text it is.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from functools import lru_cache
from typing import Any

from vllm_rast.grading.answer import Answer, functions_of
from vllm_rast.grading.latex.clean import clean
from vllm_rast.grading.latex.numbers import read_decimal
from vllm_rast.grading.latex.parse import Node, parse
from vllm_rast.grading.latex.tokens import MAX_CHARS, Unreadable
from vllm_rast.grading.meaning.compare import exact_member, is_chain, is_image
from vllm_rast.grading.meaning.names import unnamed
from vllm_rast.grading.meaning.regions import looks_like_region, region
from vllm_rast.grading.meaning.tidy import tidy, without_degrees
from vllm_rast.grading.meaning.values import (
    ROUGH_BITS,
    TooLarge,
    Undefined,
    digits,
    new_effort,
    points_from,
    precision,
    simple_rational,
    symbols,
    value,
)
from vllm_rast.grading.meaning.words import qualities, spelt

CHOICES = frozenset("ABCDEFGHIJ")
SHOWN = 30  # significant digits of an irrational number
MAX_DECIMAL_BITS = 10_000  # of an integer; Python writes none of more than 4,300 digits in decimals
MAX_CLASS = 200  # characters; longer classes are hashed


@lru_cache(maxsize=8192)
def answer_class(answer: str | None, kind: str = "math") -> str:
    """The class of an answer; answers of one class vote together. No answer is the empty class."""
    return "" if answer is None else _named(answer)


def _named(answer: str) -> str:
    if len(answer) > MAX_CHARS:
        return _hashed("".join(answer.split()))
    text = clean(answer)
    number = read_decimal(text)
    if number is not None:
        return _shown(number)
    new_effort()
    try:
        with precision(ROUGH_BITS):
            name = _class(parse(answer, functions=functions_of(Answer.of(answer))))
    except (Unreadable, TooLarge, Undefined, RecursionError):
        name = "".join(text.split()).casefold()
    return name if len(name) <= MAX_CLASS else _hashed(name)


def _class(node: Node) -> str:
    node = without_degrees(tidy(node))
    kind, args = node
    if kind == "family":
        return _class(args[0])
    if said := qualities(node):
        return " ".join(sorted(said[1]))
    if kind == "mod":
        return f"{_class(args[0])} mod {_class(args[1])}"
    if kind == "cases":
        return "{" + "; ".join(sorted(f"{_class(result)} if {_class(when)}" for result, when in args)) + "}"
    if kind in {"unit", "pct"}:
        return _class(args[0])
    if kind == "rel" and unnamed(node) is not node:
        return _class(unnamed(node))
    if is_chain(node):
        return _class(exact_member(node))
    if looks_like_region(node) and not is_image(node):
        return _region_class(node)
    if kind in {"list", "set"}:
        return "{" + ", ".join(sorted(map(_class, args))) + "}"
    if kind == "seq":
        return args[0] + ", ".join(map(_class, args[2:])) + args[1]
    if kind == "matrix":
        return "[" + "; ".join(", ".join(map(_class, row)) for row in args) + "]"
    if kind == "where":
        return "{" + " : ".join(map(_class, args)) + "}"
    if kind == "colon":
        return _ratio_class(node)
    if kind == "time":
        return ":".join(map(_class, args))
    if kind == "base":
        return f"{args[0]}_{args[1]}"
    if kind == "sym" and args[0] in CHOICES:
        return f"choice {args[0]}"
    words = spelt(node) if kind in {"word", "empty", "reals"} else None
    if words is not None:
        return f"choice {words.upper()}" if words.upper() in CHOICES else words
    return _formula_class(node)


def _ratio_class(node: Node) -> str:
    """2:1 and 4:2 are one ratio."""
    values = [value(part) for part in node.args]
    if not all(isinstance(v, Fraction) for v in values) or values[-1] == 0:
        return ":".join(map(_class, node.args))
    return ":".join(_shown(v / values[-1]) for v in values)


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
    values = [_shown(value(node, at)) for at in points_from(b"", node)[:2]]
    return f"{','.join(sorted(names))}: {_hashed(' '.join(values))[:16]}"


def _shown(number: Any) -> str:
    if isinstance(number, float):
        return str(number)
    if not isinstance(number, Fraction):
        simple = simple_rational(number)
        if simple is None:
            return digits(number, SHOWN)
        number = simple
    large = max(number.numerator.bit_length(), number.denominator.bit_length()) > MAX_DECIMAL_BITS
    return f"{number.numerator:x}/{number.denominator:x} in hexadecimal" if large else str(number)


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
