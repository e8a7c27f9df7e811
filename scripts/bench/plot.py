"""One figure and one markdown table of everything the benchmarks wrote.

    python scripts/bench/plot.py --results scripts/results --figure docs/benchmarks.png

Reads every .json file of the folder that scripts/bench/*.py wrote with --json, draws those that are there, and prints
the table for the README to stdout: median and range of each ratio, and the goal if there is one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.machine import cell, describe_line, table

from vllm_rast.evaluation.reports.plots import COLOURS, MORE_COLOURS, PNG_DPI

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_IN = (4.4, 3.3)  # inches, width and height of a panel
COLUMNS = 3
PALETTE = (COLOURS["positive"], COLOURS["rast"], COLOURS["ceiling"], *MORE_COLOURS)
MARKERS = "osD^vP"
GOALS = {"lockstep": 1.2, "transformers": 3.0, "batch 1": 2.0, "kernel": 0.85, "memory": 0.02, "import": 0.2}

Result = dict[str, Any]
Curve = tuple[str, list[float], list[dict[str, float]]]  # name, x, spreads


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parents[1] / "results", metavar="FOLDER")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="write the figure here (.png, .svg or .pdf)")
    return parser.parse_args()


def read_results(folder: Path) -> dict[str, list[Result]]:
    """The contents of every file by the benchmark that wrote it; "file" is added to each."""
    found: dict[str, list[Result]] = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        # kernel.py's files say what they are by their name alone.
        name = content.get("benchmark") or path.stem.partition("_")[0]
        found.setdefault(name, []).append({**content, "file": path.stem})
    return found


def setup_name(result: Result) -> str:
    """What tells two files of one benchmark apart, for a legend."""
    setup = {**result.get("settings", {}), **result.get("setup", {})}
    if "compile" in setup or "enforce_eager" in setup:
        eager = not setup["compile"] if "compile" in setup else setup["enforce_eager"] == "True"
        return ", ".join(filter(None, (setup.get("dtype"), "eager" if eager else "compiled")))
    return result["file"].partition("_")[2].replace("_", " ")


# Panels: a title, the axes' names, and curves with ranges.


def lockstep_curves(phase: str) -> Callable[[Iterable[Result]], list[Curve]]:
    def curves(results: Iterable[Result]) -> list[Curve]:
        return [
            (
                setup_name(result),
                [float(line["batch"]) for line in result["results"]],
                [line[phase]["efficiency"] for line in result["results"]],
            )
            for result in results
        ]

    return curves


def kernel_curves(results: Iterable[Result]) -> list[Curve]:
    curves = []
    for result in results:
        for dtype, in_place in dict.fromkeys((line["dtype"], line["in_place"]) for line in result["results"]):
            lines = [line for line in result["results"] if (line["dtype"], line["in_place"]) == (dtype, in_place)]
            name = f"{dtype}{', in place' if in_place else ''} {setup_name(result)}".strip()
            curves.append((name, [float(line["rows"]) for line in lines], [line["over_copy"] for line in lines]))
    return curves


def growth_curves(kind: str) -> Callable[[Iterable[Result]], list[Curve]]:
    def curves(results: Iterable[Result]) -> list[Curve]:
        found = []
        for result in results:
            lines = [line for line in result["results"] if line["kind"] == kind and not isinstance(line["value"], str)]
            if lines:
                values = [line["token_over_first"] for line in lines]
                found.append((setup_name(result) or "a token", [float(line["value"]) for line in lines], values))
        return found

    return curves


def serve_curves(results: Iterable[Result]) -> list[Curve]:
    curves = []
    for result in results:
        for row in dict.fromkeys(line["row"] for line in result["lines"] if line["row"] != "stock"):
            lines = [line for line in result["lines"] if line["row"] == row]
            curves.append((row, [float(line["clients"]) for line in lines], [line["ratio"] for line in lines]))
    return curves


def draw_curves(axes: Axes, curves: list[Curve], log_x: bool) -> None:
    """Medians as lines, ranges as bands."""
    for i, (name, xs, spreads) in enumerate(curves):
        colour = PALETTE[i % len(PALETTE)]
        axes.fill_between(
            xs, [one["low"] for one in spreads], [one["high"] for one in spreads], color=colour, alpha=0.15, linewidth=0
        )
        axes.plot(
            xs,
            [one["median"] for one in spreads],
            color=colour,
            marker=MARKERS[i % len(MARKERS)],
            markersize=4,
            linewidth=1.6,
            label=name,
        )
    if log_x:
        axes.set_xscale("log", base=2)
    ticks = sorted({x for _, xs, _ in curves for x in xs})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    # One disturbed turn must not press all the others flat; the files have it.
    medians, highs = ([one[name] for _, _, spreads in curves for one in spreads] for name in ("median", "high"))
    axes.set_ylim(0, min(1.5 * max(medians), 1.05 * max(highs)))
    if len(curves) > 1:
        axes.legend(fontsize=7.5, frameon=False)


def draw_bars(axes: Axes, bars: list[tuple[str, dict[str, float]]]) -> None:
    """Horizontal bars with ranges, the first on top."""
    for place, (name, one) in enumerate(reversed(bars)):
        axes.barh(place, one["median"], color=PALETTE[0], height=0.4)
        axes.plot([one["low"], one["high"]], [place, place], color="black", linewidth=1.2)
        axes.annotate(
            f"{one['median']:.2f}",
            (one["high"], place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
        axes.text(0.03, place + 0.33, name, va="center", fontsize=8)
    axes.set_yticks([])
    axes.set_ylim(-0.4, len(bars) - 0.4)
    axes.set_xlim(0, 1.15 * max(one["high"] for _, one in bars))


def against_transformers(results: Iterable[Result]) -> list[tuple[str, dict[str, float]]]:
    """A bar for each way of batching and each file."""
    return [
        (", ".join(filter(None, (line["name"], side, setup_name(result)))), ratio)
        for result in results
        for line in result["results"]
        for side, ratio in line["ratio"].items()
    ]


def startup_ratios(results: Iterable[Result]) -> list[tuple[str, dict[str, float]]]:
    """A bar for each mode and each file."""
    return [(f"{line['mode']}, {line['warmth']}", line["ratio"]) for result in results for line in result["results"]]


def frame(axes: Axes, title: str, x: str, y: str, goal: float | None) -> None:
    axes.set_title(title, fontsize=9, loc="left", fontweight="bold")
    axes.set_xlabel(x, fontsize=8.5)
    axes.set_ylabel(y, fontsize=8.5)
    axes.tick_params(labelsize=8)
    axes.grid(True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if goal is not None:
        axes.axhline(goal, color=COLOURS["base"], linewidth=1, linestyle=(0, (4, 3)))


def draw(found: dict[str, list[Result]], figure_path: Path) -> None:
    """All panels that there are results for."""
    from matplotlib.figure import Figure

    panels: list[Callable[[Axes], None]] = []

    def curves(
        name: str, make: Callable[[Iterable[Result]], list[Curve]], title: str, x: str, y: str, *, log_x: bool = True
    ) -> None:
        made = make(found.get(name, ()))
        if made:

            def panel(axes: Axes) -> None:
                draw_curves(axes, made, log_x)
                frame(axes, title, x, y, GOALS.get(name))

            panels.append(panel)

    def bars(
        name: str, make: Callable[[Iterable[Result]], list[tuple[str, dict[str, float]]]], title: str, x: str
    ) -> None:
        made = make(found.get(name, ()))
        if made:

            def panel(axes: Axes) -> None:
                draw_bars(axes, made)
                frame(axes, title, x, "", None)
                axes.axvline(1, color=COLOURS["base"], linewidth=1, linestyle=(0, (4, 3)))
                axes.grid(False, axis="y")

            panels.append(panel)

    for phase in ("decode", "prefill"):
        title = f"Models alone in stock vLLM / mix, {phase}"
        curves("lockstep", lockstep_curves(phase), title, "batch", "times as fast")
    bars("transformers", against_transformers, "Samples per second against transformers", "times as fast")
    curves("kernel", kernel_curves, "Bandwidth of the kernel / of a copy", "rows of 151,936", "ratio")
    token = "cost of a token, relative"
    curves("growth", growth_curves("requests"), "Cost of a token and requests at a time", "requests", token)
    curves("growth", growth_curves("context"), "Cost of a token and its context", "tokens of context", token)
    curves(
        "growth", growth_curves("pairs"), "Cost of a token and pairs", "pairs", "relative to stock vLLM", log_x=False
    )
    curves("serve", serve_curves, "Server's tokens per second / stock vLLM's", "clients", "ratio")
    bars("startup", startup_ratios, "First token of a new process / stock vLLM's", "times as long")
    if not panels:
        sys.exit("--results: no benchmark's results to draw there; write some with the benchmarks' --json")
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(PANEL_IN[0] * columns, PANEL_IN[1] * lines), layout="constrained")
    every = figure.subplots(lines, columns, squeeze=False)
    for axes, panel in zip(every.flat, panels, strict=False):
        panel(axes)
    for axes in every.flat[len(panels) :]:
        axes.set_visible(False)
    figure_path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(figure_path, dpi=PNG_DPI)


# The table: (what, median and range, goal).

Row = tuple[str, str, str]


def lockstep_rows(result: Result) -> Iterable[Row]:
    for line in result["results"]:
        for phase in ("decode", "prefill"):
            name = f"models one after the other / mix: {phase}, batch {line['batch']}, {setup_name(result)}"
            yield name, cell(line[phase]["efficiency"]), f"at least {GOALS['lockstep']:g}"


def transformers_rows(result: Result) -> Iterable[Row]:
    for line in result["results"]:
        goal = GOALS["batch 1"] if line["name"] == "batch 1" else GOALS["transformers"]
        for side, ratio in line["ratio"].items():
            name = ", ".join(filter(None, (line["name"], side, setup_name(result))))
            yield f"samples per second / transformers': {name}", cell(ratio), f"at least {goal:g}"


def kernel_rows(result: Result) -> Iterable[Row]:
    for line in result["results"]:
        name = f"{line['rows']} rows, {line['dtype']}{', in place' if line['in_place'] else ''}"
        yield f"kernel's bandwidth / a copy's: {name}", cell(line["over_copy"]), f"at least {GOALS['kernel']:g}"
        yield f"kernel / plain torch: {name}", cell(line["times_torch"]), ""


def growth_rows(result: Result) -> Iterable[Row]:
    firsts: dict[str, Any] = {}
    for line in result["results"]:
        first = firsts.setdefault(line["kind"], line["value"])
        if line["value"] != first:
            name = f"cost of a token: {line['kind']} {line['value']} / {line['kind']} {first}"
            yield name.replace(f"pairs {first}", str(first)), cell(line["token_over_first"]), ""
    for line in result["memory"]:
        name = f"KV cache per token, allocated / planned: {line['pairs']} pairs"
        yield name, f"{line['allocated_over_planned']:.3f}", f"within {100 * GOALS['memory']:g} %"


def startup_rows(result: Result) -> Iterable[Row]:
    for line in result["results"]:
        yield (
            f"first token, {line['mode']}, {line['warmth']}: mix / stock vLLM with the base",
            f"{cell(line['ratio'])}; {cell(line['mix_seconds'], 1)} s",
            "",
        )
    yield "`import vllm_rast`, s", cell(result["imports"]["vllm_rast"], 3), f"below {GOALS['import']:g}"


def serve_rows(result: Result) -> Iterable[Row]:
    for line in result["lines"]:
        if line["row"] != "stock":
            name = (
                f"a server's tokens per second / stock vLLM's with the base: {line['row']}, {line['clients']} clients"
            )
            yield name, cell(line["ratio"]), ""


def rounding_rows(result: Result) -> Iterable[Row]:
    """At alpha 1; "moved" is how far the mix is from the base."""
    for line in result["results"]:
        if line["alpha"] == 1 and line["way"] != "moved":
            yield f"KL of the float64 mix to: {line['way']}, nats", f"{line['kl_mean']:.1e}", ""


ROWS: dict[str, Callable[[Result], Iterable[Row]]] = {
    "lockstep": lockstep_rows,
    "transformers": transformers_rows,
    "kernel": kernel_rows,
    "growth": growth_rows,
    "startup": startup_rows,
    "serve": serve_rows,
    "rounding": rounding_rows,
}


def setup_line(result: Result) -> str:
    """Models and problem size of a file, if it says them."""
    settings = {**result.get("settings", {}), **result.get("setup", {})}
    names = ("models", "base", "small", "dtype", "their_dtype", "compile", "enforce_eager", "prompts", "n", "longest")
    return ", ".join(f"{name} {settings[name]}" for name in names if name in settings)


def main() -> None:
    options = parse()
    found = read_results(options.results)
    for name, make in ROWS.items():
        for result in found.get(name, ()):
            setup = setup_line(result)
            print(f"\n{result['file']}: {describe_line(result['machine'])}{'; ' if setup else ''}{setup}\n")
            print(table(("what", "median (range)", "goal"), make(result)))
    if options.figure:
        draw(found, options.figure)
        print(f"wrote {options.figure}", file=sys.stderr)


if __name__ == "__main__":
    main()
