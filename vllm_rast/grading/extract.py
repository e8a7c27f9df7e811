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
TAIL_CHARS = 20_000  # of an output without a box: an answer stands near its end

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*(?=\{)")
_BRACELESS_BOX = re.compile(r"\\boxed\s*([^\s${}\\A-Za-z][^\s${}\\]*|\s[^\s${}\\]+)")
_JOINED = re.compile(
    r"[\s$,;:\\.()\[\]*&]*(?:and|or|\\text\{\s*(?:and|or)\s*\})?[\s$,;:\\.()\[\]*&]*(?:[A-Za-z]\w*\s*=\s*)?[\s$\\]*"
)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is none
_HASHES = re.compile(r"####\s{0,9}([^\s][^\n]*)")
_PHRASE = re.compile(
    r"(?:final\s+answer|correct\s+answer|answer|result|solution|value)\b(?:\W{0,4}(?:to|for|of|in)\b[^\n.:=$]{0,80}?)?"
    r"\s{0,9}(?:\*\*|__)?\s{0,9}(?:is|are|equals|was|will be|:|=)[\s:]{0,9}(?:\*\*|__)?\s{0,9}"
    r"(?:(?:therefore|thus|simply|then|given by|equal to|just|option|choice)\b)?[\s:]{0,9}",
    re.IGNORECASE,
)
_ANSWER_TO = re.compile(r"answer\W+(?:to|for|of|in)\b.*[:=]", re.IGNORECASE)  # convert the answer to weeks: 28 / 7
_DELIMITERS = re.compile(r"\\[\[\]()\\$]|\$\$?")
_CLOSES = {"$$": "$$", "$": "$", "\\[": "\\]", "\\(": "\\)"}
_ALIGNED = re.compile(r"\\begin\{(?:align|gather|split|eqnarray)[a-z]*\*?\}(.*)\\end", re.DOTALL)
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]}])[-\u2212](?:\\?\$)?)?"
    r"(?:(?:\d{1,3}(?:(?:,\\!|,|\{,\}|\\[,!])\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+\b)?(?:\s*/\s*\d+(?![\d/]))?"
)
_WORD = re.compile(r"[A-Za-z]{2,}")
_MARKUP = re.compile(r"\\(?:text|mbox|mathrm|textbf|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")
_SENTENCE_END = re.compile(r"\.(?=\s+[A-Z(\\$]|\s*$)|(?<!\\)[!?](?=\s|$)|\n")


class Candidate(NamedTuple):
    """An answer and how it was found: box, hashes, phrase, bare, maths or number."""

    answer: str
    how: str


def last_box(text: str) -> str | None:
    """What is in the last `\\boxed{}` with balanced braces that is not empty, or None."""
    boxes = _boxes(text)
    return text[boxes[-1][1] : boxes[-1][2]].strip() if boxes else None


def last_boxes(text: str, count: int) -> list[str]:
    """The contents of the last `count` boxes if only commas, dollars or "and" stand between them, else of fewer."""
    contents: list[str] = []
    begin = len(text)
    for start, inside, close in reversed(_boxes(text)[-count:]):
        if contents and not _JOINED.fullmatch(text[close + 1 : begin]):
            break
        contents.insert(0, text[inside:close].strip())
        begin = start
    return contents


def _boxes(text: str) -> list[tuple[int, int, int]]:
    """(start of the command, start and end of its contents) of each good box; of boxes in boxes the outermost."""
    matches = list(_BOX.finditer(text))
    if not matches:
        return []
    closing = _braces(text)
    boxes: list[tuple[int, int, int]] = []
    for match in matches:
        close = closing.get(match.end())
        if close is None or not text[match.end() + 1 : close].strip() or (boxes and match.start() < boxes[-1][2]):
            continue
        boxes.append((match.start(), match.end() + 1, close))
    return boxes


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


def answering(text: str) -> str:
    """The part of an output that answers: after the last `</think>`, before a next question that a base model adds."""
    answer = text.rpartition("</think>")[2]
    answer = answer if answer.strip() else text
    first = answer.partition("\nQuestion:")[0]
    return first if first.strip() else answer


def candidates(output: str, boxed_only: bool = False, numeric: bool = False) -> Iterator[Candidate]:
    """The answers that an output may mean, best first. Later ones count only where an earlier one cannot be read.

    `numeric`: the gold is a number, so a number is looked for where there is no formula.
    """
    text = answering(output)
    box = last_box(text) or last_box(output)
    if box is None and not boxed_only:
        braceless = list(_BRACELESS_BOX.finditer(text))
        box = braceless[-1][1].strip() if braceless else None
    if box is not None:
        yield Candidate(box, "box")
    if box is not None or boxed_only:
        return
    text = text[-TAIL_CHARS:]
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
    maths = _last_maths(text)
    number = None
    if numeric or not maths:
        number = deque(_NUMBER.finditer(text), maxlen=1).pop() if _NUMBER.search(text) else None
    if maths and (number is None or number.start() < maths.end):
        yield Candidate(_last_row(text[maths.inside : maths.close]), "maths")
    if number:
        yield Candidate(number[0], "number")


class _Span(NamedTuple):
    """Mathematics between delimiters: the places where they start, where what is in them starts and ends, their end."""

    start: int
    inside: int
    close: int
    end: int


def _maths(text: str) -> Iterator[_Span]:
    """All mathematics of a text, in one pass. A delimiter that is not closed before the next of its kind is ignored."""
    opening: re.Match[str] | None = None
    for match in _DELIMITERS.finditer(text):
        if opening and match[0] == _CLOSES[opening[0]]:
            if _looks_like_maths(text[opening.end() : match.start()]):
                yield _Span(opening.start(), opening.end(), match.start(), match.end())
                opening = None
            else:  # prose between two sums of money: the second dollar may open
                opening = match if match[0] in _CLOSES else None
        elif match[0] in _CLOSES and (opening is None or match[0] != "$"):
            opening = match


def _last_maths(text: str) -> _Span | None:
    return deque(_maths(text), maxlen=1).pop() if any(_maths(text)) else None


def _last_row(maths: str) -> str:
    """The last line of an aligned derivation, or the formula as it is."""
    aligned = _ALIGNED.search(maths)
    if not aligned:
        return maths.strip()
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", aligned[1]) if row.strip()]
    return rows[-1].replace("&", " ").strip() if rows else maths.strip()


def _looks_like_maths(span: str) -> bool:
    """Whether what stands between two dollar signs is a formula and not prose between two sums of money."""
    words = _WORD.findall(_MARKUP.sub(" ", span))
    money = span.lstrip()[:1].isdigit() and (any(map(str.islower, words)) or span.rstrip()[-1:] in "=+-*/(,")
    return bool(span.strip()) and len(words) <= BARE_WORDS and not money


def _after_phrase(text: str) -> tuple[str | None, bool]:
    """What follows the last "answer is", and True; or what follows "result is" ... in the last line, and False."""
    matches = list(_PHRASE.finditer(text))
    answers = [match for match in matches if "answer" in match[0].lower() and not _ANSWER_TO.search(match[0])]
    last_line = text.rstrip().rfind("\n") + 1
    for match in reversed(answers or [match for match in matches if match.start() >= last_line]):
        rest = _first_statement(text[match.end() : match.end() + 2 * BARE_CHARS])
        if rest:
            return rest, bool(answers)
    return None, False


def _first_statement(rest: str) -> str | None:
    """The answer at the start of `rest`: its first mathematics where nothing else is said, else its first sentence."""
    rest = rest.lstrip(" \n*_:")
    maths = next(_maths(rest), None)
    if maths is None:
        end = _SENTENCE_END.search(rest)
        return (rest[: end.start()] if end else rest).strip(" *_") or None
    end = _SENTENCE_END.search(rest)
    if end and end.start() < maths.start and rest[: end.start()].strip(" *_"):
        return rest[: end.start()].strip(" *_")
    end = _SENTENCE_END.search(rest, maths.end)
    sentence = rest[: end.start()] if end else rest
    alone = maths.start == 0 and not any(_maths(sentence[maths.end :]))
    return _last_row(rest[maths.inside : maths.close]) if alone else sentence.strip(" *_")
