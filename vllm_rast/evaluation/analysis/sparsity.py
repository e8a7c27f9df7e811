"""How few tokens the mix moves: the share above a divergence, and where in the answer they lie.

In nats: a Jensen-Shannon divergence is at most log 2 = 0.69. Between models and their RL-tuned selves, arXiv 2603.22446
finds it near 0 at more than 83 % (DAPO) and 98 % (SimpleRL) of all tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from vllm_rast.evaluation.analysis.estimates import Estimate, grouped_means, mean, ratios, short_percent
from vllm_rast.evaluation.analysis.finding import Finding, label, legend
from vllm_rast.evaluation.analysis.table import PARTS, TraceTable
from vllm_rast.evaluation.reports.plots import styles_of
from vllm_rast.evaluation.reports.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURES = ("js_mix_base", "kl_mix_base", "js_ceiling_base")
THRESHOLDS = tuple(float(f"{10 ** (k / 4):.3g}") for k in range(-16, 1))  # 1e-4 to 1, four to a decade
MOVED = 0.1  # nats of js_mix_base: what counts as moved in the profile and in the table


def sparsity(table: TraceTable) -> Finding:
    """The share of tokens above each threshold, over all tokens; above MOVED also by tenth of the answer."""
    lines, short, overview, curves, profiles = [], [], {}, {}, {}
    for row, some in table.by_row().items():
        for measure in (one for one in MEASURES if one in some):
            curve = shares_above(some, measure)
            curves[row, measure] = curve
            lines += [[row, measure, "all", t, *one] for t, one in zip(THRESHOLDS, curve, strict=True)]
            profile = grouped_means(some[measure] > MOVED, some.part, PARTS, some.question)
            profiles[row, measure] = profile
            lines += [[row, measure, part, MOVED, *one] for part, one in enumerate(profile)]
        changed = mean(some["base_argmax"] != some["mix_argmax"], some.question)
        lines.append([row, "argmax_changed", "all", "", *changed])
        moved = [mean(some["js_mix_base"] > threshold, some.question) for threshold in (0.01, MOVED)]
        short.append([row, *(one.percent for one in moved), changed.percent, f"{np.nanmean(some['kl_mix_base']):.4f}"])
        overview[row] = {f"JS > {MOVED:g}": short_percent(moved[1]), "argmax changes": short_percent(changed)}
    panels = [
        partial(draw_curves, curves=curves, measure="js_mix_base"),
        partial(draw_curves, curves=curves, measure="kl_mix_base"),
        partial(draw_profiles, profiles=profiles, measure="js_mix_base"),
    ]
    return Finding(
        "sparsity",
        ["row", "measure", "tenth", "threshold", "share", "low", "high"],
        lines,
        Table(
            "sparsity: share of each row's tokens that the mix moves",
            ["answers of", "JS > 0.01", "JS > 0.1", "argmax changes", "mean KL, nats"],
            short,
        ),
        panels,
        overview,
    )


def shares_above(table: TraceTable, measure: str) -> list[Estimate]:
    """The share of tokens above each of THRESHOLDS; a divergence that is no number counts as not above."""
    above = table[measure][:, None] > np.array(THRESHOLDS)
    sums = np.stack([np.bincount(table.question, weights=some) for some in above.T], axis=1)
    return ratios(sums, np.repeat(np.bincount(table.question)[:, None], len(THRESHOLDS), axis=1))


def draw_curves(axes: Axes, curves: Mapping[tuple[str, str], list[Estimate]], measure: str) -> None:
    for row, (colour, marker) in styles_of([row for row, one in curves if one == measure]).items():
        value, low, high = np.array(curves[row, measure]).T
        axes.fill_between(THRESHOLDS, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(THRESHOLDS, value, color=colour, marker=marker, markersize=3, label=row)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    label(axes, "tokens above a divergence", f"{measure[:2].upper()}(mix, base), nats", "share of tokens")
    legend(axes)


def draw_profiles(axes: Axes, profiles: Mapping[tuple[str, str], list[Estimate]], measure: str) -> None:
    middles = (np.arange(PARTS) + 0.5) / PARTS
    for row, (colour, marker) in styles_of([row for row, one in profiles if one == measure]).items():
        value, low, high = np.array(profiles[row, measure]).T
        axes.fill_between(middles, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(middles, value, color=colour, marker=marker, markersize=4, label=row)
    axes.set_ylim(bottom=0)
    label(axes, f"where they lie (JS > {MOVED:g})", "place in the answer", "share of tokens")
    legend(axes)
