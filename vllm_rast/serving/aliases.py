"""Model names that stand for weights: `BASE:base`, `BASE:positive`, `BASE:alpha=0.3`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from vllm_rast.errors import UserError
from vllm_rast.mix.alpha import Alpha, parse_alpha

if TYPE_CHECKING:
    from vllm_rast.mix.config import RastConfig

OPTION = "--expose"
SYNTAX = "base, positive, negative, positive:2, alpha=NUMBER, alpha=NUMBER/NUMBER (one per pair) or NAME=JSON"

# The alias that the request being answered was sent to; None for any other.
requested_alias: ContextVar[str | None] = ContextVar("requested_alias", default=None)


def parse_exposed(texts: Iterable[str], config: RastConfig) -> dict[str, Alpha]:
    """{label: alpha} of `--expose`: labels separated by commas, or one NAME=JSON of any form of alpha.

    A label is a single model's name or `alpha=...`; it is what follows `BASE:` in the alias. Raises UserError, naming
    the option, for a label that says nothing or occurs twice.
    """
    exposed: dict[str, Alpha] = {}
    for text in texts:
        for item in [text] if "{" in text or "[" in text else text.split(","):
            label, alpha = parse_label(item.strip())
            if label in exposed:
                raise UserError(f"{OPTION} {item.strip()}: the name {label!r} occurs twice; names must differ")
            try:
                parse_alpha(config, alpha)
            except UserError as error:
                raise UserError(f"{OPTION} {item.strip()}: {error}") from error
            exposed[label] = alpha
    return exposed


def parse_label(item: str) -> tuple[str, Alpha]:
    """One item of `--expose` as (label, alpha)."""
    label, equals, value = item.partition("=")
    if not label or (equals and not value):
        raise UserError(f"{OPTION} {item}: expected {SYNTAX}")
    if not equals:
        return label, label
    if value[0] in "{[":
        try:
            return label, json.loads(value)
        except ValueError as error:
            raise UserError(f"{OPTION} {item}: not JSON: {error}") from error
    try:
        numbers = [float(number) for number in value.split("/")]
    except ValueError:
        raise UserError(f"{OPTION} {item}: {value!r} is no number; expected {SYNTAX}") from None
    return item if label == "alpha" else label, numbers[0] if len(numbers) == 1 else numbers


def with_served_names(names: Iterable[str], exposed: dict[str, Alpha]) -> dict[str, Alpha]:
    """{alias: alpha} with the full names that clients send: every served name with every label."""
    return {f"{name}:{label}": alpha for name in names for label, alpha in exposed.items()}


def show_aliases(models: Any, aliases: Iterable[str]) -> None:
    """Let vLLM's `OpenAIServingModels` serve the aliases: listed, found, and named in the answers of their requests."""
    from vllm.entrypoints.openai.models.protocol import BaseModelPath

    first = models.base_model_paths[0]
    models.base_model_paths.extend(BaseModelPath(alias, first.model_path) for alias in aliases)
    name_of = models.model_name
    models.model_name = lambda *args: requested_alias.get() or name_of(*args)
