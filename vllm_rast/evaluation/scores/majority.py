"""maj@k: how often the majority answer of k samples is right, exactly.

The score of a question is the expectation over all C(n, k) subsets of its n samples. In a subset the largest
answer class wins; t classes tied for the largest share the vote, 1/t each. A sample without an answer casts
no vote, and a subset without any vote scores 0. Ten random subsets, the usual shortcut, scatter by 0.15 on
one question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from math import comb, lcm
from typing import NamedTuple

import numpy as np

from vllm_rast.evaluation.scores.metrics import Floats


class Tally(NamedTuple):
    """The votes of one question: its answer classes, and how many samples abstained, giving no answer."""

    classes: tuple[tuple[int, int], ...]  # (samples in the class, right ones among them), sorted
    abstained: int

    @property
    def n(self) -> int:
        return sum(size for size, _ in self.classes) + self.abstained


def tally(answers: Iterable[Hashable | None], correct: Iterable[bool]) -> Tally:
    """Count one question's samples: `answers` are answer classes (None: no answer), `correct` says which
    samples are right.

    A class whose samples are marked differently (a grader that ran out of time on one of them) counts as
    right by its share.
    """
    sizes: Counter[Hashable] = Counter()
    right: Counter[Hashable] = Counter()
    abstained = 0
    for answer, is_right in zip(answers, correct, strict=True):
        if answer is None:
            abstained += 1
        else:
            sizes[answer] += 1
            right[answer] += bool(is_right)
    return Tally(tuple(sorted((size, right[answer]) for answer, size in sizes.items())), abstained)


def maj_at_k(votes: Tally, k: int) -> Fraction:
    """Exact expected score of the majority answer of k of the question's n samples.

    Raises:
        ValueError: k is not between 1 and n.
    """
    if not 1 <= k <= votes.n:
        raise ValueError(f"k = {k} needs at least {k} samples of every question, but one has only {votes.n}")
    return maj_curve(votes)[k - 1]


@lru_cache(maxsize=65536)
def maj_curve(votes: Tally) -> tuple[Fraction, ...]:
    """maj@k for k = 1 .. n.

    For every class with right samples and every winning count t, count the subsets in which that class has
    exactly t votes and no other class has more, by the number of classes that tie with it. The counts for all
    k at once are the coefficients of polynomials in z, whose power is the number of samples drawn. A
    polynomial is one Python integer with a fixed number of bits for each coefficient, so that a product of
    polynomials is one product of integers, and exact.
    """
    n = votes.n
    largest_tie = lcm(*range(1, len(votes.classes) + 1))
    bits = n + largest_tie.bit_length() + n.bit_length() + 1  # C(n, k) < 2^n, times a tie's weight, over t
    total = [Fraction(0)] * n
    for index, (size, right) in enumerate(votes.classes):
        if right == 0:
            continue
        others = [other for i, (other, _) in enumerate(votes.classes) if i != index]
        wins = sum(
            comb(size, t) * _outvoted(others, votes.abstained, t, bits, largest_tie) << (bits * t)
            for t in range(1, size + 1)
        )
        for k in range(1, n + 1):
            subsets = wins >> (bits * k) & ((1 << bits) - 1)
            total[k - 1] += Fraction(subsets * right, comb(n, k) * largest_tie * size)
    return tuple(total)


def _outvoted(others: Sequence[int], abstained: int, t: int, bits: int, largest_tie: int) -> int:
    """Ways to draw from the other classes with at most t votes each, a way with j ties weighing largest_tie /
    (j + 1).
    """
    free = abstained + sum(size for size in others if size < t)  # these can never tie
    by_ties = [_polynomial(free, free, bits)]
    for size in others:
        if size >= t:
            below, level = _polynomial(size, t - 1, bits), comb(size, t) << (bits * t)
            by_ties = [
                (by_ties[j] * below if j < len(by_ties) else 0) + (by_ties[j - 1] * level if j else 0)
                for j in range(len(by_ties) + 1)
            ]
    return sum(ways * (largest_tie // (j + 1)) for j, ways in enumerate(by_ties))


@lru_cache(maxsize=4096)
def _polynomial(size: int, limit: int, bits: int) -> int:
    """Sum over x = 0 .. limit of C(size, x) z^x."""
    return sum(comb(size, x) << (bits * x) for x in range(limit + 1))


def maj_values(tallies: Sequence[Tally], k: int) -> Floats:
    """maj@k of every question [questions], as floats.

    Raises:
        ValueError: a question has fewer than k samples.
    """
    return np.array([float(maj_at_k(votes, k)) for votes in tallies])


def leave_one_vote_out(tallies: Sequence[Tally], k: int) -> Floats:
    """Decoding variance [questions] of maj@k by the jackknife, as in `metrics.leave_one_out`; nan if n <=
    k.
    """
    return np.array([_jackknife(votes, k) for votes in tallies])


@lru_cache(maxsize=65536)
def _jackknife(votes: Tally, k: int) -> float:
    n = votes.n
    if n <= k:
        return float("nan")
    values, weights = [], []
    for reduced, weight in _reductions(votes):
        values.append(float(maj_at_k(reduced, k)))
        weights.append(weight)
    mean = np.average(values, weights=weights)
    return float((n - 1) * np.average((np.array(values) - mean) ** 2, weights=weights))


def _reductions(votes: Tally) -> Iterable[tuple[Tally, int]]:
    """Every tally that lacks one sample, with the number of samples whose absence gives it."""
    if votes.abstained:
        yield votes._replace(abstained=votes.abstained - 1), votes.abstained
    for (size, right), times in Counter(votes.classes).items():
        rest = list(votes.classes)
        rest.remove((size, right))
        for is_right, count in ((1, right), (0, size - right)):
            if count:
                smaller = [(size - 1, right - is_right)] if size > 1 else []
                yield Tally(tuple(sorted(rest + smaller)), votes.abstained), count * times
