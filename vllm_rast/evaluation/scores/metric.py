"""The metrics over k samples that tables, plots, pages and JSON go through: a new one is an entry of METRICS.

    Metric("best_at_k", "best@k", values=..., variances=...)

is all that a new metric needs; a function of counts alone becomes one by `of_counts`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from vllm_rast.evaluation.scores.majority import Tally, leave_one_vote_out, maj_values
from vllm_rast.evaluation.scores.metrics import CountMetric, Floats, leave_one_out, pass_at_k, pass_hat_k


class Counted(Protocol):
    """The samples of one row, counted question by question."""

    @property
    def counts(self) -> tuple[Any, Any]:
        """Samples, and right samples [questions]."""

    @property
    def tallies(self) -> list[Tally]:
        """The votes [questions]."""


@dataclass(frozen=True)
class Metric:
    """One metric: its name in JSON and in file names, its name for readers, and how it is computed.

    values: the metric at k for each question [questions]; raises ValueError if a question has fewer than k samples.
    variances: its decoding variance for each question [questions], nan if there is no spare sample.
    in_table: a column of the table of scores, at the largest k that every row has.
    drawn: a figure, and a curve on the page.
    """

    key: str
    label: str
    values: Callable[[Counted, int], Floats]
    variances: Callable[[Counted, int], Floats]
    in_table: bool = True
    drawn: bool = True

    def at(self, k: int) -> str:
        """What readers call it at k: "pass@8"."""
        return f"{self.label.removesuffix('k')}{k}"


def of_counts(key: str, label: str, function: CountMetric, **shown: bool) -> Metric:
    """A metric that follows from the numbers of samples and of right ones."""
    return Metric(
        key,
        label,
        values=lambda row, k: function(*row.counts, k),
        variances=lambda row, k: leave_one_out(function, *row.counts, k),
        **shown,
    )


PASS_AT_K = of_counts("pass_at_k", "pass@k", pass_at_k)
PASS_HAT_K = of_counts("pass_hat_k", "pass^k", pass_hat_k, in_table=False, drawn=False)
MAJ_AT_K = Metric(
    "maj_at_k",
    "maj@k",
    values=lambda row, k: maj_values(row.tallies, k),
    variances=lambda row, k: leave_one_vote_out(row.tallies, k),
)
METRICS: list[Metric] = [PASS_AT_K, PASS_HAT_K, MAJ_AT_K]
