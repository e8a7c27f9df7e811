"""How few tokens carry the mix's gain: accuracy of gated mixes over the share of tokens that the gate lets through.

    python scripts/measure_gates.py --run runs/gates --json scripts/results/gates-2-cores.json --plot docs/gates.png

The shipped models on their benchmark, all rows in one engine: gates by JS and by KL over their thresholds, and a random
gate with each of the shares that the gates by JS turned out to have (so it is decoded after them, in the same run). The
share is counted in token traces of each row's own answers, read by its own mix: where a gate is closed the mix is the
base to the bit. It goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "scripts" / "bench"))

from common import machine as bench  # noqa: E402

JS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
KL = (0.003, 0.03, 0.3, 1.0, 2.0, 4.0)
TOP = (1, 2, 5, 0.1)
MORE_RANDOM = (0.1, 0.25, 0.5, 0.75)  # shares of tokens beyond those of the gates by divergence
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # percent
MODELS = ("--model", "tiny:base", "--positive", "tiny:positive", "--negative", "tiny:negative")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--limit", type=bench.positive, default=200, help="problems (default: %(default)s)")
    parser.add_argument("--n", type=bench.positive, default=4, help="samples of each (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here, too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it as PNG")
    return parser.parse_args()


def decode(args: argparse.Namespace, gates: list[str]) -> dict[str, dict[str, Any]]:
    """The gates as rows of the run; what `sweep` says of each point, by row."""
    from vllm_rast.cli.main import run

    sizes = ("--limit", str(args.limit), "--n", str(args.n), "--run", args.run)
    code = run(["sweep", *MODELS, *sizes, "--alphas", "1", "--gates", "none", *gates, "--rows", "base", "positive"])
    if code:
        sys.exit(code)
    numbers = json.loads((Path(args.run) / "sweep.json").read_text())
    return {point["row"]: point for point in numbers["points"]} | numbers["rows"]


def shares(args: argparse.Namespace, rows: list[str]) -> dict[str, Any]:
    """The share of each row's tokens at which the mix is not the base, with its interval over questions."""
    from vllm_rast.evaluation.analysis import reading as readings
    from vllm_rast.evaluation.analysis.answers import chosen_samples
    from vllm_rast.evaluation.analysis.estimates import mean
    from vllm_rast.evaluation.analysis.table import TraceTable
    from vllm_rast.evaluation.runs.folder import RunFolder

    folder = RunFolder(args.run)
    models = readings.models_of_run(folder.config)
    engine = readings.engine_of_run(folder.config, models, {})
    reading = readings.Reading(Path(args.run), models, rows, args.n, args.limit, engine=engine)
    traces = readings.read_answers(reading, readings.open_reader)
    keys = [sample.key for sample in chosen_samples(folder, rows, args.n, args.limit)]
    tables = TraceTable.read(traces, keys).by_row()
    return {row: list(mean(table["kl_mix_base"] > 0, table.question)) for row, table in tables.items()}


def main() -> None:
    args = parse()
    by_js = [f"js={value:g}" for value in JS]
    points = decode(args, [*by_js, *(f"kl={value:g}" for value in KL), *(f"top={value:g}" for value in TOP)])
    found = shares(args, [name for name, point in points.items() if "gate" in point])
    matched = sorted({float(f"{found[f'alpha=1+{gate}'][0]:.3g}") for gate in by_js})
    random = [f"random={value:g}" for value in (*matched, *MORE_RANDOM) if value > 0]
    points |= decode(args, random)
    found |= shares(args, [f"alpha=1+{gate}" for gate in random])
    lines = []
    for row, point in points.items():
        lines.append({"row": row, "share_of_tokens": found.get(row), "accuracy": point["avg"], "ci": point["ci"]})
    lines.sort(key=lambda line: line["row"])
    for line in lines:
        said = "" if line["share_of_tokens"] is None else f"{line['share_of_tokens'][0]:8.2%} of tokens"
        print(f"{line['row']:24} {said:20} {line['accuracy']:7.1%} {line['ci']}")
    if args.json:
        text = json.dumps({"benchmark": "gates", "machine": bench.describe(), "problems": args.limit, "n": args.n,
                           "rows": lines}, indent=1)  # fmt: skip
        args.json.write_text(text + "\n")
    if args.plot:
        draw(lines, args.plot)


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Accuracy over the share of tokens, a line for each condition; the base, and the mix without a gate, as levels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    styles = (("js", "#D55E00", "D", "-"), ("kl", "#0072B2", "s", "--"), ("random", "#5A5A5A", "o", "-"))
    for name, colour, marker, line in styles:
        some = [one for one in lines if f"+{name}=" in one["row"] and one["share_of_tokens"][0] > 0]
        some.sort(key=lambda one: one["share_of_tokens"][0])
        places = [100 * one["share_of_tokens"][0] for one in some]
        low, high = ([100 * one["ci"][end] for one in some] for end in (0, 1))
        axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        values = [100 * one["accuracy"] for one in some]
        axes.plot(places, values, color=colour, marker=marker, markersize=4, linestyle=line, label=name)
    for row, label, style in (("alpha=1", "the mix everywhere", "--"), ("base", "base", ":")):
        (level,) = [100 * line["accuracy"] for line in lines if line["row"] == row]
        axes.axhline(level, color="#000000", linestyle=style, linewidth=1.1, label=label)
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.minorticks_off()
    axes.set_xlabel("share of tokens that the mix decides, %")
    axes.set_ylabel("accuracy, %")
    axes.set_title("the tiny world: gates by divergence, and tokens at random", fontsize=9, loc="left")
    axes.grid(True, color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=160)


if __name__ == "__main__":
    main()
