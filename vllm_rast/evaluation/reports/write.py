"""Write a report's files: Markdown, JSON, plots and the page."""

from __future__ import annotations

import os
from pathlib import Path

from vllm_rast.errors import UserError
from vllm_rast.evaluation.reports.findings import FOLDER
from vllm_rast.evaluation.reports.page import page
from vllm_rast.evaluation.reports.plots import write_curves
from vllm_rast.evaluation.reports.report import json_text, markdown_report
from vllm_rast.evaluation.runs.jsonl import write_atomically
from vllm_rast.evaluation.scores.evaluate import Evaluation

TOKEN_PAGE = FOLDER / "tokens.html"  # where `vllm-rast analyze` leaves it


def write_report(evaluation: Evaluation, folder: str | os.PathLike[str], *, against_paper: bool = False) -> list[Path]:
    """Write report.md, .json, .html and the plots into `folder`; returns their paths.

    The page of a single run holds what `vllm-rast analyze` has found, and its page of tokens.

    Raises:
        UserError: the folder cannot be made.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}; name a folder that can be written") from error
    texts = {
        "report.md": markdown_report(evaluation, against_paper),
        "report.json": json_text(evaluation) + "\n",
        "report.html": page(evaluation, tokens_of(evaluation)),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [*(folder / name for name in texts), *write_curves(evaluation.benchmarks, folder, evaluation.title)]


def tokens_of(evaluation: Evaluation) -> str | None:
    """The page of tokens of a single run; None if there is none."""
    paths = [run.path / TOKEN_PAGE for run in evaluation.runs]
    return paths[0].read_text(encoding="utf-8") if len(paths) == 1 and paths[0].is_file() else None
