"""`vllm-rast doctor`: what is installed, what would be used, and why."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any


def add_arguments(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor",
        help="show what is installed, which device, runner and kernel would be used, and why",
        description="Show what is installed, which device, runner and kernel would be used, and why. "
        "Exit code 1 if something keeps an engine from starting.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    from vllm_rast.cli.doctor_findings import examine

    findings = list(examine())
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        show(findings)
    return 0 if all(finding.fine for finding in findings) else 1


def show(findings: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_column(overflow="fold", style="dim")
    for finding in findings:
        mark = "[green]ok[/]" if finding.fine else "[red]!![/]"
        table.add_row(mark, finding.name, finding.value, finding.reason)
    Console().print(table)
