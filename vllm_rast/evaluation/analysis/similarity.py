"""How alike the differences are: of a small pair and of the large models, or of several pairs.

The paper (RAST, arXiv 2506.15710) takes the cosine of the two differences' raw logits at every position, draws the
line at 0.5, and finds the recovery rate to grow with the mean. A constant added to all of a model's logits changes
that cosine and no probability: the centred one is free of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from vllm_rast.evaluation.analysis.estimates import Estimate, grouped_means, mean
from vllm_rast.evaluation.analysis.finding import Finding, label, legend
from vllm_rast.evaluation.analysis.sparsity import MOVED
from vllm_rast.evaluation.analysis.table import PARTS, TraceTable
from vllm_rast.evaluation.reports.plots import styles_of
from vllm_rast.evaluation.reports.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PREFIX = "delta_cosine_"
THRESHOLD = 0.5
# The paper's mean cosines and recovery rates.
PAPER = ((0.715, 0.956), (0.517, 0.832), (0.528, 0.944))


def similarity(table: TraceTable, recovery: Mapping[str, float] | None = None) -> Finding | None:
    """The mean cosine of each two differences, over all tokens, where the mix moves and by tenth of the answer; None
    without two.

    recovery: the recovery rate of each row that has one.
    """
    kinds = [name for name in table.columns if name.startswith(PREFIX)]
    if not kinds:
        return None
    lines, short, profiles = [], [], {}
    overview: dict[str, dict[str, str]] = {}
    for row, some in table.by_row().items():
        for kind in kinds:
            whole = mean(some[kind], some.question)
            above = mean(some[kind] > THRESHOLD, some.question)
            tenths = grouped_means(some[kind], some.part, PARTS, some.question)
            profiles[row, kind] = tenths
            moved = some["js_mix_base"] > MOVED
            there = mean(some[kind][moved], some.question[moved])
            short.append([row, kind.removeprefix(PREFIX), str(whole), above.percent, str(there)])
            overview.setdefault(row, {"cosine": f"{whole.value:.2f}", "where moved": f"{there.value:.2f}"})
            lines.append([row, kind, "all", *whole, above.value, len(some)])
            share = float((some[kind][moved] > THRESHOLD).mean()) if moved.any() else np.nan
            lines.append([row, kind, "moved", *there, share, int(moved.sum())])
            for part, estimate in enumerate(tenths):
                inside = some[kind][some.part == part]
                share = float((inside > THRESHOLD).mean()) if len(inside) else np.nan
                lines.append([row, kind, part, *estimate, share, len(inside)])
    panels = [partial(draw_profiles, kind=kind, profiles=profiles) for kind in kinds]
    means, recovery = raw_means(table), recovery or {}
    known = {row: (means[row], rate) for row, rate in recovery.items() if row in means}
    if known:
        panels.append(partial(draw_recovery, known=known))
    return Finding(
        "similarity",
        ["row", "cosine", "tenth", "mean", "low", "high", "share_above_0.5", "tokens"],
        lines,
        Table(
            "similarity of differences, mean cosine over the tokens of each row's answers",
            ["row", "with", "cosine", "above 0.5", f"where JS > {MOVED:g}"],
            short,
        ),
        panels,
        overview,
    )


def raw_means(table: TraceTable) -> dict[str, float]:
    """The mean cosine of the first pair's difference with the ceiling's, for each row's answers."""
    kind = f"{PREFIX}ceiling"
    return {row: float(np.nanmean(some[kind])) for row, some in table.by_row().items()} if kind in table else {}


def draw_profiles(axes: Axes, kind: str, profiles: Mapping[tuple[str, str], list[Estimate]]) -> None:
    rows = [row for row, one in profiles if one == kind]
    middles = (np.arange(PARTS) + 0.5) / PARTS
    for row, (colour, marker) in styles_of(rows).items():
        value, low, high = np.array(profiles[row, kind]).T
        axes.fill_between(middles, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(middles, value, color=colour, marker=marker, markersize=4, label=row)
    axes.axhline(THRESHOLD, color="#000000", linewidth=0.8, linestyle="--")
    label(axes, f"cosine with {kind.removeprefix(PREFIX)}", "place in the answer", "mean cosine")
    legend(axes)


def draw_recovery(axes: Axes, known: Mapping[str, tuple[float, float]]) -> None:
    axes.scatter(*np.array(PAPER).T, color="#000000", marker="x", label="the paper's")
    for row, (colour, marker) in styles_of(known).items():
        axes.scatter(*known[row], color=colour, marker=marker, label=row)
    axes.axvline(THRESHOLD, color="#000000", linewidth=0.8, linestyle="--")
    label(axes, "recovery rate", "mean cosine (raw logits)", "recovery rate")
    legend(axes)
