"""Exact numbers: integers, fractions, decimals and e-notation as people write them, without floating point."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

MAX_EXPONENT = 5000  # 1e5000 is still a number; beyond it nothing is computed
MAX_DIGITS = 5000

_DECIMAL = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,5})?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?")


def read_decimal(text: str) -> Fraction | None:
    """The exact value of an integer, a decimal or e-notation, with thousands separators or without; else None."""
    text = text.strip().replace("\u2212", "-")
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if len(text) > MAX_DIGITS or not _DECIMAL.fullmatch(text):
        return None
    _, _, exponent = text.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_EXPONENT:
        return None
    return Fraction(Decimal(text))


def last_place(text: str) -> Fraction | None:
    """The value of one unit in the last digit of a decimal: 0.1 for 1.6, 1e32 for 4.5e33, 1 for 90; else None."""
    if read_decimal(text) is None:
        return None
    mantissa, _, exponent = text.strip().lower().partition("e")
    places = len(mantissa.partition(".")[2])
    return Fraction(10) ** (int(exponent or 0) - places)
