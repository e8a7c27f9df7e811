"""Path coverage: would the model have taken the answer's tokens itself?

The paper (RAST, arXiv 2506.15710) feeds the RL model's greedy answer to the base and takes the share of positions
where the base's greedy token is the answer's; above 95 % there. Here the same for every row's answers and every model,
and for a token among the likeliest 3 and 5.

Its published script looks at all positions but the last and divides by all of them, so that an answer of L tokens
reaches at most (L - 1) / L; and the variant for the mix overwrites lambda with the position. Here every position
counts once, and the mix is the row's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from vllm_rast.evaluation.analysis.estimates import Estimate, ratios, short_percent
from vllm_rast.evaluation.analysis.finding import Finding, bars, label, legend
from vllm_rast.evaluation.analysis.table import TraceTable
from vllm_rast.evaluation.reports.plots import styles_of
from vllm_rast.evaluation.reports.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOPS = (1, 3, 5)


def path_coverage(table: TraceTable) -> Finding:
    """The mean over answers of the share of tokens that each model ranks among its likeliest 1, 3 and 5."""
    lines, short, top1 = [], [], {}
    for row, some in table.by_row().items():
        for model in some.models:
            rates = coverage(some, model)
            top1[row, model] = rates[0]
            lines += [[row, model, top, *rate, len(some.answers)] for top, rate in zip(TOPS, rates, strict=True)]
            short.append([row, model, *(rate.percent for rate in rates)])
    return Finding(
        "path_coverage",
        ["row", "model", "top", "rate", "low", "high", "answers"],
        lines,
        Table(
            "path coverage rate: share of each row's tokens among a model's likeliest",
            ["answers of", "model", *(f"top {top}" for top in TOPS)],
            short,
        ),
        [partial(draw, top1=top1)],
        {row: {"base's top 1": short_percent(top1[row, "base"])} for row in table.rows},
    )


def coverage(table: TraceTable, model: str) -> list[Estimate]:
    """The rate for each of TOPS. An answer's tokens count by their share of it, as in the paper."""
    rank, answers = table[f"{model}_rank"], len(table.answers)
    shares = np.stack(
        [np.bincount(table.owner, weights=rank <= top, minlength=answers) / table.lengths for top in TOPS], axis=1
    )
    questions = table.question_of_answer
    sums = np.stack([np.bincount(questions, weights=some) for some in shares.T], axis=1)
    return ratios(sums, np.repeat(np.bincount(questions)[:, None], len(TOPS), axis=1))


def draw(axes: Axes, top1: Mapping[tuple[str, str], Estimate]) -> None:
    rows, models = (list(dict.fromkeys(names)) for names in zip(*top1, strict=True))
    colours = {model: colour for model, (colour, _) in styles_of(models).items()}
    bars(axes, rows, {model: [top1[row, model] for row in rows] for model in colours}, colours)
    axes.set_ylim(0, 1)
    label(axes, "path coverage, top 1", "answers of", "share of tokens")
    legend(axes)
