"""Results of several runs of one clip stand side by side, and each tells of itself."""

import numpy as np
import pytest
import slicer
from clip_nodes import drifting, job_result, known_clip, simulated
from DualTrackSlicerLib.scene import (
    removeResults,
    reportOf,
    resultsOf,
    secondsOf,
    shownResult,
    showResult,
    showResults,
)

from DualTrackCore.errors import InputError

TRUTH = simulated()
ESTIMATE = drifting(TRUTH.tracked)


@pytest.fixture
def clip(scene):
    """A clip that knows the truth, and no tracking in the scene."""
    return known_clip(scene, TRUTH)


@pytest.fixture
def result(clip):
    return job_result(clip.sweep, ESTIMATE)


def visible(nodes) -> list[bool]:
    """Whether path, outlines and volume of a result are seen in 3D."""
    displays = [nodes.trajectory_model.GetDisplayNode(), *(node.GetDisplayNode() for node in nodes.outlines)]
    return [bool(display.GetVisibility()) for display in (*displays, nodes.volume.GetNthDisplayNode(1))]


def test_an_earlier_run_stays_hidden_in_a_folder_of_its_own_until_it_is_removed(scene, clip, result):
    first = showResults(scene, clip, result)
    second = showResults(scene, clip, job_result(clip.sweep, drifting(TRUTH.tracked, 0.2)))
    assert [nodes.name for nodes in resultsOf(clip.image_sequence)] == ["DualTrack clip", "DualTrack clip 2"]
    assert list(shownResult(clip.browser)) == list(second)
    assert (visible(first), visible(second)) == ([False] * 4, [True] * 4)
    image = clip.browser.GetProxyNode(clip.image_sequence)
    assert image.GetParentTransformNode() is second.transform_proxy
    showResult(first)
    clip.browser.SetSelectedItemNumber(17)
    assert image.GetParentTransformNode() is first.transform_proxy
    assert (visible(first), visible(second)) == ([True] * 4, [False] * 4)
    expected = clip.node_from_image @ ESTIMATE.poses[17] @ np.linalg.inv(clip.node_from_image)
    np.testing.assert_allclose(slicer.util.arrayFromTransformMatrix(first.transform_proxy), expected, atol=1e-12)
    removeResults(first)
    assert image.GetParentTransformNode() is second.transform_proxy
    assert visible(second) == [True] * 4
    removeResults(second)
    assert image.GetParentTransformNode() is None
    assert resultsOf(clip.image_sequence) == []


def test_a_result_tells_of_itself_without_the_run_that_made_it(scene, clip, result):
    nodes = showResults(scene, clip, result)
    report = reportOf(nodes)
    assert report.as_dict() == {
        **result.report.as_dict(),
        "evaluation": {**result.evaluation, "per_frame": {}},
    }
    assert secondsOf(nodes) == 1.0
    assert nodes.volume.GetAttribute("DualTrack.Trust") == report.trajectory["trust"]["text"]
    nodes.transform_sequence.SetAttribute("DualTrack.Report", '{"schema_version": 1}')
    with pytest.raises(InputError, match="DualTrack clip was made by another version"):
        reportOf(nodes)
