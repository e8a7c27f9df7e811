"""What `vllm-rast analyze` found, for the reports of its run: its tables and plots, read from RUN/analysis."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from vllm_rast.errors import UserError
from vllm_rast.evaluation.reports.tables import Table

FOLDER = Path("analysis")  # in a run folder, where `analyze` writes
FILE = "findings.json"


class Found(NamedTuple):
    """One analysis. plot: the name of its plot without the ending, or None."""

    table: Table
    plot: str | None = None


def findings_text(found: Sequence[Found]) -> str:
    """FILE as text."""
    entries = [one.table._asdict() | {"plot": one.plot} for one in found]
    return json.dumps(entries, ensure_ascii=False, indent=1) + "\n"


def read_findings(run: Path) -> list[Found]:
    """What was found in a run; nothing if nobody has looked. Raises UserError for a file that is not one of ours."""
    path = run / FOLDER / FILE
    if not path.is_file():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [Found(Table(one["title"], one["columns"], one["rows"]), one["plot"]) for one in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged; run `vllm-rast analyze` again, or delete this file") from error


def picture(run: Path, plot: str, alt: str) -> str:
    """A plot that stands in the page itself; nothing if its file is gone."""
    path = run / FOLDER / f"{plot}.png"
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="plot: {escape(alt)}" src="data:image/png;base64,{data}">'
