"""The comparison rules of the Qwen2.5-Math evaluation lineage, which RAST's published numbers were made with.

They are kept for comparison with old numbers and are inflated: a number is right if it is within 1e-4 (relative) of the
gold, of a hundredth of it or of a hundred times it, and brackets of any kind are the same. Unlike the original, nothing
that a model wrote is evaluated as code.
"""

from __future__ import annotations

import re
from fractions import Fraction

from vllm_rast.grading.decide import Decision, decide, tree
from vllm_rast.grading.latex.clean import clean
from vllm_rast.grading.latex.numbers import read_decimal
from vllm_rast.grading.latex.parse import Node
from vllm_rast.grading.latex.tokens import MAX_CHARS, Unreadable
from vllm_rast.grading.meaning.rules import Rules
from vllm_rast.grading.meaning.values import ROUGH_BITS, TooLarge, Undefined, is_real, precision, real, symbols, value

RELATIVE = Fraction(1, 10_000)
TIER = "qwen rules (inflated)"

_BRACKETS = re.compile(r"\\[{}]|[()\[\]{}]|\s")


def decide_lineage(gold: str, answer: str) -> Decision:
    """The verdict by the lineage's rules; None if it needs a worker."""
    strict = decide(gold, answer, Rules(ordered=True))
    if max(len(gold), len(answer)) > MAX_CHARS:
        return Decision(strict.verdict, TIER)
    if strict.verdict:
        return Decision(True, TIER)
    if _same_numbers(gold, answer) or _same_but_brackets(gold, answer):
        return Decision(True, TIER)
    gold_tree, answer_tree = tree(gold), tree(answer)
    try:
        close = gold_tree is not None and answer_tree is not None and _close(gold_tree, answer_tree)
    except RecursionError:
        close = False
    return Decision(True if close else strict.verdict, TIER)


def _same_numbers(gold: str, answer: str) -> bool:
    """Numbers close to each other, a hundredth or a hundredfold allowed; a percent sign divides by 100."""
    a, b = _number(gold), _number(answer)
    if a is None or b is None:
        return False
    return any(_near(a * factor, b) for factor in (Fraction(1, 100), Fraction(1), Fraction(100)))


def _number(text: str) -> Fraction | None:
    text = clean(text).replace(",", "")
    number = read_decimal(text.removesuffix("%"))
    return number / 100 if number is not None and text.endswith("%") else number


def _near(a: Fraction, b: Fraction) -> bool:
    return abs(a - b) <= RELATIVE * max(abs(a), abs(b))


def _same_but_brackets(gold: str, answer: str) -> bool:
    texts = [_BRACKETS.sub("", clean(text)).lower() for text in (gold, answer)]
    return texts[0] == texts[1] != ""


def _close(gold: Node, answer: Node) -> bool:
    """Values within RELATIVE, members of tuples and lists one by one."""
    members = [node.args[2:] if node.kind == "seq" else node.args for node in (gold, answer)]
    if {gold.kind, answer.kind} <= {"seq", "list"}:
        return len(members[0]) == len(members[1]) and all(map(_close, *members))
    if gold.kind == "rel" or answer.kind == "rel":
        sides = [node.args[1][-1] if node.kind == "rel" and node.args[0] == ("=",) else node for node in (gold, answer)]
        short = all(node.kind != "rel" or node.args[1][0].kind == "sym" for node in (gold, answer))
        return short and sides[0].kind != "rel" and sides[1].kind != "rel" and _close(*sides)
    if symbols(gold) or symbols(answer):
        return False
    try:
        with precision(ROUGH_BITS):
            a, b = value(gold), value(answer)
    except (Unreadable, TooLarge, Undefined):
        return False
    if not (is_real(a) and is_real(b)):
        return False
    gap, near = abs(real(a) - real(b)), real(RELATIVE)
    return bool(gap <= near * abs(real(a)) or gap <= near * abs(real(b)))
