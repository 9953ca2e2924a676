"""Intervals and tests against independent computations and published worked cases."""

import numpy as np
import pytest
from scipy import stats

from DualTrackCore.evaluation import COMPONENTS
from DualTrackCore.evaluation.definitions import PooledCorrelation, correlations, pearson
from DualTrackCore.research.comparison.summaries import (
    SIGNIFICANT,
    bootstrap_intervals,
    compare_pairs,
    holm,
    least_sweeps,
    signed_rank,
)
from DualTrackCore.research.training.lightning_task import ValidationSums
from DualTrackCore.trajectory import matrices_from_parameters


def test_intervals_agree_with_those_of_scipy():
    values = np.random.default_rng(3).gamma(2.0, size=(24, 2))
    ours = bootstrap_intervals(values)
    for column, (low, high) in zip(values.T, ours, strict=True):
        theirs = stats.bootstrap((column,), np.mean, method="percentile", n_resamples=20_000, random_state=1)
        assert (low, high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.03 * column.std())


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    random = np.random.default_rng(0)
    columns = random.normal(5.0, 2.0, size=(40, 400))
    low, high = bootstrap_intervals(columns, resamples=1000).T
    assert 0.90 < ((low <= 5.0) & (high >= 5.0)).mean() < 0.975


def test_intervals_are_the_same_at_every_call_and_leave_unknown_sweeps_out():
    values = np.random.default_rng(1).normal(size=(9, 1))
    np.testing.assert_array_equal(bootstrap_intervals(values), bootstrap_intervals(values))
    gaps = np.column_stack([values, values, np.full(9, np.nan)])
    gaps[2:, 1] = np.nan
    known, few, none = bootstrap_intervals(gaps)
    assert np.isfinite(known).all()
    assert few == pytest.approx(np.sort(values[:2, 0]))
    assert np.isnan(none).all()
    assert np.isnan(bootstrap_intervals(values[:1])).all()


def test_the_exact_signed_rank_test_agrees_with_counting_all_signs():
    difference = np.array([0.3, -0.1, 0.5, 0.7, -0.2, 0.9])
    ranks = stats.rankdata(np.abs(difference))
    observed = min(ranks[difference > 0].sum(), ranks[difference < 0].sum())
    signs = (np.arange(64)[:, None] >> np.arange(6)) & 1
    smaller = np.minimum(signs @ ranks, (1 - signs) @ ranks)
    assert signed_rank(difference) == pytest.approx((smaller <= observed).mean())


def test_equal_methods_do_not_differ_and_no_sweeps_say_nothing():
    assert signed_rank(np.zeros(5)) == 1.0
    assert np.isnan(signed_rank(np.zeros(0)))


def test_holm_multiplies_by_what_is_left_and_never_falls():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, each at least the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    corrected = holm([0.01, np.nan, 0.04])
    assert corrected[::2] == pytest.approx([0.02, 0.04])
    assert np.isnan(corrected[1])
    assert holm([]) == []


def test_pairs_are_tested_on_the_sweeps_that_both_have():
    random = np.random.default_rng(5)
    one = random.normal(size=12)
    worse, gaps = one + 1 + 0.1 * random.normal(size=12), one + 0.01 * random.normal(size=12)
    gaps[[2, 5]] = np.nan
    pairs = {(p.one, p.other): p for p in compare_pairs("gpe_mm", {"one": one, "worse": worse, "gaps": gaps})}
    assert [pair.count for pair in pairs.values()] == [12, 10, 10]
    first = pairs["one", "worse"]
    assert first.median_difference == pytest.approx(-1, abs=0.15)
    assert first.p == pytest.approx(2 / 2**12)
    assert first.p_holm == pytest.approx(3 * first.p)
    assert pairs["one", "gaps"].p > 0.05


def test_one_correlation_serves_evaluation_comparison_and_training_and_is_that_of_scipy():
    """Of one sweep, of sweeps that are added up, and of sums over processes; steps far from zero lose no digits."""
    random = np.random.default_rng(2)
    true = random.normal(size=(40, 6)) * 0.1 + 50
    predicted = true + random.normal(size=(40, 6)) * 0.05
    wanted = [stats.pearsonr(*columns).statistic for columns in zip(predicted.T, true.T, strict=True)]
    joined = PooledCorrelation()
    for part in (slice(0, 15), slice(15, 40)):
        joined.add(PooledCorrelation.of(predicted[part], true[part]))
    assert list(joined.values().values()) == pytest.approx(wanted, abs=1e-10)
    of_poses = correlations(matrices_from_parameters(predicted), matrices_from_parameters(true))
    assert list(of_poses.values()) == pytest.approx(wanted, abs=1e-6)
    sums = ValidationSums()
    for part in (slice(0, 15), slice(15, 40)):
        sums.add(predicted[part], true[part], np.ones((4, 5)), np.ones(6))
    figures = sums.figures()
    assert [figures[f"correlation_{name}"] for name in COMPONENTS] == pytest.approx(wanted, abs=1e-6)
    assert np.isnan(pearson(40, np.ones(1), np.full(1, 1e-17), np.ones(1))).all()


def test_as_many_sweeps_as_are_said_to_be_needed_are_the_fewest_that_show_a_difference():
    for pairs in (1, 3, 45):
        fewest = least_sweeps(pairs)
        p = [signed_rank(np.arange(1.0, count + 1)) * pairs for count in (fewest - 1, fewest)]
        assert p[1] < SIGNIFICANT <= p[0]
