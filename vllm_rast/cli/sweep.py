"""`vllm-rast sweep`: accuracy over alpha, gate and temperature, every combination in one engine."""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_rast.cli.arguments import (
    EPILOG,
    add_decoding_arguments,
    add_machine_arguments,
    add_model_arguments,
    add_run_arguments,
    add_speculation_arguments,
)
from vllm_rast.cli.generate import generate
from vllm_rast.cli.planning import plan_of, with_recipe
from vllm_rast.errors import UserError

if TYPE_CHECKING:
    from vllm_rast.evaluation.reports.sweep import Point

ALPHAS = "0,0.1,0.2,0.3,0.5,0.7,1,1.5,2,3"  # arXiv 2506.15710: flat from 0.3 to 1.5, worse on both sides


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "sweep",
        help="decode and evaluate over alpha, gate and temperature, in one engine, with a plot",
        description="Decode every combination of --alphas, --gates and --temperatures as a row of one run, all mixed "
        "in one engine's batch, grade it and draw accuracy over alpha, over the gates' thresholds if there are any, or "
        "over temperature if there is one alpha and no gate. Writes "
        "sweep.json, sweep.png and sweep.svg into the run folder. It goes on where it was stopped.",
        epilog=EPILOG,
    )
    parser.add_argument("--recipe", metavar="FILE", help="YAML file of these options; command-line options override it")
    parser.add_argument("--alphas", nargs="+", metavar="A", help=f"default: {ALPHAS}; with --gates 1")
    parser.add_argument(
        "--gates",
        default=[],
        nargs="+",
        metavar="FORM=X",
        help="gates to try with every alpha: js=0.01,0.1 or kl=0.1 for thresholds in nats, top=20 or top=0.1,"
        " random=0.05 for a share of the tokens, none for no gate",
    )
    parser.add_argument("--temperatures", default=[], nargs="+", metavar="T", help="default: --temperature")
    parser.add_argument(
        "--rows",
        default=[],
        nargs="+",
        metavar="ROW",
        help="rows to compare with, as for generate, drawn as level lines (such as positive)",
    )
    add_run_arguments(parser)
    add_model_arguments(parser)
    add_decoding_arguments(parser)
    add_speculation_arguments(parser)
    add_machine_arguments(parser)
    parser.set_defaults(func=main, engine_arguments=[], parser=parser)


def main(args: argparse.Namespace) -> int:
    if args.recipe:
        args = with_recipe(args)
    points = points_of(args)
    args.rows = [*(point.row_argument for point in points), *args.rows]
    code = generate(args, plan_of(args))
    return code if args.dry_run else report(args.run, points) or code


def points_of(args: argparse.Namespace) -> list[Point]:
    """Every combination of alpha and temperature, as a row of its own."""
    from vllm_rast.evaluation.reports.sweep import Point
    from vllm_rast.evaluation.tasks.sampling import check_temperature

    alphas = numbers(["1"] if args.alphas is None and args.gates else args.alphas or [ALPHAS], "--alphas")
    temperatures: list[float | None] = [*numbers(args.temperatures, "--temperatures")] or [None]
    if not alphas:
        raise UserError("--alphas: name at least one, such as 0.5,1")
    for value in temperatures:
        check_temperature(1.0 if value is None else value, "--temperatures")
    every = product(temperatures, alphas, gates_of(args.gates))
    return [Point(alpha, temperature, gate) for temperature, alpha, gate in every]


def gates_of(texts: list[str]) -> list[tuple[str, float] | None]:
    """(condition, value) of every gate, None for no gate. Raises UserError, naming --gates."""
    from vllm_rast.mix.gate import read_gate

    gates: list[tuple[str, float] | None] = []
    name = ""
    for item in (item for text in texts for item in text.split(",") if item.strip()):
        if item.strip() == "none":
            gates.append(None)
            continue
        name, value = item.split("=", 1) if "=" in item else (name, item)
        try:
            number = int(value) if value.isdigit() else float(value)
        except ValueError:
            raise UserError(f"--gates {item}: expected FORM=X such as js=0.1, or none") from None
        gates += read_gate({name: number}, "--gates").to_dict().items()
    return list(dict.fromkeys(gates)) or [None]


def numbers(texts: list[str], option: str) -> list[float]:
    """Numbers separated by commas or spaces; one that is named twice counts once."""
    items = [item for text in texts for item in text.split(",") if item.strip()]
    try:
        return list(dict.fromkeys(float(item) for item in items))
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None


def report(run: str, points: list[Point]) -> int:
    """Grade the run, print its tables and write the sweep's numbers and plot."""
    from vllm_rast.evaluation.reports.report import print_tables
    from vllm_rast.evaluation.reports.sweep import sweep_json, write_plot
    from vllm_rast.evaluation.runs.jsonl import write_atomically
    from vllm_rast.evaluation.scores.evaluate import evaluate_runs

    evaluation = evaluate_runs([run])
    print_tables(evaluation)
    numbers = sweep_json(evaluation.pooled, points)
    write_atomically(Path(run) / "sweep.json", json.dumps(numbers, indent=2) + "\n")
    for path in write_plot(numbers, Path(run), evaluation.title):
        print(path)
    return 0
