"""One answer against one gold, without a worker: the tiers text, exact, rounded and formula."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from vllm_rast.grading.answer import Answer, functions_of
from vllm_rast.grading.choices import names_another
from vllm_rast.grading.latex.clean import clean
from vllm_rast.grading.latex.numbers import last_place, read_decimal
from vllm_rast.grading.latex.parse import Node
from vllm_rast.grading.latex.tokens import MAX_CHARS
from vllm_rast.grading.meaning.compare import same
from vllm_rast.grading.meaning.rules import PLAIN, Rules, Verdict

MAX_RELATIVE_ERROR = Fraction(1, 20)  # 4e33 allows 3.9e33 but not 3.6e33, which rounds to it too
MAX_COUNT_ERROR = Fraction(1, 100)  # an integer that counts is not rounded: 4 does not allow 4.3

_CHOICE = re.compile(  # |A| is none
    r"[^\w|]{0,20}(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?[^\w|]{0,20}([A-J])[^\w|]{0,20}"
)
_CHOSEN = re.compile(
    r"\W{0,20}(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\W{0,20}(?:(?:option|choice|answer)\W{1,20})?([A-J])(?:[).:}]|\s*$)",
    re.IGNORECASE,
)
_LABEL = re.compile(r"\s*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\(?[A-J][).]\s*\}?\s*(?=\S)")
_PLAIN_UNIT = re.compile(  # as in 3e8 m/s or 5 km^2, typed without \\mathrm, after a space
    r"(?<=[\d})])(?:\s+(?:[kcmMGn]?(?:m|s|g|h|L|N|J|K|V|W|A|C|F|T|Hz|eV|Pa|mol)|min|hr|yr|rad|days?|years?)(?:\^\{?-?\d\}?)?"
    r"(?:\s*[/*]\s*(?:[kcmMGn]?(?:m|s|g|h|L|N|J|K|V|W|A|C|F|T|Hz|eV|Pa|mol)|min|hr|yr|rad)(?:\^\{?-?\d\}?)?)*)+$"
)


_TEXT = r"\\(?:textbf|text|mathrm|mathbf|textrm)\s?\{\s?"
_SPACE = r"(?:\\[ ,;:]|\\q?quad(?![a-z])|~|\s|\}){1,6}"
# A choice with its content. B. 12 and B) 12 need the space: (B)(x + 1) may be a product.
_LABELLED = re.compile(
    rf"(?:{_TEXT})?(?:\(\s?(?P<round>[A-J])\s?\)|(?P<letter>[A-J])[.)]){_SPACE}(?:{_TEXT}\s{{0,3}}(?=\S))?"
    r"(?P<content>(?![-+*/=^_<>]\s|\\(?:cup|cap|times|cdot|in|to|le|ge|text\s?\{\s?(?:or|and))(?![a-z]))(?!(?:or|and)\b)[^\n]+)"
)
_DECIMAL_COMMA = re.compile(
    r"([-+]?\d{1,15}),(\d{1,15})(?=$|\s?(?:\\?%|\\(?:text|mathrm)\s?\{|[A-Za-z])(?=(?:[^,;\d]|\^\{?-?\d){0,40}$))"
)
_GROUPED_BY_POINTS = re.compile(
    r"([-+]?\d{1,3}(?:\.\d{3}){2,9}|[-+]?\d{1,3}(?:\.\d{3}){1,9}(?=,\d))(?:,(\d{1,15}))?(?=$|\s)"
)


class Decision(NamedTuple):
    """verdict, None if a worker must decide; the tier that decided."""

    verdict: Verdict
    tier: str


def decide(gold: str, answer: str, rules: Rules = PLAIN) -> Decision:
    """Compare an answer with a gold by the cheapest tier that can."""
    label = labelled(gold)
    return _decide_labelled(*label, answer, rules) if label else _decide(gold, answer, rules)


def _decide_labelled(letter: str, content: str, answer: str, rules: Rules) -> Decision:
    """Of a gold such as (B) 12, the letter or what it stands for will do; of an answer with both, both must."""
    found = _CHOICE.fullmatch(answer) or _CHOSEN.fullmatch(answer)
    chosen, meant = labelled(answer) or ((found[1].upper(), "") if found else ("", answer))
    if chosen and chosen != letter:
        return Decision(False, "text")
    return _decide(content, meant, rules) if meant else Decision(True, "text")


def labelled(text: str) -> tuple[str, str] | None:
    """The letter and the content of a choice that is given with both, as \\textbf{(B)} 12; else None."""
    found = _LABELLED.fullmatch(text.strip().strip("$").strip()) if len(text) < MAX_CHARS else None
    if found is None:
        return None
    content = found["content"]
    unclosed = content.count("}") > content.count("{")  # \\text{(B) 12}
    return found["letter"] or found["round"], content.rstrip().removesuffix("}") if unclosed else content


def _decide(gold: str, answer: str, rules: Rules) -> Decision:
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
    if verdict is not True and (number := _with_comma(right, given.cleaned)):
        verdict = _by_trees(right, Answer.of(number), rules) or verdict
    if verdict is False and not _has_unit(given):
        marked = _PLAIN_UNIT.sub(lambda unit: f"\\text{{{unit[0]}}}", given.cleaned)
        verdict = marked != given.cleaned and _by_trees(right, Answer.of(marked), rules) is True
    label = None if verdict or choice else _LABEL.match(answer)
    if label:
        verdict = _by_trees(right, Answer.of(answer[label.end() :]), rules) or verdict
    return Decision(verdict, "formula" if verdict is not None else "undecided")


def _with_comma(gold: Answer, answer: str) -> str | None:
    """An answer with a decimal comma, with a point; None if the comma may group thousands or separate two numbers.

    The gold must be one number that is no integer, unless there are points too: 1.000.000 and 1.234,5 can only be
    read in one way.
    """
    if grouped := _GROUPED_BY_POINTS.match(answer):
        return grouped[1].replace(".", "") + (f".{grouped[2]}" if grouped[2] else "") + answer[grouped.end() :]
    decimal = _DECIMAL_COMMA.match(answer)
    if decimal is None or gold.tree is None or "," in gold.cleaned:
        return None
    whole = decimal[1].lstrip("+-") == "0"
    if len(decimal[2]) == 3 and not whole:
        return None
    node = gold.tree.args[0] if gold.tree.kind in {"unit", "pct"} else gold.tree
    single = gold.number or _value(node)
    if not isinstance(single, Fraction) or single.denominator == 1:
        return None
    return f"{decimal[1]}.{decimal[2]}{answer[decimal.end() :]}"


def _value(node: Node) -> Fraction | None:
    """The value of a fraction or a number."""
    parts = node.args if node.kind in {"div", "neg"} else (node,)
    if not all(part.kind == "num" for part in parts):
        return None
    values = [part.args[0] for part in parts]
    if node.kind == "neg":
        return Fraction(-values[0])
    return Fraction(values[0] if len(values) == 1 else values[0] / values[1] if values[1] else 0)


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
    functions = functions_of(gold, answer)
    verdict = _same_trees(gold.tree_with(functions), answer.tree_with(functions), rules)
    if verdict is not True and (gold.has_comma_numbers or answer.has_comma_numbers):
        right, given = (side.tree_with(functions, thousands=False) for side in (gold, answer))
        verdict = _same_trees(right, given, rules) or verdict
    return verdict


def _same_trees(gold: Node | None, answer: Node | None, rules: Rules) -> Verdict:
    return None if gold is None or answer is None else same(gold, answer, rules)


def is_choice(gold: str) -> bool:
    """Whether a gold is the letter of a choice."""
    return _CHOICE.fullmatch(gold) is not None
