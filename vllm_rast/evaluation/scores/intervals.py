"""Error bars, named by what they vary.

- over questions: had other questions of the same kind been asked. The decoding noise is part of it.
- over decoding noise: had the same questions been decoded again. Needs more than k samples of a question.

Differences between rows and the recovery rate are paired: rows meet the same questions, so one resampled set
of questions serves all rows at once. All intervals hold 95 %.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vllm_rast.evaluation.scores.metrics import Floats

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
RESAMPLES = 10_000  # the ends of a 95 % percentile interval then scatter by about 2 % of its width
_BLOCK = 4_000_000  # draws held in memory at once, as 8-byte integers


class Interval(NamedTuple):
    low: float
    high: float


def over_questions(values: ArrayLike) -> Interval | None:
    """Normal interval of the mean of per-question scores `values` [questions]; None for fewer than two
    questions.

    If every question has score 0, or every one 1, the scatter says nothing, and the end is Wilson's
    instead.
    """
    scores = np.asarray(values, dtype=float)
    m = scores.size
    if m < 2:
        return None
    mean, half = scores.mean(), Z95 * scores.std(ddof=1) / np.sqrt(m)
    if half == 0 and mean in (0.0, 1.0):
        wilson = Z95**2 / (m + Z95**2)
        return Interval(0.0, wilson) if mean == 0 else Interval(1 - wilson, 1.0)
    return Interval(float(max(mean - half, 0.0)), float(min(mean + half, 1.0)))


def over_decoding(values: ArrayLike, variances: ArrayLike) -> Interval | None:
    """Normal interval of the mean score of these very questions under another decoding.

    `variances` [questions] are those of `metrics.leave_one_out` or `majority.leave_one_vote_out`; None if any is
    nan.
    """
    scores, spread = np.asarray(values, dtype=float), np.asarray(variances, dtype=float)
    if not scores.size or np.isnan(spread).any():
        return None
    mean, half = scores.mean(), Z95 * np.sqrt(spread.sum()) / scores.size
    return Interval(float(max(mean - half, 0.0)), float(min(mean + half, 1.0)))


def bootstrap_means(values: ArrayLike, seed: int = 0, resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """Means [resamples, columns] of `values` [questions, columns] over questions drawn with replacement, the
    same for all columns.
    """
    table = np.asarray(values, dtype=float)
    times = _times_drawn(len(table), seed, resamples)
    step = max(1, _BLOCK // len(table))
    return np.concatenate([times[i : i + step] @ table / len(table) for i in range(0, resamples, step)])


@lru_cache(maxsize=2)
def _times_drawn(m: int, seed: int, resamples: int) -> NDArray[np.uint8]:
    """How often each of m questions is in each resample [resamples, m]; kept, since every pair of rows needs it.

    A byte holds it: even the largest of 10^10 such counts is about 13.
    """
    rng = np.random.default_rng(seed)
    times = np.empty((resamples, m), dtype=np.uint8)
    step = max(1, _BLOCK // m)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, m, size=(rows, m)) + np.arange(rows)[:, None] * m
        times[start : start + rows] = np.bincount(drawn.ravel(), minlength=rows * m).reshape(rows, m)
    return times


class Difference(NamedTuple):
    """Mean of (first - second) over the questions both rows have."""

    value: float
    ci: Interval | None
    questions: int


def paired_difference(first: ArrayLike, second: ArrayLike, seed: int = 0) -> Difference:
    """Mean paired difference of two rows' scores [questions] and its bootstrap interval over questions.

    Raises:
        ValueError: the rows differ in length, or are empty.
    """
    gaps = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    if gaps.ndim != 1 or not gaps.size:
        raise ValueError("a paired difference needs the same questions, at least one, in both rows")
    if gaps.size < 2:
        return Difference(float(gaps.mean()), None, gaps.size)
    return Difference(float(gaps.mean()), _percentiles(bootstrap_means(gaps[:, None], seed)[:, 0]), gaps.size)


class Recovery(NamedTuple):
    """Share of the ceiling's lead over the base that RAST recovers; `value` is None if the ceiling does
    not lead.
    """

    value: float | None
    ci: Interval | None
    questions: int


def recovery_rate(base: ArrayLike, rast: ArrayLike, ceiling: ArrayLike, seed: int = 0) -> Recovery:
    """(rast - base) / (ceiling - base) of the rows' mean scores [questions], with a paired bootstrap
    interval.

    The recovery rate of RAST (arXiv 2506.15710), over questions all three rows have. It has no interval if
    the ceiling fails to lead the base in more than 2.5 % of the resamples: the ratio is unbounded there.

    Raises:
        ValueError: the rows differ in length, or are empty.
    """
    scores = np.stack([np.asarray(row, dtype=float) for row in (base, rast, ceiling)], axis=1)
    if not scores.size:
        raise ValueError("a recovery rate needs at least one question that all three rows have")
    value = _ratio(scores.mean(axis=0)[None])[0]
    if np.isnan(value):
        return Recovery(None, None, len(scores))
    ratios = _ratio(bootstrap_means(scores, seed)) if len(scores) > 1 else np.array([np.nan])
    undefined = np.isnan(ratios).mean()
    ci = None if undefined > 0.025 else _percentiles(ratios[~np.isnan(ratios)])
    return Recovery(float(value), ci, len(scores))


def _ratio(means: NDArray[np.float64]) -> Floats:
    """Recovery rates [rows] of means [rows, (base, rast, ceiling)]; nan if the ceiling does not lead."""
    gain, lead = means[:, 1] - means[:, 0], means[:, 2] - means[:, 0]
    return np.where(lead > 1e-12, gain / np.where(lead > 1e-12, lead, 1.0), np.nan)


def _percentiles(draws: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(float(low), float(high))
