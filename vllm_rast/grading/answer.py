"""An answer, read once and compared often: as it was written, cleaned, as a number and as a tree."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cached_property, lru_cache

from vllm_rast.grading.latex.clean import clean
from vllm_rast.grading.latex.numbers import read_decimal
from vllm_rast.grading.latex.parse import Node, parse
from vllm_rast.grading.latex.tokens import MAX_CHARS, Unreadable

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

    @cached_property
    def tree_of_pairs(self) -> Node | None:
        """What it means if 100,200 are two numbers."""
        return self._parsed(thousands=False)

    @property
    def has_comma_numbers(self) -> bool:
        """Whether a comma may group thousands or separate two numbers."""
        return _COMMA_NUMBERS.search(self.text) is not None

    def _parsed(self, thousands: bool) -> Node | None:
        try:
            return parse(self.text, thousands)
        except Unreadable:
            return None


@lru_cache(maxsize=8192)
def _read(text: str) -> Answer:
    return Answer(text)
