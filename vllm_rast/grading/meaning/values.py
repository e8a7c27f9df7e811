"""Formulas turned into values: exact rationals where they are, else complex balls, which enclose the true value.

Arithmetic with balls (FLINT's, https://flintlib.org) is rigorous: two values whose balls do not meet are different,
however close they are. Those whose balls meet at a precision far beyond all that the formulas' numbers can tell apart
are the same. No size is refused before it is tried: what is too large to be exact becomes a ball.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from typing import Any

import flint
from flint import acb, acb_mat, arb, fmpq, fmpq_mat, fmpz

from vllm_rast.grading.latex.parse import Node
from vllm_rast.grading.latex.tokens import Unreadable

ROUGH_BITS = 256  # precision of the first look, which tells most different values apart
SPARE_BITS = 200  # two values nearer than this, in bits beyond the largest exponent that occurred, are the same
DEEP_BITS = 4000  # where values are compared that were computed before
MAX_PRECISION = 200_000  # bits; what needs more stays undecided
MAX_BITS = 60_000  # of an exact number; beyond it a ball
MAX_FACTORIAL = 3000  # of an exact factorial
MAX_EFFORT = 20_000  # nodes evaluated for one comparison: well under a second
MAX_SIMPLE = 10**6  # denominator of a fraction that an inexact value is recognised as
POINTS = 4  # values tried for the symbols of a formula, the last ones negative
STEPPED_POINTS = 16  # for formulas with steps, which agree at many points without being the same

Value = Any  # Fraction or acb


class TooLarge(Exception):
    """A comparison that would take too long here."""


class Undefined(Exception):
    """A formula without a value, such as a division by zero."""


@contextmanager
def precision(bits: int) -> Iterator[None]:
    """Compute with balls of so many bits."""
    before = flint.ctx.prec
    flint.ctx.prec = bits
    try:
        yield
    finally:
        flint.ctx.prec = before


@lru_cache(maxsize=8192)
def symbols(node: Node) -> frozenset[str]:
    """The names of a tree that stand for unknown values (not pi, e or i); f() for an unknown function."""
    names, left = set(), [node]
    while left:
        one = left.pop()
        if one.kind == "sym":
            names.add(one.args[0])
        elif one.kind == "call" and not is_count(one):
            names.add(f"{one.args[0]}()")
        left.extend(parts(one))
    return frozenset(names - _CONSTANTS.keys())


def is_count(node: Node) -> bool:
    """Whether a call is C(n, k) or P(n, k), which have values."""
    return node.kind == "call" and node.args[0] in {"C", "P"} and len(node.args) == 3


def parts(node: Node) -> Iterator[Node]:
    """The trees directly below a tree."""
    for arg in node.args:
        if isinstance(arg, Node):
            yield arg
        elif isinstance(arg, tuple):
            yield from (part for part in arg if isinstance(part, Node))


def points(*nodes: Node) -> list[dict[str, Fraction]]:
    """Values for the symbols of some formulas, drawn from a hash of them all; the last point's are negative.

    No formula can be written to agree with another at points that depend on itself.
    """
    return points_from(b"".join(sorted(map(digest, nodes))), *nodes)


def points_from(seed: bytes, *nodes: Node) -> list[dict[str, Fraction]]:
    """The points that a seed gives; with one seed for all they only group formulas, and prove nothing."""
    names = frozenset().union(*map(symbols, nodes))
    count = STEPPED_POINTS if any(map(_has_steps, nodes)) else POINTS
    return [{name: _coordinate(seed, name, number) for name in names} for number in (*range(count - 1), -1)]


def _coordinate(seed: bytes, name: str, number: int) -> Fraction:
    """A rational between 0.4 and 2.4, or further out for odd numbers, with a denominator that occurs in no answer."""
    drawn = hashlib.sha256(seed + f"{name}/{number}".encode("utf-8", "surrogatepass")).digest()
    top = 300_000 + int.from_bytes(drawn[:4], "big") % 1_409_000
    if number < 0:
        return Fraction(-top, 701_009)
    return Fraction(top * (1 + 3 * (number % 4)) if number % 2 else top, 701_009)


def digest(node: Node) -> bytes:
    """A hash of a tree that is the same in every process."""
    found = hashlib.sha256()
    _feed(found, node)
    return found.digest()


def _feed(found: Any, part: Any) -> None:
    if isinstance(part, str):
        found.update(b"s" + part.encode("utf-8", "surrogatepass") + b"\0")
    elif isinstance(part, Fraction | int):
        for number in (part.numerator, part.denominator):
            found.update(b"n" + number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True) + b"\0")
    else:
        found.update(b"(")
        for inner in part or ():
            _feed(found, inner)
        found.update(b")")


def _has_steps(node: Node) -> bool:
    return node.args[:1] in {("floor",), ("ceil",)} or any(map(_has_steps, parts(node)))


def value(node: Node, at: Mapping[str, Value] | None = None) -> Value:
    """The value of a formula with the symbols' values `at`. Raises Unreadable, TooLarge or Undefined."""
    return _Evaluator(at or {}).value(node)


def same(a: Node, b: Node, at: Mapping[str, Value] | None = None) -> bool | None:
    """Whether two formulas have one value at a point; None if no precision within reach can tell.

    Raises Undefined if a has no value there, and UndefinedAnswer if only b has none.
    """
    with precision(ROUGH_BITS):
        try:
            gap = _gap(*_both(a, b, at))
            if gap is not None and not gap.contains(0):
                return False
            if gap is None:
                return True
        except Undefined:  # perhaps only at this precision
            pass
    bits = 1000 + 2 * _effort.largest
    if bits > MAX_PRECISION:
        return None
    with precision(bits):
        gap = _gap(*_both(a, b, at))
        if gap is None or not gap.contains(0):
            return gap is None
        return True if _radius(gap) < arb(2) ** -(SPARE_BITS + _effort.largest) else None


class UndefinedAnswer(Undefined):
    """The second of two formulas has no value where the first has one."""


def _both(a: Node, b: Node, at: Mapping[str, Value] | None) -> tuple[Value, Value]:
    first = value(a, at)
    try:
        return first, value(b, at)
    except Undefined as error:
        raise UndefinedAnswer from error


def _gap(a: Value, b: Value) -> acb | None:
    """The difference of two values as a ball, or None if both are exact and equal."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return None if a == b else acb(1)
    return ball(a) - ball(b)


def difference(a: Value, b: Value) -> Value:
    return a - b if _both_exact(a, b) else ball(a) - ball(b)


def times(a: Value, b: Value) -> Value:
    return a * b if _both_exact(a, b) else ball(a) * ball(b)


def quotient(a: Value, b: Value) -> Value:
    return a / b if _both_exact(a, b) else ball(a) / ball(b)


def _radius(a: acb) -> arb:
    return a.real.rad() + a.imag.rad()


def same_value(a: Value, b: Value) -> bool:
    """Whether two values are the same: exactly if both are rational, else whether their balls meet."""
    gap = _gap(a, b)
    return gap is None or bool(gap.contains(0))


def is_real(a: Value) -> bool:
    return isinstance(a, Fraction) or bool(a.imag.contains(0))


def real(a: Value) -> arb:
    """The real part, comparable with < to other results of this function: true only if it is certain."""
    return ball(a).real


def digits(a: Value, count: int) -> str:
    """An inexact value to `count` significant digits; a real one without its imaginary part."""
    a = ball(a)
    shown = [arb(0) if part.contains(0) else part.mid() for part in (a.real, a.imag)]
    texts = [part.str(count, radius=False) for part in shown]
    return texts[0] if is_real(a) else f"{texts[0]} + {texts[1]}i"


def simple_rational(a: Value) -> Fraction | None:
    """The fraction of small terms that an inexact real value cannot be told from, as log_2 8 from 3; else None."""
    if not is_real(a) or not a.real.is_finite():
        return None
    middle = a.real.mid()
    mantissa, exponent = middle.man_exp()
    exponent = int(exponent)
    if abs(exponent) > 4 * ROUGH_BITS:
        return None
    near = Fraction(int(mantissa)) * Fraction(2) ** exponent
    found = near.limit_denominator(MAX_SIMPLE)
    return found if a.real.contains(arb(fmpq(found.numerator, found.denominator))) else None


def ball(a: Value) -> acb:
    """A value as a complex ball of the present precision."""
    if isinstance(a, Fraction):
        return acb(arb(fmpq(a.numerator, a.denominator)))
    return a if isinstance(a, acb) else acb(a)


_CONSTANTS = {
    "pi": lambda: acb.pi(),
    "e": lambda: acb(arb.const_e()),
    "i": lambda: acb(0, 1),
    "imath": lambda: acb(0, 1),
}

_FUNCTIONS = {
    **{
        name: getattr(acb, name)
        for name in ["sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "exp"]
    },
    **{prefix + name: getattr(acb, "a" + name) for name in ("sin", "cos", "tan") for prefix in ("arc", "a")},
    "arccot": lambda x: acb.pi() / 2 if x == 0 else (1 / x).atan(),
    "Re": lambda x: acb(x.real),
    "Im": lambda x: acb(x.imag),
    "arg": lambda x: acb(x.arg()),
}
_LOGARITHMS = {"ln": None, "log": None, "lg": 10}


class _Effort(threading.local):
    left = MAX_EFFORT
    largest = 0  # bits of the largest or smallest number that occurred, as an exponent of two


_effort = _Effort()


def new_effort() -> None:
    """Begin a comparison: evaluation is refused as TooLarge once it has taken MAX_EFFORT nodes since."""
    _effort.left = MAX_EFFORT
    _effort.largest = 0


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
            return _noted(method(*node.args))
        except (ZeroDivisionError, OverflowError, ValueError) as error:
            if isinstance(error, Unreadable):
                raise
            raise Undefined from error

    def on_num(self, number: Fraction) -> Value:
        return number

    def on_sym(self, name: str) -> Value:
        if name in self.at:
            at = self.at[name]
            return acb(ball(at).real, ball(at * at).real - 1) if name.startswith("vec:") else at
        if name in _CONSTANTS:
            return _CONSTANTS[name]()
        raise Unreadable(f"{name} has no value")

    def on_neg(self, x: Node) -> Value:
        return -self.value(x)

    def on_add(self, *terms: Node) -> Value:
        a, b = (self.value(term) for term in terms)
        return a + b if _both_exact(a, b) else ball(a) + ball(b)

    def on_mul(self, *factors: Node) -> Value:
        a, b = (self.value(factor) for factor in factors)
        return times(a, b)

    def on_div(self, top: Node, bottom: Node) -> Value:
        a, b = self.value(top), self.value(bottom)
        if b == 0 or (not isinstance(b, Fraction) and b.contains(0)):
            raise Undefined
        return a / b if _both_exact(a, b) else ball(a) / ball(b)

    def on_pow(self, base: Node, exponent: Node) -> Value:
        a, b = self.value(base), self.value(exponent)
        exact = _exact_power(a, b) if _both_exact(a, b) else None
        if exact is not None:
            return exact
        power = _power(a, b)
        if not isinstance(power, Fraction) and not power.is_finite():
            raise TooLarge
        return power

    def on_fact(self, x: Node) -> Value:
        a = self.value(x)
        if isinstance(a, Fraction) and a.denominator == 1:
            if a < 0:
                raise Undefined
            if a <= MAX_FACTORIAL:
                return Fraction(math.factorial(int(a)))
        return (ball(a) + 1).gamma()

    def on_deg(self, x: Node) -> Value:
        return ball(self.value(x)) * acb.pi() / 180

    def on_pct(self, x: Node) -> Value:
        return self.value(x) / 100

    def on_base(self, digits: str, base: int) -> Value:
        try:
            return Fraction(int(digits, base))
        except ValueError as error:
            raise Unreadable("a digit that the base does not have") from error

    def on_mod(self, x: Node, modulus: Node, kind: str) -> Value:
        """The remainder of a division; a congruence has no value."""
        a, m = self.value(x), self.value(modulus)
        if kind != "b" or not _both_exact(a, m) or a.denominator != 1 or m.denominator != 1 or m <= 0:
            raise Unreadable("a congruence has no value")
        return a % m

    def on_call(self, name: str, *args: Node) -> Value:
        """A value for an unknown function: at the same arguments the same one."""
        if f"{name}()" not in self.at and name in {"C", "P"} and len(args) == 2:
            return _count(name, *(self.value(arg) for arg in args))
        return _drawn(f"{name} {self.on_sym(name + '()')}: {[self.shown(arg) for arg in args]}")

    def shown(self, node: Node) -> str:
        """An argument of an unknown function: by its value, or an event such as A and B by its parts."""
        if node.kind in {"union", "inter"}:
            return f"{node.kind} {sorted(map(self.shown, node.args))}"
        if node.kind == "minus":
            return f"minus {list(map(self.shown, node.args))}"
        if node.kind == "rel":
            return f"{node.args[0]} {list(map(self.shown, node.args[1]))}"
        return _shown(self.value(node))

    def on_fn(self, name: str, *args: Node) -> Value:
        if args[0].kind == "matrix":
            return _of_matrix(name, [[self.value(cell) for cell in row] for row in args[0].args])
        values = [self.value(arg) for arg in args]
        if name in _FUNCTIONS and len(values) == 1:
            return Fraction(1) if name == "exp" and values[0] == 0 else _FUNCTIONS[name](ball(values[0]))
        if name in _LOGARITHMS:
            return _logarithm(name, *values)
        if name == "abs":
            return abs(values[0]) if isinstance(values[0], Fraction) else acb(abs(values[0]))
        if name in {"floor", "ceil"} and is_real(values[0]):
            return _to_integer(name, values[0])
        if name == "binom":
            return _binomial(*values)
        if name in {"gcd", "lcm"} and all(isinstance(v, Fraction) and v.denominator == 1 for v in values):
            return Fraction((math.gcd if name == "gcd" else math.lcm)(*(int(v) for v in values)))
        if name in {"max", "min"} and values and all(is_real(v) for v in values):
            return _extreme(name, values)
        if name in {"dot", "cross", "norm"} and self.at:
            return _of_vectors(name, values[0], values[-1])
        if name in _SYMMETRIC | _OPAQUE and self.at:
            return _some_value(name, values)
        raise Unreadable(f"{name} has no value here")


_SYMMETRIC = frozenset({"gcd", "lcm", "max", "min"})
_OPAQUE = frozenset({"det", "composed"})
MAX_ROWS = 12  # of a determinant


def _of_vectors(name: str, x: Value, y: Value) -> Value:
    """Vectors are points of a plane: the scalar product of two, or their vector product's one coordinate."""
    product = ball(x).conjugate() * ball(y) if name != "norm" else ball(x)
    return acb({"dot": product.real, "cross": product.imag, "norm": abs(product)}[name])


def _of_matrix(name: str, rows: list[list[Value]]) -> Value:
    """The determinant of a square matrix, the length of a row or a column."""
    if name == "norm" and min(len(rows), len(rows[0])) == 1:
        return _power(sum((times(x, x) for row in rows for x in row), Fraction(0)), Fraction(1, 2))
    if name != "det" or len(rows) > MAX_ROWS or any(len(row) != len(rows) for row in rows):
        raise Unreadable(f"no {name} of this matrix")
    if all(isinstance(x, Fraction) for row in rows for x in row):
        exact = fmpq_mat([[fmpq(x.numerator, x.denominator) for x in row] for row in rows]).det()
        return Fraction(int(exact.p), int(exact.q))
    return acb_mat([[ball(x) for x in row] for row in rows]).det()


def _count(name: str, n: Value, k: Value) -> Value:
    """How many choices, C, or arrangements, P, of k among n things there are."""
    if _both_exact(n, k) and n.denominator == k.denominator == 1:
        if not 0 <= k <= n:
            raise Unreadable("no number of choices")
        if n <= MAX_FACTORIAL:
            return Fraction(math.comb(int(n), int(k)) if name == "C" else math.perm(int(n), int(k)))
    chosen = _binomial(n, k)
    return chosen if name == "C" else times(chosen, (ball(k) + 1).gamma())


def _some_value(name: str, values: list[Value]) -> Fraction:
    """A value for a function that has none at these arguments: the same for the same arguments, else another.

    So \\gcd(a, b) is \\gcd(b, a) and nothing else.
    """
    shown = [_shown(v) for v in values]
    return _drawn(f"{name}: {sorted(shown) if name in _SYMMETRIC else shown}")


def _drawn(text: str) -> Fraction:
    """A number drawn from a text."""
    return Fraction(int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big"), 701_009)


def _shown(value: Value) -> str:
    return f"{value.numerator:x}/{value.denominator:x}" if isinstance(value, Fraction) else digits(value, 30)


def _extreme(name: str, values: list[Value]) -> Value:
    best = values[0]
    for one in values[1:]:
        larger = one > best if _both_exact(one, best) else real(one) > real(best)
        smaller = one < best if _both_exact(one, best) else real(one) < real(best)
        if larger if name == "max" else smaller:
            best = one
        elif not (larger or smaller) and not same_value(one, best):
            raise Undefined
    return best


def _to_integer(name: str, a: Value) -> Fraction:
    if isinstance(a, Fraction):
        return Fraction(math.floor(a) if name == "floor" else math.ceil(a))
    number = (a.real.floor() if name == "floor" else a.real.ceil()).unique_fmpz()
    if number is None:  # at a step, or not precise enough to say on which side
        raise Undefined
    return Fraction(int(number))


def _both_exact(a: Value, b: Value) -> bool:
    return isinstance(a, Fraction) and isinstance(b, Fraction)


def _noted(a: Value) -> Value:
    """A value, exact only if it is not too large; its size is noted, which says what precision a comparison needs."""
    if isinstance(a, Fraction):
        bits = max(a.numerator.bit_length(), a.denominator.bit_length())
        _effort.largest = max(_effort.largest, bits)
        return a if bits <= MAX_BITS else ball(a)
    if not a.is_finite():
        raise Undefined
    size = a.abs_upper()
    if size != 0:
        mantissa, exponent = size.man_exp()
        _effort.largest = max(_effort.largest, abs(int(exponent) + int(mantissa).bit_length()))
    return a


def _exact_power(a: Fraction, b: Fraction) -> Fraction | None:
    """a ** b if that is rational and not too large, else None."""
    if a == 0:
        if b <= 0:
            raise Undefined
        return Fraction(0)
    size = max(abs(a.numerator), a.denominator).bit_length()
    if b.denominator == 1:
        return a ** int(b) if (size - 1) * abs(b.numerator) <= MAX_BITS else None
    if a < 0 and b.denominator % 2 == 0 or b.denominator > 64 or size * abs(b.numerator) > MAX_BITS:
        return None
    roots = [_integer_root(part, b.denominator) for part in (abs(a.numerator), a.denominator)]
    if roots[0] is None or roots[1] is None:
        return None
    sign = -1 if a < 0 else 1
    return Fraction(sign * roots[0], roots[1]) ** b.numerator


def _integer_root(number: int, degree: int) -> int | None:
    """The exact integer root, or None."""
    root = int(fmpz(number).root(degree))
    return root if root**degree == number else None


def _power(a: Value, b: Value) -> Value:
    """a ** b as a ball. An odd root of a negative number is the real one, as school has it."""
    if a == 0:
        if real(b) > 0:
            return Fraction(0)
        raise Undefined
    if isinstance(b, Fraction):
        if b.denominator == 1:
            return ball(a) ** fmpz(b.numerator)
        if b.denominator == 2 and abs(b.numerator) == 1:
            return ball(a).sqrt() if b > 0 else ball(a).rsqrt()
        if b.denominator == 3 and is_real(a) and real(a) < 0:
            return -((-ball(a)) ** ball(b)) if b.numerator % 2 else (-ball(a)) ** ball(b)
    return ball(a) ** ball(b)


def _logarithm(name: str, x: Value, base: Value | None = None) -> Value:
    if x == 0 or (not isinstance(x, Fraction) and x.contains(0)):
        raise Undefined
    if base is None and name == "lg":
        base = Fraction(10)
    if base is None:
        return Fraction(0) if x == 1 else ball(x).log()
    under = ball(base).log()
    if under.contains(0):
        raise Undefined
    return ball(x).log() / under


def _binomial(n: Value, k: Value) -> Value:
    if _both_exact(n, k) and n.denominator == k.denominator == 1 and 0 <= k <= n <= MAX_FACTORIAL:
        return Fraction(math.comb(int(n), int(k)))
    n, k = ball(n), ball(k)
    return (n + 1).gamma() * (k + 1).rgamma() * (n - k + 1).rgamma()
