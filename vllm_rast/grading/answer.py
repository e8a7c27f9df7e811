"""An answer, read once and compared often: as it was written, cleaned, as a number and as a tree."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cached_property, lru_cache

from vllm_rast.grading.latex.clean import clean
from vllm_rast.grading.latex.functions import applied
from vllm_rast.grading.latex.numbers import read_decimal
from vllm_rast.grading.latex.parse import Node, parse
from vllm_rast.grading.latex.tokens import MAX_CHARS, Unreadable, tokenize

_BETWEEN_DIGITS = re.compile(r"(?<=\d)\s+(?=[\d.])")
_COMMA_NUMBERS = re.compile(r"\d,\d{3}(?!\d)")


def squeezed(text: str) -> str:
    """A text without spaces, except one between two numbers."""
    return "".join(_BETWEEN_DIGITS.sub("\x02", text).split())


class Answer:
    """A gold's or a model's answer. One that is too long to be read is only compared as text."""

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def of(cls, text: str) -> Answer:
        """The answer of that text; of the same text, the same one."""
        return _read(text)

    @property
    def is_long(self) -> bool:
        return len(self.text) > MAX_CHARS

    @cached_property
    def cleaned(self) -> str:
        """In one dialect of LaTeX."""
        return self.text if self.is_long else clean(self.text)

    @cached_property
    def compact(self) -> str:
        """Cleaned, without the spaces that mean nothing."""
        return squeezed(self.cleaned)

    @cached_property
    def number(self) -> Fraction | None:
        """The exact value of a plain number."""
        return None if self.is_long else read_decimal(self.cleaned)

    @cached_property
    def tree(self) -> Node | None:
        """What it means; None if it cannot be read."""
        return self._parsed(thousands=True)

    @property
    def has_comma_numbers(self) -> bool:
        """Whether a comma may group thousands or separate two numbers."""
        return _COMMA_NUMBERS.search(self.text) is not None

    @cached_property
    def applied(self) -> tuple[frozenset[str], frozenset[str]]:
        """The letters that are applied as functions are, f(x), and those that stand alone."""
        try:
            return ("(" in self.cleaned and applied(tokenize(self.cleaned))) or (frozenset(), frozenset())
        except Unreadable:
            return frozenset(), frozenset()

    def tree_with(self, functions: frozenset[str], thousands: bool = True) -> Node | None:
        """What it means if some letters are functions."""
        return self._parsed(thousands, functions)

    def _parsed(self, thousands: bool, functions: frozenset[str] = frozenset()) -> Node | None:
        try:
            return parse(self.text, thousands, functions)
        except Unreadable:
            return None


def functions_of(*answers: Answer) -> frozenset[str]:
    """The letters that are functions in some answers: applied in one, and alone in none, as the h of h(a + b)/2 is."""
    return frozenset().union(*(a.applied[0] for a in answers)).difference(*(a.applied[1] for a in answers))


@lru_cache(maxsize=8192)
def _read(text: str) -> Answer:
    return Answer(text)
