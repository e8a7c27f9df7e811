"""A sweep: accuracy over alpha, gate and temperature, its numbers and its plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_rast.evaluation.reports.plots import COLOURS, MORE_COLOURS, MORE_MARKERS, PNG_DPI

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vllm_rast.evaluation.scores.summary import Summary

FIGURE_IN = (5.6, 3.8)  # inches, width and height
GATE = "the gate's threshold"


@dataclass(frozen=True)
class Point:
    """One combination of a sweep; temperature None is the benchmark's own. gate: a condition and its value."""

    alpha: float
    temperature: float | None = None
    gate: tuple[str, float] | None = None

    @property
    def row(self) -> str:
        gate = "" if self.gate is None else "+{}={:g}".format(*self.gate)
        return f"alpha={self.alpha:g}{gate}" + ("" if self.temperature is None else f"@{self.temperature:g}")

    @property
    def row_argument(self) -> str:
        """This point as `generate --rows` takes it."""
        at = "" if self.temperature is None else f"@{self.temperature!r}"
        gated = self.gate and json.dumps({"alpha": self.alpha, "gate": dict([self.gate])})
        return f"{self.row}={gated or repr(self.alpha)}{at}"

    def entry(self) -> dict[str, Any]:
        """The point in sweep.json."""
        said = {"alpha": self.alpha, "temperature": self.temperature, "row": self.row}
        return said if self.gate is None else said | {"gate": dict([self.gate])}


def sweep_json(summary: Summary, points: Sequence[Point]) -> dict[str, Any]:
    """Accuracies (0 to 1) with their 95 % intervals over questions: of every point, and of the rows beside them."""
    names = {point.row: point for point in points}
    others = [name for name in summary.rows if name not in names]
    return {
        "points": [{**point.entry(), **scores(summary, name)} for name, point in names.items() if name in summary.rows],
        "rows": {name: scores(summary, name) for name in others},
    }


def scores(summary: Summary, name: str) -> dict[str, Any]:
    row = summary.rows[name]
    return {"avg": row.avg.value, "ci": row.avg.ci, "n": row.n, "truncated": row.truncated / row.samples}


def write_plot(numbers: dict[str, Any], folder: Path, title: str) -> list[Path]:
    """Draw what `sweep_json` returned as sweep.png and sweep.svg; the bands are 95 % intervals over questions."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "vllm-rast"
    from matplotlib.figure import Figure

    figure = Figure(figsize=FIGURE_IN, layout="constrained")
    axes = figure.subplots()
    over, lines = curves(numbers["points"])
    if over == GATE:
        axes.set_xscale("log")
    for number, (label, line) in enumerate(lines.items()):
        draw_line(axes, line, over, label, number)
    ungated = {point["row"]: point for point in numbers["points"] if over == GATE and "gate" not in point}
    levels = ungated | numbers["rows"]
    draw_levels(axes, levels)
    axes.set_xlabel(over)
    axes.set_ylabel("accuracy, %")
    axes.set_title(f"avg@n over {over}, {title} (bands: 95 % over questions)", fontsize=9, loc="left")
    axes.grid(True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) + len(levels) > 1:
        axes.legend(fontsize=8, frameon=False)
    paths = [folder / "sweep.png", folder / "sweep.svg"]
    for path in paths:
        figure.savefig(path, dpi=PNG_DPI, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def curves(points: Sequence[dict[str, Any]]) -> tuple[str, dict[str, list[dict[str, Any]]]]:
    """What the axis shows, and the points of each line by its label, from left to right.

    The axis is alpha with a line for each temperature, or temperature if there is only one alpha. With gates it is
    their value, with a line for each condition, alpha and temperature.
    """
    if any("gate" in point for point in points):
        return GATE, gate_curves([point for point in points if "gate" in point])
    many = len({point["temperature"] for point in points}) > 1
    over, beside = ("alpha", "temperature")
    if many and len({point["alpha"] for point in points}) == 1:
        over, beside = beside, over
    lines: dict[str, list[dict[str, Any]]] = {}
    for point in sorted(points, key=lambda point: point[over] or 0.0):
        label = "mix" if point[beside] is None else f"{beside} {point[beside]:g}"
        lines.setdefault(label, []).append(point)
    return over, lines


def gate_curves(points: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The gated points of each line by its label, from left to right; `GATE` of each is its place."""
    lines: dict[str, list[dict[str, Any]]] = {}
    several = {name: len({point[name] for point in points}) > 1 for name in ("alpha", "temperature")}
    for point in points:
        ((condition, value),) = point["gate"].items()
        beside = [f"{name} {point[name]:g}" for name, many in several.items() if many and point[name] is not None]
        lines.setdefault(", ".join([condition, *beside]), []).append(point | {GATE: value})
    return {label: sorted(line, key=lambda point: point[GATE]) for label, line in lines.items()}


def draw_line(axes: Axes, line: Sequence[dict[str, Any]], over: str, label: str, number: int) -> None:
    colour = ("#D55E00", *MORE_COLOURS)[number % (len(MORE_COLOURS) + 1)]
    marker = ("D", *MORE_MARKERS)[number % (len(MORE_MARKERS) + 1)]
    places = [point[over] for point in line]
    ends = [point["ci"] or (point["avg"],) * 2 for point in line]
    low, high = ([100 * end for end in side] for side in zip(*ends, strict=True))
    axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    values = [100 * point["avg"] for point in line]
    axes.plot(places, values, color=colour, marker=marker, markersize=4, linewidth=1.6, label=label)


def draw_levels(axes: Axes, rows: dict[str, Any]) -> None:
    """Rows that no alpha moves, as level lines."""
    for name, row in rows.items():
        axes.axhline(100 * row["avg"], color=COLOURS.get(name, "#000000"), linestyle="--", linewidth=1.2, label=name)
