"""The mathematics of a text: what stands between dollars and their kin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

FEW_WORDS = 4  # between two dollars; more of them are prose

_DELIMITERS = re.compile(r"\\[\[\]()\\$]|\$\$?")
_CLOSES = {"$$": "$$", "$": "$", "\\[": "\\]", "\\(": "\\)"}
_ALIGNED = re.compile(r"\\begin\{(?:align|gather|split|eqnarray)[a-z]*\*?\}")
_NO_ANSWER = re.compile(r"\W*(?:black)?(?:square|triangle|lozenge|Box|qed|QED|checkmark)*\W*$")
_WORD = re.compile(r"[A-Za-z]{2,}")
_MARKUP = re.compile(r"\\(?:text|mbox|mathrm|textbf|operatorname)\s{0,9}\{[^{}]{0,400}\}|\\[A-Za-z]+")


class Span(NamedTuple):
    """Mathematics between delimiters: the places where they start, where what is in them starts and ends, their end."""

    start: int
    inside: int
    close: int
    end: int


def maths(text: str) -> Iterator[Span]:
    """All mathematics of a text, in one pass. A delimiter that is not closed before the next of its kind is ignored."""
    opening: re.Match[str] | None = None
    for match in _DELIMITERS.finditer(text):
        if opening and match[0] == _CLOSES[opening[0]]:
            if _looks_like_maths(text[opening.end() : match.start()]):
                yield Span(opening.start(), opening.end(), match.start(), match.end())
                opening = None
            else:  # prose between two sums of money: the second dollar may open
                opening = match if match[0] in _CLOSES else None
        elif match[0] in _CLOSES and (opening is None or match[0] != "$"):
            opening = match


def is_end_of_proof(formula: str) -> bool:
    """Whether mathematics is only the sign at the end of a proof."""
    return _NO_ANSWER.match(formula) is not None


def last_row(formula: str) -> str:
    """The last line of an aligned derivation, or the formula as it is."""
    aligned = _ALIGNED.search(formula)
    if not aligned:
        return formula.strip()
    inside = formula[aligned.end() :].rpartition("\\end")[0] or formula[aligned.end() :]
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]{0,40}\])?", inside) if row.strip()]
    return rows[-1].replace("&", " ").strip() if rows else formula.strip()


def _looks_like_maths(span: str) -> bool:
    """Whether what stands between two dollar signs is a formula and not prose between two sums of money."""
    words = _words(span)
    money = span.lstrip()[:1].isdigit() and (any(map(str.islower, words)) or span.rstrip()[-1:] in "=+-*/(,")
    return bool(span.strip()) and len(words) <= FEW_WORDS and not money


def word_count(text: str) -> int:
    """How many words stand in a text outside of mathematical commands."""
    return len(_words(text))


def _words(text: str) -> list[str]:
    return _WORD.findall(_MARKUP.sub(" ", text))
