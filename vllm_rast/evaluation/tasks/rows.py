"""Rows of a results table: each decodes with a formula of its own, all in one engine."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm_rast.errors import UserError
from vllm_rast.evaluation.tasks.sampling import check_temperature
from vllm_rast.mix.alpha import Alpha, alphas_of, parse_alpha
from vllm_rast.mix.config import RastConfig

SYNTAX = (
    "NAME=ALPHA, with ALPHA a number, numbers joined by '/' (one per pair), base, positive, negative, positive:2, or a "
    'schedule or gate such as {"alpha": 1, "warmup": 100} or {"alpha": 1, "gate": {"js": 0.1}}'
)
NAME = re.compile(r"[A-Za-z0-9][\w.+=@-]*")


@dataclass(frozen=True)
class Row:
    """A name, the request's alpha (schedules and gates as JSON text), and a temperature if the row has its own."""

    name: str
    alpha: Alpha
    temperature: float | None = None

    def entry(self, config: RastConfig) -> dict[str, Any]:
        """What config.json says about this row; the formula names the models, so it is what must not change."""
        alpha = self.alpha if isinstance(self.alpha, str | int | float) else list(self.alpha)
        entry: dict[str, Any] = {"alpha": alpha, "formula": formula(config, self.alpha)}
        return entry if self.temperature is None else entry | {"temperature": self.temperature}


def parse_rows(texts: Sequence[str], config: RastConfig) -> list[Row]:
    """Rows from the command line's form: names and NAME=ALPHA[@TEMPERATURE], separated by commas or spaces.

    `base`, `positive` and `negative` alone name the models, `rast` the mix with the pairs' own alphas. Raises
    UserError, naming --rows, for anything else.
    """
    items = [item.strip() for text in texts for item in split_items(text) if item.strip()]
    rows = [parse_row(item, config) for item in items]
    if not rows:
        raise UserError("--rows: name at least one row, such as base,rast")
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--rows: the name {name!r} occurs twice; names must differ")
    return rows


def split_items(text: str) -> list[str]:
    """The parts between commas that stand outside brackets: a schedule has commas of its own."""
    items, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth <= 0:
            items.append("")
        else:
            items[-1] += character
    return items


def parse_row(item: str, config: RastConfig) -> Row:
    name, equals, what = item.rpartition("=")
    what, _, temperature = what.partition("@")
    name = name if equals else what
    if not NAME.fullmatch(name):
        raise UserError(f"--rows {item}: {name!r} is not a name; write {SYNTAX}")
    alpha = read_alpha(item, what, config)
    try:
        parse_alpha(config, alpha)
    except UserError as error:
        raise UserError(f"--rows {item}: {error}") from error
    if is_schedule(alpha):
        alpha = json.dumps(json.loads(str(alpha)))  # with the same spaces always, as a run is resumed by it
    return Row(name, alpha, parse_temperature(item, temperature))


def is_schedule(alpha: Alpha) -> bool:
    """Whether a row's alpha is JSON text, as only schedules and gates are."""
    return isinstance(alpha, str) and alpha[:1] in ("{", "[")


def read_alpha(item: str, what: str, config: RastConfig) -> Alpha:
    if what == "rast":
        if not config.pairs:
            raise UserError(f"--rows {item}: there is nothing to mix; name --positive and --negative")
        alphas = config.alphas[0] if len(set(config.alphas)) == 1 else config.alphas
        return alphas if config.gate is None else json.dumps({"alpha": alphas, "gate": config.gate.to_dict()})
    if is_schedule(what):
        return what
    numbers = what.split("/")
    try:
        values = tuple(float(number) for number in numbers)
    except ValueError:
        if what.partition(":")[0] in ("base", "positive", "negative"):
            return what
        raise UserError(f"--rows {item}: {what!r} is neither a model nor a number; write {SYNTAX}") from None
    if item == what:
        raise UserError(f"--rows {item}: a number needs a name; write NAME={item}")
    return values[0] if len(values) == 1 else values


def parse_temperature(item: str, text: str) -> float | None:
    try:
        return check_temperature(float(text), f"--rows {item}") if text else None
    except ValueError:
        raise UserError(f"--rows {item}: the temperature {text!r} is not a number") from None


def formula(config: RastConfig, alpha: Alpha) -> str:
    """What a row decodes with, in the models' own names: "A + 0.5 * (P - N)", or the name of one model.

    A schedule is "A + alpha(t) * (P - N) with alpha(t) = ...", t the generated position. A gate stands behind it:
    "A + 0.5 * (P - N) gated by {...}".
    """
    if is_schedule(alpha) and isinstance(values := json.loads(str(alpha)), dict) and "gate" in values:
        gate = json.dumps(values.pop("gate"))
        return f"{formula(config, ungated(config, values))} gated by {gate}"
    if is_schedule(alpha):
        values = [f"alpha{k + 1}(t)" for k in range(len(config.pairs))] if len(config.pairs) > 1 else ["alpha(t)"]
        return f"{sum_of_pairs(config, values)} with {', '.join(values)} = {alpha}"
    if isinstance(alpha, str):
        return model_name(config, alpha)
    return sum_of_pairs(config, [repr(value) if value else "" for value in alphas_of(config, alpha)])


def ungated(config: RastConfig, values: dict[str, Any]) -> Alpha:
    """What is left of an alpha's dictionary without its gate, in the form that a row has."""
    if values.keys() <= {"alpha"}:
        alpha = values.get("alpha", config.alphas)
        return tuple(alpha) if isinstance(alpha, list | tuple) else alpha
    return json.dumps(values)


def sum_of_pairs(config: RastConfig, values: Sequence[str]) -> str:
    """The base and every pair with its alpha as text, [num_pairs]; pairs with an empty one are left out."""
    terms = [pair.formula(value) for value, pair in zip(values, config.pairs, strict=True) if value]
    return " + ".join([config.base, *terms])


def model_name(config: RastConfig, alpha: str) -> str:
    """The model that "base", "positive" or "negative:2" stands for; without a number, the first there is."""
    side, _, number = alpha.partition(":")
    if side == "base":
        return config.base
    pairs = [config.pairs[int(number) - 1]] if number else config.pairs
    return next(name for pair in pairs if (name := getattr(pair, side)) is not None)
