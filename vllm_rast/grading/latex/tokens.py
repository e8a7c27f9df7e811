"""Cleaned answers cut into tokens: numbers, letters, commands, words, separators and signs."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from vllm_rast.grading.boxes import closing_brace
from vllm_rast.grading.latex.clean import NEW_ROW
from vllm_rast.grading.latex.numbers import read_decimal

MAX_CHARS = 3000  # longer answers are compared as text
MAX_TOKENS = 1500


class Unreadable(ValueError):
    """An answer that is not of the forms known here; it is compared as text and by math-verify."""


class Token(NamedTuple):
    """kind: num (value: Fraction; text: as written), letter, cmd, word, sep (and, or), sign (one character), env.

    env: the name of an environment, after its \\begin
    """

    kind: str
    text: str
    value: Fraction | None = None


def word_set(words: str) -> frozenset[str]:
    return frozenset(words.split())


FUNCTIONS = word_set(
    "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth asin acos atan ln log lg exp"
    " gcd lcm max min det abs floor ceil Re Im arg"
)
_PLAIN_COMMANDS = {  # words that people type for commands
    **{name: "\\" + name for name in FUNCTIONS},
    "sqrt": "\\sqrt", "pi": "\\pi", "theta": "\\theta", "alpha": "\\alpha", "beta": "\\beta", "lambda": "\\lambda",
    "omega": "\\omega", "infinity": "\\infty", "infty": "\\infty", "inf": "\\infty", "oo": "\\infty", "frac": "\\frac",
    "union": "\\cup", "times": "\\times", "cdot": "\\cdot", "binom": "\\binom",
}  # fmt: skip
SHORT_WORDS = word_set(
    "yes no odd one two six ten day mon tue wed thu fri sat sun dne men may the is at of to in as by if all any none"
    " an are has was hrs hr min sec mph cm mm km kg mg ml ft lb lbs oz nm Hz eV kJ kW cal mol rad deg am pm"
    " AM PM USD usd per box boy man cat dog car pen cup red not nor non"
)
_UNITS_AFTER_NUMBERS = word_set(
    "st nd rd th Am Pm cm mm km kg mg ml mL nm ft lb lbs oz Hz eV kJ kW am pm AM PM in yd mi hr"
)
_RUN = re.compile(
    r"^([a-zA-Z]?)(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi)([a-zA-Z]?)$"
)
_SYNONYMS = {"varphi": "phi", "varepsilon": "epsilon", "vartheta": "theta", "varrho": "rho", "lnot": "neg"}

_TEXT_COMMANDS = word_set(
    "text textbf textit textrm textsf texttt mbox hbox mathrm rm operatorname mathsf mathtt mathop"
)
_FONT_COMMANDS = word_set("mathbf mathit boldsymbol bm bf it mathcal mathscr mathfrak displaylines ensuremath")
_BOLD = re.compile(r"\{\s*([a-z])\s*\}|([a-z])(?![A-Za-z])")  # of a vector; bold capitals are matrices or sets

_LEX = re.compile(
    r"(?P<repeating>\d*\.(?P<fixed>\d*)\\(?:overline|bar|dot)\s*\{(?P<period>\d+)\})"
    r"|(?P<num>(?:\d+(?:\.\d+|\.(?!\d|\.))?|\.\d+)(?:[eE][+-]?\d{1,5}(?![\dA-Za-z.]))?)"
    r"|\\(?P<cmd>[A-Za-z]+\*?)"
    r"|\\(?P<escaped>[{}|])"
    r"|(?P<run>[A-Za-z]+)"
    rf"|(?P<dots>\.\.\.+|…)|(?P<sign>[-+*/^_=<>(){{}}\[\],;:|!%'&\x22{NEW_ROW}])"
)
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])(?!\s*,\s*\d{3}(?!\d))")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,\s])\d{1,3}(?: \d{3})+(?![\d,])")
_BRACKETED = re.compile(r"[(\[{]")


def tokenize(text: str, thousands: bool = True) -> list[Token]:
    """The tokens of a cleaned answer. `thousands`: read 1,234 as one number, outside brackets.

    Raises Unreadable at a character that is of no token.
    """
    if len(text) > MAX_CHARS:
        raise Unreadable("too long")
    if thousands and not _BRACKETED.search(text):
        text = _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text)
        text = _SPACED_THOUSANDS.sub(lambda m: m[0].replace(" ", ""), text)
    tokens: list[Token] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        match = _LEX.match(text, at)
        if match is None:
            raise Unreadable(f"unknown character {text[at]!r}")
        at = match.end()
        if match["cmd"]:
            at = _command(match["cmd"], text, at, tokens)
        else:
            _plain(match, tokens)
        if len(tokens) > MAX_TOKENS:
            raise Unreadable("too long")
    return tokens


def _plain(match: re.Match[str], tokens: list[Token]) -> None:
    if match["repeating"]:
        tokens.append(Token("num", match["repeating"], _repeating(match)))
    elif match["num"]:
        tokens.append(Token("num", match["num"], read_decimal(match["num"])))
        if tokens[-1].value is None:
            raise Unreadable("number too large")
    elif match["escaped"]:
        tokens.append(Token("cmd", "\\" + match["escaped"]))
    elif match["run"]:
        around = match.string[max(match.start() - 1, 0) : match.start()] + match.string[match.end() : match.end() + 1]
        inside = any(char in "^_{}()|" for char in around)
        spaced = around[:1].isspace() and bool(tokens) and tokens[-1].text in {"\\pi", "}", ")"}
        after_number = spaced or (bool(tokens) and tokens[-1].kind == "num")
        tokens.extend(_split_run(match["run"], after_number, inside))
    elif match["dots"]:
        tokens.append(Token("letter", "..."))
    elif match["sign"] != '"':
        tokens.append(Token("sign", match["sign"]))


def _repeating(match: re.Match[str]) -> Fraction:
    """The value of a decimal with a repeating end, 0.1\\overline{6}."""
    fixed, period = match["fixed"] or "", match["period"]
    start = read_decimal(match["repeating"].partition("\\")[0] + ("0" if not fixed else "")) or Fraction(0)
    return start + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))


def _command(name: str, text: str, at: int, tokens: list[Token]) -> int:
    """Append the tokens of a command whose name ends at `at`; returns where to go on."""
    while at < len(text) and text[at].isspace():
        at += 1
    has_argument = at < len(text) and text[at] == "{"
    if name in _TEXT_COMMANDS and has_argument:
        close = closing_brace(text, at)
        if close is None:
            raise Unreadable("unbalanced braces")
        tokens.extend(_words(text[at + 1 : close], upright=name in {"mathrm", "rm", "operatorname"}))
        return close + 1
    if name in {"mathbf", "boldsymbol", "bm"} and (bold := _BOLD.match(text, at)):
        tokens.append(Token("letter", f"vec:{bold[1] or bold[2]}"))
        return bold.end()
    if name in _FONT_COMMANDS or name in _TEXT_COMMANDS:
        return at
    if name == "mathbb" and at < len(text):
        close = (closing_brace(text, at) or at) if has_argument else at
        tokens.append(Token("cmd", "\\mathbb" + (text[at + 1 : close].strip() if has_argument else text[at])))
        return close + 1
    if name in {"begin", "end"} and has_argument:
        close = closing_brace(text, at) or at
        environment = text[at + 1 : close].strip()
        at = close + 1
        if name == "begin" and "array" in environment[-6:] and text[at : at + 1] == "{":
            at = (closing_brace(text, at) or at) + 1  # the columns' alignment
        tokens.append(Token("cmd", "\\" + name))
        if name == "begin":
            tokens.append(Token("env", environment))
        return at
    tokens.append(Token("cmd", "\\" + _SYNONYMS.get(name, name)))
    return at


def _words(content: str, upright: bool) -> list[Token]:
    """The tokens of the contents of \\text{} and the like."""
    stripped = content.strip(" ,.~")
    if stripped.lower() in {"and", "or"}:
        return [Token("sep", stripped.lower())]
    if upright and stripped in FUNCTIONS:
        return [Token("cmd", "\\" + stripped)]
    if upright and stripped in {"e", "i", "d", "x", "y", "z", "n", "R"}:
        return [Token("letter", stripped)]
    if read_decimal(stripped) is not None:
        return [Token("num", stripped, read_decimal(stripped))]
    if any(char.isdigit() for char in stripped) or "\\" in stripped:
        return [_as_word(token) for token in tokenize(content, thousands=False)]
    separated: list[Token] = []
    for word in re.findall(r"[^\s,]+|,", stripped):
        separated.append(
            Token("sign", ",")
            if word == ","
            else Token("sep", word)
            if word in {"and", "or"}
            else Token("word", word.strip("\"'"))
        )
    return separated


def _as_word(token: Token) -> Token:
    return Token("word", token.text) if token.kind == "letter" else token


def _split_run(run: str, after_number: bool, inside: bool) -> list[Token]:
    """Letters typed together: a function, a unit, a word, or a product of symbols.

    `inside`: brackets or a power touch them, as in e^{at}, so that short ones are no words.
    """
    if run in _PLAIN_COMMANDS:
        return [Token("cmd", _PLAIN_COMMANDS[run])]
    if run.lower() in {"and", "or"}:
        return [Token("sep", run.lower())]
    if run.lower() in {"infinity", "infty"}:
        return [Token("cmd", "\\infty")]
    if len(run) == 1:
        return [Token("letter", run)]
    if after_number and run in _UNITS_AFTER_NUMBERS:
        return [Token("word", run)]
    named = _RUN.match(run)
    if named:
        before, name, after = named.groups()
        parts = [Token("letter", before)] if before else []
        parts.append(Token("cmd", "\\" + name))
        return parts + ([Token("letter", after)] if after else [])
    if (
        len(run) > 3
        or (run.isupper() and len(run) > 2)
        or (run.lower() in SHORT_WORDS and not (inside and len(run) == 2))
    ):
        return [Token("word", run)]
    return [Token("letter", letter) for letter in run]
