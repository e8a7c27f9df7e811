"""The boxes of an output: `\\boxed{...}` with balanced braces, found in one pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from vllm_rast.grading.searching import last

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s{0,9}(?=\{)")
# \boxed 5, \boxed A: one short answer without a space in it. `\boxed notation` only speaks of boxes.
_BRACELESS = re.compile(r"\\boxed\s{0,9}((?:[-+\u2212]?\.?\d|\\(?:frac|dfrac|sqrt|pi))[^\s$,;]*|[A-Za-z](?![A-Za-z]))")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is none
# What people write in a box to say what belongs there.
_PLACEHOLDERS = {
    "",
    "answer",
    "youranswer",
    "finalanswer",
    "theanswer",
    "yourfinalanswer",
    "...",
    "…",
    "\\ldots",
    "\\dots",
    "\\cdot",
    "\\text",
}
_BETWEEN_CHARS = 80  # two boxes with more between them are two answers
_AND_OR = r"\b(?:and|or|y|et|und|oder|ou|o)\b|\\(?:vee|lor|wedge|land)(?![a-z])"
_CONNECTING = re.compile(
    r"\\(?:text|mbox|mathrm)\s?\{\s?(?:and|or)?\s?,?\s?\}|\\q?quad(?![a-z])|\\[,;:! ()\[\]\\]"
    rf"|[$,;:.()\[\]*&\s\u3001\uff0c\u548c\u6216]|\b(?:maybe|perhaps|possibly|also)\b|{_AND_OR}"
)
_LISTS = re.compile(rf"[,;\u3001\uff0c\u548c\u6216]|{_AND_OR}")
_OR = re.compile(r"\bor\b|\boder\b|\bou\b|\u6216|\\(?:vee|lor)(?![a-z])")
_COMPUTES = re.compile(r"[-+/*\u2212\u00d7\u00f7=<>^]|\\(?:times|cdot|div|pm|approx|neq?|sim|to|rightarrow)(?![a-z])")
_NUMBERING = re.compile(
    r"(?:\b(?:part|question|case|answer|problem|step|solution)\s?)?(?:\(?\b(?:[a-h]|[ivx]{1,4}|\d{1,2})\b[.):]|#\d)"
    r"|^\s?[-*\u2022]\s",
    re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z]\w{0,9}\s?=")
_SENTENCE = re.compile(r"[.!?](?:\s|$)|\n\s*\n")
CONNECTING_WORDS = 4
_TURNS = {"then", "so", "thus", "hence", "therefore", "no", "not", "wait", "but", "actually", "instead"}


class Box(NamedTuple):
    """The places where a box's command starts, where its contents start and end."""

    start: int
    inside: int
    close: int


def boxes(text: str) -> list[Box]:
    """Every closed box with an answer in it; of boxes in boxes the outermost."""
    matches = list(_BOX.finditer(text))
    if not matches:
        return []
    closing = _braces(text)
    found: list[Box] = []
    for match in matches:
        close = closing.get(match.end())
        if close is None or (found and match.start() < found[-1].close):
            continue
        if not is_placeholder(text[match.end() + 1 : close]):
            found.append(Box(match.start(), match.end() + 1, close))
    return found


def is_placeholder(content: str) -> bool:
    """Whether a box holds nothing, or only says what should be there."""
    if len(content) > _BETWEEN_CHARS:
        return not content.strip()
    plain = re.sub(r"\\text\s?\{|[\s{}$<>\[\]_]", "", content).lower()
    return plain in _PLACEHOLDERS


def last_box(text: str) -> str | None:
    """The contents of the last box, or None."""
    found = boxes(text)
    return text[found[-1].inside : found[-1].close].strip() if found else None


def braceless_box(text: str) -> str | None:
    """What follows the last `\\boxed` without braces, if that is a short answer."""
    found = last(_BRACELESS.finditer(text))
    return found[1].rstrip(".") if found else None


def last_boxes(text: str, count: int | None = None) -> list[str]:
    """The contents of the last boxes between which only commas, "and" and names stand.

    `count`: how many answers are wanted. Few words or a numbering may stand between exactly as many boxes; a longer run
    without words is given whole, since it is another answer.
    """
    found = boxes(text)
    inside = contents(text, _run(text, found, len(found), words=False))
    if count is not None and len(inside) < count:
        worded = contents(text, _run(text, found, len(found), words=True))
        return worded if len(worded) == count else inside
    return inside


def runs(text: str, found: list[Box]) -> Iterator[list[Box]]:
    """The boxes in groups, the last first.

    Between the members of a group stand only commas, "and", "or", signs and names.
    """
    end = len(found)
    while end:
        run = _run(text, found, end, words=False, computes=True)
        yield run
        end -= len(run)


def joined(text: str, run: list[Box]) -> str:
    """The contents of neighbouring boxes as one answer; of boxes with the same contents, one."""
    inside = contents(text, run)
    if len({"".join(content.split()) for content in inside}) == 1:
        return inside[-1]
    answer = inside[0]
    for previous, box, content in zip(run, run[1:], inside[1:], strict=False):
        between = text[previous.close + 1 : box.start]
        sign = _COMPUTES.search(_NAME.sub(" ", between))
        answer += f" {sign[0]} {content}" if sign else f" or {content}" if _OR.search(between) else f", {content}"
    return answer


def contents(text: str, run: list[Box]) -> list[str]:
    """What is in boxes."""
    return [text[box.inside : box.close].strip() for box in run]


def _run(text: str, found: list[Box], end: int, words: bool, computes: bool = False) -> list[Box]:
    """The last boxes before the one at `end` that belong together."""
    run: list[Box] = []
    for place in range(end - 1, -1, -1):
        box = found[place]
        if run and not _joins(text[box.close + 1 : run[0].start], words, computes):
            break
        run.insert(0, box)
    return run


def without_open_box(text: str) -> str:
    """An output cut off before a last box that is not closed: what it was going to say is not known."""
    found = last(_BOX.finditer(text))
    if found is None or _braces(text).get(found.end()) is not None:
        return text
    return text[: found.start()]


def _joins(between: str, words: bool, computes: bool) -> bool:
    short = " ".join(between.split())
    if len(short) > _BETWEEN_CHARS:
        return False
    if words:
        short = _NUMBERING.sub(" ", short)
    plain = _CONNECTING.sub(" ", _NAME.sub(" ", short))
    left = (_COMPUTES.sub(" ", plain) if computes else plain).split()
    if not left:
        return not computes or "\n" not in between or _LISTS.search(between) is not None
    return (
        words
        and not {word.lower() for word in left} & _TURNS
        and len(left) <= CONNECTING_WORDS
        and not _SENTENCE.search(_NUMBERING.sub(" ", between))
    )


def _braces(text: str) -> dict[int, int]:
    """The place of the closing brace for each opening one that has one, in one pass."""
    closing, open_at = {}, []
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            open_at.append(brace.start())
        elif brace[0] == "}" and open_at:
            closing[open_at.pop()] = brace.start()
    return closing


def closing_brace(text: str, start: int) -> int | None:
    """The place of the brace that closes the one at `start`, or None."""
    depth = 0
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.start()
    return None
