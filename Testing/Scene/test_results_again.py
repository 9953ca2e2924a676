"""A result that is made again from its nodes, also after the scene was saved and loaded, knows what it knew."""

import json
from dataclasses import replace

import numpy as np
import pytest
from clip_nodes import add_simulated_clip, drifting, simulated
from DualTrackSlicerLib.scene import resultsOf, showResults, sweepFromBrowser, turnOver
from DualTrackSlicerLib.scene.nodes import nodes_of_class
from DualTrackSlicerLib.scene.records import clip_of, result_in_pieces
from mrml import Application

from DualTrackCore.errors import InputError
from DualTrackCore.io import write_trajectory_csv
from DualTrackCore.path_error import path_error
from DualTrackCore.progress import finished
from DualTrackCore.reconstruction import Fan
from DualTrackCore.run import RunSettings, run
from DualTrackCore.run.results import RunResult
from DualTrackCore.trajectory import Trajectory

TRUTH = simulated()
FAN = Fan((32, -20), (-40, 40), (22.0, 66.0), 0.8)


def corrected(first: int = 0, last: int = 23) -> Trajectory:
    """A path of which more is known than the errors of its motions say; one frame has no place."""
    found = drifting(TRUTH.tracked).slice(first, last + 1)
    spread = np.zeros((len(found), 7))
    spread[:, [0, 1, 4, 6]] = np.outer(np.linspace(0, 1 / 3, len(found)), [1, 0.1, 0.2, 0.7])
    sigma = np.full((len(found) - 1, 6), 0.05)
    valid = np.arange(len(found)) != 6
    return replace(found, valid=valid, sigma=sigma, path_covariance=spread)


@pytest.fixture
def browser(scene):
    """The frame with the number 9 shows the picture before it again."""
    frames = TRUTH.frames[:].copy()
    frames[9] = frames[8]
    return add_simulated_clip(scene, replace(TRUTH, frames=frames, tracked=None))[0]


def shown(scene, browser, folder, path: Trajectory, **choices) -> tuple[RunResult, object]:
    """A result of poses from a file, and its nodes."""
    clip = sweepFromBrowser(browser)
    write_trajectory_csv(path, folder / "poses.csv")
    settings = RunSettings(poses=str(folder / "poses.csv"), hole_filling="none", voxel_mm=0.8, **choices)
    result = run(clip.sweep, settings)
    return result, showResults(scene, clip, result)


def reloaded(scene, folder):
    """The only result of a scene that was saved and loaded into another one."""
    assert scene.WriteToMRB(str(folder / "scene.mrb"))
    other = Application()
    assert other.scene.ReadFromMRB(str(folder / "scene.mrb"), False)
    (images,) = [node for node in nodes_of_class(other.scene, "vtkMRMLSequenceNode") if node.GetName() == "clip"]
    return other, resultsOf(images)[0]


def require_same_sources(again: RunResult, result: RunResult):
    """The frames behind some voxels, with their pixels and weights."""
    one, other, found = again.reconstruction, result.reconstruction, 0
    np.testing.assert_array_equal(one.placed.numbers, other.placed.numbers)
    np.testing.assert_array_equal(one.placed.runs, other.placed.runs)
    for share in (0.3, 0.5, 0.62):
        point = (result.grid.frame0_from_voxel @ [*(np.floor(share * (np.array(result.grid.size) - 1))), 1])[:3]
        expected, read = other.sources(point, result.sweep.frames), one.sources(point, again.sweep.frames)
        np.testing.assert_array_equal(read.frames, expected.frames)
        np.testing.assert_array_equal(read.pixels, expected.pixels)
        np.testing.assert_allclose(read.weights, expected.weights, atol=1e-6)
        found += len(expected.frames)
    assert found > 0


@pytest.mark.parametrize(
    ("first", "choices"),
    [
        (0, {"fan": FAN}),
        (0, {"fan": "auto", "compounding": "maximum"}),
        (3, {"first_frame": 3, "last_frame": 20, "rotate": 90, "mirror": True, "crop": (4, 2, 40, 50), "fan": "none"}),
        (0, {"clip": (10, 8, 30, 25), "fan": "none", "interpolation": "nearest", "repeats": "keep"}),
    ],
    ids=str,
)
def test_the_frames_behind_a_voxel_are_found_in_a_result_from_the_scene(scene, browser, tmp_path, first, choices):
    path = corrected(first, choices.get("last_frame", 23))
    result, nodes = shown(scene, browser, tmp_path, path, mask="none", **choices)
    left_out = {6} if choices.get("repeats") == "keep" else {6, 9 - first}
    assert set(range(len(path))) - set(result.reconstruction.placed.numbers) == left_out
    require_same_sources(finished(result_in_pieces(nodes, clip_of(nodes))), result)


def test_the_frames_behind_a_voxel_are_found_after_save_and_load_and_after_turning_over(scene, browser, tmp_path):
    result, nodes = shown(scene, browser, tmp_path, corrected(), fan=FAN, mask="none")
    other, nodes = reloaded(scene, tmp_path)
    require_same_sources(finished(result_in_pieces(nodes, clip_of(nodes))), result)
    turned = turnOver(nodes)
    require_same_sources(finished(result_in_pieces(turned, clip_of(turned))), result.turned_over())
    other.close()


def test_how_sure_a_corrected_path_is_comes_back_to_the_last_digit(scene, browser, tmp_path):
    result, nodes = shown(scene, browser, tmp_path, corrected(4, 20), first_frame=4, last_frame=20)
    assert result.trajectory.path_covariance is not None
    other, nodes = reloaded(scene, tmp_path)
    again = finished(result_in_pieces(nodes, clip_of(nodes))).trajectory
    np.testing.assert_array_equal(again.path_covariance, result.trajectory.path_covariance)
    np.testing.assert_array_equal(again.sigma, result.trajectory.sigma)
    assert path_error(again).as_dict() == path_error(result.trajectory).as_dict()
    assert path_error(again).as_dict() != path_error(replace(again, path_covariance=None)).as_dict()
    other.close()


@pytest.mark.parametrize("lost", ["column", "fan"])
def test_a_result_of_an_earlier_version_says_that_it_does_not_know_its_frames(scene, browser, tmp_path, lost):
    _, nodes = shown(scene, browser, tmp_path, corrected(), fan=FAN)
    if lost == "column":
        nodes.pose_table.GetTable().RemoveColumnByName("In the volume")
    else:
        report = json.loads(nodes.transform_sequence.GetAttribute("DualTrack.Report"))
        del report["volume"]["settings"]["fan"]
        nodes.transform_sequence.SetAttribute("DualTrack.Report", json.dumps(report))
    again = finished(result_in_pieces(nodes, clip_of(nodes)))
    with pytest.raises(InputError, match="does not know which frames it was made from"):
        again.reconstruction.sources(again.grid.origin_mm)
