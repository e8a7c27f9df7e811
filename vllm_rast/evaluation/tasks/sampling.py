"""How samples are drawn, as a benchmark or the command line says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vllm_rast.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How one sample is drawn; max_tokens counts the answer alone."""

    temperature: float
    top_p: float
    max_tokens: int


PAPER = Sampling(temperature=1.0, top_p=0.95, max_tokens=16384)  # arXiv 2506.15710, section 4


def check_temperature(value: float, option: str) -> float:
    """Return a temperature. Raises UserError unless it is 0 (greedy) or a finite positive number."""
    if not 0 <= value < float("inf"):
        raise UserError(f"{option}: the temperature must be 0 or more, not {value:g}")
    return value


def changed(
    sampling: Sampling,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    prefix: str = "--",
) -> Sampling:
    """A sampling with what is given in place of its own. Raises UserError, naming the option after `prefix`."""
    if temperature is not None:
        sampling = replace(sampling, temperature=check_temperature(temperature, f"{prefix}temperature"))
    if top_p is not None:
        if not 0 < top_p <= 1:
            raise UserError(f"{prefix}top-p {top_p:g}: it must be above 0 and at most 1")
        sampling = replace(sampling, top_p=top_p)
    if max_tokens is not None:
        if max_tokens < 1:
            raise UserError(f"{prefix}max-tokens {max_tokens}: at least 1")
        sampling = replace(sampling, max_tokens=max_tokens)
    return sampling


def sampling_from(said: Any, where: str) -> Sampling:
    """A benchmark's own sampling, {"temperature", "top_p", "max_tokens"}; what it leaves out is the paper's."""
    if not isinstance(said, Mapping):
        raise UserError(f"{where}: sampling must be a mapping such as {{temperature: 0.6, max_tokens: 4096}}")
    for key, value in said.items():
        if key not in ("temperature", "top_p", "max_tokens"):
            raise UserError(f"{where}: unknown key {key!r} in sampling; known are temperature, top_p, max_tokens")
        number = isinstance(value, int if key == "max_tokens" else int | float) and not isinstance(value, bool)
        if not number:
            raise UserError(f"{where}: sampling.{key} must be a number, not {value!r}")
    return changed(PAPER, **said, prefix=f"{where}: sampling.")
