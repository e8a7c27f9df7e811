"""How many tokens one small model drafts before all models verify them, and which of them drafts."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

from vllm_rast.errors import UserError, shown
from vllm_rast.mix.alpha import single_models

if TYPE_CHECKING:
    from vllm_rast.mix.config import RastConfig

MAX_DRAFTS = 16  # beyond this no share of accepted tokens pays for the rows
AUTO = "auto"
AUTO_DRAFTS = 8  # the most that "auto" chooses: slots of the KV cache are kept for as many
DRAFTER = "positive"


def check_speculate(value: object, option: str = "speculate") -> int | str:
    """Return a number of drafts, or "auto". Raises UserError unless it is that or an integer from 0 (off) to 16."""
    return AUTO if isinstance(value, str) and value == AUTO else check_drafts(value, option, MAX_DRAFTS, ' or "auto"')


def check_drafts(value: object, option: str, most: int, otherwise: str = "") -> int:
    """Return a number of drafts. Raises UserError unless it is an integer from 0 to `most`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) <= most:
        raise UserError(f"{option}: expected an integer from 0 to {most}{otherwise}, got {shown(value)}")
    return int(value)


def most_drafts(speculate: int | str) -> int:
    """The most tokens that are drafted in a step."""
    return AUTO_DRAFTS if speculate == AUTO else int(speculate)


def drafter_column(config: RastConfig) -> int:
    """The place of the model that drafts among `config.sources`.

    Raises UserError if `config.drafter` is no small model of the mix.
    """
    names = {name: column for name, column in single_models(config).items() if name != "ceiling"}
    if config.drafter == DRAFTER and DRAFTER not in names:
        raise UserError("speculate: the positive drafts, and no pair has one; name another small model as the drafter")
    if not isinstance(config.drafter, str) or config.drafter not in names:
        small = ", ".join(sorted(name for name, column in names.items() if column))
        raise UserError(f"drafter: {shown(config.drafter)} is no model of the mix; choose one of {small}")
    if names[config.drafter] == 0:
        raise UserError(f"drafter: {config.drafter} is the base itself, whose drafts cost what they save; name another")
    return names[config.drafter]


def drafter_model(config: RastConfig) -> str | None:
    """The model that drafts, as its pair names it; None if nothing is drafted."""
    if not config.speculate:
        return None
    column = drafter_column(config)
    for pair, (positive, negative) in zip(config.pairs, config.columns, strict=True):
        if column in (positive, negative):
            return pair.positive if column == positive else pair.negative
    raise AssertionError("drafter_column names a model of some pair")


def describe_drafts(config: RastConfig) -> str:
    """One line about what drafts and what that takes, for people."""
    return (
        f"speculate {config.speculate}: {drafter_model(config)} drafts, all models verify; no extra weights, one extra"
        " slot of the KV cache per request and draft"
    )
