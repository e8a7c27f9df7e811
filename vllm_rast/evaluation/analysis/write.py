"""All analyses of a run's traces: their files, and the short tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vllm_rast.errors import UserError
from vllm_rast.evaluation.analysis.answers import chosen_samples, mixes
from vllm_rast.evaluation.analysis.entropy import entropy
from vllm_rast.evaluation.analysis.finding import Finding
from vllm_rast.evaluation.analysis.moved_tokens import moved_tokens
from vllm_rast.evaluation.analysis.path_coverage import path_coverage
from vllm_rast.evaluation.analysis.reading import Reading
from vllm_rast.evaluation.analysis.reasoning_words import Words, reasoning_words
from vllm_rast.evaluation.analysis.repairs import repairs
from vllm_rast.evaluation.analysis.similarity import similarity
from vllm_rast.evaluation.analysis.sparsity import sparsity
from vllm_rast.evaluation.analysis.table import TraceTable
from vllm_rast.evaluation.analysis.token_page import token_page
from vllm_rast.evaluation.reports.findings import FILE, Found, findings_text
from vllm_rast.evaluation.reports.tables import Table, markdown, to_rich
from vllm_rast.evaluation.runs.folder import Key, RunFolder, Sample
from vllm_rast.evaluation.runs.jsonl import write_atomically
from vllm_rast.evaluation.scores.evaluate import evaluate_runs


@dataclass(frozen=True)
class Grades:
    """Which samples are right; the share of right ones among the base's, by question; rows' recovery rates."""

    right: dict[Key, bool]
    base: dict[tuple[str, str], float]
    recovery: dict[str, float]


def analyze(reading: Reading, traces: Path, out: Path, words: Words) -> list[Path]:
    """Write every analysis of the chosen answers into `out` and print the tables; returns the files' paths."""
    folder = RunFolder(reading.run)
    samples = chosen_samples(folder, reading.rows, reading.samples, reading.problems)
    table = TraceTable.read(traces, [sample.key for sample in samples])
    mixing = mixing_rows(folder, reading)
    grades = grades_of(folder, mixing)
    found = findings(table, samples, words, grades, next(iter(mixing), None))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}; name a folder that can be written") from error
    paths = [path for finding in found for path in finding.write(out)]
    title = folder.path.resolve().name
    problems = {(problem.benchmark, problem.id): problem for problem in folder.problems()}
    texts = {
        "analysis.md": page(found, title),
        FILE: findings_text(sections(found)),
        "tokens.html": token_page(table, problems, grades.right if grades else None, title),
    }
    for name, text in texts.items():
        paths.append(out / name)
        write_atomically(paths[-1], text)
    print_tables(found)
    for path in paths:
        print(f"wrote {path}", file=sys.stderr)
    return paths


def findings(
    table: TraceTable, samples: Sequence[Sample], words: Words, grades: Grades | None, mix: str | None
) -> list[Finding]:
    """Every analysis that these traces have the numbers for."""
    found = [
        path_coverage(table),
        sparsity(table),
        moved_tokens(table),
        similarity(table, grades.recovery if grades else None),
        entropy(table, grades.base if grades else None),
        reasoning_words(samples, words),
        repairs(table, grades.right, mix=mix) if grades and mix else None,
    ]
    return [finding for finding in found if finding is not None]


def grades_of(folder: RunFolder, mixing: Sequence[str]) -> Grades | None:
    """The run's grades; what is not graded yet is graded now. None if no problem has an answer to grade by.

    mixing: the rows that mix, which alone have a recovery rate here.
    """
    if not any(problem.gold for problem in folder.problems()):
        return None
    evaluation = evaluate_runs([folder.path])
    right = {Key(one.benchmark, one.row, one.problem, one.sample): one.correct for one in evaluation.samples}
    base: dict[tuple[str, str], list[bool]] = {}
    for key, correct in right.items():
        if key.row == "base":
            base.setdefault((key.benchmark, key.problem), []).append(correct)
    rates = {row: evaluation.pooled.recovery(row) for row in evaluation.pooled.recovering if row in mixing}
    recovery = {row: rate.value for row, rate in rates.items() if rate and rate.value is not None}
    return Grades(right, {question: float(np.mean(some)) for question, some in base.items()}, recovery)


def mixing_rows(folder: RunFolder, reading: Reading) -> list[str]:
    """The rows that mix, `rast` first."""
    mixing = [row for row, entry in folder.config["rows"].items() if mixes(entry["alpha"], reading.models)]
    return sorted(mixing, key=lambda row: row != "rast")


def sections(found: Sequence[Finding]) -> list[Found]:
    """The same for the run's report."""
    return [Found(overview(found)), *(Found(one.table, one.name if one.panels else None) for one in found)]


def print_tables(found: Sequence[Finding]) -> None:
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=200)
    for finding in [overview(found), *(finding.table for finding in found if not finding.overview)]:
        console.print(to_rich(finding))


def overview(found: Sequence[Finding]) -> Table:
    """One line for each row, with what counts of every analysis."""
    rows = list(dict.fromkeys(row for finding in found for row in finding.overview))
    lines = {row: {k: v for finding in found for k, v in finding.overview.get(row, {}).items()} for row in rows}
    titles = list(dict.fromkeys(title for line in lines.values() for title in line))
    cells = [[row, *(lines[row].get(title, "") for title in titles)] for row in rows]
    return Table("what the mix does to the tokens of each row's answers", ["answers of", *titles], cells)


def page(found: Sequence[Finding], run: str) -> str:
    """analysis.md: every table with its plot."""
    parts = [f"# Analysis of {run}\n", f"{markdown(overview(found))}\n"]
    for finding in found:
        parts.append(f"## {finding.table.title}\n\n{markdown(finding.table)}\n")
        if finding.panels:
            parts.append(f"![{finding.name}]({finding.name}.png)\n")
    return "\n".join(parts)
