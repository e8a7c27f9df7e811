"""Curves of every drawn metric against k, one panel for each benchmark, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_rast.evaluation.scores.intervals import over_questions
from vllm_rast.evaluation.scores.metric import METRICS, Metric
from vllm_rast.evaluation.scores.summary import Summary, curve_ks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The palette of Okabe and Ito, distinguished by readers with any of the common colour deficiencies; the four rows of a
# demo keep theirs whatever else is drawn.
COLOURS = {"base": "#5A5A5A", "positive": "#0072B2", "rast": "#D55E00", "ceiling": "#009E73"}
MORE_COLOURS = ("#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F", "#6A3D9A", "#000000")
MARKERS = {"base": "o", "positive": "s", "rast": "D", "ceiling": "^"}
MORE_MARKERS = ("v", "P", "X", "<", ">", "*")
PANEL_IN = (4.6, 3.5)  # inches, width and height of a panel
COLUMNS = 3
LABEL_GAP = 0.052  # least distance of two labels, as a share of the panel's height
PNG_DPI = 160


def write_curves(summaries: Mapping[str, Summary], folder: Path, title: str) -> list[Path]:
    """Write every drawn metric's figure into `folder` as .png and .svg, with a panel for each of the named summaries.

    The bands are 95 % intervals over questions.
    """
    paths = []
    for metric in (metric for metric in METRICS if metric.drawn):
        figure = draw(summaries, metric, title)
        for suffix in ("png", "svg"):
            path = folder / f"{metric.key}.{suffix}"
            # Without a date and with a fixed salt for ids, equal numbers give equal files.
            figure.savefig(path, dpi=PNG_DPI, metadata={"Date": None} if suffix == "svg" else None)
            paths.append(path)
    return paths


def draw(summaries: Mapping[str, Summary], metric: Metric, title: str) -> Figure:
    """The figure of one metric, a panel for each of the summaries."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "vllm-rast"
    from matplotlib.figure import Figure

    lines = -(-len(summaries) // COLUMNS)
    columns = -(-len(summaries) // lines)
    figure = Figure(figsize=(PANEL_IN[0] * columns + 0.6, PANEL_IN[1] * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False)
    figure.suptitle(
        f"{metric.label}, {title} (bands: 95 % over questions)", x=0.01, ha="left", fontsize=10.5, fontweight="bold"
    )
    styles = row_styles(summaries)
    for panel, (name, summary) in zip(panels.flat, summaries.items(), strict=False):
        _draw_panel(panel, name, summary, metric, styles)
    for panel in panels.flat[len(summaries) :]:
        panel.set_visible(False)
    return figure


def row_styles(summaries: Mapping[str, Summary]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every row, the same in all panels."""
    return styles_of(dict.fromkeys(name for summary in summaries.values() for name in summary.rows))


def styles_of(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each of the named rows."""
    names = list(names)
    others = [name for name in names if name not in COLOURS]
    styles = {name: (COLOURS[name], MARKERS[name]) for name in names if name in COLOURS}
    for i, name in enumerate(others):
        styles[name] = (MORE_COLOURS[i % len(MORE_COLOURS)], MORE_MARKERS[i // 2 % len(MORE_MARKERS)])
    return styles


def _draw_panel(axes: Axes, name: str, summary: Summary, metric: Metric, styles: Mapping[str, tuple[str, str]]) -> None:
    ends = {}
    for row in summary.rows.values():
        colour, marker = styles[row.name]
        ks = curve_ks(row.n)
        scores = [100 * metric.values(row, k) for k in ks]
        values = [float(score.mean()) for score in scores]
        bands = [over_questions(score / 100) or (value / 100,) * 2 for score, value in zip(scores, values, strict=True)]
        low, high = ([100 * end for end in ends] for ends in zip(*bands, strict=True))
        axes.fill_between(ks, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            ks, values, color=colour, marker=marker, markersize=4, linewidth=1.6, markevery=_marked(ks), clip_on=False
        )
        ends[row.name] = (ks[-1], values[-1])
    _frame(axes, name, summary)
    _label_ends(axes, ends, styles)


def _marked(ks: list[int]) -> list[int]:
    """Markers at powers of two and at the end, so that long curves are not beads on a string."""
    return [i for i, k in enumerate(ks) if k & (k - 1) == 0 or i == len(ks) - 1]


def _frame(axes: Axes, name: str, summary: Summary) -> None:
    rows = summary.rows.values()
    n = max(row.n for row in rows)
    questions = max(len(row.questions) for row in rows)
    axes.set_title(f"{name}: {questions} questions, {n} samples each", fontsize=9, loc="left")
    ticks = [k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if k <= n]
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.minorticks_off()
    axes.set_xlim(0.93, max(n, 2) * 1.02)
    axes.set_ylim(*_limits(axes))
    axes.set_xlabel("k", fontsize=9)
    axes.set_ylabel("accuracy, %", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _limits(axes: Axes) -> tuple[float, float]:
    """From the lowest to the highest band, rounded outwards to tens."""
    low, high = axes.dataLim.y0, axes.dataLim.y1
    return max(0.0, low // 10 * 10), min(100.0, -(-high // 10) * 10) + 1


def _label_ends(axes: Axes, ends: Mapping[str, tuple[int, float]], styles: Mapping[str, tuple[str, str]]) -> None:
    """Each row's name at the right end of its curve, moved apart if curves meet."""
    bottom, top = axes.get_ylim()
    names = sorted(ends, key=lambda name: ends[name][1])
    heights = spread([ends[name][1] for name in names], LABEL_GAP * (top - bottom))
    for name, height in zip(names, heights, strict=True):
        axes.annotate(
            f"{name} {ends[name][1]:.0f}",
            (axes.get_xlim()[1], height),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=styles[name][0],
            annotation_clip=False,
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights moved as little as possible (least squares) until neighbours are at least `gap` apart.

    With i gaps taken off the i-th height this is a regression that must not fall: neighbours out of order are pooled.
    """
    pools: list[tuple[float, int]] = []  # (mean, members)
    for i, height in enumerate(heights):
        pools.append((height - i * gap, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools.pop(), pools.pop()
            pools.append(((a * m + b * n) / (m + n), m + n))
    level = [mean for mean, members in pools for _ in range(members)]
    return [mean + i * gap for i, mean in enumerate(level)]
