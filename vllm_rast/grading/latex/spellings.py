"""Ways to write counts and congruences, each brought to one: \\binom{10}{3}, P(10,3), a \\pmod{m}."""

from __future__ import annotations

_NUMBER = r"\{?\s?(\d{1,4}|[a-z])\s?\}?"
_UPRIGHT = r"(?:\\(?:mathrm|text|operatorname|mathsf|rm)\s?)?\{?\s?(?:\\rm\s)?"
_C, _P = rf"{_UPRIGHT}C\s?\}}?", rf"{_UPRIGHT}P\s?\}}?"
_BEFORE = r"(?:\{\s?\}\s?|(?<![A-Za-z\d)}\]]))[_^]\s?"  # an index that belongs to no letter before it
# C_2^2 may be the square of a constant, so that the lower number is at least 3.
_LOWER = r"_\s?\{?\s?([3-9]|[1-9]\d{1,3}|n)\s?\}?\s?"
_UPPER = r"\^\s?\{?\s?(\d{1,3}|[kmr])\s?\}?\s?"
_ALONE = r"(?<![\w.^{}\\])(\d{1,3})\s?LETTER\s?(\d{1,3})(?![\w.^{}])"
_CHOOSE, _ARRANGE = r"\\binom{\1}{\2}", r"P(\1,\2)"

COUNTS = [
    (rf"{_NUMBER}\s?(?:\\(?:text|mathrm|mbox)\s?\{{\s?choose\s?\}}|\bchoose\b)\s?{_NUMBER}", _CHOOSE),
    (r"\bn([CP])r\s?\(", r"\1("),
    (r"\\(?:mathrm|text|operatorname)\s?\{\s?([CP])\s?\}(?=\s?\()", r"\1"),
    (rf"{_BEFORE}{_NUMBER}\s?{_C}\s?_\s?{_NUMBER}", _CHOOSE),
    (rf"{_BEFORE}{_NUMBER}\s?{_P}\s?_\s?{_NUMBER}", _ARRANGE),
    (_ALONE.replace("LETTER", "C"), _CHOOSE),
    (_ALONE.replace("LETTER", "P"), _ARRANGE),
    (rf"(?<![A-Za-z\\]){_C}\s?{_LOWER}{_UPPER}", _CHOOSE),
    (rf"(?<![A-Za-z\\]){_C}\s?{_UPPER}{_LOWER}", r"\\binom{\2}{\1}"),
    (rf"(?<![A-Za-z\\])[AP]\s?{_LOWER}{_UPPER}", _ARRANGE),
]
CONGRUENCES = [
    (
        r"\\(?:text|mathrm|operatorname|textrm)\s?\{\s?(\(?)\s?mod(?:ulo)?\s?(\d{0,9})\s?(\)?)\s?\}",
        r"\1\\pmod \2\3",
    ),
    (r"(?<![A-Za-z\\])mod(?:ulo)?(?![A-Za-z])", r"\\pmod "),
    (r"\\mod(?![A-Za-z])", r"\\bmod "),
    (r"\(\s?\\[pb]mod\s?\{?([^(){}]{1,40})\}?\s?\)", r"\\pmod{\1}"),
]
