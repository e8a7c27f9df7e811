"""Speculation: the measured speed-ups beside the model, and what the model says of a GPU.

    python scripts/bench/speculation_plot.py --results scripts/results --figure docs/speculation.png

The model. A pass of all models over r rows takes the larger of two times, reading the weights and multiplying:

    seconds(W, r) = max(2 W / bandwidth, 2 W r / rate)      W: parameters in bfloat16, r: rows

With n requests that draft K tokens each, a round costs seconds(b + 2 s, n (K + 1)) + K seconds(s, n) and gives
n (1 + p + ... + p^K) tokens. Attention, launches and sampling are left out, so it is a bound, not a forecast. The left
panel draws measured points of one request beside the same formula for a machine on which rows are free; the right one
the best K from 0 to 8 on an H100 (3.35 TB/s, 989 TFLOP/s in bfloat16, as its data sheet says; nothing was run there).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.machine import spread

from vllm_rast.evaluation.reports.plots import COLOURS, MORE_COLOURS, PNG_DPI

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BANDWIDTH, RATE = 3.35e12, 989e12  # bytes and FLOPs for each second, of an H100 SXM
MOST = 8  # drafts
SHARE = 0.75  # of drafts accepted one by one: what the measured greedy cases have
# Base and small models, billions of parameters.
TRIPLES = {"32B + 1.5B": (32.8, 1.54), "32B + 7B": (32.8, 7.6), "14B + 7B": (14.8, 7.6), "32B + 14B": (32.8, 14.8)}
REQUESTS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
SMALL = 0.2  # the measured small models' cost, in the base's
LAYERS, ASKED = 3, 0.8  # their layers, and the share of accepted drafts that they were made for


def tokens(share: float, drafts: int) -> float:
    """Expected tokens of a round."""
    return sum(share**place for place in range(drafts + 1))


def seconds(parameters: float, rows: float) -> float:
    return max(2e9 * parameters / BANDWIDTH, 2e9 * parameters * rows / RATE)


def speed(base: float, small: float, requests: int, drafts: int, share: float) -> float:
    """Tokens per second of the mix; parameters in billions."""
    cost = seconds(base + 2 * small, requests * (drafts + 1)) + drafts * seconds(small, requests)
    return requests * tokens(share, drafts) / cost


def best(base: float, small: float, requests: int, share: float) -> float:
    return max(speed(base, small, requests, drafts, share) for drafts in range(MOST + 1))


def measured(folder: Path) -> Iterator[tuple[str, int, dict[str, float]]]:
    """(dtype, temperature and processor, drafts, speed-up over the mix without) of one request and fixed drafts.

    Of small models of a fifth of their base, and of whole runs: those that compare with the base alone.
    """
    for path in sorted(folder.glob("speculation-*.json")):
        content = json.loads(path.read_text())
        for result in content.get("results", ()) if content.get("benchmark") == "speculation" else ():
            times: dict[str, Any] = result["ms_per_token"]
            small = content["setup"].get("small_layers") == LAYERS and result["accepted"] == ASKED
            for name in filter(str.isdigit, times if small and result["batch"] == 1 and "base" in times else ()):
                ratios = [mix / ours for mix, ours in zip(times["mix"], times[name], strict=True)]
                case = f"{content['setup']['dtype']}, temperature {result['temperature']:g}, {processor_of(content)}"
                yield case, int(name), spread(ratios)


def processor_of(content: dict[str, Any]) -> str:
    """As "Intel(R) Xeon(R) Processor" is known."""
    words = content["machine"]["device"].replace("(R)", "").split()
    return " ".join(word for word in words if word not in ("Intel", "AMD", "Processor", "CPU"))


def draw_measured(axes: Axes, folder: Path) -> None:
    drafts = range(MOST + 1)
    for share, style in ((0.6, ":"), (SHARE, "-"), (0.9, "--")):
        curve = [tokens(share, k) * (1 + 2 * SMALL) / (1 + 2 * SMALL + k * SMALL) for k in drafts]
        axes.plot(drafts, curve, style, color=COLOURS["base"], label=f"model, {share:g} accepted")
    found = list(measured(folder))
    for index, case in enumerate(dict.fromkeys(case for case, _, _ in found)):
        points = sorted((k, values) for one, k, values in found if one == case)
        x = [k + 0.08 * (index - 1) for k, _ in points]
        middle = [values["median"] for _, values in points]
        reach = [[v["median"] - v["low"] for _, v in points], [v["high"] - v["median"] for _, v in points]]
        axes.errorbar(x, middle, reach, fmt="o", capsize=3, color=MORE_COLOURS[index], label=case)
    axes.set(xlabel="tokens drafted for each pass", ylabel="times as fast as without drafts", ylim=(0.8, 3.9))
    axes.set_title("One request, two cores (median, range)", fontsize=10)


def draw_modelled(axes: Axes) -> None:
    palette = (COLOURS["positive"], COLOURS["rast"], COLOURS["ceiling"], MORE_COLOURS[0])
    for colour, (name, (base, small)) in zip(palette, TRIPLES.items(), strict=True):
        without = [speed(base, small, n, 0, SHARE) for n in REQUESTS]
        gains = [best(base, small, n, SHARE) / plain for n, plain in zip(REQUESTS, without, strict=True)]
        alone = [
            best(base, small, n, SHARE) * seconds(base, n) / n for n in REQUESTS
        ]  # the base's own seconds for a token times the mix's speed
        axes.plot(REQUESTS, gains, color=colour, label=name)
        axes.plot(REQUESTS, alone, "--", color=colour)
    axes.axhline(1, color=COLOURS["base"], linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(REQUESTS, [str(n) for n in REQUESTS])
    axes.set(xlabel="running requests", ylabel="times as fast, best number of drafts")
    title = f"Model of an H100, {SHARE:g} accepted (not run)\nsolid: over the mix without, dashed: over the base alone"
    axes.set_title(title, fontsize=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parents[1] / "results", metavar="FOLDER")
    parser.add_argument("--figure", type=Path, required=True, metavar="FILE", help=".png, .svg or .pdf")
    options = parser.parse_args()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_measured(left, options.results)
    draw_modelled(right)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(options.figure, dpi=PNG_DPI)


if __name__ == "__main__":
    main()
