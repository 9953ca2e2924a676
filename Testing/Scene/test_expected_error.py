"""The expected error of a result over its volume: the numbers of the core, where they belong, and away again."""

from dataclasses import replace

import numpy as np
import pytest
import slicer
import vtk
from clip_nodes import add_simulated_clip, array_of, drifting, job_result, simulated
from DualTrackSlicerLib.scene import (
    hideExpectedError,
    layErrorOver,
    removeResults,
    resultsOf,
    showExpectedError,
    showResults,
    sweepFromBrowser,
    turnOver,
)
from DualTrackSlicerLib.scene.expected import UNSEEN
from DualTrackSlicerLib.scene.nodes import finished, nodes_of_class
from mrml import Application

from DualTrackCore.errors import InputError
from DualTrackCore.measurement.displacement import displacement_in_pieces, displacement_volume
from DualTrackCore.trajectory import STEP_ERROR_CORRELATION

SWEEP = simulated()


def stated(steps: int = 23):
    """A path that states its errors."""
    says = {"model": "mini", STEP_ERROR_CORRELATION: [0.5] * 6}
    return replace(drifting(SWEEP.tracked), sigma=np.full((steps, 6), 0.2), provenance=says)


def made(path):
    """The result of a path as it says itself where it is from."""
    result = job_result(SWEEP, path, voxel_mm=0.8)
    trajectory = {**result.report.trajectory, "source": dict(path.provenance)}
    return replace(result, report=replace(result.report, trajectory=trajectory))


@pytest.fixture
def shown(scene):
    """(result, its nodes, composite node of a slice view)."""
    browser, _ = add_simulated_clip(scene, replace(SWEEP, tracked=None))
    result = made(stated())
    composite = slicer.vtkMRMLSliceCompositeNode()
    composite.SetLayoutName("Yellow")
    scene.AddNode(composite)
    return result, showResults(scene, sweepFromBrowser(browser), result), composite


def matrix_of(volume):
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return array_of(matrix)


def node_names(scene):
    """Names of all nodes but those that saving for undo or a folder makes."""
    return sorted(node.GetID() for node in nodes_of_class(scene, "vtkMRMLNode"))


def require_right(result, nodes):
    """Values and places are those of the core."""
    values = slicer.util.arrayFromVolume(nodes.expected_error)
    wanted = displacement_volume(result.reconstruction, result.trajectory)
    assert values.shape[2] <= 48
    step = (np.array(wanted.shape[::-1]) - 1) / (np.array(values.shape[::-1]) - 1)
    np.testing.assert_allclose(
        matrix_of(nodes.expected_error), matrix_of(nodes.volume) @ np.diag([*step, 1]), atol=1e-6
    )
    volume = result.reconstruction
    nodes_seen = finished(displacement_in_pieces(volume.grid, volume.placed, result.trajectory)).seen
    seen = nodes_seen & (volume.coverage > 0)  # as many nodes as voxels
    assert seen.sum() > 5000
    np.testing.assert_allclose(values[seen], wanted[seen], atol=0.006)
    return values


def test_values_and_places_are_those_of_the_core(shown):
    result, nodes, _ = shown
    pieces = showExpectedError(nodes)
    assert sum(1 for _ in pieces) >= 3 + 24 / 8
    (nodes,) = resultsOf(nodes.transform_sequence.GetNodeReference("DualTrack.images"))
    values = require_right(result, nodes)
    display = nodes.expected_error.GetDisplayNode()
    assert display.GetApplyThreshold()
    assert display.GetLowerThreshold() == 0.0
    top = display.GetWindowLevelMax()
    assert values.max() * 0.9 <= top <= values.max() * 2.6
    assert nodes.expected_error.GetParentTransformNode() is nodes.volume.GetParentTransformNode()


def test_it_covers_what_the_volume_shows_and_nothing_else(shown):
    result, nodes, _ = shown
    nodes = finished(showExpectedError(nodes))
    values, volume = slicer.util.arrayFromVolume(nodes.expected_error), result.reconstruction
    np.testing.assert_array_equal(values >= 0, (volume.coverage > 0) | (volume.volume > 0))
    assert (values[values < 0] == UNSEEN).all()
    assert 0.02 < (values < 0).mean() < 0.5
    assert not nodes.expected_error.GetDisplayNode().GetInterpolate()


def test_it_lies_over_the_volume_until_it_is_taken_out_and_nothing_stays(scene, shown):
    _, nodes, composite = shown
    before = node_names(scene)
    nodes = finished(showExpectedError(nodes))
    layErrorOver(nodes, False)
    assert composite.GetForegroundVolumeID() == nodes.expected_error.GetID()
    assert 0.2 < composite.GetForegroundOpacity() < 0.8
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(nodes.expected_error)
    assert legend.GetTitleText() == "Expected error, mm"
    assert legend.GetVisibility()
    composite.SetLayoutName("Red")
    composite.SetForegroundVolumeID(None)
    layErrorOver(nodes, False)
    assert composite.GetForegroundVolumeID() is None
    layErrorOver(nodes, True)
    hideExpectedError(nodes)
    assert composite.GetForegroundVolumeID() is None
    assert node_names(scene) == before


def test_it_is_saved_with_the_scene(scene, shown, tmp_path):
    result, nodes, _ = shown
    nodes = finished(showExpectedError(nodes))
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    other = Application()
    assert other.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    (images,) = [node for node in nodes_of_class(other.scene, "vtkMRMLSequenceNode") if node.GetName() == "clip"]
    (again,) = resultsOf(images)
    require_right(result, again)
    one, two = (found.expected_error.GetDisplayNode() for found in (nodes, again))
    assert (two.GetWindowLevelMax(), two.GetLowerThreshold()) == (one.GetWindowLevelMax(), 0.0)
    assert two.GetColorNode() is again.error_colours
    colours = [[found.error_colours.GetLookupTable().GetTableValue(at) for at in (3, 200)] for found in (nodes, again)]
    np.testing.assert_allclose(*colours, atol=0.01)
    assert again.error_colours.GetNumberOfColors() == 256
    hideExpectedError(again)
    other.close()


def test_it_goes_with_its_result_and_is_made_anew_for_the_one_that_was_turned_over(scene, shown):
    result, nodes, _ = shown
    turned = turnOver(finished(showExpectedError(nodes)))
    assert turned.expected_error is None
    assert not [node for node in nodes_of_class(scene, "vtkMRMLScalarVolumeNode") if "expected" in node.GetName()]
    turned = finished(showExpectedError(turned))
    require_right(result.turned_over(), turned)
    removeResults(turned)
    assert not [node for node in nodes_of_class(scene, "vtkMRMLNode") if "expected" in (node.GetName() or "")]


def test_it_is_one_step_of_undo(scene, shown):
    scene.SetUndoOn()
    _, nodes, _ = shown
    images = nodes.transform_sequence.GetNodeReference("DualTrack.images")
    finished(showExpectedError(nodes))
    scene.Undo()
    assert resultsOf(images)[0].expected_error is None
    scene.Redo()
    assert resultsOf(images)[0].expected_error is not None


def test_where_nothing_says_how_sure_the_path_is_a_sentence_says_so_and_nothing_changes(scene):
    browser, _ = add_simulated_clip(scene, replace(SWEEP, tracked=None), name="measured")
    nodes = showResults(scene, sweepFromBrowser(browser), made(SWEEP.tracked))
    before = node_names(scene)
    with pytest.raises(InputError, match=r"^Nothing says how sure the path of DualTrack measured is\.$"):
        finished(showExpectedError(nodes))
    assert node_names(scene) == before
