"""`vllm-rast generate`: decode benchmarks, or problems of one's own, into a run folder."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING, Any

from vllm_rast.cli.arguments import (
    EPILOG,
    add_decoding_arguments,
    add_machine_arguments,
    add_model_arguments,
    add_run_arguments,
    add_speculation_arguments,
)
from vllm_rast.cli.exit_codes import ERROR, fail
from vllm_rast.cli.planning import plan_of, with_recipe
from vllm_rast.errors import UserError

if TYPE_CHECKING:
    from vllm_rast.evaluation.runs.folder import Key
    from vllm_rast.evaluation.runs.plan import Plan

DESCRIPTION = """\
Decode every row on every problem, n samples each, all rows in one engine. Each finished sample is one line of
samples.jsonl in the run folder. The same command again makes only what is missing: after Ctrl-C, kill -9 or a
full disk, and with more rows, benchmarks or samples. If no model is named, the shipped ones decode
(tiny:base, tiny:positive, tiny:negative).
"""


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "generate",
        help="decode benchmarks or your own problems into a run folder",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("--recipe", metavar="FILE", help="YAML file of these options; command-line options override it")
    add_run_arguments(parser)
    add_model_arguments(parser)
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="ROW",
        help="rows to decode: base, positive, negative, rast, or NAME=ALPHA[@TEMPERATURE] with ALPHA a number, numbers"
        " joined by / (one per pair), a model, a schedule or a gate, such as half=0.5,second=positive:2,"
        ' \'late={"alpha": 1, "warmup": 100}\' or \'gated={"alpha": 1, "gate": {"js": 0.1}}\''
        " (default: base,rast,positive)",
    )
    add_decoding_arguments(parser)
    add_speculation_arguments(parser)
    add_machine_arguments(parser)
    parser.set_defaults(func=main, engine_arguments=[], parser=parser)


def main(args: argparse.Namespace) -> int:
    if args.recipe:
        args = with_recipe(args)
    code = generate(args, plan_of(args))
    if code == 0 and not args.dry_run:
        print(f"vllm-rast: next: vllm-rast evaluate {shlex.quote(args.run)}", file=sys.stderr)
    return code


def generate(args: argparse.Namespace, plan: Plan) -> int:
    """Decode a plan into --run, or describe it for --dry-run; ERROR if samples were given up."""
    from vllm_rast.cli.machines import check_machines, opener
    from vllm_rast.evaluation.runs.decode import decode
    from vllm_rast.evaluation.runs.folder import RunFolder

    check_machines(args, plan)
    if args.dry_run:
        from vllm_rast.cli.dry_run import describe

        print(describe(plan, args.run))
        return 0
    if not args.run:
        raise UserError("--run: name the folder to write, such as --run runs/first")
    with RunFolder.open(args.run, plan.config()) as folder:
        for task in plan.tasks:
            folder.add_problems(task.problems())
        made = decode(plan, folder, opener(args), args.retry_failed)
        done = folder.done()
        failures = {key: reason for key, reason in folder.failures().items() if key not in done}
    samples = set(plan.samples())
    print(f"{args.run}: {made:,} samples made, {len(samples & done) - made:,} were there already")
    failed = failures.keys() & samples
    return report_failures({key: failures[key] for key in sorted(failed)}) if failed else 0


def report_failures(failures: dict[Key, str]) -> int:
    """Say which samples were given up; the exit code."""
    key, reason = next(iter(failures.items()))
    return fail(
        ERROR,
        f"{len(failures):,} samples were given up (failed.jsonl), the first is sample {key.sample} of {key.problem!r}, "
        f"row {key.row!r} of {key.benchmark!r}: {reason}; --retry-failed tries them again",
    )
