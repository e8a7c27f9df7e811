"""Which tokens the mix brings in, and which it drives out: where its likeliest token is not the base's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vllm_rast.evaluation.analysis.finding import Finding, label
from vllm_rast.evaluation.analysis.table import TraceTable
from vllm_rast.evaluation.reports.plots import styles_of
from vllm_rast.evaluation.reports.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEPT = 50  # tokens of a row and direction in the CSV file: so many by number, and so many by weight
SHOWN, DRAWN = 5, 12
CONTEXTS = 3


class Moved(NamedTuple):
    """One token. positions: how many. weight: the sum of JS(mix, base) over them, in nats."""

    text: str
    positions: int
    weight: float
    contexts: list[str]


def moved_tokens(table: TraceTable) -> Finding:
    """The tokens most often moved up (the mix's likeliest) and down (the base's) where the two differ."""
    lines, short, drawn = [], [], {}
    for row, some in table.by_row().items():
        for direction, model in (("up", "mix"), ("down", "base")):
            moved = most_moved(some, model)
            drawn[row, direction] = moved
            short.append([row, direction, ", ".join(f"{one.text!r} {one.positions}" for one in moved[:SHOWN])])
            lines += [
                [
                    row,
                    direction,
                    one.text,
                    one.positions,
                    1000 * one.positions / len(some),
                    one.weight,
                    *padded(one.contexts),
                ]
                for i, one in enumerate(moved)
                if i < KEPT or one.weight >= least_kept(moved)
            ]
    return Finding(
        "moved_tokens",
        ["row", "direction", "token", "count", "per_1000_tokens", "weight", *(f"context_{k + 1}" for k in range(3))],
        lines,
        Table(
            "tokens most often moved, with the number of positions",
            ["answers of", "direction", "tokens"],
            short,
        ),
        [partial(draw, row=row, drawn=drawn) for row in table.rows],
    )


def most_moved(table: TraceTable, model: str) -> list[Moved]:
    """The likeliest tokens of a model where mix and base differ, the most frequent first."""
    places = np.flatnonzero(table["mix_argmax"] != table["base_argmax"])
    ids = table[f"{model}_argmax"][places].astype(np.int64)
    weights = np.nan_to_num(table["js_mix_base"][places])
    found = []
    for token, count in zip(*np.unique(ids, return_counts=True), strict=True):
        here = places[ids == token]
        largest = here[np.argsort(-weights[ids == token], kind="stable")[:CONTEXTS]]
        contexts = [table.context(int(place)) for place in largest]
        found.append(Moved(table.text(int(token)), int(count), float(weights[ids == token].sum()), contexts))
    return sorted(found, key=lambda one: (-one.positions, -one.weight, one.text))


def least_kept(moved: list[Moved]) -> float:
    return sorted((one.weight for one in moved), reverse=True)[:KEPT][-1]


def padded(contexts: list[str]) -> list[str]:
    return contexts + [""] * (CONTEXTS - len(contexts))


def draw(axes: Axes, row: str, drawn: Mapping[tuple[str, str], list[Moved]]) -> None:
    """Up to the right, down to the left."""
    bars = [(one, 1) for one in drawn[row, "up"][:DRAWN]] + [(one, -1) for one in drawn[row, "down"][:DRAWN]]
    colour = styles_of([row])[row][0]
    heights = np.arange(len(bars))[::-1]
    colours = [colour if sign > 0 else "#AAAAAA" for _, sign in bars]
    axes.barh(heights, [sign * one.positions for one, sign in bars], color=colours)
    axes.set_yticks(heights, [repr(one.text).replace("$", r"\$") for one, _ in bars], fontsize=7)
    label(axes, f"moved in the answers of {row}", "positions: down to the left, up to the right", "")
