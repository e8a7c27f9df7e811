"""Which letters of an answer are functions: f(x) may be a value or a product, and only the whole answer tells."""

from __future__ import annotations

from collections.abc import Sequence

from vllm_rast.grading.latex.tokens import FUNCTIONS, Token, word_set

MAX_MARKS = 12  # tokens of primes, indices and powers between a letter and its bracket

_NO_NAMES = {"e", "i", "d", "..."}
_GREEK = word_set("phi psi chi sigma tau mu rho eta zeta omega alpha beta gamma lambda Phi Psi Gamma Omega Lambda")
_ALWAYS = {"f", "F"}  # a product f(a + b) is not seen; h(a + b)/2 is


def applied(tokens: Sequence[Token]) -> tuple[frozenset[str], frozenset[str]]:
    """The letters that are applied to a name or a number somewhere, f(x), and those that stand alone somewhere.

    x(y + 1) is a product: nobody puts a bracket round one letter that is a factor.
    """
    called, alone = set(), set()
    for at, token in enumerate(tokens):
        if not _is_name(token):
            continue
        opening = _after_marks(tokens, at + 1)
        name = token.text.lstrip("\\")
        if _text(tokens, opening) != "(":
            alone.add(name)
        elif name in _ALWAYS or _is_plain(tokens, opening + 1):
            called.add(name)
    return frozenset(called), frozenset(alone)


def _is_name(token: Token) -> bool:
    if token.kind == "letter":
        return token.text not in _NO_NAMES
    return token.kind == "cmd" and token.text[1:] in _GREEK and token.text[1:] not in FUNCTIONS


def _text(tokens: Sequence[Token], at: int) -> str:
    return tokens[at].text if at < len(tokens) and tokens[at].kind != "word" else ""


def _after_marks(tokens: Sequence[Token], at: int) -> int:
    """The place after the primes, indices and powers of a name."""
    end = min(at + MAX_MARKS, len(tokens))
    while at < end and tokens[at].text in {"'", "_", "^"}:
        if tokens[at].text == "'":
            at += 1
        elif _text(tokens, at + 1) == "{":
            at = next((i + 1 for i in range(at, end) if tokens[i].text == "}"), end)
        else:
            at += 3 if _text(tokens, at + 1) == "-" else 2
    return at


def _is_plain(tokens: Sequence[Token], at: int) -> bool:
    """Whether an argument is, or begins as, one name or number: (x), (x, y), (g(x)), (A | B), (-1)."""
    at += _text(tokens, at) == "-"
    if at >= len(tokens) or not (_is_name(tokens[at]) or tokens[at].kind == "num"):
        return False
    return _text(tokens, _after_marks(tokens, at + 1)) in {")", ",", "(", "|", "\\mid"}
