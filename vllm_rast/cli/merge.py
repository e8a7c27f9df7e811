"""`vllm-rast merge`: one run folder from the parts that --shard made."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

from vllm_rast.cli.arguments import add_lock_argument

DESCRIPTION = """\
Join run folders whose samples were decoded apart, with `generate --shard 1/4` to `4/4`, in one that can be
evaluated, or go on without --shard. The parts are only read. Folders with different settings, data, golds or weights
are refused, and a sample that several parts have must be the same in all of them.
"""


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser("merge", help="join the parts of a run that --shard made", description=DESCRIPTION)
    parser.add_argument("parts", nargs="+", metavar="PART", help="run folders")
    parser.add_argument("--run", required=True, metavar="FOLDER", help="the run folder to write")
    add_lock_argument(parser)
    parser.set_defaults(func=main)


def main(args: argparse.Namespace) -> int:
    from vllm_rast.evaluation.runs.merge import merge_runs

    merged = merge_runs(args.parts, args.run)
    several = f", {merged.twice:,} were in several parts" if merged.twice else ""
    print(f"{args.run}: {merged.written:,} samples written, {merged.there:,} were there already{several}")
    print(f"vllm-rast: next: vllm-rast evaluate {shlex.quote(args.run)}", file=sys.stderr)
    return 0
