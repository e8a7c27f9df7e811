"""What an analysis gives: its numbers, a short table, and a drawing."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vllm_rast.evaluation.analysis.estimates import Estimate
from vllm_rast.evaluation.reports.plots import PNG_DPI
from vllm_rast.evaluation.reports.tables import Table
from vllm_rast.evaluation.runs.jsonl import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_IN = (5.2, 3.5)  # inches
PANELS_IN_A_LINE = 2


@dataclass(frozen=True)
class Finding:
    """name: of its files. columns, lines: all numbers, for the CSV file. table: the most important ones. panels: one
    drawing for each. overview: the one or two numbers that count of each row, by row and title."""

    name: str
    columns: Sequence[str]
    lines: Sequence[Sequence[Any]]
    table: Table
    panels: Sequence[Callable[[Axes], None]] = ()
    overview: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([plain(value) for value in line] for line in self.lines)
        return text.getvalue()

    def figure(self) -> Figure:
        import matplotlib

        matplotlib.rcParams["svg.hashsalt"] = "vllm-rast"
        from matplotlib.figure import Figure

        columns = min(PANELS_IN_A_LINE, len(self.panels))
        lines = -(-len(self.panels) // columns)
        figure = Figure(figsize=(PANEL_IN[0] * columns, PANEL_IN[1] * lines), layout="constrained")
        every = figure.subplots(lines, columns, squeeze=False).flat
        for axes in every[len(self.panels) :]:
            axes.set_visible(False)
        for axes, draw in zip(every, self.panels, strict=False):
            axes.tick_params(labelsize=8)
            axes.grid(True, color="#DDDDDD", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            draw(axes)
        return figure

    def write(self, folder: Path) -> list[Path]:
        """NAME.csv, and NAME.png and .svg if there is something to draw; returns their paths."""
        paths = [folder / f"{self.name}.csv"]
        write_atomically(paths[0], self.csv())
        if self.panels:
            figure = self.figure()
            for suffix in ("png", "svg"):
                paths.append(folder / f"{self.name}.{suffix}")
                # Without a date, equal numbers give equal files.
                figure.savefig(paths[-1], dpi=PNG_DPI, metadata={"Date": None} if suffix == "svg" else None)
        return paths


def plain(value: Any) -> Any:
    """A value as a CSV file has it: six digits, and nothing for what is no number."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    return value


def label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)


def bars(
    axes: Axes,
    groups: Sequence[str],
    series: Mapping[str, Sequence[Estimate]],
    colours: Mapping[str, str],
    **ticks: Any,
) -> None:
    """Bars with intervals: in each group one of every series, which has an estimate for each group."""
    width = 0.8 / len(series)
    for i, (name, estimates) in enumerate(series.items()):
        value, low, high = np.array(estimates).T
        places = np.arange(len(groups)) + (i - (len(series) - 1) / 2) * width
        errors = np.nan_to_num(np.stack([value - low, high - value])).clip(min=0)
        axes.bar(places, value, width, color=colours[name], label=name, yerr=errors, error_kw={"linewidth": 0.8})
    axes.set_xticks(range(len(groups)), groups, **ticks)


def legend(axes: Axes) -> None:
    """Beside the drawing, where it covers nothing."""
    axes.legend(fontsize=7.5, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
