"""One answer against one gold, without a worker: the tiers text, exact, rounded and formula."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from vllm_rast.grading.answer import Answer
from vllm_rast.grading.choices import names_another
from vllm_rast.grading.latex.clean import clean
from vllm_rast.grading.latex.numbers import last_place, read_decimal
from vllm_rast.grading.latex.parse import Node
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


class Decision(NamedTuple):
    """verdict, None if a worker must decide; the tier that decided."""

    verdict: Verdict
    tier: str


def decide(gold: str, answer: str, rules: Rules = PLAIN) -> Decision:
    """Compare an answer with a gold by the cheapest tier that can."""
    right, given = Answer.of(gold), Answer.of(answer)
    if right.is_long or given.is_long:
        return Decision(right.compact == given.compact, "text")
    if right.compact == given.compact:
        return Decision(bool(given.cleaned), "text")
    lists = "," in right.cleaned and "," in given.cleaned  # 100,200 may be two numbers
    if right.number is not None and given.number is not None and not (lists and right.number != given.number):
        return _numbers(right.number, given.number, rules)
    choice = _CHOICE.fullmatch(gold)
    if choice and (chosen := _CHOSEN.match(answer)):
        return Decision(
            chosen[1].upper() == choice[1] and not names_another(answer[chosen.end(1) :]),
            "text",
        )
    verdict = _by_trees(right, given, rules)
    if verdict is False and not _has_unit(given):
        marked = _PLAIN_UNIT.sub(lambda unit: f"\\text{{{unit[0]}}}", given.cleaned)
        verdict = marked != given.cleaned and _by_trees(right, Answer.of(marked), rules) is True
    label = None if verdict or choice else _LABEL.match(answer)
    if label:
        verdict = _by_trees(right, Answer.of(answer[label.end() :]), rules) or verdict
    return Decision(verdict, "formula" if verdict is not None else "undecided")


def _numbers(gold: Fraction, answer: Fraction, rules: Rules) -> Decision:
    if gold == answer:
        return Decision(True, "exact")
    near = rules.tolerance is not None and abs(gold - answer) <= rules.tolerance
    return Decision(near, "rounded" if near else "exact")


def tree(answer: str) -> Node | None:
    """The tree of an answer, or None."""
    return Answer.of(answer).tree


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


def _has_unit(answer: Answer) -> bool:
    return answer.tree is not None and answer.tree.kind == "unit"


@lru_cache(maxsize=4096)
def rounding(gold: str) -> Fraction | None:
    """The error that a rounded gold allows: half a unit of its last digit, never much of the number itself."""
    text = clean(gold)
    number, unit = read_decimal(text), last_place(text)
    if number is None or unit is None:
        return None
    counted = text.lstrip("+-").isdigit()
    return min(unit / 2, abs(number) * (MAX_COUNT_ERROR if counted else MAX_RELATIVE_ERROR))


def _by_trees(gold: Answer, answer: Answer, rules: Rules) -> Verdict:
    """Structure and formulas; 100,200 is read as one number and, if that is not right, as two."""
    verdict = _same_trees(gold.tree, answer.tree, rules)
    if verdict is not True and (gold.has_comma_numbers or answer.has_comma_numbers):
        verdict = _same_trees(gold.tree_of_pairs, answer.tree_of_pairs, rules) or verdict
    return verdict


def _same_trees(gold: Node | None, answer: Node | None, rules: Rules) -> Verdict:
    return None if gold is None or answer is None else same(gold, answer, rules)


def is_choice(gold: str) -> bool:
    """Whether a gold is the letter of a choice."""
    return _CHOICE.fullmatch(gold) is not None
