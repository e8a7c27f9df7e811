"""What a set of graded samples says: every row's scores with their error bars, and the rows compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from vllm_rast.evaluation.scores import metrics
from vllm_rast.evaluation.scores.graded import GradedSample
from vllm_rast.evaluation.scores.intervals import (
    Difference,
    Interval,
    Recovery,
    over_decoding,
    over_questions,
    paired_difference,
    recovery_rate,
)
from vllm_rast.evaluation.scores.majority import Tally, tally
from vllm_rast.evaluation.scores.metric import METRICS, PASS_AT_K, Metric
from vllm_rast.evaluation.scores.metrics import Floats

CURVE_POINTS = 64  # more values of k than this cannot be distinguished in a plot


@dataclass(frozen=True)
class Score:
    """A mean over questions, with the interval over questions and the one over decoding noise."""

    value: float
    ci: Interval | None
    ci_decoding: Interval | None


class Expected(NamedTuple):
    """What a finished run has of one row: questions that can be graded, and samples of them."""

    questions: int
    samples: int


@lru_cache(maxsize=65536)
def classes_of(answers: tuple[str | None, ...]) -> list[str | None]:
    """The classes that the answers to one question vote for."""
    from vllm_rast.grading.voting import voting_classes

    return voting_classes(answers)


@dataclass
class Row:
    """One row's samples on one set of questions, counted."""

    name: str
    samples: int = 0
    truncated: int = 0
    unanswered: int = 0
    timeouts: int = 0
    errors: int = 0
    tokens: int = 0
    expected: Expected | None = None
    tiers: Counter[str] = field(default_factory=Counter)
    answers: dict[tuple[str, str], list[str | None]] = field(default_factory=dict)
    correct: dict[tuple[str, str], list[bool]] = field(default_factory=dict)

    def add(self, sample: GradedSample) -> None:
        question = (sample.benchmark, sample.problem)
        self.answers.setdefault(question, []).append(sample.answer)
        self.correct.setdefault(question, []).append(sample.correct)
        self.samples += 1
        self.tokens += sample.tokens
        self.truncated += sample.finish_reason == "length"
        self.unanswered += sample.status == "no_answer"
        self.timeouts += sample.status == "timeout"
        self.errors += sample.status == "error"
        self.tiers[sample.tier] += 1

    @property
    def questions(self) -> list[tuple[str, str]]:
        return list(self.correct)

    @cached_property
    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        return metrics.counts(list(self.correct.values()))

    @cached_property
    def tallies(self) -> list[Tally]:
        return [tally(classes_of(tuple(self.answers[q])), self.correct[q]) for q in self.questions]

    @property
    def is_complete(self) -> bool:
        """Whether no sample of the run is missing, as far as the run says how many there will be."""
        return self.expected is None or self.samples >= self.expected.samples

    @property
    def n(self) -> int:
        """Samples that every question has: the largest k with an unbiased estimate."""
        return int(self.counts[0].min())

    @property
    def n_max(self) -> int:
        return int(self.counts[0].max())

    @cached_property
    def avg(self) -> Score:
        return self.score(PASS_AT_K, 1)  # pass@1 is avg@n

    def score(self, metric: Metric, k: int) -> Score:
        """A metric at k with its error bars; ValueError if k > n."""
        values = metric.values(self, k)
        return Score(float(values.mean()), over_questions(values), over_decoding(values, metric.variances(self, k)))

    def means(self, questions: Sequence[tuple[str, str]]) -> Floats:
        """Share of right samples of the given questions [questions]."""
        return np.array([self._means[question] for question in questions])

    @cached_property
    def _means(self) -> dict[tuple[str, str], float]:
        return dict(zip(self.questions, metrics.avg_at_n(*self.counts), strict=True))


@dataclass
class Summary:
    """Rows on one set of questions, and how they differ."""

    rows: dict[str, Row]

    def shared(self, *names: str) -> list[tuple[str, str]]:
        """Questions that all the named rows have."""
        first, *rest = (self.rows[name] for name in names)
        return [q for q in first.questions if all(q in row.correct for row in rest)]

    def difference(self, first: str, second: str) -> Difference | None:
        """Paired difference of two rows' avg@n; None if they share no question."""
        questions = self.shared(first, second)
        if not questions:
            return None
        return paired_difference(self.rows[first].means(questions), self.rows[second].means(questions))

    def recovery(self, row: str = "rast") -> Recovery | None:
        """Recovery rate of a row between the rows `base` and `ceiling`; None if one of the three is
        missing.
        """
        names = ("base", row, "ceiling")
        if not all(name in self.rows for name in names) or not (questions := self.shared(*names)):
            return None
        base, middle, ceiling = (self.rows[name].means(questions) for name in names)
        return recovery_rate(base, middle, ceiling)

    @property
    def recovering(self) -> list[str]:
        """Rows that lie between `base` and `ceiling`."""
        both = "base" in self.rows and "ceiling" in self.rows
        return [name for name in self.rows if both and name not in ("base", "ceiling")]

    @property
    def compared(self) -> list[tuple[str, str]]:
        """Pairs of rows worth a difference: `rast` against each other row, the others against `base`."""
        pairs = [("rast", other) for other in self.rows if other != "rast"] if "rast" in self.rows else []
        return pairs + [(row, "base") for row in self.rows if "base" in self.rows and row not in ("rast", "base")]


def summarize(
    samples: Iterable[GradedSample], order: Sequence[str] = (), expected: Mapping[str, Expected] | None = None
) -> Summary:
    """Count graded samples by row; `order` names the rows that come first, `expected` what each will have."""
    rows: dict[str, Row] = {name: Row(name) for name in order}
    for sample in samples:
        rows.setdefault(sample.row, Row(sample.row)).add(sample)
    for name, row in rows.items():
        row.expected = (expected or {}).get(name)
    return Summary({name: row for name, row in rows.items() if row.samples})


def by_benchmark(
    samples: Iterable[GradedSample],
    order: Sequence[str] = (),
    expected: Mapping[tuple[str, str], Expected] | None = None,
) -> dict[str, Summary]:
    """One summary for each benchmark, in order of appearance; `expected` by (benchmark, row)."""
    groups: dict[str, list[GradedSample]] = {}
    for sample in samples:
        groups.setdefault(sample.benchmark, []).append(sample)
    return {
        name: summarize(group, order, {row: e for (benchmark, row), e in (expected or {}).items() if benchmark == name})
        for name, group in groups.items()
    }


def table_ks(n: int) -> list[int]:
    """The values of k a table shows: powers of two, and n itself."""
    return sorted({2**i for i in range(n.bit_length()) if 2**i <= n} | {n})


def curve_ks(n: int) -> list[int]:
    """The values of k a curve is drawn through: all of them, or CURVE_POINTS spread evenly over the
    logarithm.
    """
    if n <= CURVE_POINTS:
        return list(range(1, n + 1))
    return sorted({int(k) for k in np.geomspace(1, n, CURVE_POINTS).round()} | set(table_ks(n)))


def as_json(summary: Summary) -> dict[str, Any]:
    """The summary as plain JSON values; scores lie between 0 and 1, intervals are [low, high]."""
    recovery = summary.recovery()
    return {
        "rows": {
            name: _row_json(row, summary.recovery(name) if name in summary.recovering else None)
            for name, row in summary.rows.items()
        },
        "recovery_rate": recovery.value if recovery else None,
        "recovery_rate_ci": recovery.ci if recovery else None,
        "recovery_rate_questions": recovery.questions if recovery else None,
        "differences": {
            f"{first} - {second}": difference._asdict()
            for first, second in summary.compared
            if (difference := summary.difference(first, second))
        },
    }


def _row_json(row: Row, recovery: Recovery | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "avg": row.avg.value,
        "ci": row.avg.ci,
        "ci_decoding": row.avg.ci_decoding,
        "n": row.n,
        "n_max": row.n_max,
        "questions": len(row.questions),
        "samples": row.samples,
        "complete": row.is_complete,
        "expected_questions": row.expected.questions if row.expected else None,
        "expected_samples": row.expected.samples if row.expected else None,
        "tiers": dict(row.tiers.most_common()),
    }
    for metric in METRICS:
        scores = {str(k): row.score(metric, k) for k in table_ks(row.n)}
        result[metric.key] = {k: score.value for k, score in scores.items()}
        result[f"{metric.key}_ci"] = {k: score.ci for k, score in scores.items()}
        result[f"{metric.key}_ci_decoding"] = {k: score.ci_decoding for k, score in scores.items()}
    for share in ("truncated", "unanswered", "timeouts", "errors"):
        result[share] = getattr(row, share) / row.samples
    result["tokens_per_sample"] = row.tokens / row.samples
    if recovery:
        result["recovery_rate"], result["recovery_rate_ci"] = recovery.value, recovery.ci
    return result
