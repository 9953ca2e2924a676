"""How sure a path is, in the scene: a tube, and numbers that come back."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clip_nodes import add_simulated_clip, drifting, job_result, simulated
from DualTrackSlicerLib.scene import (
    removeResults,
    showErrorTube,
    shownResult,
    showResult,
    showResults,
    sweepFromBrowser,
    trajectoryFromTable,
)
from test_picture import VIEW_SIZE, changed, write_png
from view import ThreeDView
from vtk.util.numpy_support import vtk_to_numpy

from DualTrackCore.path_error import path_error
from DualTrackCore.trajectory import STEP_ERROR_CORRELATION, Trajectory

TRUTH = simulated()
CORRELATION = [0.5, 0.5, 0.9, 0.1, 0.1, 0.1]


def estimate(**changes):
    found = drifting(TRUTH.tracked)
    sigma = np.tile([0.02, 0.02, 0.05, 0.05, 0.05, 0.05], (len(found) - 1, 1))
    return replace(found, sigma=sigma, provenance={"model": "toy", STEP_ERROR_CORRELATION: CORRELATION}, **changes)


@pytest.fixture
def clip(scene):
    browser, _ = add_simulated_clip(scene, TRUTH)
    return sweepFromBrowser(browser)


def shown(scene, clip, trajectory):
    return showResults(scene, clip, job_result(clip.sweep, trajectory))


def at_distance(tube, centre, radius) -> int:
    """How many points of a tube lie at this distance from a point."""
    points = vtk_to_numpy(tube.GetPolyData().GetPoints().GetData())
    return int(np.isclose(np.linalg.norm(points - centre, axis=1), radius, rtol=1e-3, atol=2e-3).sum())


def test_the_tube_goes_out_of_sight_with_its_result_and_does_not_come_back_by_itself(scene, clip):
    first = shown(scene, clip, estimate())
    showErrorTube(first.error_tube)
    second = shown(scene, clip, estimate())
    assert not first.error_tube.GetDisplayNode().GetVisibility()
    showResult(first)
    assert not first.error_tube.GetDisplayNode().GetVisibility()
    assert not second.trajectory_model.GetDisplayNode().GetVisibility()


def test_the_tube_is_as_wide_at_each_end_as_the_error_there_and_hidden_until_asked_for(scene, clip):
    trajectory = estimate()
    tube = shown(scene, clip, trajectory).error_tube
    centres = (clip.node_from_image @ trajectory.poses)[:, :3, 3]
    radius = path_error(trajectory).radius_mm()
    for frame in (0, 7, -1):  # twelve points of the sides lie around each centre
        assert at_distance(tube, centres[frame], radius[frame]) >= 12
    assert at_distance(tube, centres[-1], radius[-1] * 1.05) < 12
    assert not tube.GetDisplayNode().GetVisibility()
    showErrorTube(tube)
    assert tube.GetDisplayNode().GetVisibility()
    assert 0 < tube.GetDisplayNode().GetOpacity() < 0.5


def test_a_tube_by_rule_of_thumb_says_so_in_its_name_and_one_by_the_model_does_not(scene, clip):
    assert "as the model says" in shown(scene, clip, estimate()).error_tube.GetName()
    assert "by rule of thumb" in shown(scene, clip, replace(estimate(), sigma=None)).error_tube.GetName()


def test_measured_poses_and_errors_that_are_not_known_have_no_tube(scene, clip):
    measured = Trajectory(estimate().poses, origin="measured")
    assert shown(scene, clip, measured).error_tube is None
    sigma = estimate().sigma.copy()
    sigma[3] = np.nan
    assert shown(scene, clip, replace(estimate(), sigma=sigma)).error_tube is None


def test_the_tube_belongs_to_the_result_and_goes_with_it(scene, clip):
    nodes = shown(scene, clip, estimate())
    again = shownResult(clip.browser)
    assert again.error_tube is nodes.error_tube
    assert nodes.error_tube.GetParentTransformNode() is nodes.trajectory_model.GetParentTransformNode()
    removeResults(nodes)
    assert again.error_tube.GetScene() is None


def test_the_pose_table_and_the_sequence_say_how_sure_the_motions_are(scene, clip):
    nodes = shown(scene, clip, estimate())
    read = trajectoryFromTable(nodes.pose_table)
    np.testing.assert_array_equal(read.sigma, estimate().sigma)
    assert read.step_error_correlation.tolist() == CORRELATION
    words = nodes.transform_sequence.GetAttribute("DualTrackPosesStepErrorCorrelation").split()
    assert [float(word) for word in words] == CORRELATION


def test_a_table_of_a_rule_of_thumb_or_of_older_versions_has_no_errors(scene, clip):
    ruled = replace(estimate(), sigma=None, provenance={"model": "toy", "model_simulated_only": False})
    read = trajectoryFromTable(shown(scene, clip, ruled).pose_table)
    assert read.sigma is None
    assert path_error(read).rule_percent == 20


def test_a_run_of_some_frames_has_its_tube_and_errors_there_alone(scene, clip):
    part = estimate().slice(2, 8)
    nodes = showResults(scene, clip, job_result(clip.sweep, estimate(), first=2, last=7))
    read = trajectoryFromTable(nodes.pose_table)
    np.testing.assert_array_equal(read.sigma[2:7], part.sigma)
    assert np.isnan(np.delete(read.sigma, range(2, 7), axis=0)).all()
    last = (clip.node_from_image @ part.poses)[-1, :3, 3]
    assert at_distance(nodes.error_tube, last, path_error(part).radius_mm()[-1]) >= 12


def test_the_shown_tube_lies_around_the_end_of_the_path_and_one_sees_through_it(application, tmp_path):
    scene = application.scene
    browser, _ = add_simulated_clip(scene, TRUTH)
    clip = sweepFromBrowser(browser)
    nodes = shown(scene, clip, estimate())
    nodes.volume.GetNthDisplayNode(1).SetVisibility(False)
    showErrorTube(nodes.error_tube)
    view = ThreeDView(application, VIEW_SIZE)
    view.look((-0.9, 0.75, -0.45), (0, 1, 0), 1.1)
    picture = view.picture()
    write_png(Path(os.environ.get("DUALTRACK_PICTURES", tmp_path), "error-tube-3d.png"), picture)
    showErrorTube(nodes.error_tube, False)
    haze = changed(picture, view.picture())
    row, column = view.pixel((clip.node_from_image @ estimate().poses)[-1, :3, 3])
    assert haze[row - 3 : row + 4, column - 3 : column + 4].any()
    assert 0.002 < haze.mean() < 0.4
    view.close()
