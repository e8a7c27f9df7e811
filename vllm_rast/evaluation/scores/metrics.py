"""Accuracy metrics over repeated samples: avg@n, pass@k and pass^k for each question.

Every function takes counts, one entry per question: `n` samples, of which `c` are right. They return one
value per question; the mean over questions is the score, and `intervals` puts the error bars on it. Majority
votes are in `majority`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
CountMetric = Callable[[ArrayLike, ArrayLike, int], Floats]


def counts(correct: Sequence[Iterable[bool]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Samples and right samples of each question, `n` and `c` [questions]; questions may differ in their
    number of samples.
    """
    rows = [np.fromiter(row, dtype=bool) for row in correct]
    n = np.array([row.size for row in rows], dtype=np.int64)
    c = np.array([row.sum() for row in rows], dtype=np.int64)
    return n, c


def avg_at_n(n: ArrayLike, c: ArrayLike) -> Floats:
    """Share of right samples, c / n [questions]."""
    n, c = _checked(n, c)
    return c / n


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> Floats:
    """Chance that k samples drawn without replacement hold at least one right one, 1 - C(n-c, k) / C(n, k)
    [questions].

    The unbiased estimator of Chen et al., "Evaluating Large Language Models Trained on Code" (arXiv
    2107.03374), equation 1.

    Raises:
        ValueError: a question has fewer than k samples: there is no unbiased estimate then.
    """
    n, c = _checked(n, c, k)
    return 1.0 - _all_from(n, n - c, k)


def pass_hat_k(n: ArrayLike, c: ArrayLike, k: int) -> Floats:
    """Chance that k samples drawn without replacement are all right, C(c, k) / C(n, k) [questions].

    pass^k of Yao et al., "tau-bench" (arXiv 2406.12045).

    Raises:
        ValueError: a question has fewer than k samples.
    """
    n, c = _checked(n, c, k)
    return _all_from(n, c, k)


def leave_one_out(metric: CountMetric, n: ArrayLike, c: ArrayLike, k: int) -> Floats:
    """Decoding variance [questions] of `metric(n, c, k)`, by leaving out one sample at a time (jackknife).

    For k = 1 this is exactly the unbiased variance of a mean, p (1 - p) / (n - 1). A question with n <= k
    gets nan: its only k-subset says nothing about how another draw would have come out.
    """
    n, c = _checked(n, c, k)
    variance = np.full(n.shape, np.nan)
    enough = n > k
    if not enough.any():
        return variance
    n, c = n[enough], c[enough]
    # Leaving out any of the c right samples gives one value, any of the n - c wrong ones another; where there
    # is none of a kind its weight is 0 and the clipped count only keeps the formula defined.
    without_right = metric(n - 1, np.maximum(c - 1, 0), k)
    without_wrong = metric(n - 1, np.minimum(c, n - 1), k)
    variance[enough] = (n - 1) / n**2 * c * (n - c) * (without_right - without_wrong) ** 2
    return variance


def _all_from(n: NDArray[np.int64], m: NDArray[np.int64], k: int) -> Floats:
    """C(m, k) / C(n, k) [questions] as a product of k ratios, so that no binomial overflows."""
    steps = np.arange(k)
    ratios = np.clip(m[..., None] - steps, 0, None) / (n[..., None] - steps)
    return ratios.prod(axis=-1)


def _checked(n: ArrayLike, c: ArrayLike, k: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    n, c = np.asarray(n, dtype=np.int64), np.asarray(c, dtype=np.int64)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if n.size and n.min() < k:
        raise ValueError(f"k = {k} needs at least {k} samples of every question, but one has only {n.min()}")
    if ((c < 0) | (c > n)).any():
        raise ValueError("the number of right samples must lie between 0 and the number of samples")
    return n, c
