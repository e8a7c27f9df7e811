"""Choice letters: which one an output decides for."""

from __future__ import annotations

import re

_LETTER = (
    r"[\(\[*$_\"'`\s]{0,4}(?:\\(?:text|textbf|mathrm"
    r"|mathbf)\s?\{\s?)?[\(\[*]{0,3}([A-J])(?![A-Za-z'\u2019])[\)\]}*$_\"'`]{0,4}"
)
_ASSERTED = [
    re.compile(
        rf"\b(?:option|choice|answer|statement)\s{{0,3}}:?{_LETTER}\s{{0,3}}(?:is|would be|must be"
        rf"|seems)\s{{1,9}}(?:the\s{{1,9}})?(?:\w{{1,20}}\s)?(?:correct|right|true|answer|best)",
        re.IGNORECASE,
    ),
    re.compile(
        rf"{_LETTER}\s{{0,3}}(?:is|must be)\s{{1,9}}(?:the\s{{1,9}})?(?:only\s)?(?:correct|right|true|answer|best)\b"
    ),
    re.compile(
        rf"\b(?:answer|choice|option)\s{{0,3}}(?:is|:|must be|should be|would be)\s{{0,3}}(?:therefore"
        rf"|thus|clearly|option|choice|letter)?:?\s{{0,3}}(?:option|choice)?{_LETTER}(?=[\s.,;:)]|$)",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:so|thus|therefore|hence),?\s(?:it is |it's |the answer is |we choose |choose |pick "
        rf"|option |choice ){{0,2}}{_LETTER}\s{{0,3}}(?:[.!]|$)",
        re.IGNORECASE,
    ),
    re.compile(
        rf"\b(?:choose|select|pick|go with|goes with)\s(?:option\s|choice\s|answer\s)?{_LETTER}(?=[\s.,;:)]|$)",
        re.IGNORECASE,
    ),
]
_DENIED = re.compile(
    rf"(?:not|n't|never|neither|rather than|instead of)\s(?:option\s|choice\s)?{_LETTER}\s{{0,3}}$", re.IGNORECASE
)
_OTHER = re.compile(
    r"[\s.)\]}*$\"']{0,6}(?:(?:or|and|and/or|&|\+|/|,|;|\\text\s?\{\s?(?:or|and)\s?\})[\s,]{0,3}){1,2}(?:option\s|choice\s)?[\s(\[*$\"']{0,4}(?:\\(?:text|textbf|mathrm|mathbf)\s?\{\s?)?\(?[A-J](?![A-Za-z'])"
)


def names_another(rest: str) -> bool:
    """Whether what follows a choice letter is another one: "or (D)", "+ C"."""
    return bool(_OTHER.match(rest))


def chosen_letter(text: str) -> str | None:
    """The letter that the last assertion of an output decides for; None without one, "?" if it names several."""
    last = None
    for pattern in _ASSERTED:
        for match in pattern.finditer(text):
            if _DENIED.search(text[max(0, match.start() - 30) : match.end(1)]) and not match[1]:
                continue
            if last is None or match.start(1) > last.start(1):
                last = match
    if last is None:
        return None
    return "?" if names_another(text[last.end(1) :]) else last[1].upper()
