"""What a sentence says the answer is: without what comes after it, and never what is only denied or weighed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vllm_rast.grading.searching import last

MAX_STATEMENT = 800  # characters

# A clause after the answer: "18, as shown above".
_CLAUSE = re.compile(
    r"\s*(?:[,;]|\s[-\u2013\u2014]|\s\()\s*(?:as|which|so|because|since|where|when|and (?:so|this|that"
    r"|thus|therefore|not)|this|that|not|with|after|by|thus"
    r"|hence|therefore|but not|though|although|giving|meaning|given|i\.e\.|if|assuming|rounded|using|for"
    r"|is|was|would|rather)\b"
    r"|\s+(?:because|since|as (?:shown|required|desired|expected|claimed|above|stated)|which|after|when"
    r"|based on|instead of|rather than)\b"
)
_ALTERNATIVES = re.compile(r"(?:^|[\s(])(?:or|else|otherwise)\s+\W{0,3}(?:\d|\\|[A-Za-z]\b)")
_CONCLUDES = re.compile(
    r"\W*(?:so|thus|therefore|hence|giving|meaning|but(?! not)|and|then|rather(?! than)|is|was|would)\b"
)
_LEADING = re.compile(
    r"(?:(?:so|thus|therefore|hence|then|and|ok|okay|yes|sure|finally|in conclusion|in total|overall"
    r"|altogether|clearly|of course|now|well|we get|we have|it is|it's|that is|which is)\b[\s,:]{0,9}){1,3}",
    re.IGNORECASE,
)
_NOT = re.compile(
    r"\W{0,9}(?:(?:definitely|certainly|clearly|simply|actually)\s)?(?:not|never|n't|neither|isn't|other"
    r" than|anything but)\b",
    re.IGNORECASE,
)
_INSTEAD = re.compile(
    r"\b(?:but(?: rather)?|it(?:'s| is| must be| should be| has to be)(?: actually| in fact)?|rather"
    r"|instead|is actually|correct (?:one|answer|value) is|should be)\b[\s:,]{0,9}(?!not\b)",
    re.IGNORECASE,
)
_BOUNDS = re.compile(
    r"\W{0,9}(?:at least|at most|at minimum|at maximum|more than|less than|fewer than|greater than"
    r"|larger than|smaller than|no more than|no less than"
    r"|no fewer than|not more than|not less than|up to|under|over|above|below|between|somewhere|anything|any number)\b",
    re.IGNORECASE,
)
_DOUBTS = re.compile(
    r"\W{0,9}(?:unknown|unclear|uncertain|not clear|undecided|undetermined|either|one of)\b", re.IGNORECASE
)
_WAIT = re.compile(
    r"\b(?:wait|actually|correction|sorry|oops|scratch that|i mean|i meant|let me correct|on second"
    r" thought|hold on|no,)",
    re.IGNORECASE,
)
_NOW = re.compile(
    r"(?:the (?:correct |right |real |actual |final )?answer is(?: actually)?|it(?:'s| is)(?: actually)?"
    r"|it should be|should be|that's|that is|make that|i mean|i meant|correction:?|rather)\s*:?\s*",
    re.IGNORECASE,
)
_IS = re.compile(
    r"\b(?:is|are|was|were|equals|equal to|be|becomes|comes to|gives|makes|get|costs|has|have|takes?"
    r"|needs?|total of)\b[\s:]{1,9}(?=\S)"
)
_END = re.compile(r"\.(?=\s+[A-Z(\\$*]|\s*\**\s*$)|(?<!\\)[!?](?=\s|$)|\n|\uff01|\u3002|\uff0e(?!\d)")


def first_sentence(text: str) -> str:
    """A text up to the end of its first sentence or line."""
    end = _END.search(text)
    return text[: end.start()] if end else text


def is_denied(statement: str) -> bool:
    """Whether a statement says what the answer is not, or only within which bounds it lies."""
    return bool(_NOT.match(statement) or _BOUNDS.match(statement) or _DOUBTS.match(statement))


def offers_alternatives(statement: str) -> bool:
    """Whether a statement names several answers, of which none is the answer alone: 6 (or 5)."""
    return _ALTERNATIVES.search(statement) is not None


def corrected(statement: str, after: str) -> str | None:
    """What a denied or withdrawn statement is replaced by: "not 5, it is 7"; "5. Wait, no, it is 7". Else None."""
    if _NOT.match(statement):
        instead = last(_INSTEAD.finditer(statement))
        found = statement[instead.end() :] if instead else _said_after(after)
        return None if found is None else without_clause(found)
    return _said_after(after)


def _said_after(after: str) -> str | None:
    wait = _WAIT.search(after[:MAX_STATEMENT])
    if not wait:
        return None
    now = last(_NOW.finditer(after, wait.start(), MAX_STATEMENT))
    if now is None:
        return None
    return first_sentence(after[now.end() : now.end() + MAX_STATEMENT]).strip(" *_") or None


def without_clause(statement: str) -> str:
    """A statement without the clause that explains it."""
    clause = _CLAUSE.search(statement)
    if not clause or not statement[: clause.start()].strip():
        return statement
    concludes = _CONCLUDES.match(statement[clause.start() :])
    if concludes and re.search(r"\d", statement[clause.start() :]):
        return statement  # 18 eggs, so she makes 19
    return statement[: clause.start()]


def readings(statement: str) -> Iterator[str]:
    """What a statement may say the answer is, most likely first: without its clause, without the words before it."""
    statement = statement.strip(" *_\t")
    if offers_alternatives(statement):
        yield statement
        return
    plain = without_clause(statement).strip(" *_,")
    seen = {""}
    for text in (_after_words(plain), plain, statement):
        text = text.strip(" *_,")
        if text not in seen:
            seen.add(text)
            yield text


def _after_words(text: str) -> str:
    """What comes after the last "is" or after "therefore"."""
    text = text[_leading(text) :]
    connective = last(_IS.finditer(text))
    return text[connective.end() :] if connective else text


def _leading(text: str) -> int:
    match = _LEADING.match(text)
    return match.end() if match else 0
