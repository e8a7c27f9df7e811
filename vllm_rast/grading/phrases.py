"""What a text calls its answer: "the answer is ..." in several languages."""

from __future__ import annotations

import re

from vllm_rast.grading.mathematics import last_row, maths
from vllm_rast.grading.qualifiers import EMPHASIS, is_changed_after, is_changed_before
from vllm_rast.grading.statements import (
    MAX_STATEMENT,
    around,
    corrected,
    first_sentence,
    if_wrong,
    is_denied,
    is_question,
    is_taken_back,
    withdraws,
)

MAX_CLAIMS = 100  # of an output that only ever says what the answer is not

_PHRASE = re.compile(
    r"(?:final\s{1,9}answer|correct\s{1,9}answer|answer|result|solution|value)\b[\x22'`]?(?:\W{0,4}(?:to|for|of"
    r"|in)\b[^\n.:=$]{0,80}?)?\s{0,9}(?:\*\*|__)?\s{0,9}(?:is|are|equals|was|will be|must be|should be|would be|:|="
    r"|\uff1a)[\s:]{0,9}(?:\*\*|__)?\s{0,9}"
    r"(?:(?:therefore|thus|simply|then|given by|equal to|just|option|choice|actually|clearly|indeed)\b)?[\s:]{0,9}"
    r"|(?:\u7b54\u6848|\u7b54|\u7d50\u679c|\u7ed3\u679c"
    r"|\u6700\u7ec8\u7b54\u6848)[\u662f\u4e3a\u70ba\uff1a:]{1,3}\s{0,9}"
    r"|(?:\u043e\u0442\u0432\u0435\u0442|r\u00e9ponse|antwort|respuesta|risposta|resposta|answer|\uc815\ub2f5|\ub2f5"
    r"|\u7b54\u3048)\s{0,9}(?:[:\uff1a]|\bist\b|\bes\b|\best\b|\b\u00e8\b|\b\u00e9\b|\uc740|\ub294|\u306f)\s{0,9}",
    re.IGNORECASE,
)
_IS_ANSWER = re.compile(
    r"answer|\u7b54|\u7ed3\u679c|\u7d50\u679c|\u043e\u0442\u0432\u0435\u0442|r\u00e9ponse|antwort|respuesta|risposta"
    r"|resposta|\ub2f5",
    re.IGNORECASE,
)
_ANSWER_TO = re.compile(r"answer\W+(?:to|for|of|in)\b.*[:=]", re.IGNORECASE)  # convert the answer to weeks: 28 / 7
# "The last digit of the answer is 5" and "twice the answer is 5" say something else of it.
_OF_ANSWER = re.compile(
    r"\b(?:(?:hint|clue|letters|words|characters)\s(?:for|in|to)|digits?|letters|(?:first|last|initial|second|middle)\sletters?|half|third|quarter|twice|thrice|double|triple"
    r"|square|cube|root|reciprocal|inverse|negative|opposite|multiple|factors?|divisors?|logarithm|remainder"
    r"|(?:more|less|greater|smaller|fewer)\sthan|numerator|denominator|(?:integer|fractional|decimal|whole|real"
    r"|imaginary)\spart|sign|minus|plus|times|parity)\s(?:of\s)?(?:the|my|our|this|its)\s(?:final\s|correct\s|right\s)?$",
    re.IGNORECASE,
)
# Whose answer, or to what: "the teacher's answer is 5", "in the old version the answer was 5".
_OF_OTHERS = re.compile(
    r"\b(?:teacher|friend|book|textbook|classmate|colleague|neighbou?r|brother|sister)(?:'|\u2019)s\s$"
    r"|\b(?:previous|earlier|old|original|other)\s(?:version|problem|question|attempt|exercise)\b[^.\n]{0,60}$",
    re.IGNORECASE,
)
_OTHER_QUESTION = re.compile(
    r"answer\W+(?:to|for|of)\s(?:the|my|our|your)\s(?:previous|preceding|other|next|earlier)\b", re.IGNORECASE
)
_DENIES = re.compile(
    r"\b(?:not|never|doubt|don't|doesn't|cannot|can't|wrong to|no way|impossible|unlikely|doubtful|untrue|false|wrong"
    r"|incorrect|nobody|no one|(?:some|many|people|students|others|they|someone|one)\s(?:might\s|would\s|may\s)?"
    r"(?:say|says|think|thinks|claim|claims|believe|believes|argue|argues|answer))\s(?:[a-z]{1,9}\s){0,3}(?:the\s)?$"
    r"|\bno\s(?:single\s|such\s|real\s|valid\s|unique\s)?$",
    re.IGNORECASE,
)


def called_answer(text: str) -> tuple[str | None, bool]:
    """What the last "answer is" says, and True; or what "result is" ... in the last line says, and False.

    One that says what the answer is not counts only if none says what it is.
    """
    matches = list(_PHRASE.finditer(text))
    answers = [match for match in matches if _IS_ANSWER.search(match[0]) and not _ANSWER_TO.search(match[0])]
    last_line = text.rstrip().rfind("\n") + 1
    denied = None
    claims = answers or [match for match in matches if match.start() >= last_line]
    for match in reversed(claims[-MAX_CLAIMS:]):
        statement = _said_by(text, match)
        if statement and not is_denied(statement):
            return statement, bool(answers)
        denied = denied or statement
    return denied, bool(answers)


def _said_by(text: str, phrase: re.Match[str]) -> str | None:
    """What one "answer is" says: "not ..." if its sentence takes it back."""
    said = text[phrase.end() : phrase.end() + MAX_STATEMENT]
    rest = _first_statement(said)
    if not rest:
        return None
    end = phrase.end() + said.find(rest) + len(rest)
    before, after = around(text, phrase.start(), end)
    following = text[end : phrase.end() + 2 * MAX_STATEMENT]
    instead = corrected(rest, following)
    if instead:
        return instead
    taken_back = (
        _DENIES.search(EMPHASIS.sub(" ", before))
        or (phrase[0][:1] in "aA" and _OF_ANSWER.search(before))
        or _OF_OTHERS.search(before)
        or _OTHER_QUESTION.match(phrase[0])
        or is_changed_before(before, only_denied=True)
        or if_wrong(before)
        or is_taken_back(following)
        or is_question(after)
        or withdraws(rest)
    )
    return f"not {rest}" if taken_back or is_changed_after(after) else rest


def _first_statement(rest: str) -> str | None:
    """The answer at the start of `rest`: its first mathematics if nothing else is said, else its first sentence."""
    rest = rest.lstrip(" \n*_:")
    formula = next(maths(rest), None)
    if formula is None:
        return first_sentence(rest).strip(" *_") or None
    sentence = first_sentence(rest)
    if len(sentence) < formula.start and sentence.strip(" *_"):
        return sentence.strip(" *_")
    sentence = rest[: formula.end] + first_sentence(rest[formula.end :])
    alone = formula.start == 0 and not any(maths(sentence[formula.end :]))
    return last_row(rest[formula.inside : formula.close]) if alone else sentence.strip(" *_")
