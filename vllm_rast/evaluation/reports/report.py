"""The tables of a report: rich text for the terminal, Markdown and JSON for the run folder."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from vllm_rast.evaluation.reports.against_paper import paper_table
from vllm_rast.evaluation.reports.findings import FOLDER, read_findings
from vllm_rast.evaluation.reports.tables import Table, half_width, markdown, percent, points, to_rich, with_interval
from vllm_rast.evaluation.scores.evaluate import Evaluation
from vllm_rast.evaluation.scores.metric import METRICS
from vllm_rast.evaluation.scores.summary import Row, Summary, as_json, table_ks

if TYPE_CHECKING:
    from rich.console import Console


NOTE = (
    "In percent, ± the half-width of the 95 % confidence interval over questions; decoding: over decoding noise alone, "
    "the same questions decoded again. Metrics at k are exact over all k-subsets of the samples."
)


def json_text(evaluation: Evaluation) -> str:
    """One JSON object: the rows over all questions, and for each benchmark."""
    return json.dumps(to_json(evaluation), ensure_ascii=False, allow_nan=False)


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "runs": [str(run.path) for run in evaluation.runs],
        "grader": evaluation.grader,
        "confidence": 0.95,
        "skipped": evaluation.skipped,
        **as_json(evaluation.pooled),
        "benchmarks": {name: as_json(summary) for name, summary in evaluation.benchmarks.items()},
    }


def tables(evaluation: Evaluation) -> list[Table]:
    """Scores of every row on every benchmark, and over all questions if there are several benchmarks."""
    found = [
        scores_table(f"{evaluation.title}: {name}{left_out(evaluation, name)}", summary)
        for name, summary in evaluation.benchmarks.items()
    ]
    if len(found) > 1:
        found.append(scores_table(f"{evaluation.title}: all questions of {len(found)} benchmarks", evaluation.pooled))
    return found


def left_out(evaluation: Evaluation, benchmark: str) -> str:
    number = evaluation.skipped.get(benchmark)
    return f" ({number} too long, left out)" if number else ""


def scores_table(title: str, summary: Summary) -> Table:
    """One line for every row."""
    k = min(row.n for row in summary.rows.values())
    columns = ["row", "questions", "n", "avg@n", "decoding", *(metric.at(k) for metric in METRICS if metric.in_table)]
    columns += ["truncated", "unanswered", "timeouts", "errors"]
    return Table(f"{title}", columns, [_score_cells(row, k) for row in summary.rows.values()])


def _score_cells(row: Row, k: int) -> list[str]:
    n = str(row.n) if row.n == row.n_max else f"{row.n} to {row.n_max}"
    shares = [count / row.samples for count in (row.truncated, row.unanswered, row.timeouts, row.errors)]
    return [
        row.name,
        questions_cell(row),
        n,
        with_interval(row.avg),
        half_width(row.avg.value, row.avg.ci_decoding),
        *(with_interval(row.score(metric, k)) for metric in METRICS if metric.in_table),
        *(percent(value) for value in shares),
    ]


def questions_cell(row: Row) -> str:
    """How many questions a row has, and of how many if the run is not finished."""
    asked = row.expected.questions if row.expected else len(row.questions)
    return str(len(row.questions)) if row.is_complete else f"{len(row.questions)} of {asked}"


def tier_line(evaluation: Evaluation) -> str:
    """How many answers each tier of the grader compared."""
    tiers: Counter[str] = Counter()
    for row in evaluation.pooled.rows.values():
        tiers += row.tiers
    return "graded by " + ", ".join(f"{tier} {count:,}" for tier, count in tiers.most_common())


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
            if row.expected and not row.is_complete:
                found.append(
                    f"{name}: row {row.name} is not finished: {row.samples} of {row.expected.samples} samples, "
                    f"{len(row.questions)} of {row.expected.questions} questions; run `generate` again"
                )
        for row in summary.rows.values():
            if row.n != row.n_max:
                found.append(
                    f"{name}: row {row.name} has {row.n} to {row.n_max} samples of a question; "
                    f"metrics at k stop at k = {row.n}"
                )
    for name, number in evaluation.skipped.items():
        found.append(f"{name}: {number} problems were left out (--skip-too-long), and count neither way")
    if evaluation.without_gold:
        found.append(f"{evaluation.without_gold} samples of problems without an answer are left out")
    if evaluation.grader.startswith("qwen"):
        found.append("graded by the published lineage's rules, which are lenient: these accuracies are inflated")
    return found


def print_tables(evaluation: Evaluation, console: Console | None = None) -> None:
    """Tables and comparisons to the terminal (stdout)."""
    console = console or make_console()
    for table in tables(evaluation):
        console.print(to_rich(table))
    for line in comparison_lines(evaluation.pooled):
        console.print(line, markup=False, soft_wrap=True)
    console.print(NOTE, style="dim", markup=False, soft_wrap=True)
    console.print(tier_line(evaluation), style="dim", markup=False, soft_wrap=True)
    for line in warnings(evaluation):
        console.print(f"note: {line}", style="yellow", markup=False, soft_wrap=True)


def print_paper(evaluation: Evaluation, console: Console | None = None) -> None:
    """The paper's table with our rows beside it, to the terminal (stdout)."""
    console = console or make_console()
    table, notes = paper_table(evaluation)
    console.print(to_rich(table))
    for note in notes:
        console.print(note, style="dim", markup=False, soft_wrap=True)


def make_console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has no width: never break a table there
    return console


def markdown_report(evaluation: Evaluation, against_paper: bool = False) -> str:
    """The whole report as Markdown; its pictures lie beside it."""
    parts = [f"# {evaluation.title}"]
    for run in evaluation.runs:
        parts.append("\n".join(f"- {name}: `{formula}`" for name, formula in formulas(run.config).items()))
        parts.append(settings(run.config))
    for table in tables(evaluation):
        parts += [f"## {table.title}", markdown(table)]
    parts.append("\n".join(f"- {line}" for line in comparison_lines(evaluation.pooled)))
    parts += [NOTE, tier_line(evaluation), "\n".join(f"> {line}" for line in warnings(evaluation))]
    parts += [f"![{metric.label}]({metric.key}.png)" for metric in METRICS if metric.drawn]
    for name, summary in evaluation.benchmarks.items():
        table = curve_table(f"{name}: against k", summary)
        parts += [f"## {table.title}", markdown(table)]
    for run in evaluation.runs:
        if found := read_findings(run.path):
            table = found[0].table
            parts += [f"## {run.path.name}: {table.title}", markdown(table), f"More in `{run.path / FOLDER}`."]
    if against_paper:
        table, notes = paper_table(evaluation)
        parts += [f"## {table.title}", markdown(table), "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def formulas(config: dict[str, Any]) -> dict[str, str]:
    """What each row of a run decodes with."""
    return {name: str(row.get("formula", row.get("alpha"))) for name, row in config["rows"].items()}


def settings(config: dict[str, Any]) -> str:
    """Template, sampling and versions of a run, in a line."""
    shown = {
        "template": config.get("template"),
        "backend": config.get("backend"),
        "seed": config.get("seed"),
        **{name: value for name, value in config.get("sampling", {}).items() if name != "n"},
        **config.get("versions", {}),
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items() if value is not None)


def curve_table(title: str, summary: Summary) -> Table:
    """Every metric of every row at the powers of two."""
    ks = table_ks(max(row.n for row in summary.rows.values()))
    rows = []
    for row in summary.rows.values():
        for metric in METRICS:
            cells = (with_interval(row.score(metric, k)) if k <= row.n else "" for k in ks)
            rows.append([f"{row.name}, {metric.label}", *cells])
    return Table(title, ["row", *(f"k = {k}" for k in ks)], rows)
