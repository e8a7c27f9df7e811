"""Find the answer in a model's output, and say how it was found.

The first of these that there is: the last balanced `\\boxed{}`; what follows `####`; a line like "the final answer is
..."; the whole output if it is nothing but an answer; the last mathematics; the last number. All of it in the part of
the output that answers. Every step reads the text a bounded number of times.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vllm_rast.grading.answering import answering
from vllm_rast.grading.boxes import boxes, braceless_box, contents, joined, runs, without_open_box
from vllm_rast.grading.choices import chosen_letter
from vllm_rast.grading.mathematics import Span, is_end_of_proof, last_row, maths, word_count
from vllm_rast.grading.phrases import called_answer
from vllm_rast.grading.prose_numbers import last_number, only_number
from vllm_rast.grading.qualifiers import is_changed, is_changed_after, is_changed_before, is_hint
from vllm_rast.grading.statements import (
    MAX_STATEMENT,
    alternatives,
    around,
    begins_with_value,
    first_sentence,
    in_signs,
    is_denied,
    is_question,
    is_taken_back,
    not_but,
    offers_alternatives,
    readings,
    said_after,
)

BARE_WORDS = 4  # an output of one line with at most so many words is an answer, not a solution
BARE_CHARS = 400
TAIL_CHARS = 20_000  # of an output without a box: an answer stands near its end

# A box that is a part of a formula: -\boxed{6}, \sqrt{\boxed{6}}, \boxed{18}^2.
_NEGATIVE = re.compile(r"(?:^|[=:\s$(\[])[-\u2212]\s{0,2}$")
_FORMULA_BEFORE = re.compile(r"(?:\\cdot|\\times|[\w)}]\s?[-+*/]|\^\{?|\\sqrt\{?|frac\{)\s{0,3}$")
_FORMULA_AFTER = re.compile(
    r"\s{0,2}(?:\^(?!\s?\{?\s?\\(?:circ|text|mathrm|prime))|!(?=\s?[$\\)])|\\cdot|\\times|[+*/]\s?(?:[\dx]|\\(?!mathrm|text|mbox)))"
)
_INTRODUCES = re.compile(
    r"(?:\b(?:is|are|was|were|be|has|have|equals?|gives?|makes?|gets?|needs?|costs?|earns?|answer|ans|total|result"
    r"|sum|value)\b|[:=])[\s:=$*]{0,6}$",
    re.IGNORECASE,
)
_BOTH = re.compile(r"\b(?:yes\b.*\bno|no\b.*\byes)\b", re.IGNORECASE | re.DOTALL)
_YES_OR_NO = re.compile(r"\W{0,4}(yes|no)\s?[,.;:!\u2013\u2014]", re.IGNORECASE)
_VALUE_IN = re.compile(r"[$\\\d]|\b[a-z]\s?=")
MAX_FORMULAS = 8  # of a sentence
_CONDITION = re.compile(
    r"^[^.\n]{0,80}(?:\b(?:for|where|when|if|with|provided|assuming|unless)\s(?:all\s)?|\s\([^()]{0,80})$"
)
# One of several that are offered: "Case B: ...", "Alternatively, ...".
_ONE_OF = re.compile(
    r"\b(?:alternatively|option|case|possibility)\b[\s:,]{0,3}(?:\w{1,2}\b[\s:,)]{0,3})?[$\\(\[\s]{0,4}$", re.IGNORECASE
)
_CALLED = re.compile(r"\banswer\b[^.\n]{0,20}(?:is|:)", re.IGNORECASE)
_HASHES = re.compile(r"####[ \t]{0,9}([^\n]*)")
_HEADING = re.compile(r"\W{0,5}(?:final |the )?(?:answer|result|solution|conclusion)\W{0,5}$", re.IGNORECASE)
_STEP = re.compile(
    r"\W{0,5}(?:step|part|case|method|solution|explanation|verification|check|note|conclusion|problem|question"
    r"|example|reasoning|calculat\w*|given|approach)\b",
    re.IGNORECASE,
)
_TEXT = re.compile(r"\\(?:text|mbox|textrm|textbf|mathrm)\s{0,3}\{([^{}]{0,400})\}")
_NEGATES = re.compile(
    r"\b(?:no|not|none|never|nor|without|except|impossible|cannot|wrong|incorrect|\w+n't)\b", re.IGNORECASE
)
_REACHES = re.compile(r"[\d)]\s?[-+*/\u00d7\u00f7]\s?[\d(][^=,;]{0,60}=")
_VALUE = re.compile(r"[$\\({\[*\s-]{0,6}(?:\d|(?:frac|dfrac|sqrt|pi|boxed)\b|[A-Ja-z]\b)")


class Candidate(NamedTuple):
    """An answer and how it was found: box, hashes, phrase, bare, maths or number; other readings of the same words.

    denied: the output holds it but does not give it as the answer
    alternatives: the answers that it leaves the choice of; it is right only if each of them is
    """

    answer: str
    how: str
    others: tuple[str, ...] = ()
    denied: bool = False
    alternatives: tuple[str, ...] = ()


def candidates(
    output: str,
    boxed_only: bool = False,
    numeric: bool = False,
    choice: bool = False,
    words: bool = False,
    labelled: bool = False,
) -> Iterator[Candidate]:
    """The answers that an output may mean, best first. Later ones count only if an earlier one cannot be read.

    `numeric`: the gold is a number, so a number is looked for if there is no formula. `choice`: it is a letter.
    `words`: it is in words. `labelled`: it is a letter with what that stands for.
    """
    text = answering(output)
    box = _boxed(text, boxed_only)
    if box is not None:
        yield box
    elif not boxed_only:
        said = without_open_box(text)[-TAIL_CHARS:]
        letter = chosen_letter(said) if labelled and called_answer(said)[0] is None else None
        if letter:
            yield Candidate(letter.letter, "phrase", denied=letter.denied)
        else:
            yield from _without_box(said, numeric, choice, words)


def _boxed(text: str, boxed_only: bool) -> Candidate | None:
    """The last boxes that the words around them do not take back, or what a later sentence puts in their place."""
    found = boxes(text)
    denied = None
    following = len(text)
    for run in runs(text, found):
        end = run[-1].close + 1
        before, after = around(text, run[0].start, end)
        later, following = text[end:following], run[0].start
        content = joined(text, run)
        if _NEGATIVE.search(before) and len(run) == 1:
            content = f"-{content}"
        offered = denied is None and run[0] != found[0] and _ONE_OF.search(before) is not None
        if offered or _is_denied_box(before, after, later):
            denied = denied or Candidate(content, "box", denied=True)
            continue
        instead = None if boxed_only or denied else said_after(later) or _called_later(later)
        if instead and _is_value(instead):
            return Candidate(instead, "box")
        several = tuple(contents(text, run)) if len(run) > 1 else ()
        return Candidate(content, "box", tuple(_box_readings(content)), alternatives=several)
    if denied and not boxed_only and (instead := said_after(text[found[-1].close + 1 :])) and _is_value(instead):
        return Candidate(instead, "phrase")
    braceless = None if found or boxed_only else braceless_box(text)
    return Candidate(braceless, "box") if braceless is not None else denied


def _is_denied_box(before: str, after: str, later: str) -> bool:
    """Whether the words around a box take it back, or a formula goes on around it. Bounds before it are kept."""
    in_formula = _FORMULA_BEFORE.search(before) or _FORMULA_AFTER.match(after)
    denied = is_changed_before(before, only_denied=True) or is_changed_after(after) or is_taken_back(later)
    return denied or in_formula is not None


def _called_later(later: str) -> str | None:
    """What is called the answer after a box in the same paragraph."""
    paragraph = later[:MAX_STATEMENT].partition("\n\n")[0]
    if not paragraph[:1] or paragraph[:1] not in " .,;:!$)]}\\\n*":
        return None
    return called_answer(paragraph)[0] if _CALLED.search(paragraph) else None


def _box_readings(content: str) -> Iterator[str]:
    """What a box with words in it may say the answer is: \\text{There are } 15 \\text{ ways}."""
    prose = _TEXT.sub(r"\1", content).strip()
    if (
        not prose[:1].isalpha()
        or prose == content
        or _NEGATES.search(prose)
        or is_denied(prose)
        or offers_alternatives(prose)
    ):
        return
    number = only_number(prose)
    if number is None:
        yield from readings(prose, True)
    elif not number.denied and _INTRODUCES.search(prose[: number.start]):
        yield number.answer


def _is_value(text: str) -> bool:
    """Whether a text is a short value and hardly anything else."""
    return _VALUE.match(text) is not None and word_count(text) <= 2


def _without_box(text: str, numeric: bool, choice: bool, words: bool) -> Iterator[Candidate]:
    if choice and (chosen := chosen_letter(text)):
        yield Candidate(chosen.letter, "phrase", denied=chosen.denied)
        return
    for said, how, is_answer in _statements(text):
        statement = in_signs((not_but(said) if how == "bare" else None) or said)
        value = _VALUE_IN.search(statement)
        leads = statement[: value.start()] if value else ""
        denied = is_denied(statement) or is_question(statement) or is_hint(leads)
        if denied or is_changed_before(leads, only_denied=True):
            yield Candidate(statement, how, denied=True)
            return
        if offers_alternatives(statement):
            yield Candidate(statement, how, alternatives=alternatives(statement))
            return
        number = only_number(statement) if numeric and is_answer else None
        if number and number.denied:
            yield Candidate(number.answer, how, denied=True)
            return
        if how == "bare" and number:
            yield from _read([*readings(statement), number.answer], how)
            continue
        yield from _read(readings(statement, how == "phrase" and is_answer), how)
        if number:
            yield Candidate(number.answer, how)
        if how == "hashes" or (how == "phrase" and is_answer and begins_with_value(statement)):
            return
    if words:
        if plain := _YES_OR_NO.match(text):
            yield Candidate(plain[1], "sentence", denied=_BOTH.search(text) is not None)
        yield from _read(readings(_last_sentence(text)), "sentence")
    yield from _last_found(text, numeric)


def _main_formula(text: str) -> Span | None:
    """The last mathematics that its sentence does not only add as a condition or in parentheses."""
    spans = [span for span in maths(text) if not is_end_of_proof(text[span.inside : span.close])][-MAX_FORMULAS:]
    while len(spans) > 1 and _CONDITION.search(text[spans[-2].end : spans[-1].start]):
        spans.pop()
    return spans[-1] if spans else None


def _last_sentence(text: str) -> str:
    text = text.strip()
    end = len(text.rstrip(".!* "))
    before, _ = around(text, end, len(text))
    return first_sentence(text[end - len(before) :])


def _statements(text: str) -> Iterator[tuple[str, str, bool]]:
    """What an output says its answer is, how it says so, and whether it is called the answer."""
    hashes = _after_hashes(text)
    if hashes:
        yield hashes, "hashes", True
    statement, is_answer = called_answer(text)
    if statement:
        yield statement, "phrase", is_answer
    if is_bare(text):
        yield text.strip(), "bare", True


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


def is_bare(text: str) -> bool:
    """Whether an output is nothing but an answer, and no derivation: 3 + 4 = 7, and 2 * 7 = 14."""
    text = text.strip()
    if not text or "\n" in text or len(text) > BARE_CHARS or len(_REACHES.findall(text)) > 1:
        return False
    return word_count(text) <= BARE_WORDS


def _last_found(text: str, numeric: bool) -> Iterator[Candidate]:
    """The last mathematics; for a numeric gold the last number instead if that comes later."""
    formula = _main_formula(text)
    number = last_number(text) if numeric or not formula else None
    if formula and (number is None or number.start < formula.end):
        following = text[formula.end : formula.end + MAX_STATEMENT]
        denied = is_changed(*around(text, formula.start, formula.end)) or is_taken_back(following)
        yield Candidate(last_row(text[formula.inside : formula.close]), "maths", denied=denied)
    if number:
        yield Candidate(number.answer, "number", denied=number.denied)
