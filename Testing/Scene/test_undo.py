"""A result is one step of undo, and a scene with results survives being saved."""

import re
from dataclasses import replace

import numpy as np
import pytest
import slicer
import vtk
from clip_nodes import add_simulated_clip, array_of, drifting, job_result, simulated
from DualTrackSlicerLib.scene import (
    colourTrajectory,
    removeResults,
    reportOf,
    shownResult,
    showResults,
    sweepFromBrowser,
    trajectoryFromTable,
    turnOver,
)
from DualTrackSlicerLib.scene.result_nodes import folder_of
from mrml import Application

TRUTH = simulated()
ESTIMATE = drifting(TRUTH.tracked)


def read_clip(scene):
    browser, _ = add_simulated_clip(scene, TRUTH)
    clip = sweepFromBrowser(browser)
    return replace(clip, sweep=replace(clip.sweep, tracked=TRUTH.tracked))


def state(scene) -> tuple[int, list[str]]:
    names = [scene.GetNthNode(i).GetName() for i in range(scene.GetNumberOfNodes())]
    # Display nodes get a new number with every run.
    return len(names), sorted(re.sub(r"_\d+$", "", name) for name in names if name)


def require_working(clip, trajectory, atol=1e-12, results=1):
    """The result in the scene is that of `trajectory`, complete, and the image moves with it."""
    nodes = shownResult(clip.browser)
    image, matrix = clip.browser.GetProxyNode(clip.image_sequence), vtk.vtkMatrix4x4()
    assert image.GetParentTransformNode() is nodes.transform_proxy
    assert clip.browser.GetNumberOfSynchronizedSequenceNodes(True) == 1 + results
    for number in (3, 20):
        clip.browser.SetSelectedItemNumber(number)
        nodes.transform_proxy.GetMatrixTransformToParent(matrix)
        expected = clip.node_from_image @ trajectory.poses[number] @ np.linalg.inv(clip.node_from_image)
        np.testing.assert_allclose(array_of(matrix), expected, atol=atol)
    assert {folder_of(node) for node in nodes} == {nodes.folder}
    np.testing.assert_array_equal(trajectoryFromTable(nodes.pose_table).poses, trajectory.poses)
    assert len(list(nodes)) == 22
    return nodes


def test_one_undo_takes_a_result_away_and_one_redo_brings_it_back(scene):
    clip = read_clip(scene)
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    before = state(scene)
    scene.SetUndoOn()
    showResults(scene, clip, job_result(clip.sweep, ESTIMATE))
    after = state(scene)
    scene.Undo()
    assert state(scene) == before
    assert shownResult(clip.browser) is None
    assert clip.browser.GetProxyNode(clip.image_sequence).GetParentTransformNode() is None
    clip.browser.SetSelectedItemNumber(11)
    shown = slicer.util.arrayFromVolume(clip.browser.GetProxyNode(clip.image_sequence))[0]
    np.testing.assert_array_equal(shown, TRUTH.frames[11:12][0])
    scene.Redo()
    assert state(scene) == after
    require_working(clip, ESTIMATE)


def test_undo_after_running_again_shows_the_earlier_result_and_redo_the_later_one(scene):
    clip = read_clip(scene)
    scene.SetUndoOn()
    other = drifting(TRUTH.tracked, 0.1)
    showResults(scene, clip, job_result(clip.sweep, ESTIMATE))
    first = state(scene)
    showResults(scene, clip, job_result(clip.sweep, other))
    both = state(scene)
    scene.Undo()
    assert state(scene) == first
    assert require_working(clip, ESTIMATE).trajectory_model.GetDisplayNode().GetVisibility()
    scene.Redo()
    assert state(scene) == both
    require_working(clip, other, results=2)
    scene.Undo()
    scene.Undo()
    assert shownResult(clip.browser) is None
    scene.Redo()
    scene.Redo()
    require_working(clip, other, results=2)
    assert state(scene) == both


def test_one_undo_takes_back_that_a_result_was_turned_over(scene):
    clip = read_clip(scene)
    scene.SetUndoOn()
    nodes = showResults(scene, clip, job_result(clip.sweep, ESTIMATE, volume=False))
    before = state(scene)
    turnOver(nodes)
    scene.Undo()
    assert state(scene) == before
    np.testing.assert_array_equal(trajectoryFromTable(shownResult(clip.browser).pose_table).poses, ESTIMATE.poses)


def test_undo_brings_a_removed_result_back(scene):
    clip = read_clip(scene)
    scene.SetUndoOn()
    nodes = showResults(scene, clip, job_result(clip.sweep, ESTIMATE))
    removeResults(nodes)
    assert shownResult(clip.browser) is None
    scene.Undo()
    require_working(clip, ESTIMATE)


def test_the_first_outline_stays_that_of_the_first_frame_where_the_numbers_of_nodes_grow_longer(scene):
    clip = read_clip(scene)
    scene.SetUndoOn()
    for _number in range(7):
        scene.AddNewNodeByClass("vtkMRMLModelNode")
    nodes = showResults(scene, clip, job_result(clip.sweep, ESTIMATE, volume=False))
    assert [node.GetID() for node in nodes.outlines] == ["vtkMRMLModelNode9", "vtkMRMLModelNode10"]
    scene.Undo()
    scene.Redo()
    outlines = shownResult(clip.browser).outlines
    assert ["first" in node.GetName() for node in outlines] == [True, False]


def test_a_step_keeps_no_copies_of_transforms_volumes_and_tables_of_other_results(scene):
    clip = read_clip(scene)
    scene.SetUndoOn()
    nodes = showResults(scene, clip, job_result(clip.sweep, ESTIMATE))
    display = nodes.trajectory_model.GetDisplayNode()
    display.SetOpacity(0.5)
    showResults(scene, clip, job_result(clip.sweep, ESTIMATE, volume=False))
    display.SetOpacity(0.7)
    kept = [node for node in nodes if node is not nodes.transform_proxy]
    for node in kept:
        node.SetAttribute("Mine", "1")  # a copy would put it back as it was before the second result
    scene.Undo()
    assert [node.GetName() for node in kept if node.GetAttribute("Mine") != "1"] == []
    assert nodes.trajectory_model.GetDisplayNode().GetOpacity() == 0.5
    require_working(clip, ESTIMATE)


def test_where_undo_is_off_nothing_is_kept_for_it(scene):
    clip = read_clip(scene)
    showResults(scene, clip, job_result(clip.sweep, ESTIMATE))
    assert scene.GetNumberOfUndoLevels() == 0


@pytest.fixture
def reloaded(scene, tmp_path):
    """(the clip before saving, its result, another application with the scene from the bundle)."""
    clip = read_clip(scene)
    result = job_result(clip.sweep, ESTIMATE)
    showResults(scene, clip, result)
    clip.browser.SetSelectedItemNumber(7)
    bundle = tmp_path / "scene.mrb"
    assert scene.WriteToMRB(str(bundle))
    other = Application()
    other.scene.SetURL(str(bundle))
    assert other.scene.ReadFromMRB(str(bundle), False)
    yield clip, result, other.scene
    other.close()


def reloaded_clip(scene):
    browser = scene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    clip = sweepFromBrowser(browser)
    return replace(clip, sweep=replace(clip.sweep, tracked=TRUTH.tracked))


def test_a_result_survives_the_bundle(reloaded):
    _, result, scene = reloaded
    clip = reloaded_clip(scene)
    # The files of transform sequences keep six digits; the pose table keeps them all.
    nodes = require_working(clip, ESTIMATE, atol=1e-4)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(nodes.volume), result.volume)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(nodes.coverage), result.coverage)
    np.testing.assert_array_equal(clip.sweep.frames[:], TRUTH.frames[:])
    drift = slicer.util.arrayFromTableColumn(nodes.error_table, "Drift (mm)")
    np.testing.assert_allclose(drift[1:], result.evaluation["per_frame"]["drift_mm"][1:], rtol=1e-5)
    for node in (nodes.transform_sequence, nodes.volume, nodes.trajectory_model, nodes.pose_table, *nodes.plots):
        assert node.GetAttribute("DualTrack.Model") == "mini"
    assert reportOf(nodes).as_dict()["trajectory"] == result.report.as_dict()["trajectory"]
    assert nodes.name == "DualTrack clip"
    colourTrajectory(nodes.trajectory_model, "speed")
    assert nodes.volume.GetNthDisplayNode(1).GetVolumePropertyNode().GetScalarOpacity().GetValue(15) == 0
    assert [series.GetTableNode() for series in nodes.plot_series] == [nodes.error_table] * 9
    turned = turnOver(nodes)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(turned.volume), result.volume[::-1])


def test_a_reloaded_result_stays_beside_that_of_the_next_run_and_can_be_removed(reloaded):
    _, result, scene = reloaded
    clip = reloaded_clip(scene)
    showResults(scene, clip, result)
    require_working(clip, ESTIMATE, results=2)
    removeResults(shownResult(clip.browser))
    require_working(clip, ESTIMATE, atol=1e-4)
    removeResults(shownResult(clip.browser))
    assert clip.browser.GetProxyNode(clip.image_sequence).GetParentTransformNode() is None
    left = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())]
    assert not [node.GetName() for node in left if node.GetAttribute("DualTrack.Model")]
