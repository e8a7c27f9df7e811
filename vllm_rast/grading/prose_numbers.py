"""The numbers of a text in plain words, and the one that a sentence says."""

from __future__ import annotations

import re
from typing import NamedTuple

from vllm_rast.grading.qualifiers import is_changed, is_changed_before
from vllm_rast.grading.searching import last
from vllm_rast.grading.statements import (
    MAX_STATEMENT,
    around,
    if_wrong,
    is_question,
    is_taken_back,
    is_undecided,
    is_unfinished,
    withdraws,
    without_clause,
)

_NUMBER = re.compile(
    r"(?:(?<![\w.)\]}])[-\u2212](?:\\?\$)?)?(?:\d+[ ]\d+\s?/\s?\d+(?![\d/])"
    r"|(?:(?:\d{1,3}(?:(?:,\\!|,|\{,\}|\\[,!])\d{3})+(?!\d)|\d+)(?:\.\d+)?"
    r"|\.\d+)(?:[eE][+-]?\d+\b)?(?:\s?/\s?\d+(?![\d/]))?)"
)
_OR_BEFORE = re.compile(r"\d\W{0,3}(?:,\s?|\s)or\s\W{0,3}$|\b(?:not|n't)\s\W{0,3}$")
_RESULT = r"=\s{0,3}(?:\*\*|\\?\$|\\\()?\s?(?=-?[\d.])(?!-?\$?[\d.,]+%?\s?[-+*/x\u00d7\u00f7=]\s?[\d$(])"
_CALCULATES = re.compile(rf"[-+*/x\u00d7\u00f7\u2212]\s?\$?\(?[\d.,]+[^=\n]{{0,80}}{_RESULT}")
_EQUALS = re.compile(_RESULT)
NEAR_END = 200  # characters in which a sentence that breaks off is seen
_ASIDE = re.compile(r"\d[^()=]{0,80}(?P<opens>\s\()[^()]{0,300}[A-Za-z]{3}")  # $460 for the week (40 hours at $10)
_REST = re.compile(r"\s?(?:\u03c0|\u221a\s?\d+)(?:\s?/\s?\d+)?")  # 3\u03c0
_MAGNITUDE = re.compile(r"\s?(hundred|thousand|million|billion|trillion|dozen)\b")
# What a sentence says: "is 45 miles from home after 4 hours" says 45.
_SAYS_NUMBER = re.compile(
    r"(?:=|\b(?:is|are|was|were|be|has|have|had|gets?|got|makes?|made|earns?|earned|needs?|costs?|takes?|took|pays?"
    r"|paid|spends?"
    r"|spent|saves?|saved|owes?|equals?|gives?|uses?|used|receives?|weighs?|contains?|holds?|ran|walked|drove|read"
    r"|ate|bought|sold|won|lost|drank|wrote|caught|found|left|sent|gave|kept|[a-z]{2,12}ed|total of|left with)\b)"
    r"(?:\s(?:only|just|exactly|about|approximately|a total of|now))?\s{0,3}(?:\*\*|\\?\$|\\\(){0,2}(?=-?[\d.])"
    r"(?!-?[\d.,]+\s?[-+*/\u00d7\u00f7=])"
)
_PREPOSITION = re.compile(
    r"(?:(?!\band\b|\bso\b|\bor\b|\bto\b)[^,;=]){0,120}\b(?:at|in|after|for|over|during|within|from|on|among|between"
    r"|of|by|with|per)\s(?:(?:the|those|these|all|each|his|her|their|a|last|next|first)\s){0,3}[$\\(]{0,2}"
)
_WORD_BEFORE = re.compile(r"[A-Za-z]+$")
_CURRENCIES = {"Rs", "US", "USD", "AUD", "CAD", "HK", "NT", "R", "RM", "EUR", "GBP"}
_ABOUT_THE_ANSWER = re.compile(r"^[^.,;]{0,30}\b(?:about|to|of|for|in)\s(?:the|my|this|an)\s(?:answer|solution)\b")
_STILL_TO_FIND = re.compile(
    r"\b(?:needs?|wants?|have|has|trying|left|remains|must)\s(?:to\s)?(?:find|determine|compute|calculate|figure out)\b"
)
_ONLY_NUMBER = re.compile(r"(?:^|\n)\s{0,9}(\d[\d.,]{0,20})\s{0,9}$")
_COMMAND = re.compile(r"\\(?!text|mathrm|mathbf|textbf)[A-Za-z]")


class Said(NamedTuple):
    """A number as an answer, where it begins, and whether the words around it say that it is none."""

    answer: str
    start: int
    denied: bool


def only_number(text: str) -> Said | None:
    """The number of an answer in words, if there is only one: of several, none is the answer."""
    text = text[:MAX_STATEMENT]
    numbers = [] if _COMMAND.search(text) else list(_NUMBER.finditer(text))
    if len({match[0] for match in numbers}) != 1 or not all(_stands_alone(text, match) for match in numbers):
        return None
    place = numbers[0]
    denied = is_changed(text[: place.start()], text[place.end() :])
    return Said(_with_magnitude(text, place), place.start(), denied)


def last_number(text: str) -> Said | None:
    """The number that the last sentence with numbers says; "6 or 5" if it says one of several."""
    final = last(_NUMBER.finditer(text))
    if final is None:
        return None
    before, after = around(text, final.start(), final.end())
    begin, end = final.start() - len(before), final.end() + len(after)
    computed = _computed(text, begin, end)
    number = computed or _spoken(text, begin, end) or final
    answer = _with_magnitude(text, number)
    several = _OR_BEFORE.search(text[max(0, number.start() - 12) : number.start()])
    if several:
        answer = several[0] + answer
    return Said(answer, number.start(), _is_no_answer(text, number, computed is not None))


def _computed(text: str, begin: int, end: int) -> re.Match[str] | None:
    """The result of the last calculation in a sentence, of which it then speaks: 3 * 2 = 6 letters for 2 friends."""
    calculates = last(_CALCULATES.finditer(text, begin, end))
    result = last(_EQUALS.finditer(text, calculates.start(), end)) if calculates else None
    return _NUMBER.match(text, result.end()) if result else None


def _spoken(text: str, begin: int, end: int) -> re.Match[str] | None:
    """The number that a sentence says, before a clause that only adds to it: 18 left, down from 24."""
    main = without_clause(text[begin:end])
    aside = _ASIDE.search(main)
    end = begin + (aside.start("opens") if aside else len(main))
    final = last(_NUMBER.finditer(text, begin, end))
    said = last(_SAYS_NUMBER.finditer(text, begin, end))
    first = _NUMBER.match(text, said.end()) if said else None
    return first if first and final and _PREPOSITION.fullmatch(text, first.end(), final.start()) else final


def _is_no_answer(text: str, number: re.Match[str], computed: bool) -> bool:
    """Whether the words around a number say that it is not the answer.

    computed: it is the result of a calculation, and stays one whatever is said of it then
    """
    before, after = around(text, number.start(), number.end())
    if is_taken_back(text[number.end() : number.end() + MAX_STATEMENT]) or is_unfinished(text[-NEAR_END:]):
        return True
    if withdraws(after) or _STILL_TO_FIND.search(after):
        return True
    if is_undecided(before + after) or is_question(after) or _is_in_column(text, number):
        return True
    if computed:
        return is_changed_before(before, only_denied=True)
    return is_changed(before, after) or if_wrong(before) or _ABOUT_THE_ANSWER.search(after) is not None


def _is_in_column(text: str, number: re.Match[str]) -> bool:
    """Whether a number only ends a column of different ones."""
    line = text.rfind("\n", 0, number.start()) + 1
    above = _ONLY_NUMBER.search(text[max(0, line - 40) : line])
    return above is not None and above[1] != number[0] and not text[line : number.start()].strip()


def _with_magnitude(text: str, number: re.Match[str]) -> str:
    """A number, with the thousand or million behind it."""
    rest = _REST.match(text, number.end())
    if rest:
        return number[0] + rest[0]
    magnitude = _MAGNITUDE.match(text, number.end())
    return f"{number[0]} \\text{{ {magnitude[1]}}}" if magnitude else number[0]


def _stands_alone(text: str, number: re.Match[str]) -> bool:
    """Whether a number is not a part of a formula or of a word: 5!, 2x, B12."""
    before, after = text[: number.start()].rstrip("$\\ *_("), text[number.end() :].lstrip("$\\ *_)")
    near = text[number.end() : number.end() + 1]
    word = _WORD_BEFORE.search(text[max(0, number.start() - 9) : number.start()])
    if word and word[0] not in _CURRENCIES:
        return False
    return not (
        before[-1:] in set("^+-/=<>{")
        or after[:1] in set("^+-/!=<>{")
        or (near.isalpha() and near.isascii())
        or near == "\\"
    )
