"""The metrics equal their definitions, counted over all subsets; the error bars have the right width and
shape.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_rast.evaluation.scores import intervals, majority, metrics

# No deadline: a slow machine is no failure.
calmly = settings(deadline=None, max_examples=60)
samples = st.lists(st.booleans(), min_size=1, max_size=8)
answers = st.lists(st.sampled_from(["right", "also right", "a", "b", "c", None]), min_size=1, max_size=8)


def subset_mean(values: list, k: int, score) -> Fraction:
    scores = [Fraction(score(subset)) for subset in combinations(values, k)]
    return sum(scores, Fraction(0)) / len(scores)


def is_right(answer: str | None) -> bool:
    return answer in ("right", "also right")


def vote(subset: tuple) -> Fraction:
    cast = [answer for answer in subset if answer is not None]
    most = max((cast.count(answer) for answer in cast), default=0)
    winners = {answer for answer in cast if cast.count(answer) == most}
    return Fraction(sum(map(is_right, winners)), len(winners)) if winners else Fraction(0)


@calmly
@given(samples, st.data())
def test_pass_at_k_and_pass_hat_k_are_means_over_all_subsets(correct, data):
    k = data.draw(st.integers(1, len(correct)))
    n, c = metrics.counts([correct])
    assert metrics.pass_at_k(n, c, k)[0] == pytest.approx(float(subset_mean(correct, k, any)))
    assert metrics.pass_hat_k(n, c, k)[0] == pytest.approx(float(subset_mean(correct, k, all)))
    assert metrics.avg_at_n(n, c)[0] == pytest.approx(float(subset_mean(correct, 1, all)))


@calmly
@given(answers)
def test_maj_at_k_is_exactly_the_mean_over_all_subsets(given_answers):
    tally = majority.tally(given_answers, map(is_right, given_answers))
    for k in range(1, len(given_answers) + 1):
        assert majority.maj_at_k(tally, k) == subset_mean(given_answers, k, vote)


def test_maj_at_k_of_twelve_twelve_and_eight_votes():
    tally = majority.tally(["right"] * 12 + ["a"] * 12 + ["b"] * 8, [True] * 12 + [False] * 20)
    assert float(majority.maj_at_k(tally, 8)) == pytest.approx(0.4219, abs=5e-5)


def test_a_class_marked_in_two_ways_counts_by_its_share():
    tally = majority.tally(["a", "a", "a", "a", "b"], [True, True, True, False, False])
    assert majority.maj_at_k(tally, 5) == Fraction(3, 4)
    assert majority.maj_at_k(tally, 1) == Fraction(3, 5)


def test_abstaining_samples_cast_no_vote():
    assert majority.maj_at_k(majority.tally([None, None, "right"], [False, False, True]), 3) == 1
    assert majority.maj_at_k(majority.tally([None, None], [False, False]), 2) == 0


def test_maj_at_k_is_exact_beyond_machine_integers():
    tally = majority.tally(["right"] * 120 + ["a"] * 120 + [None] * 16, [True] * 120 + [False] * 136)
    # Two classes of one size share everything but the subsets without a vote; 16 abstaining samples allow those
    # for k <= 16.
    for k in (1, 2, 16, 17, 200, 256):
        assert majority.maj_at_k(tally, k) == Fraction(comb(256, k) - comb(16, k), 2 * comb(256, k))


@pytest.mark.parametrize("k", [0, 5])
def test_k_outside_the_samples_is_refused(k):
    n, c = metrics.counts([[True] * 4, [False] * 9])
    with pytest.raises(ValueError, match="k"):
        metrics.pass_at_k(n, c, k)
    with pytest.raises(ValueError, match="k"):
        metrics.pass_hat_k(n, c, k)
    with pytest.raises(ValueError, match="k"):
        majority.maj_at_k(majority.tally("abcd", [True, False, False, False]), k)


def test_more_right_samples_than_samples_is_refused():
    with pytest.raises(ValueError, match="between 0"):
        metrics.avg_at_n([3], [4])


def test_large_counts_do_not_overflow():
    value = metrics.pass_at_k([100_000], [1], 50_000)[0]
    assert value == pytest.approx(0.5)


@calmly
@given(st.lists(st.booleans(), min_size=2, max_size=8), st.data())
def test_decoding_variance_is_the_jackknife_over_samples(correct, data):
    k = data.draw(st.integers(1, len(correct) - 1))
    n, c = metrics.counts([correct])
    for metric, score in ((metrics.pass_at_k, any), (metrics.pass_hat_k, all)):
        left_out = [float(subset_mean(correct[:i] + correct[i + 1 :], k, score)) for i in range(len(correct))]
        expected = (len(correct) - 1) * np.var(left_out)
        assert metrics.leave_one_out(metric, n, c, k)[0] == pytest.approx(expected)


@calmly
@given(st.lists(st.sampled_from(["right", "a", "b", None]), min_size=2, max_size=7), st.data())
def test_decoding_variance_of_the_vote_is_the_jackknife_over_samples(given_answers, data):
    n = len(given_answers)
    k = data.draw(st.integers(1, n - 1))
    left_out = [float(subset_mean(given_answers[:i] + given_answers[i + 1 :], k, vote)) for i in range(n)]
    tally = majority.tally(given_answers, map(is_right, given_answers))
    assert majority.leave_one_vote_out([tally], k)[0] == pytest.approx((n - 1) * np.var(left_out))


def test_decoding_variance_of_a_mean_is_the_textbook_one_and_unknown_without_a_spare_sample():
    variance = metrics.leave_one_out(metrics.pass_at_k, [8, 1], [3, 1], 1)
    assert variance[0] == pytest.approx(3 / 8 * 5 / 8 / 7)
    assert np.isnan(variance[1])
    assert intervals.over_decoding([0.375, 1.0], variance) is None


def test_normal_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(5)
    truth, hits, trials = 0.3, 0, 1000
    for _ in range(trials):
        skill = rng.beta(0.6, 1.4, size=150)  # mean 0.3: questions differ in how hard they are
        interval = intervals.over_questions(rng.binomial(8, skill) / 8)
        hits += interval.low <= truth <= interval.high
    assert 0.925 < hits / trials < 0.975


def test_decoding_interval_is_narrower_than_the_one_over_questions():
    rng = np.random.default_rng(6)
    n = np.full(300, 16)
    c = rng.binomial(16, rng.beta(0.3, 0.3, size=300))
    wide = intervals.over_questions(metrics.avg_at_n(n, c))
    narrow = intervals.over_decoding(metrics.avg_at_n(n, c), metrics.leave_one_out(metrics.pass_at_k, n, c, 1))
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)


def test_interval_of_a_perfect_or_hopeless_row_is_not_a_point():
    none_right = intervals.over_questions(np.zeros(30))
    all_right = intervals.over_questions(np.ones(30))
    assert none_right.low == 0 and none_right.high == pytest.approx(0.1135, abs=1e-4)
    assert all_right == pytest.approx((1 - none_right.high, 1.0))
    assert intervals.over_questions([1.0]) is None


def test_bootstrap_agrees_with_the_normal_interval_and_with_itself():
    values = np.random.default_rng(1).random((400, 1))
    means = intervals.bootstrap_means(values, seed=3)
    assert means.std() == pytest.approx(values.std() / 20, rel=0.05)
    assert means.mean() == pytest.approx(values.mean(), abs=1e-3)
    assert np.array_equal(means, intervals.bootstrap_means(values, seed=3))
    assert not np.array_equal(means, intervals.bootstrap_means(values, seed=4))


def test_bootstrap_is_the_same_in_blocks(monkeypatch):
    values = np.random.default_rng(1).random((7, 2))
    whole = intervals.bootstrap_means(values, resamples=50)
    intervals._times_drawn.cache_clear()
    monkeypatch.setattr(intervals, "_BLOCK", 21)
    assert np.allclose(whole, intervals.bootstrap_means(values, resamples=50))


def test_pairing_removes_the_scatter_between_questions():
    rng = np.random.default_rng(2)
    hard = rng.random(200)
    better = np.clip(hard + 0.05, 0, 1)
    paired = intervals.paired_difference(better, hard)
    assert paired.value == pytest.approx((better - hard).mean())
    assert paired.ci.low > 0
    assert paired.ci.high - paired.ci.low < 0.01 < 0.05 < intervals.over_questions(hard).high - hard.mean() + 0.05


def test_recovery_rate_and_its_interval():
    rng = np.random.default_rng(3)
    base, ceiling = rng.random(500) * 0.4, 0.6 + rng.random(500) * 0.4
    rast = base + 0.85 * (ceiling - base)
    recovery = intervals.recovery_rate(base, rast, ceiling)
    assert recovery.value == pytest.approx(0.85)
    assert recovery.ci == pytest.approx((0.85, 0.85))  # paired: every question recovers the same share
    noisy = intervals.recovery_rate(base, np.clip(rast + rng.normal(0, 0.2, 500), 0, 1), ceiling)
    assert noisy.ci.low < noisy.value < noisy.ci.high and noisy.ci.high - noisy.ci.low > 0.01


def test_recovery_rate_is_undefined_where_the_ceiling_does_not_lead():
    assert intervals.recovery_rate([0.5, 0.5], [0.6, 0.6], [0.5, 0.5]) == (None, None, 2)
    barely = intervals.recovery_rate([0, 1, 0, 1], [1, 1, 0, 1], [1, 0, 0, 1.1])
    assert barely.value is not None and barely.ci is None


def test_unpaired_rows_are_refused():
    with pytest.raises(ValueError):
        intervals.paired_difference([1.0, 0.0], [1.0, 0.0, 1.0])
    with pytest.raises(ValueError):
        intervals.recovery_rate([], [], [])
