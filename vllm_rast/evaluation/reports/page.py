"""One self-contained HTML page: the rows compared, and every problem and sample with how it was marked.

The page needs no network: style, script and data stand in it, and its content security policy forbids any request.
The samples are JSON inside a script element, in which every "<" is written \\u003c, so that nothing a model wrote can
end the element or begin another; the script puts them on the page as text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from vllm_rast.evaluation.reports.findings import picture, read_findings
from vllm_rast.evaluation.reports.report import NOTE, comparison_lines, formulas, settings, tables, tier_line, warnings
from vllm_rast.evaluation.reports.tables import Table
from vllm_rast.evaluation.scores.evaluate import Evaluation
from vllm_rast.evaluation.scores.graded import GradedSample
from vllm_rast.evaluation.scores.intervals import over_questions
from vllm_rast.evaluation.scores.metric import METRICS, Metric
from vllm_rast.evaluation.scores.summary import Row, Summary, curve_ks

MAX_TEXT = 40_000_000  # characters of model output in a page; a browser opens that in a few seconds
HEAD, TAIL = 600, 1400  # characters kept of the two ends of a long output if all together are more than that


def page(evaluation: Evaluation, tokens: str | None = None) -> str:
    """The page as HTML. tokens: the page of tokens that `vllm-rast analyze` made, a section of this one."""
    template = Template(_file("report.html"))
    return template.substitute(
        title=escape(evaluation.title),
        style=_file("report.css"),
        script=_file("report.js"),
        settings="\n".join(html_settings(run.config) for run in evaluation.runs),
        tables="\n".join(html_table(table) for table in tables(evaluation)),
        comparisons="\n".join(f"<li>{escape(line)}</li>" for line in comparison_lines(evaluation.pooled)),
        note=escape(f"{NOTE} {tier_line(evaluation)}."),
        warnings="\n".join(f'<p class="warning">{escape(line)}</p>' for line in warnings(evaluation)),
        findings=findings_section(evaluation),
        tokens="" if tokens is None else token_section(tokens),
        data=script_json(page_data(evaluation)),
    )


def findings_section(evaluation: Evaluation) -> str:
    """The analyses of a single run, opened when they are asked for; nothing if nobody has looked."""
    run = evaluation.runs[0].path
    found = read_findings(run) if len(evaluation.runs) == 1 else []
    if not found:
        return ""
    parts = ['<details id="analysis"><summary>Why: what the mix does to the tokens</summary>']
    for one in found:
        parts += [html_table(one.table), picture(run, one.plot, one.table.title) if one.plot else ""]
    return "\n".join([*parts, "</details>"])


def token_section(tokens: str) -> str:
    """A whole document as text, which becomes a frame when the section is opened."""
    return (
        '<details id="tokens"><summary>Every token of the answers that were read</summary>\n'
        '<div id="token-view"></div></details>\n'
        f'<script type="application/json" id="token-page">{script_json(tokens)}</script>'
    )


def page_data(evaluation: Evaluation) -> dict[str, Any]:
    """What the page's script shows. Samples are columns, sorted by problem, row and number."""
    rows = list(evaluation.pooled.rows)
    problems = {(p.benchmark, p.id): p for run in evaluation.runs for p in run.problems()}
    keys = list(dict.fromkeys((s.benchmark, s.problem) for s in evaluation.samples))
    keys.sort(key={key: place for place, key in enumerate(problems)}.__getitem__)
    place = {key: i for i, key in enumerate(keys)}
    row_place = {row: i for i, row in enumerate(rows)}
    samples = sorted(evaluation.samples, key=lambda s: (place[s.benchmark, s.problem], row_place[s.row], s.sample))
    benchmarks = list(evaluation.benchmarks)
    return {
        "rows": rows,
        "benchmarks": benchmarks,
        "compared": compared_rows(rows),
        "curves": {name: curves(summary) for name, summary in evaluation.benchmarks.items()},
        "problems": [
            [benchmarks.index(p.benchmark), p.id, p.family, p.question, gold_text(p.gold)]
            for p in (problems[key] for key in keys)
        ],
        "starts": starts([place[s.benchmark, s.problem] for s in samples], len(keys)),
        **columns(samples, row_place),
    }


def compared_rows(rows: Sequence[str]) -> list[int] | None:
    """Places of the two rows whose difference readers look at first: `base` and `rast`, else the first and the last."""
    if len(rows) < 2:
        return None
    base = rows.index("base") if "base" in rows else 0
    mixes = [i for i, row in enumerate(rows) if row.startswith("rast") and i != base]
    others = [i for i in range(len(rows)) if i != base]
    return [base, mixes[0] if mixes else others[-1]]


def columns(samples: Sequence[GradedSample], row_place: dict[str, int]) -> dict[str, Any]:
    """The samples column by column, with tables of the strings that repeat."""
    hows = list(dict.fromkeys(s.how for s in samples))
    statuses = list(dict.fromkeys(s.status for s in samples))
    reasons = list(dict.fromkeys(s.finish_reason for s in samples))
    places = [{name: i for i, name in enumerate(names)} for names in (hows, statuses, reasons)]
    whole = sum(len(s.text) for s in samples) <= MAX_TEXT
    return {
        "hows": hows,
        "statuses": statuses,
        "reasons": reasons,
        "samples": {
            "row": [row_place[s.row] for s in samples],
            "number": [s.sample for s in samples],
            "correct": [int(s.correct) for s in samples],
            "answer": [s.answer for s in samples],
            "how": [places[0][s.how] for s in samples],
            "status": [places[1][s.status] for s in samples],
            "reason": [places[2][s.finish_reason] for s in samples],
            "tokens": [s.tokens for s in samples],
            "text": [s.text if whole else shortened(s.text) for s in samples],
        },
    }


def starts(places: Sequence[int], count: int) -> list[int]:
    """Where the samples of each of `count` problems begin in the sorted list, and its end [count + 1]."""
    result = [0] * (count + 1)
    for place in places:
        result[place + 1] += 1
    for i in range(count):
        result[i + 1] += result[i]
    return result


def shortened(text: str) -> str:
    """A long output's two ends; the answer stands in the second."""
    if len(text) <= HEAD + TAIL + 100:
        return text
    left_out = len(text) - HEAD - TAIL
    return (
        f"{text[:HEAD]}\n\n[… {left_out} characters left out of this page; samples.jsonl has them …]\n\n{text[-TAIL:]}"
    )


def curves(summary: Summary) -> dict[str, dict[str, list[list[float]]]]:
    """Every drawn metric of every row as points [k, value, low, high]."""
    return {
        metric.label: {row.name: [_point(row, metric, k) for k in curve_ks(row.n)] for row in summary.rows.values()}
        for metric in METRICS
        if metric.drawn
    }


def _point(row: Row, metric: Metric, k: int) -> list[float]:
    values = metric.values(row, k)
    mean = float(values.mean())
    return [k, *(round(x, 5) for x in (mean, *(over_questions(values) or (mean, mean))))]


def gold_text(gold: str | Sequence[str]) -> str:
    return gold if isinstance(gold, str) else ", ".join(gold)


def html_settings(config: dict[str, Any]) -> str:
    rows = "".join(
        f"<li>{escape(name)}: <code>{escape(formula)}</code></li>" for name, formula in formulas(config).items()
    )
    return f'<ul class="settings">{rows}</ul>\n<p class="settings">{escape(settings(config))}</p>'


def html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    body = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="scroll"><table><caption>{escape(table.title)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def script_json(value: Any) -> str:
    """JSON that may stand in a script element, whatever its strings hold; half characters become escapes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").encode("utf-8", "backslashreplace").decode()


def _file(name: str) -> str:
    return files("vllm_rast.evaluation.reports").joinpath("templates", name).read_text(encoding="utf-8")
