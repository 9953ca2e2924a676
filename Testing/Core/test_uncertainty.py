"""Errors of single motions, and what becomes of them along the path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from DualTrackCore.errors import InputError
from DualTrackCore.repeats import Repeats
from DualTrackCore.trajectory import (
    STEP_ERROR_CORRELATION,
    Trajectory,
    matrices_from_parameters,
    parameters_from_matrices,
)
from DualTrackCore.uncertainty import grown_errors, length_errors, position_covariances

DRAWS = 8000


def curved(frames=31, seed=0):
    """A path that turns by tens of degrees, and errors of its motions that differ from step to step."""
    rng = np.random.default_rng(seed)
    motions = np.array([0.1, 0.04, 0.6, 0.8, 1.2, -0.6]) + rng.normal(
        0, [0.05, 0.03, 0.05, 0.2, 0.2, 0.2], (frames - 1, 6)
    )
    sigma = rng.uniform(0.5, 1.5, (frames - 1, 6)) * [0.02, 0.02, 0.06, 0.1, 0.1, 0.06]
    return motions, sigma


def drawn_poses(motions, sigma, correlation, draws=DRAWS, seed=1):
    """[N, draws, 4, 4] poses of motions with errors drawn as the model has them, of a sweep that runs one way."""
    rng, correlation = np.random.default_rng(seed), np.asarray(correlation)
    # Evenly spread over the normal distribution, so that shares of few draws are exact.
    common = norm.ppf((rng.permuted(np.tile(np.arange(draws), (6, 1)), axis=1).T + 0.5) / draws)
    poses = [np.tile(np.eye(4), (draws, 1, 1))]
    for motion, deviation in zip(motions, sigma, strict=True):
        own = rng.normal(size=(draws, 6))
        error = deviation * (np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own)
        poses.append(poses[-1] @ matrices_from_parameters(motion + error))
    return np.array(poses)


def lengths_of(poses):
    return np.linalg.norm(np.diff(poses[..., :3, 3], axis=0), axis=-1).sum(axis=0)


def test_pictures_that_were_shown_again_do_not_shorten_the_mean_step_that_errors_grow_with():
    motions = np.tile([0, 0, 0.4, 0, 0, 0.0], (6, 1))
    motions[2:4] = 0
    found = grown_errors(np.full((6, 6), 0.04), motions, [[0.5] * 6, [1.0] * 6])
    np.testing.assert_allclose(found, 0.2 * 0.4)
    assert grown_errors(np.zeros((2, 6)), np.zeros((2, 6)), [[0.5] * 6, [1.0] * 6]).max() == 0


def still(frames=5):
    return Trajectory(np.tile(np.eye(4), (frames, 1, 1)))


@pytest.mark.parametrize(
    ("sigma", "said"),
    [
        (np.ones((5, 6)), r"5 poses came with errors of the motions \(5, 6\); expected \(4, 6\)"),
        (np.ones(4), "expected"),
        (np.full((4, 6), "wide"), "must be an array of numbers"),
        (np.where(np.arange(4)[:, None] == 2, -0.1, np.ones((4, 6))), "from frame 2 to frame 3"),
        (np.where(np.arange(4)[:, None] == 1, np.inf, np.ones((4, 6))), "from frame 1 to frame 2"),
        (np.where(np.arange(24).reshape(4, 6) == 20, np.nan, np.ones((4, 6))), "from frame 3 to frame 4"),
    ],
)
def test_errors_that_are_no_standard_deviations_are_refused_with_their_frames(sigma, said):
    with pytest.raises(InputError, match=said):
        replace(still(), sigma=sigma)


def test_an_error_may_be_unknown_and_cannot_be_changed():
    sigma = np.ones((4, 6))
    sigma[1:3] = np.nan
    kept = replace(still(), sigma=sigma)
    np.testing.assert_array_equal(kept.sigma, sigma)
    with pytest.raises(ValueError, match="read-only"):
        kept.sigma[0] = 0
    assert still().sigma is None
    assert Trajectory(np.eye(4)[None], sigma=np.empty((0, 6))).sigma.shape == (0, 6)


def test_a_part_of_a_trajectory_has_the_errors_of_its_own_motions():
    motions, sigma = curved(20)
    whole = Trajectory.from_parameters(motions, sigma=sigma)
    for start, stop in ((0, 20), (5, 12), (19, 20), (-4, 20)):
        part = whole.slice(start, stop)
        assert part.sigma.shape == (max(len(part) - 1, 0), 6)
        np.testing.assert_array_equal(part.sigma, sigma[start % 20 : max(stop - 1, start % 20)])
    assert still().slice(1, 3).sigma is None


def test_a_repeated_frame_lies_where_its_picture_does_without_any_error():
    motions, sigma = curved(4)
    shown = Repeats(np.array([0, 0, 2, 2, 2, 5, 6])).shown_again(Trajectory.from_parameters(motions, sigma=sigma))
    np.testing.assert_array_equal(shown.sigma[[0, 2, 3]], 0)
    np.testing.assert_array_equal(shown.sigma[[1, 4, 5]], sigma)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("frames", [[0, 30], [28, 3], [10, 11], [11, 10]])
def test_the_error_of_a_motion_over_many_steps_is_the_one_that_drawn_errors_have(correlation, frames):
    motions, sigma = curved()
    sigma = sigma / 5  # the spread of angles is compared, which is first order only
    correlation = np.full(6, correlation)
    whole = Trajectory.from_parameters(motions, {STEP_ERROR_CORRELATION: correlation.tolist()}, sigma=sigma)
    drawn = drawn_poses(motions, sigma, correlation, 2000)
    spread = parameters_from_matrices(np.linalg.inv(drawn[frames[0]]) @ drawn[frames[1]]).std(axis=0)
    np.testing.assert_allclose(whole.chosen(frames).sigma[0], spread, rtol=0.06)


def test_an_error_on_the_way_that_is_unknown_leaves_that_of_the_motion_unknown():
    motions, sigma = curved(8)
    whole = Trajectory.from_parameters(motions, sigma=sigma)
    poses = whole.poses.copy()
    poses[3] = 0  # as some trackers write it
    whole = Trajectory(poses, np.arange(8) != 3, sigma=sigma)
    found = whole.chosen([0, 2, 6, 7]).sigma
    assert np.isnan(found).any(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("correlation", [0.0, 0.35, 1.0])
def test_bands_of_position_and_length_hold_as_many_drawn_paths_as_they_say(correlation):
    motions, sigma = curved()
    correlation = np.full(6, correlation)
    poses = Trajectory.from_parameters(motions).poses
    drawn = drawn_poses(motions, sigma, correlation)
    off = drawn[..., :3, 3] - poses[:, None, :3, 3]
    spread = np.sqrt(np.einsum("nii->ni", position_covariances(poses, sigma, correlation)))
    length = length_errors(poses, sigma, correlation)
    for times, share in ((1.0, 0.6827), (1.96, 0.95)):
        inside = (np.abs(off[[5, 15, 30]]) <= times * spread[[5, 15, 30], None]).mean(axis=1)
        np.testing.assert_allclose(inside, share, atol=0.02)
        wrong = lengths_of(drawn) - lengths_of(poses)
        assert (np.abs(wrong) <= times * length[-1]).mean() == pytest.approx(share, abs=0.02)


def test_the_covariance_of_the_end_is_that_of_drawn_paths_in_all_its_entries():
    motions, sigma = curved()
    correlation = np.array([0.1, 0.9, 0.5, 0.2, 0.8, 0.4])
    covariance = position_covariances(Trajectory.from_parameters(motions).poses, sigma, correlation)[-1]
    drawn = np.cov(drawn_poses(motions, sigma, correlation)[-1, :, :3, 3].T)
    np.testing.assert_allclose(covariance, drawn, atol=0.05 * np.trace(covariance))


@pytest.mark.parametrize(("correlation", "power"), [(0.0, 0.5), (1.0, 1.0)])
def test_own_errors_grow_with_the_root_of_the_steps_and_common_ones_with_their_number(correlation, power):
    motions = np.tile([0, 0, 0.2, 0, 0, 0.0], (400, 1))
    sigma = np.tile([0, 0, 0.03, 0, 0, 0], (400, 1))
    poses = Trajectory.from_parameters(motions).poses
    steps = np.array([1, 4, 100, 400])
    expected = 0.03 * steps**power
    np.testing.assert_allclose(length_errors(poses, sigma, np.full(6, correlation))[steps], expected)
    np.testing.assert_allclose(position_covariances(poses, sigma, np.full(6, correlation))[steps, 2, 2], expected**2)


def test_an_error_of_rotation_moves_the_end_by_its_lever_arm_and_leaves_the_length():
    motions = np.tile([0, 0, 0.5, 0, 0, 0.0], (100, 1))
    sigma = np.zeros((100, 6))
    sigma[0, 3] = 0.2  # degrees about x, at the very beginning; 49.5 mm follow
    poses = Trajectory.from_parameters(motions).poses
    covariances = position_covariances(poses, sigma, np.zeros(6))
    expected = np.deg2rad(0.2) * 0.5 * np.arange(-1, 100)
    expected[0] = 0
    np.testing.assert_allclose(np.sqrt(covariances[:, 1, 1]), expected, atol=1e-7)
    np.testing.assert_allclose(covariances[:, [0, 2], [0, 2]], 0, atol=1e-12)
    np.testing.assert_array_equal(length_errors(poses, sigma, np.ones(6)), 0)


def test_there_and_back_an_error_of_scale_cancels_in_the_place_and_not_in_the_length():
    motions = np.zeros((200, 6))
    motions[:100, 2], motions[100:, 2] = 0.2, -0.2
    sigma = np.tile([0, 0, 0.02, 0, 0, 0], (200, 1))
    poses = Trajectory.from_parameters(motions).poses
    assert length_errors(poses, sigma, np.ones(6))[-1] == pytest.approx(200 * 0.02)
    assert position_covariances(poses, sigma, np.ones(6))[-1, 2, 2] == pytest.approx(0, abs=1e-12)
    assert position_covariances(poses, sigma, np.ones(6))[100, 2, 2] == pytest.approx((100 * 0.02) ** 2)


def test_without_a_measured_correlation_all_of_the_error_counts_as_common():
    motions, sigma = curved(10)
    np.testing.assert_array_equal(Trajectory.from_parameters(motions, sigma=sigma).step_error_correlation, np.ones(6))
