"""Answers as people and models type them, brought to one plain dialect of LaTeX before they are read."""

from __future__ import annotations

import re

from vllm_rast.grading.extract import closing_brace

_CHARACTERS = {
    "\u2212\u2013\u2014": "-", "\u00d7": r"\times ", "\u00b7\u22c5": r"\cdot ", "\u00f7\u2044": "/",
    "\u221a": r"\sqrt ", "\u03c0": r"\pi ", "\u221e": r"\infty ", "\u2264": r"\le ", "\u2265": r"\ge ",
    "\u2260": r"\ne ", "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2208": r"\in ", "\u2205": r"\emptyset ",
    "\u211d": r"\mathbb{R}", "\u00b0": r"\degree ", "\u00b1": r"\pm ", "\u2213": r"\mp ", "\u2248": r"\approx ",
    "\u03b8": r"\theta ", "\u03b1": r"\alpha ", "\u03b2": r"\beta ", "\u03b3": r"\gamma ", "\u03bb": r"\lambda ",
    "\u03bc": r"\mu ", "\u03c6": r"\phi ", "\u03c9": r"\omega ", "\u2032\u2019": "'", "\u201c\u201d": '"',
    "\u00bd": r"\frac{1}{2}", "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}", "\u2153": r"\frac{1}{3}",
    "\u2154": r"\frac{2}{3}", "\u00a0\u2009\u202f": " ", "\u20ac\u00a3\u200b": "", "\u230a": r"\lfloor ",
    "\u230b": r"\rfloor ", "\u2308": r"\lceil ", "\u2309": r"\rceil ", "\uff0c": ",", "\u3002": ".",
}  # fmt: skip
_TRANSLATE = {ord(char): put for chars, put in _CHARACTERS.items() for char in chars}
_RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b\u207f"
_SUPERSCRIPTS = str.maketrans(_RAISED, "0123456789-n")
_SUPERSCRIPT = re.compile(f"[{_RAISED}]+")
NEW_ROW = "\x01"  # stands for the double backslash between the rows of a matrix

_REWRITES = [
    (re.compile(pattern), put)
    for pattern, put in (
        (r"\\{2}(?:\[[^\]]*\])?", NEW_ROW),
        (r"\\(?:left|right|middle)\.", ""),
        (r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])", ""),
        (r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|hfill|noindent|Large|large)(?![A-Za-z])", " "),
        (r"\\(?:hspace|vspace|hphantom|phantom|label|tag)\*?\{[^{}]*\}", " "),
        (r"(?<=\d)(?:,\\!|\{,\}|\\,|\\!,|\{,\\!\})\s*(?=\d{3}(?!\d))", ""),  # 10,\!080 and 10{,}080
        (r"(?<=\d)\.\s*\\!\s*(?=\d)", "."),
        (r"\\!", ""),
        (r"(?<=\d)\s*[xX]\s*(?=10\s*\^)", r"\\times "),  # 6.02 x 10^23
        (r"(?<![\d.])(\d*\.\d*?)(\d{1,6}?)\2{2,}\s*(?:\.{3,}|\\[lc]?dots(?![A-Za-z]))", r"\1\\overline{\2}"),
        (r"(?<=\d)\s*\^\s*\{?\s*(?:\\text\s*\{)?\s*(?:st|nd|rd|th)\s*\}?\s*\}?(?![A-Za-z])", ""),
        (r"(?<=\d)\s*\^\s*(?:\{\s*o\s*\}|o(?![A-Za-z]))", r"\\degree "),
        (r"(?<=\d)\s*\((?:in )?([a-z]{2,}[a-z ]*)\)\s*$", r" \1"),  # 5 (in cm)
        (r"\\(?:text)?color\s*\{[^{}]*\}|\\(?:underline|uline)(?![A-Za-z])", ""),
        (r"\\(?:[,;:>]|quad(?![A-Za-z])|qquad(?![A-Za-z])|\s)|~", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\[dt]binom(?![A-Za-z])", r"\\binom"),
        (r"\\\$|\\(?:pounds|euro)(?![A-Za-z])", ""),
        (r"\\%", "%"),
        (r"\\(?:#|&)", " "),
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
        (r"(?<=\d)\s*([aApP])\.\s?[mM]\.?", r" \1m"),
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
    text = _SUPERSCRIPT.sub(lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text).translate(_TRANSLATE)
    text = _unbox(_MARKDOWN.sub("", text))
    if "\\begin" not in text:
        text = _ESCAPED_TWICE.sub(r"\\", text)
    for pattern, put in _REWRITES:
        text = pattern.sub(put, text)
    return strip_ends(text)


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
