"""Answers as people and models type them, brought to one plain dialect of LaTeX before they are read."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from vllm_rast.grading.boxes import closing_brace
from vllm_rast.grading.latex.spellings import CONGRUENCES, COUNTS

_CHARACTERS = {
    "\u2212\u2013\u2014": "-", "\u00d7": r"\times ", "\u00b7\u22c5\u2217\u2022": r"\cdot ", "\u00f7\u2044": "/",
    "\u221a": r"\sqrt ", "\u03c0": r"\pi ", "\u221e": r"\infty ", "\u2264\u2a7d\u2266": r"\le ",
    "\u2265\u2a7e\u2267": r"\ge ",
    "\u2260": r"\ne ", "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2208": r"\in ", "\u2205": r"\emptyset ",
    "\u211d": r"\mathbb{R}", "\u00b0": r"\degree ", "\u00b1": r"\pm ", "\u2213": r"\mp ",
    "\u2248\u2245\u2243": r"\approx ", "\u2261": r"\equiv ",
    "\u03b8": r"\theta ", "\u03b1": r"\alpha ", "\u03b2": r"\beta ", "\u03b3": r"\gamma ", "\u03bb": r"\lambda ",
    "\u03bc": r"\mu ", "\u03c6": r"\phi ", "\u03c9": r"\omega ", "\u2032\u2019": "'", "\u201c\u201d": '"',
    "\u221b": r"\sqrt[3]", "\u221c": r"\sqrt[4]", "\u20ac\u00a3\u00a5\uffe5\u00a2\u200b\u200c\u200d\u2060\ufeff": "",
    "\u230a": r"\lfloor ", "\u230b": r"\rfloor ", "\u2308": r"\lceil ", "\u2309": r"\rceil ", "\u3002\uff61": ".",
    "\u3001\u060c": ",", "\u2223": "|", "\u2115": r"\mathbb{N}", "\u2124": r"\mathbb{Z}", "\u211a": r"\mathbb{Q}",
    "\u2016": r"\|", "\u22c3": r"\cup ", "\u2192": r"\to ", "\u21d2": r"\implies ", "\u2026": "...",
}  # fmt: skip
_TRANSLATE = {ord(char): put for chars, put in _CHARACTERS.items() for char in chars}
NEW_ROW = "\x01"  # stands for the double backslash between the rows of a matrix

_NEARLY = r"(?:approximately|approx\.?|about|roughly|\\approx)"
_REWRITES = [
    (re.compile(pattern), put)
    for pattern, put in (
        (  # \left\{ \begin{array} ... \end{array} \right.
            r"\\left\s?\\\{\s?\\begin\{(array|aligned|matrix)\}(?:\{[lcr| ]{0,9}\})?"
            r"([^\x01]{1,900}?)\\end\{\1\}\s?\\right\s?\.",
            r"\\begin{cases}\2\\end{cases}",
        ),
        (r"\\{2}(?:\[[^\]]*\])?", NEW_ROW),
        (r"\\(?:left|right|middle)\.", ""),
        (r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])", ""),
        (r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|hfill|noindent|Large|large)(?![A-Za-z])", " "),
        (r"\\(?:checkmark|therefore|blacksquare|square|Box|qed)(?![A-Za-z])", " "),
        (r"\\(?:hspace|vspace|hphantom|phantom|label|tag)\*?\{[^{}]*\}", " "),
        (r"(?<=\d)(?:,\\!|\{,\}|\\,|\\!,|\{,\\!\})\s*(?=\d{3}(?!\d))", ""),  # 10,\!080 and 10{,}080
        (r"(?<=\d)\{,\}(?=\d)", "."),  # a decimal comma: 3{,}5
        (r"(?<=\d)\.\s*\\!\s*(?=\d)", "."),
        (r"\\!", ""),
        (r"(?<=\d)\s*[xX]\s*(?=10\s*\^)", r"\\times "),  # 6.02 x 10^23
        (
            r"(?<=\d)\s*\^\s*\{?\s*(?:\\(?:text|mathrm|textrm|rm|textup)\s*\{?)?\s*(?:st|nd|rd|th)\s*\}?\s*\}?(?![A-Za-z])",
            "",
        ),
        (rf"\\text\s*\{{\s*\(\s*(?:or )?{_NEARLY}\s*\}}([^{{}}()]*)\\text\s*\{{\s*\)\s*\}}", r" \\approx \1"),
        (rf"\\text\s*\{{\s*\(\s*(?:or )?{_NEARLY}\s*([\d.,]+)\s*\)\s*\}}", r" \\approx \1"),
        (rf"\(\s*(?:or )?(?:\\text\s*\{{\s*)?{_NEARLY}\s*\}}?\s*([\d.,]+)\s*\)\s*$", r" \\approx \1"),
        (r"(?<=\d)\s*\^\s*(?:\{\s*o\s*\}|o(?![A-Za-z]))", r"\\degree "),
        (r"(?<=\d)\s*\((?:in )?([a-z]{2,}[a-z ]*)\)\s*$", r" \1"),  # 5 (in cm)
        (r"\\(?:text)?color\s*\{[^{}]*\}|\\(?:underline|uline)(?![A-Za-z])", ""),
        (r"\\(?:[,;:>]|quad(?![A-Za-z])|qquad(?![A-Za-z])|\s)|~", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\\\$|\\(?:pounds|euro)(?![A-Za-z])", ""),
        (r"\\%", "%"),
        (r"\\(?:#|&)", " "),
        *COUNTS,
        *CONGRUENCES,
        (rf"[.,;]\s*(?={NEW_ROW}|\\end\s?\{{)|[,;]\s*(?=&)", ""),  # after a row or a cell
        (  # (f \circ g)(x)
            r"\(\s*([A-Za-z])\s*\\circ\s*([A-Za-z])\s*\)\s*\(([^()]{1,40})\)",
            r"\1(\2(\3))",
        ),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degree(?:s)?(?![A-Za-z])", r"\\degree "),
        (r"\\(?:leqslant|leqq|leq|le)(?![A-Za-z])", r"\\le "),
        (r"\\(?:geqslant|geqq|geq|ge)(?![A-Za-z])", r"\\ge "),
        (r"\\(?:neq|ne)(?![A-Za-z])|!=", r"\\ne "),
        (r"<=", r"\\le "),
        (r">=", r"\\ge "),
        (r"==+", "="),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\b(?:np|numpy|math|sympy)\.(?=[a-z])", ""),
        (r"\\(?:text|mathrm)\s?\{\s?:\s?\}|\{:\}|\\colon(?![A-Za-z])", ":"),
        (r"^\s*\{?\s*([^{}\\]{1,40})\\over(?![A-Za-z])\s*([^{}\\]{1,40})\}?\s*$", r"\\frac{\1}{\2}"),
        (r"\\mathrm\s?\{([a-z]{1,3})\^(\d)\}", r"\\text{\1}^\2"),
        (r"^\((\d+)\)_", r"\1_"),  # 1011 in base 2
        (r"(?<=\d)(\s*(?:\\(?:text|mathrm)\s?\{)?\s*)([aApP])\.\s?[mM]\.?(?![A-Za-z])", r"\1 \2m"),
        (r"(?<=[0-9A-Fa-f])\\(?:mathrm|text)\s?\{([A-F]{1,4})\}(?=[0-9A-F]{0,9}_)", r"\1"),  # 1A in base 16
        (  # m/s and m/s^2 as fractions of units
            r"\\frac\s?\{\\(?:mathrm|text)\s?\{([a-zA-Z]{1,4})\}\}\{\\(?:mathrm|text)\s?"
            r"(?:\{([a-zA-Z]{1,4})\}(\^\{?\d\}?)?|\{([a-zA-Z]{1,4}\^?\d?)\})\}",
            r"\\text{ \1/\2\3\4}",
        ),
        (r"\*\*", "^"),
        (r"\\(?:langle|lparen)(?![A-Za-z])", "("),
        (r"\\(?:rangle|rparen)(?![A-Za-z])", ")"),
        (r"\\lbrack(?![A-Za-z])", "["),
        (r"\\rbrack(?![A-Za-z])", "]"),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\[lr]?vert(?![A-Za-z])", "|"),
        (r"\\(?:land|wedge)(?![A-Za-z])", r"\\text{and}"),
        (r"\\(?:lor|vee)(?![A-Za-z])", r"\\text{or}"),
        (r"\\(?:\(|\)|\[|\])|\$", " "),
    )
]
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")
_ESCAPED_TWICE = re.compile(r"\\{2}(?=[A-Za-z]{2})")
_MARKDOWN = re.compile(r"^(?:\*\*|__|`)+|(?:\*\*|__|`)+$")


def clean(text: str) -> str:
    """The answer in the plain dialect: no dollars, no sizes, no spacing commands, one name for each symbol."""
    text = text.strip()
    if text.isdigit() and text.isascii():  # most answers: nothing to do
        return text
    if not text.isascii():
        text = plain_characters(text)
    text = _unbox(_MARKDOWN.sub("", text))
    if "\\begin" not in text:
        text = _ESCAPED_TWICE.sub(r"\\", text)
    for pattern, put in _REWRITES:
        text = pattern.sub(put, text)
    return strip_ends(_GOES_ON.sub(_repeating, text))


_GOES_ON = re.compile(r"(?<![\d.])(\d*\.)(\d+)\s*(?:\.{3,}|\\[lc]?dots(?![A-Za-z]))")
MAX_PERIOD = 6  # of a decimal that goes on; longer ones are not seen


def _repeating(match: re.Match[str]) -> str:
    """0.1666... as 0.1\\overline{6}: the shortest period that its last digits show three times."""
    digits = match[2]
    for period in range(1, MAX_PERIOD + 1):
        end = digits[-period:]
        if not digits.endswith(end * 3):
            continue
        kept = len(digits)
        while kept > period and digits[kept - 1 - period] == digits[kept - 1]:
            kept -= 1
        return f"{match[1]}{digits[: kept - period]}\\overline{{{digits[kept - period : kept]}}}"
    return match[0]


def plain_characters(text: str) -> str:
    """Digits, letters, fractions, indices and signs of all scripts, in ASCII and LaTeX as far as there is a form."""
    return _JOINED_INDEX.sub("", "".join(map(_plain_character, text)))


_JOINED_INDEX = re.compile(r"\x02\}\^\{\x02|\x03\}_\{\x03|\x02|\x03")  # x¹² is one power


@lru_cache(maxsize=4096)
def _plain_character(char: str) -> str:
    if char.isascii():
        return char
    if ord(char) in _TRANSLATE:
        return _TRANSLATE[ord(char)]
    if unicodedata.decimal(char, None) is not None:
        return str(unicodedata.decimal(char))
    if unicodedata.category(char) == "Zs":
        return " "
    form, _, parts = unicodedata.decomposition(char).partition(" ")
    plain = unicodedata.normalize("NFKC", char)
    if form == "<fraction>":
        top, _, bottom = plain.partition("\u2044")
        return rf"\frac{{{top}}}{{{bottom or 1}}}"
    if form in {"<super>", "<sub>"} and len(plain) == 1:
        mark, opening = ("\x02", "^{") if form == "<super>" else ("\x03", "_{")
        return opening + mark + _plain_character(plain) + mark + "}"
    if form in {"<wide>", "<narrow>", "<font>", "<compat>"} and plain != char:
        return plain_characters(plain)
    return char


def strip_ends(text: str) -> str:
    """Without the punctuation that ends a sentence or opens a line."""
    while True:
        shorter = (
            text.strip(" \t\r\n*`")
            .rstrip(".,;:!" if not text.endswith("!") else ".,;:")
            .removesuffix(NEW_ROW)
            .rstrip("\\")
        )
        shorter = shorter.lstrip(":;,").strip()
        if shorter == text:
            return text
        text = shorter


def _unbox(text: str) -> str:
    """Without the boxes round the answer or parts of it."""
    match = _BOXED.search(text)
    while match:
        close = closing_brace(text, match.end())
        if close is None:
            break
        text = f"{text[: match.start()]} {text[match.end() + 1 : close]} {text[close + 1 :]}"
        match = _BOXED.search(text)
    return text
