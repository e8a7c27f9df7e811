"""One answer against one gold, without a worker: the tiers text, exact, rounded and formula."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from vllm_rast.grading.choices import names_another
from vllm_rast.grading.latex.clean import clean
from vllm_rast.grading.latex.numbers import last_place, read_decimal
from vllm_rast.grading.latex.parse import Node, parse
from vllm_rast.grading.latex.tokens import MAX_CHARS, Unreadable
from vllm_rast.grading.meaning.compare import same
from vllm_rast.grading.meaning.rules import PLAIN, Rules, Verdict

MAX_RELATIVE_ERROR = Fraction(1, 20)  # 4e33 allows 3.9e33 but not 3.6e33, which rounds to it too
MAX_COUNT_ERROR = Fraction(1, 100)  # an integer that counts is not rounded: 4 does not allow 4.3

_CHOICE = re.compile(r"\W*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\W*([A-J])\W*")
_CHOSEN = re.compile(
    r"\W*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\W*(?:(?:option|choice|answer)\W+)?([A-J])(?:[).:}]|\s*$)",
    re.IGNORECASE,
)
_LABEL = re.compile(r"\s*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\(?[A-J][).]\s*\}?\s*(?=\S)")
_PLAIN_UNIT = re.compile(  # as in 3e8 m/s or 5 km^2, typed without \\mathrm, after a space
    r"(?<=[\d})])(?:\s+(?:[kcmMGn]?(?:m|s|g|h|L|N|J|K|V|W|A|C|F|T|Hz|eV|Pa|mol)|min|hr|yr|rad|days?|years?)(?:\^\{?-?\d\}?)?"
    r"(?:\s*[/*]\s*(?:[kcmMGn]?(?:m|s|g|h|L|N|J|K|V|W|A|C|F|T|Hz|eV|Pa|mol)|min|hr|yr|rad)(?:\^\{?-?\d\}?)?)*)+$"
)
_COMMA_NUMBERS = re.compile(r"\d,\d{3}(?!\d)")


class Decision(NamedTuple):
    """verdict, None if a worker must decide; the tier that decided."""

    verdict: Verdict
    tier: str


def decide(gold: str, answer: str, rules: Rules = PLAIN) -> Decision:
    """Compare an answer with a gold by the cheapest tier that can."""
    if max(len(gold), len(answer)) > MAX_CHARS:
        return Decision(squeezed(gold) == squeezed(answer), "text")
    gold_text, text = clean(gold), clean(answer)
    if squeezed(gold_text) == squeezed(text):
        return Decision(bool(text), "text")
    gold_number, number = read_decimal(gold_text), read_decimal(text)
    lists = "," in gold_text and "," in text  # 100,200 may be two numbers
    if gold_number is not None and number is not None and not (lists and gold_number != number):
        if gold_number == number:
            return Decision(True, "exact")
        near = rules.tolerance is not None and abs(gold_number - number) <= rules.tolerance
        return Decision(near, "rounded" if near else "exact")
    choice = _CHOICE.fullmatch(gold)
    if choice:
        chosen = _CHOSEN.match(answer)
        if chosen:
            right = chosen[1].upper() == choice[1] and not names_another(answer[chosen.end(1) :])
            return Decision(right, "text")
    verdict = _by_trees(gold, answer, rules)
    if verdict is False and not _has_unit(answer):
        marked = _PLAIN_UNIT.sub(lambda unit: f"\\text{{{unit[0]}}}", text)
        verdict = marked != text and _by_trees(gold, marked, rules) is True
    label = None if verdict or choice else _LABEL.match(answer)
    if label:
        verdict = _by_trees(gold, answer[label.end() :], rules) or verdict
    return Decision(verdict, "formula" if verdict is not None else "undecided")


def tree(answer: str) -> Node | None:
    """The tree of an answer, or None."""
    try:
        return parse(answer)
    except Unreadable:
        return None


@lru_cache(maxsize=256)
def unit_words(unit: str | None) -> str | None:
    """The words of a unit that a row names, in LaTeX or plain; None without one."""
    if not unit or not unit.strip(" $"):
        return None
    for text in (f"1 {unit}", f"1 \\text{{{unit.strip('$ ')}}}"):
        node = tree(text)
        if node is not None and node.kind == "unit":
            return str(node.args[1])
    return None


def _has_unit(answer: str) -> bool:
    node = tree(answer)
    return node is not None and node.kind == "unit"


@lru_cache(maxsize=4096)
def rounding(gold: str) -> Fraction | None:
    """The error that a rounded gold allows: half a unit of its last digit, never much of the number itself."""
    text = clean(gold)
    number, unit = read_decimal(text), last_place(text)
    if number is None or unit is None:
        return None
    counted = text.lstrip("+-").isdigit()
    return min(unit / 2, abs(number) * (MAX_COUNT_ERROR if counted else MAX_RELATIVE_ERROR))


def _by_trees(gold: str, answer: str, rules: Rules) -> Verdict:
    """Structure and formulas; 100,200 is read as one number and, if that is not right, as two."""
    verdict = _same_trees(gold, answer, rules, thousands=True)
    if verdict is not True and (_COMMA_NUMBERS.search(gold) or _COMMA_NUMBERS.search(answer)):
        verdict = _same_trees(gold, answer, rules, thousands=False) or verdict
    return verdict


def _same_trees(gold: str, answer: str, rules: Rules, thousands: bool) -> Verdict:
    try:
        return same(parse(gold, thousands), parse(answer, thousands), rules)
    except Unreadable:
        return None


def is_choice(gold: str) -> bool:
    """Whether a gold is the letter of a choice."""
    return _CHOICE.fullmatch(gold) is not None


_BETWEEN_DIGITS = re.compile(r"(?<=\d)\s+(?=[\d.])")


def squeezed(text: str) -> str:
    """A text without spaces, except one between two numbers."""
    return "".join(_BETWEEN_DIGITS.sub("\x02", text).split())
