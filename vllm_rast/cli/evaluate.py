"""`vllm-rast evaluate`: grade what is not graded yet and print the rows' accuracies with their error bars."""

from __future__ import annotations

import argparse

from vllm_rast.cli.arguments import add_grader_arguments
from vllm_rast.cli.exit_codes import BELOW, TOO_MANY_ERRORS
from vllm_rast.cli.grade import MAX_ERRORS
from vllm_rast.errors import UserError


def add_arguments(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="grade run folders and print avg@n, pass@k and maj@k with error bars",
        description="Grade what is not graded yet and print each row's accuracy with its 95 % intervals.",
        epilog=f"Exit codes: 0 done, 2 usage, {TOO_MANY_ERRORS} too many samples the grader could not mark, "
        f"{BELOW} a row below --fail-below.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder that `vllm-rast generate` wrote")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument(
        "--fail-below",
        action="append",
        default=[],
        type=demand,
        metavar="ROW=ACC",
        help=f"exit {BELOW} if the row's avg@n is below ACC (0.8 or 80%%); may be repeated",
    )
    parser.add_argument(
        "--max-errors",
        type=share,
        default=MAX_ERRORS,
        metavar="SHARE",
        help=f"exit {TOO_MANY_ERRORS} if the grader timed out or failed on more than this share of the samples "
        "(default: %(default)s)",
    )
    add_grader_arguments(parser)
    parser.add_argument("--out", metavar="FOLDER", help="where new grades go if a run folder cannot be written")
    parser.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    from vllm_rast.evaluation.reports import report
    from vllm_rast.evaluation.scores.evaluate import evaluate_runs

    evaluation = evaluate_runs(
        args.runs,
        grader=args.grader,
        timeout_s=args.timeout,
        workers=args.workers,
        regrade=args.regrade,
        out=args.out,
    )
    for row, _ in args.fail_below:
        if row not in evaluation.pooled.rows:
            rows = ", ".join(evaluation.pooled.rows)
            raise UserError(f"--fail-below {row}=...: there is no row {row!r}; the rows are {rows}")
    if args.json:
        print(report.json_text(evaluation))
    else:
        report.print_tables(evaluation)
    return verdict(evaluation, args.max_errors, args.fail_below)


def verdict(evaluation, max_errors: float, demands: list[tuple[str, float]]) -> int:
    """The exit code, with a line on stderr if it is not 0."""
    import sys

    rows = evaluation.pooled.rows
    failed = sum(row.timeouts + row.errors for row in rows.values()) / sum(row.samples for row in rows.values())
    if failed > max_errors:
        print(
            f"vllm-rast evaluate: the grader timed out or failed on {failed:.1%} of the samples, "
            f"more than --max-errors {max_errors:.1%}",
            file=sys.stderr,
        )
        return TOO_MANY_ERRORS
    below = [(row, least) for row, least in demands if rows[row].avg.value < least]
    for row, least in below:
        print(
            f"vllm-rast evaluate: row {row!r} has {rows[row].avg.value:.1%}, below the demanded {least:.1%}",
            file=sys.stderr,
        )
    return BELOW if below else 0


def demand(text: str) -> tuple[str, float]:
    """ROW=ACC as (row, accuracy)."""
    row, equals, accuracy = text.rpartition("=")
    if not equals or not row:
        raise argparse.ArgumentTypeError(f"{text!r} is not ROW=ACC, such as rast=0.8")
    return row, share(accuracy)


def share(text: str) -> float:
    """A share between 0 and 1, or a percentage with its sign."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1, nor a percentage such as 80%")
    return value
