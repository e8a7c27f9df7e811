"""The tables of a report, for the terminal, in Markdown and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from vllm_rast.evaluation.evaluate import Evaluation
from vllm_rast.evaluation.intervals import Interval
from vllm_rast.evaluation.summary import Row, Score, Summary, as_json, table_ks

if TYPE_CHECKING:
    from rich.console import Console


class Table(NamedTuple):
    """Text cells; the first column is the row's name, the others are numbers."""

    title: str
    columns: list[str]
    rows: list[list[str]]


NOTE = (
    "avg@n: mean share of right samples; its two intervals (95 %) are over questions and over decoding noise alone. "
    "pass@k and maj@k: over all k-subsets, ± over questions."
)


def json_text(evaluation: Evaluation) -> str:
    """One JSON object: the rows over all questions, and for each benchmark."""
    return json.dumps(to_json(evaluation), ensure_ascii=False, allow_nan=False)


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "runs": [str(run.path) for run in evaluation.runs],
        "grader": evaluation.grader,
        "confidence": 0.95,
        **as_json(evaluation.pooled),
        "benchmarks": {name: as_json(summary) for name, summary in evaluation.benchmarks.items()},
    }


def tables(evaluation: Evaluation) -> list[Table]:
    """Scores of every row on every benchmark, and over all questions where there are several benchmarks."""
    found = [scores_table(f"{evaluation.title}: {name}", summary) for name, summary in evaluation.benchmarks.items()]
    if len(found) > 1:
        found.append(scores_table(f"{evaluation.title}: all questions of {len(found)} benchmarks", evaluation.pooled))
    return found


def scores_table(title: str, summary: Summary) -> Table:
    """One line for every row."""
    k = min(row.n for row in summary.rows.values())
    columns = ["row", "questions", "n", "avg@n", "decoding noise", f"pass@{k}", f"maj@{k}"]
    columns += ["truncated", "unanswered", "timeouts"]
    return Table(f"{title}", columns, [_score_cells(row, k) for row in summary.rows.values()])


def _score_cells(row: Row, k: int) -> list[str]:
    n = str(row.n) if row.n == row.n_max else f"{row.n} to {row.n_max}"
    shares = [count / row.samples for count in (row.truncated, row.unanswered, row.timeouts + row.errors)]
    return [
        row.name,
        str(len(row.questions)),
        n,
        with_interval(row.avg),
        half_width(row.avg.ci_decoding),
        with_interval(row.pass_at_k(k)),
        with_interval(row.maj_at_k(k)),
        *(percent(value) for value in shares),
    ]


def comparison_lines(summary: Summary) -> list[str]:
    """The rows compared: recovery rates and paired differences, one sentence each."""
    lines = []
    for name in summary.recovering:
        recovery = summary.recovery(name)
        if recovery and recovery.value is not None:
            ci = f" [{percent(recovery.ci.low)}, {percent(recovery.ci.high)}]" if recovery.ci else ""
            lines.append(
                f"recovery rate of {name}: {percent(recovery.value)}{ci} of the ceiling's lead over the base, "
                f"{recovery.questions} questions"
            )
        elif recovery:
            lines.append(f"recovery rate of {name}: undefined, the ceiling does not lead the base")
    for first, second in summary.compared:
        if difference := summary.difference(first, second):
            ci = f" [{points(difference.ci.low)}, {points(difference.ci.high)}]" if difference.ci else ""
            lines.append(
                f"{first} − {second}: {points(difference.value)}{ci} points, "
                f"paired over {difference.questions} questions"
            )
    return lines


def warnings(evaluation: Evaluation) -> list[str]:
    """What a reader must know before comparing rows."""
    found = []
    for name, summary in evaluation.benchmarks.items():
        sizes = {row.name: len(row.questions) for row in summary.rows.values()}
        if len(set(sizes.values())) > 1:
            counts = ", ".join(f"{row} {size}" for row, size in sizes.items())
            found.append(f"{name}: rows have different numbers of questions ({counts}); compare the paired differences")
        for row in summary.rows.values():
            if row.n != row.n_max:
                found.append(
                    f"{name}: row {row.name} has {row.n} to {row.n_max} samples of a question; "
                    f"pass@k and maj@k stop at k = {row.n}"
                )
    if evaluation.grader.startswith("qwen"):
        found.append("graded by the published lineage's rules, which are lenient: these accuracies are inflated")
    return found


def print_tables(evaluation: Evaluation, console: Console | None = None) -> None:
    """Tables and comparisons to the terminal (stdout)."""
    from rich.console import Console

    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no width: never break a table there
    for table in tables(evaluation):
        console.print(_rich(table))
    for line in comparison_lines(evaluation.pooled):
        console.print(line, markup=False, soft_wrap=True)
    console.print(NOTE, style="dim", markup=False, soft_wrap=True)
    for line in warnings(evaluation):
        console.print(f"note: {line}", style="yellow", markup=False, soft_wrap=True)


def _rich(table: Table):
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    result = RichTable(title=Text(table.title), title_justify="left", box=box.SIMPLE_HEAD)
    for index, column in enumerate(table.columns):
        result.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in table.rows:
        result.add_row(*(Text(cell) for cell in row))
    return result


def markdown(table: Table) -> str:
    """The table in Markdown, cells aligned."""
    cells = [table.columns, *table.rows]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = [_markdown_line(row, widths) for row in cells]
    rule = "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _markdown_line(row: list[str], widths: list[int]) -> str:
    padded = [
        cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"


def curve_table(title: str, summary: Summary) -> Table:
    """pass@k and maj@k of every row at the powers of two."""
    ks = table_ks(max(row.n for row in summary.rows.values()))
    rows = []
    for row in summary.rows.values():
        for label, metric in (("pass@k", row.pass_at_k), ("pass^k", row.pass_hat_k), ("maj@k", row.maj_at_k)):
            rows.append([f"{row.name}, {label}", *(with_interval(metric(k)) if k <= row.n else "" for k in ks)])
    return Table(title, ["row", *(f"k = {k}" for k in ks)], rows)


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def half_width(interval: Interval | None) -> str:
    return "" if interval is None else f"± {50 * (interval.high - interval.low):.1f}"


def with_interval(score: Score) -> str:
    """A score in percent with half its interval over questions."""
    return f"{100 * score.value:.1f} {half_width(score.ci)}".rstrip()
