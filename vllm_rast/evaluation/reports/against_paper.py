"""Our rows beside the paper's."""

from __future__ import annotations

from vllm_rast.evaluation.reports import paper
from vllm_rast.evaluation.reports.tables import Table, percent, with_interval
from vllm_rast.evaluation.scores.evaluate import Evaluation


def paper_table(evaluation: Evaluation) -> tuple[Table, list[str]]:
    """The paper's rows with recovery rates recomputed, ours below the row they repeat, and notes on odd cells."""
    odd = paper.oddities()
    ours: dict[str, list[str]] = {}
    for run in evaluation.runs:
        for name, row in run.config["rows"].items():
            if (match := paper.match(str(row.get("formula", "")))) and name in evaluation.pooled.rows:
                ours.setdefault(match.name, []).append(name)
    lines = []
    for row in paper.TABLE:
        marks = ["*" if (row.name, benchmark) in odd else "" for benchmark in paper.BENCHMARKS]
        rates = paper.recovery_rates(row)
        cells = [f"{score}{mark}" for score, mark in zip(row.scores, marks, strict=True)]
        if rates:
            cells = [f"{cell} ({rate:.0f} %)" for cell, rate in zip(cells, rates, strict=True)]
        mean = paper.averaged_recovery_rate(row)
        lines.append([row.name, *cells, "" if mean is None else f"{mean:.1f} %"])
        lines += [_our_line(evaluation, name) for name in ours.get(row.name, [])]
    notes = [f"* {row}, {benchmark}: {why}" for (row, benchmark), why in odd.items()]
    if not ours:
        notes.insert(0, "none of these rows uses the paper's models: the table stands alone")
    title = "RAST paper (arXiv 2506.15710): accuracy and recovery rate, recomputed from the accuracies"
    return Table(title, ["row", *paper.TITLES, "mean recovery"], lines), notes


def _our_line(evaluation: Evaluation, name: str) -> list[str]:
    cells, rates = [], []
    for benchmark in paper.BENCHMARKS:
        summary = evaluation.benchmarks.get(benchmark)
        row = summary.rows.get(name) if summary else None
        recovery = summary.recovery(name) if summary and name in summary.recovering else None
        rate = f" ({100 * recovery.value:.0f} %)" if recovery and recovery.value is not None else ""
        rates += [recovery.value] if recovery and recovery.value is not None else []
        cells.append(with_interval(row.avg) + rate if row else "")
    whole = len(rates) == len(paper.BENCHMARKS)
    return [f"  ours: {name}", *cells, percent(sum(rates) / len(rates)) if whole else ""]
