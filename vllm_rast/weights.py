"""The forms in which a request may say alpha, and the weight of every model that follows from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING

from vllm_rast.errors import UserError

if TYPE_CHECKING:
    from vllm_rast.config import RastConfig

# Beyond this the mix is the difference alone, and float32 logits (about 1e2 each) start to overflow into noise.
MAX_ALPHA = 1e4

# What a request may send: a number for all pairs, one number for each, or the name of a single model.
Alpha = float | Sequence[float] | str


def check_alpha(value: object, option: str) -> float:
    """Return value as a float. Raises UserError unless it is a finite number of size at most MAX_ALPHA."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"{option}: expected a number, got {value!r}")
    alpha = float(value)
    if not math.isfinite(alpha) or abs(alpha) > MAX_ALPHA:
        raise UserError(f"{option}: expected a finite number between -{MAX_ALPHA:g} and {MAX_ALPHA:g}, got {value!r}")
    return alpha


def weight_row(config: RastConfig, alpha: Alpha | None) -> tuple[float, ...]:
    """The weight of each model for one request, [num_models], in the order of `config.sources`.

    base + sum_k alpha_k * (positive_k - negative_k) gives 1 to the base, alpha_k to the positive and -alpha_k to the
    negative of pair k (RAST, arXiv 2506.15710, equation 3); a model that stands in several places gets the sum.
    None means the engine's default. Raises UserError, naming alpha, for anything else than the forms of `Alpha`.
    """
    if isinstance(alpha, str):
        return single_model_row(config, alpha)
    row = [1.0] + [0.0] * (len(config.sources) - 1)
    for value, (positive, negative) in zip(alphas_of(config, alpha), config.columns, strict=True):
        if positive is not None:
            row[positive] += value
        if negative is not None:
            row[negative] -= value
    return tuple(row)


def alphas_of(config: RastConfig, alpha: float | Sequence[float] | None) -> tuple[float, ...]:
    """One alpha for each pair, [num_pairs]."""
    if alpha is None:
        return config.alphas
    if isinstance(alpha, (list, tuple)):
        if len(alpha) != len(config.pairs):
            raise UserError(
                f"alpha: {len(alpha)} values for {len(config.pairs)} pairs; send one number, or one for each"
            )
        return tuple(check_alpha(value, f"alpha[{k}]") for k, value in enumerate(alpha))
    return (check_alpha(alpha, "alpha"),) * len(config.pairs)


def single_model_row(config: RastConfig, name: str) -> tuple[float, ...]:
    """1 for the named model, 0 for the others: `base`, `positive`, `negative`, or `positive:2` for the second pair."""
    names = single_models(config)
    if name not in names:
        raise UserError(f"alpha: {name!r} is neither a number nor a model; choose one of {', '.join(names)}")
    return tuple(float(column == names[name]) for column in range(len(config.sources)))


def single_models(config: RastConfig) -> dict[str, int]:
    """Every name a request may use for a single model, with the model's place among `config.sources`."""
    names = {"base": 0}
    for number, (positive, negative) in enumerate(config.columns, start=1):
        for side, column in (("positive", positive), ("negative", negative)):
            if column is not None:
                names.setdefault(side, column)
                names[f"{side}:{number}"] = column
    return names
