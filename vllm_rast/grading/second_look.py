"""What math-verify alone calls right is looked at again: it reads what it understands, and passes over the rest.

It calls \\gcd(a, c) the same as \\gcd(a, b), and finds 5 in "5 (or 6)". So a verdict that rests on it alone also needs
the same names on both sides, and no word that takes back or adds an answer.
"""

from __future__ import annotations

import re

from vllm_rast.grading.latex.clean import clean
from vllm_rast.grading.latex.numbers import read_decimal

_HEDGES = re.compile(
    r"\b(?:or|if|else|when|not|nor|maybe|perhaps|possibly|either|neither|unless|except|otherwise|but|wrong|incorrect|impossible|never|"
    r"least|most|more|less|fewer|greater|between|even|odd|prime|increasing|decreasing)\b"
)
_TEXT = re.compile(r"\\(?:text|mbox|textrm|textbf|textit)\s{0,9}\{([^{}]{0,400})\}")
_LAYOUT = re.compile(
    r"\\(?:begin|end)\s?\{[^{}]{0,40}\}|\\(?:frac|sqrt|cdot|times|left|right|mathrm|mathbf|operatorname|limits|quad|qquad|ldots|dots|cdots|div|pm|infty"
    r"|circ|degree|in|le|ge|ne|to|sum|prod|int|lim|binom|pmatrix|bmatrix)(?![A-Za-z])"
)
_RELATIONS = re.compile(r"\\(?:ge|le|ne|to|implies|Rightarrow)(?![A-Za-z])|[<>?]")
_NAME = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
_BOUND = re.compile(r"\\(?:sum|prod|int|lim|bigcup|bigcap)")  # their letters are bound: any will do


def stands(gold: str, answer: str) -> bool:
    """Whether nothing in an answer speaks against a worker's verdict that it is the gold."""
    gold, answer = clean(gold), clean(answer)
    if set(_HEDGES.findall(answer.lower())) - set(_HEDGES.findall(gold.lower())):
        return False
    if "'" in answer and "'" not in gold:
        return False
    if set(_RELATIONS.findall(answer)) - set(_RELATIONS.findall(gold)):
        return False
    if _BOUND.search(gold) or _BOUND.search(answer):
        return True
    gold_words, words = (" ".join(_TEXT.findall(text)).lower().split() for text in (gold, answer))
    if any(any(char.isdigit() for char in word) for word in set(words) - set(gold_words)):
        return False
    names = _names(gold)
    if not names:
        return read_decimal(gold) is None or not _more_numbers(gold, answer)
    return names == _names(answer.rpartition("=")[2]) or names == _names(answer)


def _names(text: str) -> set[str]:
    return set(_NAME.findall(_LAYOUT.sub(" ", _TEXT.sub(" ", text))))


def _more_numbers(gold: str, answer: str) -> bool:
    """Whether an answer to a plain number lists others beside it."""
    return any(mark in _TEXT.sub(" ", answer) for mark in (",", ";", "\\text{or}", "?"))
