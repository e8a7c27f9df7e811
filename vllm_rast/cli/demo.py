"""`vllm-rast demo`: the default benchmark with base, small tuned model, mix and ceiling, and its report."""

from __future__ import annotations

import argparse
from typing import Any

# The ceiling rides in the same engine as a second pair that no mix uses: alpha 0, and a row that is its positive alone.
OPTIONS = (
    *("--model", "tiny:base", "--positive", "tiny:positive", "--negative", "tiny:negative"),
    *("--pair", "tiny:ceiling,,0", "--rows", "base,positive,rast,ceiling=positive:2", "--benchmark", "tiny"),
)


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="decode the default benchmark with the shipped models and print the results",
        description="Decode the default benchmark with the shipped models, four rows in one engine, and report: the "
        "table with the recovery rate, the curves of pass@k and maj@k. A second time it only reports.",
    )
    parser.add_argument("--run", default="runs/demo", metavar="FOLDER", help="run folder (default: %(default)s)")
    parser.add_argument("--n", type=int, default=8, help="samples of each problem (default: %(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="decode only the first N problems")
    parser.add_argument(
        "--analyze", action="store_true", help="and read answers with all models: where the mix moves the base"
    )
    parser.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    from vllm_rast.cli.main import run

    limit = [] if args.limit is None else ["--limit", str(args.limit)]
    code = run(["generate", "--run", args.run, "--n", str(args.n), *limit, *OPTIONS])
    code = code or run(["report", args.run])
    return code or (run(["analyze", args.run]) if args.analyze else 0)
