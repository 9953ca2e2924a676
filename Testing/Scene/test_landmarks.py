"""Marks in frames: bound to the frame that was shown when they were set, wherever a result moves that."""

import numpy as np
import pytest
import slicer
from clip_nodes import add_simulated_clip, add_transforms, drifting, job_result, simulated
from DualTrackSlicerLib.scene import (
    addLandmarks,
    baseOf,
    bindMarks,
    clips,
    landmarkLists,
    marksOf,
    placeMarks,
    showResult,
    showResults,
    sweepFromBrowser,
    trackingSequences,
)
from DualTrackSlicerLib.scene.nodes import finished, ijk_to_world
from DualTrackSlicerLib.scene.results import showInPieces

from DualTrackCore.run.settings import RunSettings

TRUTH = simulated()
PLAIN = RunSettings()


@pytest.fixture
def marked(scene):
    """A clip with two results of other paths, the first one shown, and a list with a mark of A in frame 5."""
    browser, images = add_simulated_clip(scene, TRUTH)
    sweep = sweepFromBrowser(browser)
    first = showResults(scene, sweep, job_result(sweep.sweep, drifting(TRUTH.tracked)))
    second = showResults(scene, sweep, job_result(sweep.sweep, drifting(TRUTH.tracked, 0.4)))
    showResult(first)
    (clip,) = (clip for clip in clips(scene) if clip.sequence is images)
    node = addLandmarks(scene)
    click(node, clip, 5, 20.0, 30.0)
    bindMarks(node, clip)
    return clip, node, first, second


def seen_at(clip, number, x, y):
    """[3] where a pixel of a frame is seen."""
    clip.browser.SetSelectedItemNumber(number)
    return (ijk_to_world(clip.browser.GetProxyNode(clip.sequence)) @ [x, y, 0, 1])[:3]


def click(node, clip, number, x, y):
    """As a click into the red view at a pixel of a frame."""
    node.AddControlPointWorld(*seen_at(clip, number, x, y))


def found(node, clip, settings=PLAIN):
    marks, lost = marksOf(node, clip, settings)
    return [(mark.point, mark.frame, mark.x, mark.y) for mark in marks], lost


def test_a_mark_is_bound_to_the_frame_that_was_shown_and_stays_there_when_another_is(marked):
    clip, node, _first, _second = marked
    clip.browser.SetSelectedItemNumber(14)
    bindMarks(node, clip)
    assert found(node, clip) == ([("A", 5, 20.0, 30.0)], 0)
    node.SetControlPointLabelFormat("B")
    click(node, clip, 9, 7.5, 8.25)
    bindMarks(node, clip)
    assert found(node, clip) == ([("A", 5, 20.0, 30.0), ("B", 9, 7.5, 8.25)], 0)
    assert landmarkLists(clip.sequence.GetScene()) == [node]


def test_marks_move_with_their_frames_when_another_result_is_shown(marked):
    clip, node, _first, second = marked
    showResult(second)
    expected = seen_at(clip, 5, 20, 30)
    assert np.linalg.norm(expected - node.GetNthControlPointPositionWorld(0)) > 0.5
    clip.browser.SetSelectedItemNumber(20)
    placeMarks(node, clip)
    np.testing.assert_allclose(node.GetNthControlPointPositionWorld(0), expected, atol=1e-6)
    bindMarks(node, clip)
    assert found(node, clip) == ([("A", 5, 20.0, 30.0)], 0)


def test_a_mark_that_is_dragged_on_its_frame_keeps_it(marked):
    clip, node, _first, _second = marked
    node.SetNthControlPointPositionWorld(0, *seen_at(clip, 5, 26, 11))
    clip.browser.SetSelectedItemNumber(20)
    bindMarks(node, clip)
    assert found(node, clip) == ([("A", 5, 26.0, 11.0)], 0)


@pytest.mark.parametrize("way", ["beside the picture", "in front of it"])
def test_a_mark_that_is_on_no_frame_is_not_counted_and_told(marked, way):
    clip, node, _first, _second = marked
    place = seen_at(clip, 9, 200, 30) if way == "beside the picture" else [0.0, 0.0, 400.0]
    node.AddControlPointWorld(*place)
    bindMarks(node, clip)
    assert found(node, clip) == ([("A", 5, 20.0, 30.0)], 1)


def test_pixels_count_in_the_picture_as_it_is_turned_and_mirrored(marked):
    clip, node, _first, _second = marked
    width, height = clip.size
    assert found(node, clip, RunSettings(mirror=True))[0] == [("A", 5, width - 1 - 20.0, 30.0)]
    assert found(node, clip, RunSettings(rotate=90))[0] == [("A", 5, height - 1 - 30.0, 20.0)]


def test_marks_come_back_with_the_scene(marked, scene, tmp_path):
    clip, node, _first, _second = marked
    storage = slicer.vtkMRMLMarkupsJsonStorageNode()
    storage.SetFileName(str(tmp_path / "marks.mrk.json"))
    assert storage.WriteData(node)
    again = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    assert storage.ReadData(again)
    assert found(again, clip) == ([("A", 5, 20.0, 30.0)], 0)


def test_a_corrected_result_refers_to_the_one_before_as_long_as_that_is_there(scene):
    browser, _images = add_simulated_clip(scene, TRUTH)
    clip = sweepFromBrowser(browser)
    result = job_result(clip.sweep, drifting(TRUTH.tracked))
    first = showResults(scene, clip, result)
    nodes = finished(showInPieces(scene, clip, result, base=first))
    assert baseOf(nodes).transform_sequence is first.transform_sequence
    assert baseOf(first) is None
    assert nodes.name == "DualTrack clip corrected"
    scene.RemoveNode(first.transform_sequence)
    assert baseOf(nodes) is None


def test_chosen_transforms_take_the_place_of_the_tracking_of_a_clip(scene):
    browser, images = add_simulated_clip(scene, TRUTH)
    matrices = np.tile(np.eye(4), (len(TRUTH), 1, 1))
    matrices[:, 2, 3] = 0.25 * np.arange(len(TRUTH))
    matrices[4] = np.nan
    chosen = add_transforms(scene, browser, images, matrices, name="carriage")
    assert trackingSequences(scene) == [chosen]
    assert sweepFromBrowser(browser).sweep.tracked is None
    read = sweepFromBrowser(browser, transformSequenceNode=chosen)
    assert read.sweep.provenance["tracking"] == "Tracked: carriage, as it was chosen."
    assert np.flatnonzero(~read.sweep.tracked.valid).tolist() == [4]
    assert read.sweep.tracked.path_length_mm == pytest.approx(0.25 * 23)
