"""Units: ignored, unless gold and answer both have one and they differ.

Words after a formula are a unit only if they name what is counted or measured; "even", "or more", "mod 7" say something
about the number, and are compared as words.
"""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from typing import NamedTuple

_KINDS: dict[str, dict[str, int | str]] = {
    "length": {
        "m meter metre": 1, "cm centimeter centimetre": "1/100", "mm millimeter millimetre": "1/1000",
        "km kilometer kilometre": 1000, "inch in inches": "0.0254", "ft foot feet": "0.3048", "yard yd": "0.9144",
        "mile mi": "1609.344", "nm nanometer nanometre": "1e-9",
    },
    "time": {
        "s second sec": 1, "minute min": 60, "hour h hr": 3600, "day": 86400, "week": 604800,
        "ms millisecond": "1/1000", "month": 2629746, "year yr": 31556952,
    },
    "mass": {"kg kilogram": 1, "g gram": "1/1000", "mg milligram": "1e-6", "lb pound": "0.45359237",
             "oz ounce": "0.028349523125", "ton tonne": 1000},
    "money": {"dollar usd buck": 1, "cent penny pennies": "1/100"},
    "euro": {"euro eur": 1},
    "volume": {"liter litre l": 1, "ml milliliter millilitre": "1/1000", "gallon": "3.785411784"},
    "before noon": {"am": 1},
    "after noon": {"pm": 1},
    "angle": {"degree deg": 1, "radian rad": "57.29577951308232"},
    "warmth": {"celsius": 1},
    "warmth in Fahrenheit": {"fahrenheit": 1},
    "warmth in kelvin": {"kelvin": 1},
    "force": {"newton n": 1},
    "energy": {"joule j": 1, "kj": 1000, "cal calorie": "4.184", "kcal": 4184, "ev": "1.602176634e-19"},
    "power": {"watt w": 1, "kw": 1000}, "voltage": {"volt v": 1}, "current": {"ampere amp a": 1},
    "frequency": {"hz hertz": 1}, "pressure": {"pa pascal": 1},
}  # fmt: skip
# name: (what it measures, how many of the first unit of that kind)
_UNITS = {
    name: (kind, Fraction(size))
    for kind, units in _KINDS.items()
    for names, size in units.items()
    for name in names.split()
}
_ABBREVIATED = {"mph": "mile / hour", "kph": "km / hour", "kmh": "km / hour", "kmph": "km / hour", "fps": "ft / s"}
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cubed": 3}
_DIVIDES = {"per", "/", "an", "each", "every"}
_IGNORED = frozenset(
    [
        "of",
        "the",
        "a",
        "in",
        "total",
        "long",
        "wide",
        "high",
        "tall",
        "old",
        "away",
        "left",
        "apart",
        "altogether",
        "unit",
        "units",
    ]
)
# Words that say something about the number before them, or that there is another answer, or none.
_STATEMENTS = frozenset(
    [
        "is",
        "are",
        "was",
        "were",
        "not",
        "no",
        "or",
        "nor",
        "if",
        "when",
        "where",
        "for",
        "even",
        "odd",
        "prime",
        "composite",
        "increasing",
        "decreasing",
        "convex",
        "concave",
        "positive",
        "negative",
        "nonnegative",
        "more",
        "less",
        "fewer",
        "than",
        "least",
        "most",
        "greater",
        "smaller",
        "larger",
        "above",
        "below",
        "between",
        "mod",
        "modulo",
        "times",
        "factorial",
        "to",
        "remainder",
        "maybe",
        "perhaps",
        "possibly",
        "unless",
        "except",
        "either",
        "neither",
        "both",
        "any",
        "all",
        "none",
        "only",
        "true",
        "false",
        "yes",
        "undefined",
        "infinite",
        "finite",
        "rational",
        "irrational",
        "divisible",
        "multiple",
        "multiples",
        "solution",
        "solutions",
        "up",
        "squared",
        "cubed",
        "half",
        "double",
        "triple",
        "quarter",
        "third",
        "plus",
        "minus",
        "divided",
        "multiplied",
        "over",
        "root",
        "unknown",
        "smallest",
        "largest",
        "divide",
    ]
)


class Unit(NamedTuple):
    """A unit that is known: the power of each kind of quantity, and how many of the first units of these it is."""

    powers: dict[str, int]
    size: Fraction


def is_statement(words: str) -> bool:
    """Whether words after a formula say something about it instead of naming a unit."""
    found = re.findall(r"[a-z]+", words.lower())
    if len(found) > 1 and known(words) is not None:  # metres squared
        return False
    if "long" in found and {"digit", "letter", "character"} & set(map(_singular, found)):  # 7 digits long
        return True
    return any(word in _STATEMENTS or _singular(word) in _STATEMENTS for word in found)


def is_angle(words: str) -> bool:
    """Whether words are a unit of angles."""
    unit = known(words)
    return unit is not None and unit.powers == {"angle": 1}


def factor(gold: str, answer: str) -> Fraction | None:
    """What takes a number in the answer's unit to the gold's, None if the two clash.

    Units of one quantity are converted. Other words clash unless those of one side are among those of the other.
    """
    known_gold, known_answer = known(gold), known(answer)
    if known_gold is not None and known_answer is not None:
        return known_answer.size / known_gold.size if known_gold.powers == known_answer.powers else None
    words_gold, words_answer = names(gold), names(answer)
    if known_gold is None and known_answer is None:
        return Fraction(1) if words_gold <= words_answer or words_answer <= words_gold else None
    measured, others = (words_gold, words_answer) if known_gold is not None else (words_answer, words_gold)
    return Fraction(1) if measured <= others or not others else None  # metres, metres of rope


def names(unit: str) -> set[str]:
    """The words of a unit, in the singular."""
    return {_singular(word) for word in re.findall(r"[a-z]+", unit.lower()) if word not in _IGNORED | _DIVIDES}


def _singular(word: str) -> str:
    if word in _UNITS:
        return word
    for plural, singular in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("s", "")):
        if word.endswith(plural) and len(word) > len(plural) + 1:
            return word.removesuffix(plural) + singular
    return word


def known(unit: str) -> Unit | None:
    """A unit all of whose words are known, such as cm, square feet, m/s^2; else None."""
    text = re.sub(r"[a-z]+", lambda m: _ABBREVIATED.get(m[0], m[0]), unit.lower())
    text = re.sub(r"degrees? (?=celsius|fahrenheit)", "", text)
    powers: Counter[str] = Counter()
    size, sign, pending, last = Fraction(1), 1, 0, ("", Fraction(1), 0)
    for token in re.findall(r"[a-z]+|-?\d+|/|\S", text):
        if token in _DIVIDES:
            sign, pending = -1, 0
        elif token.lstrip("-").isdigit() or token in {"squared", "cubed"}:
            power = _POWERS.get(token) or int(token)
            if not last[0] or abs(power) > 9:
                return None
            kind, one, used = last
            powers[kind] += (power - 1) * used
            size *= one ** ((power - 1) * used)
            last = ("", one, 0)
        elif token in _POWERS:
            pending = _POWERS[token]
        elif _singular(token) in _UNITS:
            kind, one = _UNITS[_singular(token)]
            power = sign * (pending or 1)
            powers[kind] += power
            size *= one**power
            last, pending = (kind, one, sign if not pending else 0), 0
        elif token not in _IGNORED | {"^", "*", "(", ")", "{", "}", ".", "cdot", "\\\\cdot"}:
            return None
    measured = {kind: power for kind, power in powers.items() if power}
    return Unit(measured, size) if powers and not pending else None
