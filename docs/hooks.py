"""Generates the command line's reference from the parsers, when the documentation is built."""

from __future__ import annotations

import argparse
import os
from typing import Any

MARKER = "<!-- the commands -->"


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    return markdown.replace(MARKER, commands()) if MARKER in markdown else markdown


def commands() -> str:
    """One section for each command: what it does, its usage and its options."""
    os.environ["COLUMNS"] = "110"
    from vllm_rast.cli.main import COMMANDS, build_parser, subcommand

    parser = build_parser()
    return "\n\n".join(section(name, subcommand(parser, name)) for name in COMMANDS)


def section(name: str, parser: argparse.ArgumentParser) -> str:
    parts = [f"## {name}", f"```text\n{parser.format_help().strip()}\n```"]
    return "\n\n".join(parts)
