"""Units: ignored, unless gold and answer both have one and they differ."""

from __future__ import annotations

import re
from fractions import Fraction

_KINDS: dict[str, dict[str, int | str]] = {
    "length": {
        "m meter metre": 1, "cm centimeter centimetre": "1/100", "mm millimeter millimetre": "1/1000",
        "km kilometer kilometre": 1000, "inch in inches": "0.0254", "ft foot feet": "0.3048", "yard yd": "0.9144",
        "mile mi": "1609.344", "nm nanometer": "1e-9",
    },
    "time": {
        "s second sec": 1, "minute min": 60, "hour h hr": 3600, "day": 86400, "week": 604800,
        "ms millisecond": "1/1000",
    },
    "mass": {"kg kilogram": 1, "g gram": "1/1000", "mg milligram": "1e-6", "lb pound": "0.45359237",
             "oz ounce": "0.028349523125"},
    "money": {"dollar usd buck": 1, "cent penny pennies": "1/100"},
    "volume": {"liter litre l": 1, "ml milliliter millilitre": "1/1000"},
    "before noon": {"am": 1},
    "after noon": {"pm": 1},
    "angle": {"degree deg": 1, "radian rad": "57.29577951308232"},
}  # fmt: skip
# name: (what it measures, how many of the first unit of that kind)
_UNITS = {
    name: (kind, Fraction(size))
    for kind, units in _KINDS.items()
    for names, size in units.items()
    for name in names.split()
}

_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cubed": 3}


def _power(words: list[str]) -> int:
    """The power that a unit is written with; 0 where none is."""
    return next((int(w) if w.isdigit() else _POWERS[w] for w in words if w.isdigit() or w in _POWERS), 0)


def factor(gold: str, answer: str) -> Fraction | None:
    """What takes a number in the answer's unit to the gold's: 1 where a unit is unknown, None where they clash.

    Only single units such as `cm`, `square feet` or `inches^2` are known.
    """
    known_gold, known_answer = _known(gold), _known(answer)
    if known_gold is None or known_answer is None:
        return Fraction(1)
    if known_gold[0] != known_answer[0]:
        return None
    powers = {known_gold[2], known_answer[2]} - {0}
    if len(powers) > 1:  # one that is left out is no clash: 15 cm for 15 cm^2
        return None
    power = powers.pop() if powers else 1
    return (known_answer[1] / known_gold[1]) ** power


def _known(unit: str) -> tuple[str, Fraction, int] | None:
    """(what it measures, size, power or 0) of a unit that stands alone, else None."""
    words = re.findall(r"[a-z]+|\d+", unit.lower())
    power = _power(words)
    names = [w for w in words if not w.isdigit() and w not in _POWERS]
    if len(names) != 1:
        return None
    name = names[0] if names[0] in _UNITS else names[0].removesuffix("s")
    return (*_UNITS[name], power) if name in _UNITS else None
