"""The forms in which a request may say alpha, and the weight of every model that follows from them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from vllm_rast.errors import UserError, shown
from vllm_rast.mix.gate import Gate, read_gate
from vllm_rast.mix.schedule import Schedule

if TYPE_CHECKING:
    from vllm_rast.mix.config import RastConfig

# Beyond this the mix is the difference alone, and float32 logits (about 1e2 each) start to overflow into noise.
MAX_ALPHA = 1e4
# float32, in which the weights are computed, counts exactly up to here; no context is as long.
MAX_POSITION = 1 << 24
MAX_POINTS = 64
# A schedule as text: 64 points of many pairs, written with all digits, have a quarter of this many characters.
MAX_TEXT = 1 << 16

# What a request may send: a number for all pairs, one number for each, the name of a single model, or a schedule or
# gate (a dictionary, a list of [position, alpha], or either as JSON text).
Alpha = float | Sequence[Any] | str | dict[str, Any]


def check_alpha(value: object, option: str) -> float:
    """Return value as a float. Raises UserError unless it is a finite number of size at most MAX_ALPHA."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"{option}: expected a number, got {shown(value)}")
    try:
        alpha = float(value)
    except OverflowError:
        alpha = math.inf
    if not math.isfinite(alpha) or abs(alpha) > MAX_ALPHA:
        raise UserError(
            f"{option}: expected a finite number between -{MAX_ALPHA:g} and {MAX_ALPHA:g}, got {shown(value)}"
        )
    return alpha


def plain_alpha(alpha: Any, depth: int = 0) -> Any:
    """An alpha in Python's own numbers, texts, lists and dictionaries, whatever library its parts are from.

    Scalars and arrays of NumPy, tensors, fractions and decimals become numbers and lists of them; subclasses of text
    become text. Anything else stays, for `parse_alpha` to refuse.
    """
    if depth > 4:
        raise UserError("alpha: lists are nested too deeply; send [[position, alpha], ...] at most")
    if isinstance(alpha, str):
        return str(alpha)
    if isinstance(alpha, dict):
        return {str(key) if isinstance(key, str) else key: plain_alpha(one, depth + 1) for key, one in alpha.items()}
    if isinstance(alpha, (list, tuple)):
        return [plain_alpha(one, depth + 1) for one in alpha]
    if isinstance(alpha, bool) or type(alpha) in (int, float):
        return alpha
    if isinstance(alpha, Integral):
        return int(alpha)
    if isinstance(alpha, (Real, Decimal)):
        try:
            return float(alpha)
        except (OverflowError, ValueError):
            return alpha
    if hasattr(alpha, "tolist"):  # an array of NumPy, or a tensor
        return plain_alpha(alpha.tolist(), depth + 1)
    return alpha


def parse_alpha(config: RastConfig, alpha: Alpha | None) -> Schedule:
    """The weights of one request at every generated position, from anything that a request may say.

    Besides what `weight_row` takes: {"alpha": A, "warmup": N} (alpha 0 for the first N tokens), {"alpha": A,
    "until": N} (alpha 0 from the N-th on), both together, {"steps": [[position, A], ...]} or that list alone (0 before
    the first), and {"ramp": [[position, A], ...]} (straight lines, constant outside). A is a number or one for each
    pair; without it, warmup and until take the engine's default. Each of them, and {"alpha": A} alone, may have a
    "gate" (see `vllm_rast.mix.gate`). Raises UserError, naming alpha, for anything else.
    """
    if alpha is None:
        return Schedule((0,), (weight_row(config, None),), gate=config.gate)
    alpha = plain_alpha(alpha)
    if isinstance(alpha, str) and alpha.lstrip()[:1] in ("{", "["):
        alpha = read_text(alpha)
    if isinstance(alpha, dict):
        return read_gated(config, alpha) if "gate" in alpha else read_schedule(config, alpha)
    if isinstance(alpha, (list, tuple)) and alpha and isinstance(alpha[0], (list, tuple)):
        return read_points(config, alpha, "alpha")
    return Schedule((0,), (weight_row(config, alpha),))


def kind_of(config: RastConfig, alpha: Alpha | None) -> str:
    """What a request decodes with, in one word: "mix", "schedule", "gate", or the single model ("base", "positive:2").

    A model has one word, the first of its names in `single_models`. Raises UserError as `parse_alpha` does.
    """
    schedule = parse_alpha(config, alpha)
    names = single_models(config)
    if isinstance(alpha, str) and alpha in names:
        return next(name for name, column in names.items() if column == names[alpha])
    if schedule.gate is not None:
        return "gate"
    return "mix" if len(schedule.positions) == 1 else "schedule"


def weight_row(config: RastConfig, alpha: Alpha | None) -> tuple[float, ...]:
    """The weight of each model for a constant alpha, [num_models], in the order of `config.sources`.

    base + sum_k alpha_k * (positive_k - negative_k) gives 1 to the base, alpha_k to the positive and -alpha_k to the
    negative of pair k (RAST, arXiv 2506.15710, equation 3); a model that stands in several places gets the sum.
    None means the engine's default. Raises UserError, naming alpha, for anything else than a number, one number for
    each pair, or the name of a single model.
    """
    if isinstance(alpha, str):
        return single_model_row(config, alpha)
    return mix_row(config, config.alphas if alpha is None else alphas_of(config, alpha))


def mix_row(config: RastConfig, alphas: Sequence[float]) -> tuple[float, ...]:
    """The weight of each model, [num_models], from one alpha for each pair."""
    row = [1.0] + [0.0] * (len(config.sources) - 1)
    for value, pair, columns in zip(alphas, config.pairs, config.columns, strict=True):
        for column, weight in zip(columns, pair.weights(value), strict=True):
            if column is not None:
                row[column] += weight
    return tuple(row)


def alphas_of(config: RastConfig, alpha: object, option: str = "alpha") -> tuple[float, ...]:
    """One alpha for each pair, [num_pairs], from one number or a list of them."""
    if isinstance(alpha, (list, tuple)):
        if len(alpha) != len(config.pairs):
            raise UserError(
                f"{option}: {len(alpha)} values for {len(config.pairs)} pairs; send one number, or one for each"
            )
        return tuple(check_alpha(value, f"{option}[{k}]") for k, value in enumerate(alpha))
    return (check_alpha(alpha, option),) * len(config.pairs)


def read_text(text: str) -> Any:
    """A list or dictionary from JSON text, the form for clients and servers that let no dictionary through."""
    if len(text) > MAX_TEXT:
        raise UserError(f"alpha: {len(text):,} characters are too many; send at most {MAX_TEXT:,}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"alpha: {shown(text)} looks like JSON but does not parse; check brackets and quotes") from None


def default_alpha(alpha: Any) -> tuple[Any, Gate | None]:
    """An engine's default alpha without its gate, and the gate: from {"alpha": A, "gate": {...}}, or JSON text of it.

    Anything else is returned as it is. Raises UserError for other dictionaries.
    """
    if isinstance(alpha, str) and alpha.lstrip()[:1] == "{":
        alpha = read_text(alpha)
    if not isinstance(alpha, dict):
        return alpha, None
    if not alpha.keys() <= {"alpha", "gate"}:
        raise UserError('alpha: by default a number, or {"alpha": A, "gate": {...}}; send a schedule with the request')
    gate = read_gate(plain_alpha(alpha["gate"])) if "gate" in alpha else None
    return alpha.get("alpha"), gate


def read_gated(config: RastConfig, values: dict[Any, Any]) -> Schedule:
    """A constant alpha, or any schedule from a dictionary, with a gate."""
    rest = {key: value for key, value in values.items() if key != "gate"}
    if rest.keys() <= {"alpha"}:
        alphas = alphas_of(config, rest["alpha"], "alpha.alpha") if rest else config.alphas
        schedule = Schedule((0,), (mix_row(config, alphas),))
    else:
        schedule = read_schedule(config, rest)
    return replace(schedule, gate=read_gate(values["gate"]))


def read_schedule(config: RastConfig, values: dict[Any, Any]) -> Schedule:
    """A schedule from a dictionary: one of FORMS alone, or "warmup", "until" or both, with or without "alpha"."""
    for key in values:
        if key not in ("alpha", "warmup", "until", *FORMS):
            forms = ", or ".join(FORMS)
            raise UserError(f"alpha: unknown key {shown(key)}; send alpha with gate, warmup or until, or {forms}")
    for key, read in FORMS.items():
        if key in values:
            if len(values) > 1:
                raise UserError(f"alpha: {key} stands alone; leave out the other keys, or use them without {key}")
            return read(config, values[key], f"alpha.{key}")
    if not {"warmup", "until"} & values.keys():
        *most, last = ("warmup", "until", *FORMS)
        raise UserError(f"alpha: a schedule needs {', '.join(most)} or {last}; for a constant alpha send the number")
    return read_window(config, values)


def read_window(config: RastConfig, values: dict[str, Any]) -> Schedule:
    """alpha 0 before "warmup" and from "until" on, and the given alpha between them."""
    alphas = alphas_of(config, values["alpha"], "alpha.alpha") if "alpha" in values else config.alphas
    begin = check_position(values.get("warmup", 0), "alpha.warmup")
    rows = {0: no_mix(config), begin: mix_row(config, alphas)}
    if "until" in values:
        end = check_position(values["until"], "alpha.until")
        if "warmup" in values and end <= begin:
            raise UserError(f"alpha.until: {end} must be more than warmup, {begin}")
        rows[end] = no_mix(config)
    return Schedule(tuple(rows), tuple(rows.values()))


def read_points(config: RastConfig, points: object, option: str, linear: bool = False) -> Schedule:
    """A schedule from [position, alpha] pairs, at most MAX_POINTS, with positions that increase."""
    if not isinstance(points, (list, tuple)) or not points:
        raise UserError(f"{option}: expected a list of [position, alpha], got {shown(points)}")
    if len(points) > MAX_POINTS:
        raise UserError(f"{option}: {len(points):,} points are too many; send at most {MAX_POINTS}")
    positions: list[int] = []
    rows: list[tuple[float, ...]] = []
    for k, point in enumerate(points):
        if not isinstance(point, (list, tuple)) or len(point) != 2:
            raise UserError(f"{option}[{k}]: expected [position, alpha], got {shown(point)}")
        position = check_position(point[0], f"{option}[{k}][0]")
        if positions and position <= positions[-1]:
            raise UserError(f"{option}[{k}][0]: positions must increase, and {position} follows {positions[-1]}")
        positions.append(position)
        rows.append(mix_row(config, alphas_of(config, point[1], f"{option}[{k}][1]")))
    if positions[0] > 0:
        positions.insert(0, 0)
        rows.insert(0, rows[0] if linear else no_mix(config))
    return Schedule(tuple(positions), tuple(rows), linear)


# The forms that stand alone in their dictionary: their key, and how its value is read. A new one is an entry here.
FORMS: dict[str, Callable[[RastConfig, Any, str], Schedule]] = {
    "steps": read_points,
    "ramp": partial(read_points, linear=True),
}


def check_position(value: object, option: str) -> int:
    """Return a generated position. Raises UserError unless it is an integer from 0 to MAX_POSITION."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) <= MAX_POSITION:
        raise UserError(f"{option}: expected an integer from 0 to {MAX_POSITION}, got {shown(value)}")
    return int(value)


def no_mix(config: RastConfig) -> tuple[float, ...]:
    """The weights of alpha 0: the base alone."""
    return mix_row(config, (0.0,) * len(config.pairs))


def single_model_row(config: RastConfig, name: str) -> tuple[float, ...]:
    """1 for the named model, 0 for the others: `base`, `positive`, `negative`, or `positive:2` for the second pair."""
    names = single_models(config)
    if name not in names:
        raise UserError(f"alpha: {shown(name)} is neither a number nor a model; choose one of {', '.join(names)}")
    return tuple(float(column == names[name]) for column in range(len(config.sources)))


def single_models(config: RastConfig) -> dict[str, int]:
    """Every name a request may use for a single model, with the model's place among `config.sources`."""
    names = {"base": 0}
    for number, (positive, negative) in enumerate(config.columns, start=1):
        for side, column in (("positive", positive), ("negative", negative)):
            if column is not None:
                names.setdefault(side, column)
                names[f"{side}:{number}"] = column
    if config.ceiling_column is not None:
        names["ceiling"] = config.ceiling_column
    return names
