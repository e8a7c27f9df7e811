"""Formulas turned into values: exact rationals where they are, else complex numbers of 50 digits.

Sizes are bounded before anything is computed: what would be large is refused (TooLarge) and left to a worker.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from mpmath import MPContext

from vllm_rast.grading.latex.parse import Node
from vllm_rast.grading.latex.tokens import Unreadable

DIGITS = 50
AGREE = 1e-28  # relative difference below which two 50-digit values are the same
MAX_BITS = 60_000  # of an exact number
MAX_POWER = 100_000  # exponent of anything that is not exact
MAX_FACTORIAL = 3000
MAX_EFFORT = 20_000  # nodes evaluated for one comparison: well under a second
POINTS = 4  # values tried for the symbols of a formula, the last ones negative
STEPPED_POINTS = 16  # for formulas with steps, which agree at many points without being the same

Value = Any  # Fraction or mpc

_mp = MPContext()  # a context of our own: mpmath's global precision belongs to whoever set it
_mp.dps = DIGITS


class TooLarge(Exception):
    """A formula whose value is too large to compute here."""


class Undefined(Exception):
    """A formula without a value, such as a division by zero."""


def symbols(node: Node) -> frozenset[str]:
    """The names of a tree that stand for unknown values (not pi, e or i)."""
    return _symbols(node)


@lru_cache(maxsize=8192)
def _symbols(node: Node) -> frozenset[str]:
    if node.kind == "sym":
        return frozenset() if node.args[0] in _CONSTANTS else frozenset(node.args)
    return frozenset().union(*(_symbols(part) for part in parts(node)))


def parts(node: Node) -> Iterator[Node]:
    """The trees directly below a tree."""
    for arg in node.args:
        if isinstance(arg, Node):
            yield arg
        elif isinstance(arg, tuple):
            yield from (part for part in arg if isinstance(part, Node))


def points(*nodes: Node) -> list[dict[str, Fraction]]:
    """Values for the symbols of some formulas, the same for the same name everywhere; the last point's are negative."""
    names = frozenset().union(*map(symbols, nodes))
    count = STEPPED_POINTS if any(map(_has_steps, nodes)) else POINTS
    return [{name: _coordinate(name, number) for name in names} for number in (*range(count - 1), -1)]


def _coordinate(name: str, number: int) -> Fraction:
    """A rational between 0.4 and 2.4, or further out for odd numbers, with a denominator that occurs in no answer."""
    seed = 300 + zlib.crc32(f"{name}/{number}".encode()) % 1409
    return Fraction(-seed if number < 0 else seed * (1 + 3 * (number % 4)) if number % 2 else seed, 701)


def _has_steps(node: Node) -> bool:
    return node.args[:1] in {("floor",), ("ceil",)} or any(map(_has_steps, parts(node)))


def value(node: Node, at: Mapping[str, Value] | None = None) -> Value:
    """The value of a formula with the symbols' values `at`. Raises Unreadable, TooLarge or Undefined."""
    return _Evaluator(at or {}).value(node)


def same_value(a: Value, b: Value) -> bool:
    """Whether two values are the same: exactly where both are rational, else to AGREE."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    a, b = to_mp(a), to_mp(b)
    if not (_mp.isfinite(a) and _mp.isfinite(b)):
        return False
    return abs(a - b) <= AGREE * max(abs(a), abs(b), _mp.mpf(10) ** -20)


def is_real(a: Value) -> bool:
    return isinstance(a, Fraction) or abs(_mp.im(a)) <= AGREE * max(1, abs(a))


def real(a: Value) -> Any:
    """The real part, comparable with < to other results of this function."""
    return _mp.re(to_mp(a))


def digits(a: Value, count: int) -> str:
    """An inexact value to `count` significant digits; a real one without its imaginary part."""
    a = to_mp(a)
    size = abs(a)
    shown = [part if abs(part) > AGREE * size else _mp.mpf(0) for part in (_mp.re(a), _mp.im(a))]
    texts = [_mp.nstr(part, count) for part in shown]
    return texts[0] if shown[1] == 0 else f"{texts[0]} + {texts[1]}i"


def to_mp(a: Value) -> Any:
    if isinstance(a, Fraction):
        return _mp.mpf(a.numerator) / a.denominator
    return a


_CONSTANTS = {
    "pi": lambda: _mp.pi + 0,
    "e": lambda: _mp.e + 0,
    "i": lambda: _mp.mpc(0, 1),
    "imath": lambda: _mp.mpc(0, 1),
}

_FUNCTIONS = {
    name: getattr(_mp, function)
    for name, function in {
        "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "arcsin": "asin",
        "arccos": "acos", "arctan": "atan", "arccot": "acot", "asin": "asin", "acos": "acos", "atan": "atan",
        "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "coth": "coth", "Re": "re", "Im": "im", "arg": "arg",
    }.items()
}  # fmt: skip
_CIRCULAR = {"sin", "cos", "tan", "cot", "sec", "csc"}
_LOGARITHMS = {"ln": None, "log": None, "lg": 10}


class _Effort(threading.local):
    left = MAX_EFFORT


_effort = _Effort()


def new_effort() -> None:
    """Begin a comparison: evaluation is refused as TooLarge once it has taken MAX_EFFORT nodes since."""
    _effort.left = MAX_EFFORT


class _Evaluator:
    def __init__(self, at: Mapping[str, Value]):
        self.at = at

    def value(self, node: Node) -> Value:
        _effort.left -= 1
        if _effort.left < 0:
            raise TooLarge
        method = getattr(self, "on_" + node.kind, None)
        if method is None:
            raise Unreadable(f"a {node.kind} has no value")
        try:
            return _bounded(method(*node.args))
        except (ZeroDivisionError, OverflowError, ValueError) as error:
            if isinstance(error, Unreadable):
                raise
            raise Undefined from error

    def on_num(self, number: Fraction) -> Value:
        return number

    def on_sym(self, name: str) -> Value:
        if name in self.at:
            return self.at[name]
        if name in _CONSTANTS:
            return _CONSTANTS[name]()
        raise Unreadable(f"{name} has no value")

    def on_neg(self, x: Node) -> Value:
        return -self.value(x)

    def on_add(self, *terms: Node) -> Value:
        a, b = (self.value(term) for term in terms)
        return a + b if _both_exact(a, b) else to_mp(a) + to_mp(b)

    def on_mul(self, *factors: Node) -> Value:
        a, b = (self.value(factor) for factor in factors)
        return a * b if _both_exact(a, b) else to_mp(a) * to_mp(b)

    def on_div(self, top: Node, bottom: Node) -> Value:
        a, b = self.value(top), self.value(bottom)
        if b == 0:
            raise Undefined
        return a / b if _both_exact(a, b) else to_mp(a) / to_mp(b)

    def on_pow(self, base: Node, exponent: Node) -> Value:
        a, b = self.value(base), self.value(exponent)
        if isinstance(b, Fraction):
            exact = _exact_power(a, b, rounding=bool(self.at)) if isinstance(a, Fraction) else None
            if exact is not None:
                return exact
            if b.denominator == 3 and is_real(a) and real(a) < 0:
                return -((-to_mp(a)) ** to_mp(b)) if b.numerator % 2 else (-to_mp(a)) ** to_mp(b)
        if abs(to_mp(b)) > MAX_POWER:
            raise TooLarge
        if a == 0:
            if real(b) > 0:
                return Fraction(0)
            raise Undefined
        return to_mp(a) ** to_mp(b)

    def on_fact(self, x: Node) -> Value:
        a = self.value(x)
        if isinstance(a, Fraction) and a.denominator == 1:
            if a < 0:
                raise Undefined
            if a > MAX_FACTORIAL:
                raise TooLarge
            return Fraction(math.factorial(int(a)))
        return _mp.gamma(_small(a) + 1)

    def on_deg(self, x: Node) -> Value:
        return to_mp(self.value(x)) * _mp.pi / 180

    def on_pct(self, x: Node) -> Value:
        a = self.value(x)
        return a / 100

    def on_base(self, digits: str, base: int) -> Value:
        try:
            return Fraction(int(digits, base))
        except ValueError as error:
            raise Unreadable("a digit that the base does not have") from error

    def on_fn(self, name: str, *args: Node) -> Value:
        values = [self.value(arg) for arg in args]
        if name in _FUNCTIONS and len(values) == 1:
            return _FUNCTIONS[name](_small(values[0]))
        if name in _LOGARITHMS:
            return _logarithm(name, *values)
        if name == "exp":
            return _mp.exp(_small(values[0]))
        if name == "abs":
            return abs(values[0])
        if name in {"floor", "ceil"} and is_real(values[0]):
            return _to_integer(name, values[0])
        if name == "binom":
            return _binomial(*values)
        if name in {"gcd", "lcm"} and all(isinstance(v, Fraction) and v.denominator == 1 for v in values):
            return Fraction((math.gcd if name == "gcd" else math.lcm)(*(int(v) for v in values)))
        if name in {"max", "min"} and values and all(is_real(v) for v in values):
            return (max if name == "max" else min)(values, key=real)
        raise Unreadable(f"{name} has no value here")


def _to_integer(name: str, a: Value) -> Fraction:
    if isinstance(a, Fraction):
        return Fraction(math.floor(a) if name == "floor" else math.ceil(a))
    return Fraction(int(_mp.floor(_mp.re(a)) if name == "floor" else _mp.ceil(_mp.re(a))))


def _both_exact(a: Value, b: Value) -> bool:
    return isinstance(a, Fraction) and isinstance(b, Fraction)


def _bounded(a: Value) -> Value:
    if isinstance(a, Fraction) and max(a.numerator.bit_length(), a.denominator.bit_length()) > MAX_BITS:
        raise TooLarge
    if not isinstance(a, Fraction) and not _mp.isfinite(a):
        raise Undefined
    return a


def _small(a: Value) -> Any:
    """The argument of a function, refused where its size would cost time (sin of 10^100000)."""
    a = to_mp(a)
    if abs(a) > MAX_POWER:
        raise TooLarge
    return a


def _exact_power(a: Fraction, b: Fraction, rounding: bool) -> Fraction | None:
    """a ** b where that is rational, else None; if it is large, None where `rounding` will do, else TooLarge."""
    if a == 0:
        if b <= 0:
            raise Undefined
        return Fraction(0)
    size = max(abs(a.numerator), a.denominator).bit_length()
    if b.denominator == 1:
        if (size - 1) * abs(b.numerator) <= MAX_BITS:
            return a ** int(b)
        if rounding:
            return None
        raise TooLarge
    if a < 0 and b.denominator % 2 == 0 or b.denominator > 64 or size * abs(b.numerator) > MAX_BITS:
        return None
    roots = [_integer_root(part, b.denominator) for part in (abs(a.numerator), a.denominator)]
    if roots[0] is None or roots[1] is None:
        return None
    sign = -1 if a < 0 else 1
    return Fraction(sign * roots[0], roots[1]) ** b.numerator


def _integer_root(number: int, degree: int) -> int | None:
    """The exact integer root, or None."""
    root = int(_mp.nint(_mp.root(number, degree))) if number.bit_length() < 160 else None
    return root if root is not None and root**degree == number else None


def _logarithm(name: str, x: Value, base: Value | None = None) -> Value:
    x = to_mp(x)
    if x == 0:
        raise Undefined
    if base is None and name == "lg":
        base = Fraction(10)
    return _mp.log(x) if base is None else _mp.log(x) / _mp.log(to_mp(base))


def _binomial(n: Value, k: Value) -> Value:
    if _both_exact(n, k) and n.denominator == k.denominator == 1 and 0 <= k <= n:
        if n > MAX_FACTORIAL:
            raise TooLarge
        return Fraction(math.comb(int(n), int(k)))
    return _mp.binomial(_small(n), _small(k))
