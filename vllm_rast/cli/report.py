"""`vllm-rast report`: tables, plots and a page to look at every sample, written into the run folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from vllm_rast.cli.arguments import add_grader_arguments
from vllm_rast.errors import UserError


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "report",
        help="write tables, plots and an HTML page of every sample",
        description="Grade what is not graded yet and write report.md, report.json, report.html, pass_at_k and "
        "maj_at_k (.png and .svg) into the run folder, or into --out.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder that `vllm-rast generate` wrote")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder to write to (needed for several runs)")
    parser.add_argument("--against", choices=["paper"], help="print the paper's numbers beside these")
    add_grader_arguments(parser)
    parser.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    import sys

    if len(args.runs) > 1 and args.out is None:
        raise UserError("--out DIR is needed to report on several runs: say where the report shall be written")
    from vllm_rast.evaluation.reports import report
    from vllm_rast.evaluation.reports.write import write_report
    from vllm_rast.evaluation.scores.evaluate import evaluate_runs

    evaluation = evaluate_runs(
        args.runs,
        grader=args.grader,
        timeout_s=args.timeout,
        workers=args.workers,
        regrade=args.regrade,
        out=args.out,
    )
    report.print_tables(evaluation)
    if args.against:
        report.print_paper(evaluation)
    folder = args.out or Path(args.runs[0])
    for path in write_report(evaluation, folder, against_paper=bool(args.against)):
        print(f"wrote {path}", file=sys.stderr)
    return 0
