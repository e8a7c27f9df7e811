"""`vllm-rast benchmarks`: list what can be run."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any


def add_arguments(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "benchmarks",
        help="list the benchmarks",
        description="List the benchmarks. One of your own is a YAML file of the same form as theirs.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per benchmark instead of a table")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    from vllm_rast.evaluation.tasks.benchmark import KINDS, list_benchmarks

    benchmarks = list_benchmarks()
    if args.json:
        for benchmark in benchmarks:
            print(json.dumps({**asdict(benchmark), "source": benchmark.source}, ensure_ascii=False))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column, justify in (("name", "left"), ("title", "left"), ("rows", "right"), ("answers", "left")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("source", overflow="fold")
    table.add_column("licence")
    for b in benchmarks:
        source = b.hub and f"{b.hub} {b.config or ''} {b.split} @{(b.revision or 'main')[:8]}".replace("  ", " ")
        table.add_row(b.name, b.title, str(b.n_rows or "?"), b.kind, source or "generated", b.licence)
    console = Console()
    console.print(table)
    console.print("\nKinds of answers:")
    for kind in sorted({b.kind for b in benchmarks}):
        console.print(f"  {kind:8} {KINDS[kind]}", highlight=False)
    return 0
