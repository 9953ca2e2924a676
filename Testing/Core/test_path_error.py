"""How sure a trajectory is of its length and places, and the rule of thumb for estimates that do not say it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_uncertainty import curved, drawn_poses, lengths_of

from DualTrackCore.path_error import DRIFT_BY_RULE, PathError, drift_percent, path_error
from DualTrackCore.trajectory import STEP_ERROR_CORRELATION, Trajectory
from DualTrackCore.uncertainty import STEP_ERROR_FREEDOM, times_holding

STRAIGHT = np.tile([0, 0, 0.5, 0, 0, 0.0], (100, 1))


def estimate(**source):
    return Trajectory.from_parameters(STRAIGHT, {"model": "toy", **source})


def sure(correlation=0.5):
    motions, sigma = curved()
    source = {"model": "toy", STEP_ERROR_CORRELATION: [correlation] * 6}
    return Trajectory.from_parameters(motions, source, sigma=sigma)


@pytest.mark.parametrize("share", [0.68, 0.95])
@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_the_tube_holds_as_many_drawn_places_as_it_says(share, correlation):
    trajectory = sure(correlation)
    drawn = drawn_poses(trajectory.parameters, trajectory.sigma, np.full(6, correlation))
    off = np.linalg.norm(drawn[..., :3, 3] - trajectory.poses[:, None, :3, 3], axis=2)
    inside = (off <= path_error(trajectory).radius_mm(share)[:, None]).mean(axis=1)
    np.testing.assert_allclose(inside[[1, 10, 30]], share, atol=0.02)


def scattered_draws(trajectory, correlation, freedom):
    """Drawn paths of which each errs by its own factor more or less, as Student's distribution has it."""
    sigma, count = trajectory.sigma, 4000
    larger = np.sqrt((freedom - 2) / np.random.default_rng(5).chisquare(freedom, count))
    drawn = drawn_poses(trajectory.parameters, 1e-3 * sigma, np.full(6, correlation), count)
    off = (drawn[..., :3, 3] - trajectory.poses[:, None, :3, 3]) * 1e3 * larger[:, None]
    lengths = lengths_of(drawn) - trajectory.path_length_mm
    return np.linalg.norm(off, axis=2), lengths * 1e3 * larger


@pytest.mark.parametrize("share", [0.68, 0.95])
@pytest.mark.parametrize("freedom", [3.0, 8.0])
def test_bands_hold_their_share_where_some_sweeps_err_far_more_than_others(share, freedom):
    trajectory = replace(sure(), provenance={**sure().provenance, STEP_ERROR_FREEDOM: freedom})
    off, lengths = scattered_draws(trajectory, 0.5, freedom)
    error = path_error(trajectory)
    inside = (off <= error.radius_mm(share)[:, None]).mean(axis=1)
    np.testing.assert_allclose(inside[[1, 10, 30]], share, atol=0.025)
    within = times_holding(share, freedom) * error.end_length_mm
    assert (np.abs(lengths) <= within).mean() == pytest.approx(share, abs=0.025)
    if share == 0.95:
        assert error.as_dict()["length_95_mm"] == within


def test_radii_are_those_of_errors_along_one_axis_and_of_equal_ones_along_all():
    ball, needle = np.eye(3), np.diag([0.0, 4.0, 0.0])
    radius = PathError(np.zeros(3), np.array([ball, needle, ball * 0]), 0.0).radius_mm(0.95)
    np.testing.assert_allclose(radius, [2.7955, 2 * 1.96, 0], rtol=0.015)


def test_the_length_says_how_far_off_95_of_100_drawn_paths_are():
    trajectory = sure()
    error = path_error(trajectory)
    drawn = lengths_of(drawn_poses(trajectory.parameters, trajectory.sigma, np.full(6, 0.5)))
    text, length = error.text, trajectory.path_length_mm
    most = float(text.split("+- ")[1].split(" mm")[0])
    assert (np.abs(drawn - length) <= most).mean() == pytest.approx(0.95, abs=0.025)
    assert "rule" not in text
    assert error.as_dict()["basis"] == "model"


def test_frames_without_a_pose_before_the_path_leave_its_error_known():
    motions, sigma = curved()
    whole = Trajectory.from_parameters(motions, {"model": "toy"}, sigma=sigma)
    poses = np.concatenate([np.zeros((2, 4, 4)), whole.poses])
    later = Trajectory(
        poses, np.arange(33) > 1, provenance={"model": "toy"}, sigma=np.concatenate([np.full((2, 6), np.nan), sigma])
    )
    np.testing.assert_allclose(path_error(later).length_mm[2:], path_error(whole).length_mm)
    assert np.isnan(path_error(later).length_mm[:2]).all()
    assert path_error(later).end_length_mm == pytest.approx(path_error(whole).end_length_mm)


def test_a_gap_in_the_path_leaves_its_error_unknown_and_says_so():
    gap = Trajectory(sure().poses, np.arange(31) != 7, provenance={"model": "toy"}, sigma=sure().sigma)
    error = path_error(gap)
    assert np.isfinite(error.radius_mm()[:7]).all()
    assert np.isnan(error.radius_mm()[7:]).all()
    assert error.text == "error not known"
    assert np.isnan(error.as_dict()["length_sd_mm"])


@pytest.mark.parametrize(
    ("source", "percent"),
    [
        ({"model_trained": True, "model_simulated_only": False}, 20),
        ({"model_trained": True, "model_simulated_only": True, "guess": True}, 60),
        ({"model_trained": True, "model_simulated_only": True, "guess": False}, 10),
        ({"model_trained": False, "model_simulated_only": False}, 100),
        ({}, 60),
        ({"guess": False}, 60),
        ({DRIFT_BY_RULE: "35", "model_simulated_only": True}, 35),
    ],
)
def test_an_estimate_that_does_not_say_how_sure_it_is_has_the_rule_of_thumb_and_says_so(source, percent):
    error = path_error(estimate(**source))
    assert drift_percent(estimate(**source).provenance) == error.rule_percent == percent
    np.testing.assert_allclose(error.length_mm, percent / 100 * 0.5 * np.arange(101))
    np.testing.assert_allclose(np.linalg.norm(error.axes_mm, axis=1), error.length_mm)
    assert error.text == f"+- {1.96 * percent / 2:.1f} mm (95 %, by rule of thumb)"
    assert error.as_dict()["basis"] == "rule of thumb"


def test_an_estimate_that_says_how_sure_it_is_never_takes_the_rule():
    error = path_error(replace(estimate(), sigma=np.zeros((100, 6))))
    assert error.rule_percent is None
    assert error.end_length_mm == 0
    np.testing.assert_array_equal(error.radius_mm(), 0)


@pytest.mark.parametrize("origin", ["measured", "simulated", "unknown"])
def test_poses_that_nobody_estimated_get_no_error(origin):
    assert path_error(Trajectory.from_parameters(STRAIGHT, origin=origin)) is None


def test_no_valid_pose_has_no_error():
    assert path_error(Trajectory(np.zeros((3, 4, 4)), [False] * 3, provenance={"model": "toy"})) is None
