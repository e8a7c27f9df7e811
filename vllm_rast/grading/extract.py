"""Find the answer in a model's output, and say how it was found.

The first of these that there is: the last balanced `\\boxed{}`; what follows `####`; a line like "the final answer is
..."; the whole output if it is nothing but an answer; the last mathematics; the last number. All of it in the part of
the output that answers. Every step reads the text a bounded number of times.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from vllm_rast.grading.answering import answering
from vllm_rast.grading.boxes import braceless_box, last_box, without_open_box
from vllm_rast.grading.choices import chosen_letter
from vllm_rast.grading.searching import last
from vllm_rast.grading.statements import (
    MAX_STATEMENT,
    corrected,
    first_sentence,
    is_denied,
    offers_alternatives,
    readings,
)

BARE_WORDS = 4  # an output of one line with at most so many words is an answer, not a solution
BARE_CHARS = 400
TAIL_CHARS = 20_000  # of an output without a box: an answer stands near its end

_HASHES = re.compile(r"####[ \t]{0,9}([^\n]*)")
_HEADING = re.compile(r"\W{0,5}(?:final |the )?(?:answer|result|solution|conclusion)\W{0,5}$", re.IGNORECASE)
_STEP = re.compile(
    r"\W{0,5}(?:step|part|case|method|solution|explanation|verification|check|note|conclusion|problem|question|example|reasoning|calculat\w*|given|approach)\b",
    re.IGNORECASE,
)
_PHRASE = re.compile(
    r"(?:final\s{1,9}answer|correct\s{1,9}answer|answer|result|solution|value)\b(?:\W{0,4}(?:to|for|of|in)\b[^\n.:=$]{0,80}?)?"
    r"\s{0,9}(?:\*\*|__)?\s{0,9}(?:is|are|equals|was|will be|must be|should be|would be|:|="
    r"|\uff1a)[\s:]{0,9}(?:\*\*|__)?\s{0,9}"
    r"(?:(?:therefore|thus|simply|then|given by|equal to|just|option|choice|actually|clearly|indeed)\b)?[\s:]{0,9}"
    r"|(?:\u7b54\u6848|\u7b54|\u7d50\u679c|\u7ed3\u679c|\u6700\u7ec8\u7b54\u6848)[\u662f\u4e3a\u70ba\uff1a:]{1,3}\s{0,9}"
    r"|(?:\u043e\u0442\u0432\u0435\u0442|r\u00e9ponse|antwort|respuesta|risposta|resposta|answer|\uc815\ub2f5|\ub2f5|\u7b54\u3048)\s{0,9}(?:[:\uff1a]|\bist\b|\bes\b|\best\b|\b\u00e8\b|\b\u00e9\b|\uc740|\ub294|\u306f)\s{0,9}",
    re.IGNORECASE,
)
_IS_ANSWER = re.compile(
    r"answer|\u7b54|\u7ed3\u679c|\u7d50\u679c|\u043e\u0442\u0432\u0435\u0442|r\u00e9ponse|antwort|respuesta|risposta|resposta|\ub2f5",
    re.IGNORECASE,
)
_ANSWER_TO = re.compile(r"answer\W+(?:to|for|of|in)\b.*[:=]", re.IGNORECASE)  # convert the answer to weeks: 28 / 7
_DENIES = re.compile(
    r"\b(?:not|never|doubt|don't|doesn't|cannot|can't|wrong to)\s(?:[a-z]{1,9}\s){0,3}(?:the\s)?$", re.IGNORECASE
)
_DELIMITERS = re.compile(r"\\[\[\]()\\$]|\$\$?")
_CLOSES = {"$$": "$$", "$": "$", "\\[": "\\]", "\\(": "\\)"}
_ALIGNED = re.compile(r"\\begin\{(?:align|gather|split|eqnarray)[a-z]*\*?\}")
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]}])[-\u2212](?:\\?\$)?)?"
    r"(?:\d+[ ]\d+\s?/\s?\d+(?![\d/])"
    r"|(?:(?:\d{1,3}(?:(?:,\\!|,|\{,\}|\\[,!])\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+\b)?(?:\s?/\s?\d+(?![\d/]))?)"
)
_OR_BEFORE = re.compile(r"\d\W{0,3}(?:,\s?|\s)or\s\W{0,3}$|\b(?:not|n't)\s\W{0,3}$")
_IS_NOT = re.compile(r"\b(?:is|it's|are|was)\s+not\b|\b(?:isn't|aren't|wasn't)\b", re.IGNORECASE)
_COMMAND = re.compile(r"\\(?!text|mathrm|mathbf|textbf)[A-Za-z]")
_WORD = re.compile(r"[A-Za-z]{2,}")
_MARKUP = re.compile(r"\\(?:text|mbox|mathrm|textbf|operatorname)\s{0,9}\{[^{}]{0,400}\}|\\[A-Za-z]+")


class Candidate(NamedTuple):
    """An answer and how it was found: box, hashes, phrase, bare, maths or number; other readings of the same words."""

    answer: str
    how: str
    others: tuple[str, ...] = ()

    @property
    def readings(self) -> tuple[str, ...]:
        return (self.answer, *self.others)


def candidates(
    output: str, boxed_only: bool = False, numeric: bool = False, choice: bool = False
) -> Iterator[Candidate]:
    """The answers that an output may mean, best first. Later ones count only if an earlier one cannot be read.

    `numeric`: the gold is a number, so a number is looked for if there is no formula. `choice`: it is a letter.
    """
    text = answering(output)
    box = last_box(text)
    if box is None and not boxed_only:
        box = braceless_box(text)
    if box is not None:
        yield Candidate(box, "box")
    if box is not None or boxed_only:
        return
    yield from _without_box(without_open_box(text)[-TAIL_CHARS:], numeric, choice)


def _without_box(text: str, numeric: bool, choice: bool) -> Iterator[Candidate]:
    if choice and (letter := chosen_letter(text)):
        yield Candidate(letter, "phrase")
        return
    hashes = _after_hashes(text)
    if hashes:
        yield Candidate(hashes, "hashes")
        yield from _only_number(hashes, "hashes", numeric)
    statement, is_answer = _after_phrase(text)
    if statement:
        if is_denied(statement) or offers_alternatives(statement):
            yield Candidate(statement, "phrase")
            return
        yield from _read(readings(statement), "phrase")
        yield from _only_number(statement, "phrase", numeric and is_answer)
    if is_bare(text):
        if is_denied(text) or offers_alternatives(text) or _IS_NOT.search(text):
            yield Candidate(text.strip(), "bare")
            return
        yield from _read(chain(readings(text), (c.answer for c in _only_number(text, "bare", numeric))), "bare")
    yield from _last_found(text, numeric)


def _read(texts: Iterable[str], how: str) -> Iterator[Candidate]:
    """One candidate with all its readings, if there are any."""
    found = list(texts)
    if found:
        yield Candidate(found[0], how, tuple(found[1:]))


def _after_hashes(text: str) -> str | None:
    """What stands after ####: of several the first that is an answer, for a base model may run on with questions."""
    for match in _HASHES.finditer(text):
        content = match[1].strip()
        if _HEADING.match(content) or not content:
            following = text[match.end() :].lstrip()
            content = following.partition("\n")[0].strip() if following else ""
        elif _STEP.match(content):
            continue
        if content and not content.startswith("#"):
            return content
    return None


def _only_number(text: str, how: str, numeric: bool) -> Iterator[Candidate]:
    """The number of an answer in words, if there is only one: of several, none is the answer."""
    text = text[:MAX_STATEMENT]
    numbers = list(_NUMBER.finditer(text)) if numeric and not _COMMAND.search(text) else []
    if len({match[0] for match in numbers}) == 1 and all(_stands_alone(text, match) for match in numbers):
        yield Candidate(numbers[0][0], how)


def _stands_alone(text: str, number: re.Match[str]) -> bool:
    """Whether a number is not a part of a formula or of a word: 5!, 2x, B12."""
    before, after = text[: number.start()].rstrip("$\\ *_("), text[number.end() :].lstrip("$\\ *_)")
    near = text[number.end() : number.end() + 1]
    return not (before[-1:] in set("^+-/=<>{") or after[:1] in set("^+-/!=<>{") or near.isalpha() or near == "\\")


def is_bare(text: str) -> bool:
    """Whether an output is nothing but an answer."""
    text = text.strip()
    if not text or "\n" in text or len(text) > BARE_CHARS:
        return False
    return len(_WORD.findall(_MARKUP.sub(" ", text))) <= BARE_WORDS


def _last_found(text: str, numeric: bool) -> Iterator[Candidate]:
    """The last mathematics; for a numeric gold the last number instead if that comes later."""
    maths = _last_maths(text)
    number = last(_NUMBER.finditer(text)) if numeric or not maths else None
    if maths and (number is None or number.start() < maths.end):
        yield Candidate(_last_row(text[maths.inside : maths.close]), "maths")
    if number:
        several = _OR_BEFORE.search(text[max(0, number.start() - 12) : number.start()])
        yield Candidate(f"{several[0]}{number[0]}" if several else number[0], "number")


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
    return last(_maths(text))


def _last_row(maths: str) -> str:
    """The last line of an aligned derivation, or the formula as it is."""
    aligned = _ALIGNED.search(maths)
    if not aligned:
        return maths.strip()
    inside = maths[aligned.end() :].rpartition("\\end")[0] or maths[aligned.end() :]
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]{0,40}\])?", inside) if row.strip()]
    return rows[-1].replace("&", " ").strip() if rows else maths.strip()


def _looks_like_maths(span: str) -> bool:
    """Whether what stands between two dollar signs is a formula and not prose between two sums of money."""
    words = _WORD.findall(_MARKUP.sub(" ", span))
    money = span.lstrip()[:1].isdigit() and (any(map(str.islower, words)) or span.rstrip()[-1:] in "=+-*/(,")
    return bool(span.strip()) and len(words) <= BARE_WORDS and not money


def _after_phrase(text: str) -> tuple[str | None, bool]:
    """What the last "answer is" says, and True; or what "result is" ... in the last line says, and False."""
    matches = list(_PHRASE.finditer(text))
    answers = [match for match in matches if _IS_ANSWER.search(match[0]) and not _ANSWER_TO.search(match[0])]
    last_line = text.rstrip().rfind("\n") + 1
    for match in reversed(answers or [match for match in matches if match.start() >= last_line]):
        said = text[match.end() : match.end() + MAX_STATEMENT]
        rest = _first_statement(said)
        if rest:
            if _DENIES.search(text[max(0, match.start() - 40) : match.start()]):
                return f"not {rest}", bool(answers)
            after = text[match.end() + said.find(rest) + len(rest) : match.end() + 2 * MAX_STATEMENT]
            return corrected(rest, after) or rest, bool(answers)
    return None, False


def _first_statement(rest: str) -> str | None:
    """The answer at the start of `rest`: its first mathematics if nothing else is said, else its first sentence."""
    rest = rest.lstrip(" \n*_:")
    maths = next(_maths(rest), None)
    if maths is None:
        return first_sentence(rest).strip(" *_") or None
    sentence = first_sentence(rest)
    if len(sentence) < maths.start and sentence.strip(" *_"):
        return sentence.strip(" *_")
    sentence = rest[: maths.end] + first_sentence(rest[maths.end :])
    alone = maths.start == 0 and not any(_maths(sentence[maths.end :]))
    return _last_row(rest[maths.inside : maths.close]) if alone else sentence.strip(" *_")
