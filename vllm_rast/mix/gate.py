"""A gate: on which tokens the pairs' differences act. Elsewhere the base decodes alone, as with alpha 0."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from vllm_rast.errors import UserError, shown

if TYPE_CHECKING:
    import numpy as np

# A line of a request's gate, float32. The first columns travel with each token's row; only this file knows the rest.
CARRIED = ("js", "kl", "top")
SHARE, KEY, ORIGIN = 3, 4, 5
# A random number has as many bits as float32 has for whole numbers.
BITS = 24
MAX_COUNT = 1 << BITS
MAX_KL = 1e4  # in nats; log-probabilities of float32 logits do not part further
LOW_32 = (1 << 32) - 1


@dataclass(frozen=True)
class Gate:
    """Conditions for the differences to act; all that are given must hold. None: no such condition.

    js: least Jensen-Shannon divergence between mix and base, in nats, from 0 to log 2 (arXiv 2603.22446 measures it
        between a base and its tuned model; here the mix stands for that model).
    kl: least KL(mix || base) in nats, which the server's metrics measure too.
    top: the ids among which the differences act: the base's k likeliest (an integer), or those of at least this
        share of its largest probability (between 0 and 1; contrastive decoding's plausibility, arXiv 2210.15097). All
        other ids keep the base's probabilities. js and kl are of the mix within these ids.
    random: the share of tokens on which they act, chosen by the request's seed and the token's position alone: what
        the other conditions are to be compared with. Without a seed the seed is 0.
    """

    js: float | None = None
    kl: float | None = None
    top: float | None = None
    random: float | None = None

    def to_dict(self) -> dict[str, float]:
        """What a request would send."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def line(self, seed: int | None, num_prompt_tokens: int = 1) -> np.ndarray:
        """The gate of one request, [6] in float32; 0 is no condition, of the share 1."""
        import numpy as np

        share = 1.0 if self.random is None else self.random
        key = hashed(hashed(int(seed or 0) & LOW_32) ^ (int(seed or 0) >> 32 & LOW_32)) % MAX_COUNT
        line = [self.js or 0, self.kl or 0, self.top or 0, share, key, num_prompt_tokens - 1]
        return np.array(line, dtype=np.float32)


OPEN = Gate()  # of a request without a gate


def read_gate(values: object, option: str = "alpha.gate") -> Gate:
    """A gate from a dictionary of its conditions. Raises UserError, naming the condition and what it may be."""
    known = ", ".join(READERS)
    if isinstance(values, Gate):
        return values
    if not isinstance(values, dict) or not values:
        raise UserError(f'{option}: expected conditions such as {{"js": 0.1}}, got {shown(values)}; known: {known}')
    for name in values:
        if name not in READERS:
            raise UserError(f"{option}: unknown condition {shown(name)}; known: {known}")
    return Gate(**{name: READERS[name](value, f"{option}.{name}") for name, value in values.items()})


def read_number(value: object, option: str, most: float, what: str) -> float:
    """A number from 0 to `most`. Raises UserError."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= most:  # type: ignore[operator]
        raise UserError(f"{option}: expected {what}, got {shown(value)}")
    return float(value)


def read_js(value: object, option: str) -> float:
    return read_number(value, option, math.log(2), "nats from 0 to log 2 = 0.693, the most that there is")


def read_kl(value: object, option: str) -> float:
    return read_number(value, option, MAX_KL, f"nats from 0 to {MAX_KL:g}")


def read_random(value: object, option: str) -> float:
    return read_number(value, option, 1, "a share of the tokens from 0 to 1")


def read_top(value: object, option: str) -> float:
    if isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= MAX_COUNT:
        return int(value)
    if isinstance(value, Real) and not isinstance(value, Integral) and 0 < float(value) < 1:
        return float(value)
    raise UserError(
        f"{option}: expected a number of ids such as 20, or a share of the base's largest probability between 0 and 1 "
        f"such as 0.1, got {shown(value)}"
    )


READERS = {"js": read_js, "kl": read_kl, "top": read_top, "random": read_random}


def closed_by_chance(lines: Any, places: Any, to_whole: Any, to_float: Any) -> Any:
    """Which tokens a random gate leaves to the base, [n] booleans; the one rule for numpy arrays and torch tensors.

    lines: each token's request's line, [n, 6]. places: [n] in float32, its place in prompt and answer.
    to_whole, to_float: to 64-bit integers, and to float32. All numbers are whole and below 2^63, so every library and
    device gives the same.
    """
    generated = to_whole((places - lines[:, ORIGIN]).clip(min=0))
    noise = hashed(hashed(generated + 1) ^ to_whole(lines[:, KEY])) % MAX_COUNT
    return to_float(noise) >= lines[:, SHARE] * MAX_COUNT


def hashed(x: Any) -> Any:
    """A hash of 32 bits of integers, or of arrays of 64-bit ones; both factors are below 2^31, so nothing overflows.

    Two rounds of xorshift and multiply, with the constants of "hash prospector" (public domain).
    """
    x = (x ^ (x >> 16)) * 0x21F0AAAD & LOW_32
    x = (x ^ (x >> 15)) * 0x735A2D97 & LOW_32
    return x ^ (x >> 15)


def closed_at(gate: Gate, seed: int | None, generated: np.ndarray) -> np.ndarray:
    """Which generated positions, [n] integers of 0 or more, a random gate leaves to the base, [n] booleans."""
    import numpy as np

    lines = gate.line(seed)[None].repeat(len(generated), axis=0)
    places = np.asarray(generated, dtype=np.float32)
    return closed_by_chance(lines, places, lambda some: some.astype(np.int64), lambda some: some.astype(np.float32))
