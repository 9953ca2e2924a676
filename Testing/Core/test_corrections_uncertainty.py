"""How sure a corrected path is comes from the correction itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drifting_paths import CORRELATION, MODEL, SIGMA, mark, motions, pair
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from DualTrackCore.corrections import KnownLength, KnownPoses, Limits, SamePlace, SamePoint, correct
from DualTrackCore.corrections.observations import of_places, of_poses
from DualTrackCore.corrections.solver import Distance, Prior, path_of, solve
from DualTrackCore.errors import InputError
from DualTrackCore.path_error import path_error, turned_over
from DualTrackCore.trajectory import STEP_ERROR_CORRELATION, Trajectory
from DualTrackCore.uncertainty import common_signs, length_errors, position_covariances


@pytest.mark.parametrize("way", ["on", "back"])
def test_without_observations_the_errors_are_those_of_the_motions(way):
    path = pair(0, way=way, frames=40)[1]
    signs = common_signs(path.poses)
    found = solve(Prior.of(np.eye(4), path.parameters, path.sigma, CORRELATION, signs), [])
    np.testing.assert_allclose(found.motions, path.parameters)
    expected = position_covariances(path.poses, path.sigma, CORRELATION)
    np.testing.assert_allclose(found.covariance_mm2, expected, atol=1e-6 * expected.max())
    np.testing.assert_allclose(found.length_mm, length_errors(path.poses, path.sigma, CORRELATION), rtol=1e-5)
    np.testing.assert_allclose(found.sigma, path.sigma, rtol=1e-6)
    np.testing.assert_allclose(found.correlation, CORRELATION, rtol=1e-6)


def known_of(kind, truth, seed):
    rng = np.random.default_rng([seed, 7])
    if kind == "length":
        return [KnownLength(truth.path_length_mm + rng.normal(0, 0.5), accuracy_mm=0.5)]
    if kind == "points":
        places = ((-15, -20), (12, 20), (0, 5))
        marks = [mark(truth, (3 + k, 35 - k), place, 0.5, [seed, k]) for k, place in enumerate(places)]
        return [SamePoint(str(k), (3 + k, 35 - k), found, 0.5) for k, found in enumerate(marks)]
    frames = np.arange(4, 40, 6)
    seen = truth.poses[frames].copy()
    seen[:, :3, 3] += rng.normal(0, 0.8, (len(frames), 3))
    return [KnownPoses("tracker", frames, seen, 0.8)]


def test_bands_hold_the_truth_of_200_drawn_paths_as_often_as_they_say():
    within, lengths, steps = [], [], []
    for seed in range(200):
        kind = ("length", "points", "tracker")[seed % 3]
        truth, path = pair(seed, frames=40, way="back" if kind == "points" else "on")
        found = correct(path, known_of(kind, truth, seed))
        error, apart = path_error(found), found.centres_mm - truth.centres_mm
        squares = [apart[k] @ np.linalg.solve(error.covariance_mm2[k], apart[k]) for k in (10, 25, 39)]
        within.append(chi2.cdf(squares, 3))
        lengths.append((found.path_length_mm - truth.path_length_mm) / error.end_length_mm)
        steps.append((found.parameters - truth.parameters) / found.sigma)
    for share, times in ((0.683, 1), (0.954, 2)):
        assert np.mean(np.array(within) < share) == pytest.approx(share, abs=0.06)
        assert np.mean(np.abs(lengths) < times) == pytest.approx(share, abs=0.07)
        assert np.mean(np.abs(steps) < times) == pytest.approx(share, abs=0.03)


def test_what_is_known_makes_the_path_surer_and_the_errors_of_the_motions_follow():
    truth, path = pair(2)
    found = correct(path, [KnownLength(truth.path_length_mm, accuracy_mm=0.5)])
    assert path_error(path).end_length_mm > 5
    assert path_error(found).end_length_mm == pytest.approx(0.5, rel=0.05)
    assert path_error(found).rule_percent is None
    assert found.step_error_correlation[2] < 0.1 < CORRELATION[2]
    assert (found.sigma[:, 2] < 0.6 * path.sigma[:, 2]).all()
    # Who knows the errors of the motions alone expects no less.
    alone = path_error(replace(found, path_covariance=None))
    assert alone.end_length_mm >= 0.9 * path_error(found).end_length_mm


def test_the_rule_of_thumb_stays_one_after_a_correction_and_its_length_is_that_of_the_rule():
    path = Trajectory.from_parameters(motions(), {"model": "toy", "model_simulated_only": False})
    before, knowledge = path_error(path), [Limits(most_step_mm=9)]
    after = path_error(correct(path, knowledge))
    assert after.rule_percent == before.rule_percent == 20
    alone = replace(correct(path, knowledge), path_covariance=None)
    assert path_error(alone).rule_percent == 20
    np.testing.assert_allclose(after.length_mm[5:], before.length_mm[5:], rtol=0.25)
    assert after.end_length_mm == pytest.approx(before.end_length_mm, rel=0.05)
    sure = path_error(correct(path, [KnownLength(50)]))
    assert "by rule of thumb" in sure.text
    assert sure.end_length_mm == pytest.approx(1, rel=0.05)


def test_a_part_and_a_choice_and_the_other_way_keep_what_they_can():
    truth, path = pair(1, frames=30)
    found = correct(path, [KnownLength(truth.path_length_mm)])
    assert found.slice(3, 9).path_covariance is None
    np.testing.assert_array_equal(found.chosen(np.array([4, 2])).path_covariance, found.path_covariance[[4, 2]])
    mirrored = path_error(turned_over(found)).covariance_mm2
    signs = np.diag([1, 1, -1])
    np.testing.assert_allclose(mirrored, signs @ path_error(found).covariance_mm2 @ signs)
    np.testing.assert_array_equal(turned_over(turned_over(found)).path_covariance, found.path_covariance)


@pytest.mark.parametrize(("values", "words"), [(np.zeros((4, 7)), "expected"), (np.full((5, 7), -1.0), "not negative")])
def test_covariances_that_are_none_are_refused(values, words):
    with pytest.raises(InputError, match=words):
        Trajectory(np.tile(np.eye(4), (5, 1, 1)), path_covariance=values)


def test_a_path_whose_model_does_not_say_what_its_errors_have_in_common_is_corrected_too():
    truth, path = pair(4)
    source = {name: value for name, value in MODEL.items() if name != STEP_ERROR_CORRELATION}
    path = replace(path, provenance=source, sigma=np.tile(SIGMA, (119, 1)))
    found = correct(path, [KnownPoses("tracker", np.array([0, 60, 119]), truth.poses[[0, 60, 119]], 0.5, 0.5)])
    assert np.linalg.norm(found.centres_mm - truth.centres_mm, axis=1).mean() < 0.5


@pytest.mark.parametrize("kind", ["places", "tracker"])
def test_the_path_is_the_most_probable_one_as_a_plain_minimiser_finds_it(kind):
    """With large corrections, which the first linear step does not reach."""
    truth, path = pair(5, frames=7, way="back" if kind == "places" else "on", step_mm=4.0)
    sigma, signs = np.full((6, 6), [1.0, 1, 2, 12, 12, 12]), common_signs(path.poses)
    prior = Prior.of(np.eye(4), path.parameters, sigma, CORRELATION, signs)
    if kind == "places":
        group = of_places([SamePlace((0, 6), 3.0, 30.0), SamePlace((1, 3), 1.5, 20.0)], np.arange(7), 0)
    else:
        turned = truth.poses.copy()
        turned[:, :3, :3] = (
            turned[:, :3, :3] @ Rotation.from_euler("y", np.arange(7)[:, None] * 9, degrees=True).as_matrix()
        )
        group = of_poses(KnownPoses("tracker", np.arange(7), turned, 2.0, 8.0), np.arange(7), 0)
    found = solve(prior, [group], [Distance(14.0, 1.0)])

    def residuals(unknown):
        own, common = unknown[:36].reshape(6, 6), unknown[36:42]
        poses = path_of(np.eye(4), prior.motions + prior.own * own + prior.shared * common)
        world = np.eye(4)
        world[:3, :3] = Rotation.from_rotvec(unknown[45:]).as_matrix() @ start[:3, :3]
        world[:3, 3] = start[:3, 3] + unknown[42:45]
        length = Distance(14.0, 1.0).measured(poses) - 14.0
        return np.concatenate([unknown[:42], group.residuals(poses, world).ravel(), [length]])

    start = group.first_world(path.poses)
    best = least_squares(residuals, np.zeros(48), x_scale="jac", xtol=1e-14, ftol=1e-14)
    assert np.linalg.norm(group.residuals(found.path, found.worlds[0]), axis=1).max() < group.limit
    expected = prior.motions + prior.own * best.x[:36].reshape(6, 6) + prior.shared * best.x[36:42]
    assert np.abs(expected - path.parameters).max() > 1
    np.testing.assert_allclose(found.motions, expected, atol=0.05)
