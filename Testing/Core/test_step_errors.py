"""Factors and correlation of stated errors, found again from made-up errors whose truth is known."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from DualTrackCore.errors import InputError
from DualTrackCore.research.comparison.step_errors import calibrate, check
from DualTrackCore.trajectory import Trajectory
from DualTrackCore.uncertainty import AS_STATED

FACTORS = np.array([2.0, 0.5, 1.5, 0.8, 1.2, 3.0])
CORRELATION = np.array([0.1, 0.0, 0.6, 0.3, 0.9, 0.5])
STATED = np.array([0.02, 0.03, 0.03, 0.05, 0.05, 0.05])


@functools.cache
def made_up(sweeps=200, steps=30, seed=0, back=False):
    """Estimates that state errors, and the truths of which they are off by FACTORS times that."""
    rng = np.random.default_rng(seed)
    estimates, truths = [], []
    for _ in range(sweeps):
        motions = rng.normal([0.02, 0.02, 0.5, 0, 0, 0], [0.02, 0.02, 0.05, 0.1, 0.1, 0.1], (steps, 6))
        signs = np.ones((steps, 6))
        if back:
            motions[steps // 2 :, 2] *= -1
            signs[steps // 2 :, 2:5] = -1
        sigma = STATED * rng.uniform(0.3, 2) * rng.uniform(0.5, 1.5, (steps, 6))
        common, own = rng.normal(size=6), rng.normal(size=(steps, 6))
        error = sigma * FACTORS * (np.sqrt(CORRELATION) * common * signs + np.sqrt(1 - CORRELATION) * own)
        estimates.append(Trajectory.from_parameters(motions, {"model": "toy"}, sigma=sigma))
        truths.append(Trajectory.from_parameters(motions - error, origin="measured"))
    return estimates, truths


def test_factors_and_correlation_are_found_again():
    found, (estimates, _) = calibrate(*made_up()), made_up()
    applied = np.mean([np.log(found.apply(one).sigma / one.sigma).mean(axis=0) for one in estimates], axis=0)
    np.testing.assert_allclose(np.exp(applied), FACTORS, rtol=0.1)
    np.testing.assert_allclose(found.powers, AS_STATED, atol=0.3)  # all sweeps have nearly the same mean step
    np.testing.assert_allclose(found.correlation, CORRELATION, atol=0.12)


def test_the_common_part_is_found_in_sweeps_that_go_there_and_back():
    found = calibrate(*made_up(back=True))
    np.testing.assert_allclose(found.correlation, CORRELATION, atol=0.15)


def test_calibrated_intervals_hold_their_share_of_other_sweeps_and_uncalibrated_ones_do_not():
    found = calibrate(*made_up())
    estimates, truths = made_up(seed=1)
    checked = check([found.apply(estimate) for estimate in estimates], truths)
    # A share of 200 sweeps is itself uncertain by 3 %, and what steps have in common makes that of steps nearly so.
    for held in (checked.step_length, checked.path_length):
        assert held[0.68] == pytest.approx(0.68, abs=0.08)
        assert held[0.95] == pytest.approx(0.95, abs=0.04)
    assert check(estimates, truths).step_length[0.68] < 0.6
    assert (checked.sweeps, checked.steps) == (200, 200 * 30)


def test_a_correlation_that_is_left_out_makes_intervals_of_the_path_too_narrow_and_not_those_of_steps():
    found = calibrate(*made_up())
    own = replace(found, correlation=np.zeros(6))
    estimates, truths = made_up(seed=1)
    checked = check([own.apply(estimate) for estimate in estimates], truths)
    assert checked.step_length[0.95] == pytest.approx(0.95, abs=0.03)
    assert checked.path_length[0.95] < 0.6


def test_errors_that_grow_with_the_step_and_less_than_stated_are_found_to_do_so():
    rng, estimates, truths = np.random.default_rng(4), [], []
    for _ in range(150):
        step, stated = np.exp(rng.uniform(np.log([0.1, 0.01]), np.log([1.6, 0.1])))
        motions = np.tile([0, 0, step, 0, 0, 0], (30, 1))
        error = np.sqrt(stated * step) * rng.normal(size=(30, 6)) * [0.3, 0.3, 0.3, 1, 1, 1]
        estimates.append(Trajectory.from_parameters(motions, {"model": "toy"}, sigma=np.full((30, 6), stated)))
        truths.append(Trajectory.from_parameters(motions - error, origin="measured"))
    found = calibrate(estimates, truths)
    np.testing.assert_allclose(found.powers, 0.5, atol=0.08)
    held = check([found.apply(estimate) for estimate in estimates], truths)
    assert held.step_length[0.68] == pytest.approx(0.68, abs=0.03)
    few = calibrate(estimates[:20], truths[:20])
    np.testing.assert_array_equal(few.powers, AS_STATED)


@functools.cache
def scattered(freedom, sweeps=300, seed=0):
    """As :func:`made_up`, and each sweep errs by a factor of its own more or less."""
    estimates, truths = made_up(sweeps, seed=seed)
    larger = np.sqrt((freedom - 2) / np.random.default_rng(seed + 9).chisquare(freedom, sweeps))
    moved = [
        e.parameters + f * (t.parameters - e.parameters) for e, t, f in zip(estimates, truths, larger, strict=True)
    ]
    return estimates, [Trajectory.from_parameters(motions, origin="measured") for motions in moved]


def test_errors_of_very_different_sizes_are_found_to_scatter_so_and_bands_hold_with_that_alone():
    found = calibrate(*scattered(4.0))
    assert 3.2 < found.freedom < 5.2
    estimates, truths = scattered(4.0, seed=1)
    normal = replace(found, freedom=None)
    held, as_normal = (check([one.apply(e) for e in estimates], truths).step_length for one in (found, normal))
    assert held[0.68] == pytest.approx(0.68, abs=0.05)
    assert held[0.95] == pytest.approx(0.95, abs=0.03)
    assert as_normal[0.68] > 0.74


def test_errors_that_are_normal_are_found_to_be():
    assert calibrate(*made_up()).freedom is None


def test_bands_of_the_path_hold_though_a_few_sweeps_err_far_more_in_common():
    estimates, truths = scattered(3.0)
    found = calibrate(estimates, truths)
    held = check([found.apply(e) for e in estimates], truths).path_length
    assert held[0.68] == pytest.approx(0.68, abs=0.05)
    assert held[0.95] == pytest.approx(0.95, abs=0.03)


def test_stated_errors_rank_sweeps_where_they_tell_them_apart_and_not_where_they_are_mixed_up():
    estimates, truths = made_up(80)
    assert check(estimates, truths).rank_correlation > 0.5
    mixed = np.random.default_rng(0).permutation(80)
    others = [
        Trajectory(e.poses, sigma=estimates[n].sigma, provenance=e.provenance)
        for e, n in zip(estimates, mixed, strict=True)
    ]
    assert abs(check(others, truths).rank_correlation) < 0.3


def test_motions_beside_invalid_poses_do_not_count():
    estimates, truths = made_up(30)
    whole = calibrate([e.slice(0, 20) for e in estimates], [t.slice(0, 20) for t in truths])
    poses = [t.poses.copy() for t in truths]
    for some in poses:
        some[20:] = 0
    cut = calibrate(estimates, [Trajectory(some, np.arange(31) < 20, origin="measured") for some in poses])
    np.testing.assert_allclose(cut.factors, whole.factors, rtol=2e-3)  # the mean step is that of the whole estimate
    np.testing.assert_allclose(cut.correlation, whole.correlation, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e, t: ([], []), "0 estimates"),
        (lambda e, t: (e, t[:1]), "2 estimates came with 1 truths"),
        (lambda e, t: ([e[0], t[1]], t), "Estimate 1 does not say how sure it is"),
        (lambda e, t: (e, [t[0], t[1].slice(0, 5)]), "Estimate 1 has 31 poses and its truth 5"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_its_number(change, said):
    with pytest.raises(InputError, match=said):
        calibrate(*change(*made_up(2)))
