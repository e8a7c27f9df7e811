"""Means over tokens with intervals over questions.

The tokens of an answer are no independent draws, and neither are the answers to one question: questions are drawn
again, with all of their tokens. A mean over tokens is then a ratio of two sums, each resampled together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vllm_rast.evaluation.scores.intervals import bootstrap_means

RESAMPLES = 2_000  # the ends of an interval then scatter by about 4 % of its width


class Estimate(NamedTuple):
    """A mean with the ends of its 95 % interval over questions; nan where there is none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def percent(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def short_percent(estimate: Estimate) -> str:
    """In percent, with the half-width of the interval on its longer side."""
    half = max(estimate.value - estimate.low, estimate.high - estimate.value)
    return f"{100 * estimate.value:.1f} ± {100 * half:.1f} %" if half == half else f"{100 * estimate.value:.1f} %"


def ratios(sums: ArrayLike, counts: ArrayLike) -> list[Estimate]:
    """sum of sums / sum of counts over questions, for each column: [questions, columns] of both."""
    sums, counts = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    values = divide(sums.sum(axis=0), counts.sum(axis=0))
    if len(sums) < 2:
        return [Estimate(float(value), np.nan, np.nan) for value in values]
    return [Estimate(float(value), *ends(draws)) for value, draws in zip(values, drawn(sums, counts).T, strict=True)]


def ratio_difference(first: tuple[ArrayLike, ArrayLike], second: tuple[ArrayLike, ArrayLike]) -> Estimate:
    """The ratio of the first minus that of the second, paired: (sums, counts) of the same questions, [questions]."""
    sums, counts = (np.stack([np.asarray(one[i], dtype=float) for one in (first, second)], axis=1) for i in (0, 1))
    values = divide(sums.sum(axis=0), counts.sum(axis=0))
    if len(sums) < 2:
        return Estimate(float(values[0] - values[1]), np.nan, np.nan)
    draws = drawn(sums, counts)
    return Estimate(float(values[0] - values[1]), *ends(draws[:, 0] - draws[:, 1]))


def grouped_means(values: ArrayLike, groups: ArrayLike, num_groups: int, questions: ArrayLike) -> list[Estimate]:
    """The mean of `values` in each group, [num_groups]; values that are no number are left out.

    values, groups (from 0), questions (from 0): [num_tokens].
    """
    values, groups, questions = np.asarray(values, dtype=float), np.asarray(groups), np.asarray(questions)
    finite = np.isfinite(values)
    shape = (int(questions.max(initial=0)) + 1, num_groups)
    cells = questions[finite] * num_groups + groups[finite]
    sums = np.bincount(cells, weights=values[finite], minlength=shape[0] * shape[1]).reshape(shape)
    counts = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    return ratios(sums, counts)


def mean(values: ArrayLike, questions: ArrayLike) -> Estimate:
    """The mean over all tokens, [num_tokens] of both."""
    return grouped_means(values, np.zeros(len(np.asarray(values)), dtype=int), 1, questions)[0]


def drawn(sums: NDArray, counts: NDArray) -> NDArray:
    """The ratios of resampled questions, [resamples, columns]."""
    means = bootstrap_means(np.concatenate([sums, counts], axis=1), resamples=RESAMPLES)
    return divide(*np.split(means, 2, axis=1))


def divide(sums: NDArray, counts: NDArray) -> NDArray:
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)


def ends(draws: NDArray) -> tuple[float, float]:
    """A 95 % percentile interval; draws without a token are left out."""
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return np.nan, np.nan
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
