"""Find the answer in a model's output, and say how it was found.

The first of these that there is: the last balanced `\\boxed{}`; what follows `####`; a line like "the final answer is
..."; the whole output where it is nothing but an answer; the last mathematics; the last number.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

BARE_WORDS = 4  # an output of one line with at most so many words is an answer, not a solution
BARE_CHARS = 400

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*(?=\{)")
_BRACELESS_BOX = re.compile(r"\\boxed\s*([^\s${}\\A-Za-z][^\s${}\\]*|\s[^\s${}\\]+)")
_JOINED = re.compile(
    r"[\s$,;:\\.()\[\]*&]*(?:and|or|\\text\{\s*(?:and|or)\s*\})?[\s$,;:\\.()\[\]*&]*(?:[A-Za-z]\w*\s*=\s*)?[\s$\\]*"
)
_HASHES = re.compile(r"####\s*([^\n]*\S)")
_PHRASE = re.compile(
    r"(?:final\s+answer|correct\s+answer|answer|result|solution|value)\b(?:\W{0,4}(?:to|for|of|in)\b[^\n.:=$]{0,80})?"
    r"\s*(?:\*\*|__)?\s*(?:is|are|equals|was|will be|:|=)[\s:]*"
    r"(?:\*\*|__)?\s*(?:(?:therefore|thus|simply|then|given by|equal to|just|option|choice)\b)?[\s:]*",
    re.IGNORECASE,
)
_MATHS = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$([^$]+?)(?<!\\)\$", re.DOTALL)
_ALIGNED = re.compile(r"\\begin\{(?:align|gather|split|eqnarray)[a-z]*\*?\}(.*)\\end", re.DOTALL)
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]}])[-\u2212](?:\\?\$)?)?"
    r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+\b)?(?:\s*/\s*\d+(?![\d/]))?"
)
_WORD = re.compile(r"[A-Za-z]{2,}")
_MARKUP = re.compile(r"\\(?:text|mbox|mathrm|textbf|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
_SENTENCE_END = re.compile(r"\.(?=\s+[A-Z(\\$]|\s*$)|[!?](?=\s|$)|\n")


class Candidate(NamedTuple):
    """An answer and how it was found: box, hashes, phrase, bare, maths or number."""

    answer: str
    how: str


def last_box(text: str) -> str | None:
    """What is in the last `\\boxed{}` with balanced braces that is not empty, or None."""
    span = _last_box_span(text, len(text))
    return None if span is None else text[span[1] : span[2]].strip()


def last_boxes(text: str, count: int) -> list[str]:
    """The contents of the last `count` boxes if only commas, dollars or "and" stand between them, else of fewer."""
    contents: list[str] = []
    end = len(text)
    while len(contents) < count:
        span = _last_box_span(text, end)
        if span is None or (contents and not _JOINED.fullmatch(text[span[2] + 1 : end])):
            break
        contents.insert(0, text[span[1] : span[2]].strip())
        end = span[0]
    return contents


def _last_box_span(text: str, end: int) -> tuple[int, int, int] | None:
    """(start of the command, start and end of its contents) of the last good box that ends before `end`."""
    for match in reversed(list(_BOX.finditer(text, 0, end))):
        close = closing_brace(text, match.end())
        if close is not None and close < end and text[match.end() + 1 : close].strip():
            return match.start(), match.end() + 1, close
    return None


def closing_brace(text: str, start: int) -> int | None:
    """The place of the brace that closes the one at `start`, or None."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] == "\\":
            continue
        if text[at] in "{}" and (at == 0 or text[at - 1] != "\\"):
            depth += 1 if text[at] == "{" else -1
            if depth == 0:
                return at
    return None


def after_thinking(text: str) -> str:
    """What follows the last `</think>`, or the whole text where that is nothing."""
    answer = text.rpartition("</think>")[2]
    return answer if answer.strip() else text


def candidates(output: str, boxed_only: bool = False, numeric: bool = False) -> Iterator[Candidate]:
    """The answers that an output may mean, best first. Later ones count only where an earlier one cannot be read.

    `numeric`: the gold is a number, so a number is looked for where there is no formula.
    """
    text = after_thinking(output)
    box = last_box(text) or last_box(output)
    if box is None and not boxed_only:
        braceless = list(_BRACELESS_BOX.finditer(text))
        box = braceless[-1][1].strip() if braceless else None
    if box is not None:
        yield Candidate(box, "box")
    if box is not None or boxed_only:
        return
    hashes = _HASHES.search(text)  # the first: a base model may run on with questions and answers of its own
    if hashes:
        yield Candidate(hashes[1], "hashes")
        yield from _numbers_in(hashes[1], "hashes", numeric)
    phrase, is_answer = _after_phrase(text)
    if phrase:
        yield Candidate(phrase, "phrase")
        yield from _numbers_in(phrase, "phrase", numeric and is_answer)
    if is_bare(text):
        yield Candidate(text.strip(), "bare")
    yield from _last_found(text, numeric)


def _numbers_in(text: str, how: str, numeric: bool) -> Iterator[Candidate]:
    """The first number of an answer that is not only a number."""
    number = _NUMBER.search(text) if numeric else None
    if number:
        yield Candidate(number[0], how)


def is_bare(text: str) -> bool:
    """Whether an output is nothing but an answer."""
    text = text.strip()
    if not text or "\n" in text:
        return False
    return len(text) <= BARE_CHARS and len(_WORD.findall(_MARKUP.sub(" ", text))) <= BARE_WORDS


def _last_found(text: str, numeric: bool) -> Iterator[Candidate]:
    """The last mathematics; for a numeric gold the last number instead where that comes later."""
    spans = [m for m in _MATHS.finditer(text) if _looks_like_maths(_inside(m))]
    maths = Candidate(_last_row(_inside(spans[-1])), "maths") if spans else None
    number = None
    if numeric or not spans:
        number = deque(_NUMBER.finditer(text), maxlen=1).pop() if _NUMBER.search(text) else None
    if maths and (number is None or number.start() < spans[-1].end()):
        yield maths
    if number:
        yield Candidate(number[0], "number")


def _last_row(maths: str) -> str:
    """The last line of an aligned derivation, or the formula as it is."""
    aligned = _ALIGNED.search(maths)
    if not aligned:
        return maths.strip()
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", aligned[1]) if row.strip()]
    return rows[-1].replace("&", " ").strip() if rows else maths.strip()


def _inside(maths: re.Match[str]) -> str:
    return next(filter(None, maths.groups()))


def _looks_like_maths(span: str) -> bool:
    """Whether what stands between two dollar signs is a formula and not prose between two sums of money."""
    return len(_WORD.findall(_MARKUP.sub(" ", span))) <= BARE_WORDS


def _after_phrase(text: str) -> tuple[str | None, bool]:
    """What follows the last "answer is" and True; without one, what follows "result is", "value is" ... and False."""
    matches = list(_PHRASE.finditer(text))
    answers = [match for match in matches if "answer" in match[0].lower()]
    for match in reversed(answers or matches[-1:]):
        rest = _first_statement(text[match.end() : match.end() + 2 * BARE_CHARS])
        if rest:
            return rest, bool(answers)
    return None, False


def _first_statement(rest: str) -> str | None:
    """The answer at the start of `rest`: its first mathematics where that comes early, else its first sentence."""
    rest = rest.lstrip(" \n*_:")
    maths = _MATHS.search(rest)
    end = _SENTENCE_END.search(rest)
    sentence = rest[: end.start()] if end else rest
    if maths and maths.start() <= len(sentence) and not _WORD.search(_MARKUP.sub(" ", rest[: maths.start()])):
        inside = _inside(maths).strip()
        after = sentence[maths.end() :] if maths.end() < len(sentence) else ""
        alone = maths.start() == 0 and not _MATHS.search(after)
        if _looks_like_maths(inside):
            return inside if alone else sentence.strip(" *_")
    if maths and maths.start() < len(sentence) < maths.end():
        sentence = rest[: maths.end()]
    return sentence.strip(" *_") or None
