"""Results of clips that were turned, mirrored, cropped and measured by depth: tissue lies where it lay without that."""

from dataclasses import replace

import numpy as np
import pytest
import slicer
import vtk
from clip_nodes import add_clip, add_simulated_clip, array_of, ijk_to_ras, simulated
from DualTrackSlicerLib.scene import showResults, sweepFromBrowser, turnOver

from DualTrackCore.io import write_trajectory_csv
from DualTrackCore.run import RunSettings, run
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

MARK = np.s_[10:14, 20:25, 20:27]


def marked() -> Sweep:
    """A small tracked sweep with something bright in it."""
    sweep = simulated()
    frames = np.minimum(sweep.frames[:], 150)
    frames[MARK] = 255
    return replace(sweep, frames=frames)


SWEEP = marked()


@pytest.fixture
def browser(scene):
    return add_simulated_clip(scene, SWEEP)[0]


def shown(scene, browser, **choices):
    """The nodes of a run that places the frames where they are known to be."""
    clip = sweepFromBrowser(browser)
    known = replace(clip, sweep=replace(clip.sweep, tracked=SWEEP.tracked))
    settings = RunSettings(poses="tracked", interpolation="nearest", hole_filling="none", voxel_mm=0.5, **choices)
    return showResults(scene, known, run(known.sweep, settings))


def written(poses, folder) -> str:
    """A file of poses."""
    write_trajectory_csv(poses, folder / "poses.csv")
    return str(folder / "poses.csv")


def motions(nodes) -> np.ndarray:
    """[N, 4, 4] what moves the image of each frame."""
    sequence = nodes.transform_sequence
    items = (sequence.GetNthDataNode(number) for number in range(sequence.GetNumberOfDataNodes()))
    return np.array([slicer.util.arrayFromTransformMatrix(item) for item in items])


def mark_of(volume) -> np.ndarray:
    """Where the middle of what is bright lies, RAS, mm."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    bright = np.argwhere(slicer.util.arrayFromVolume(volume) == 255)
    return (array_of(matrix) @ [*bright.mean(axis=0)[::-1], 1])[:3]


def box_of(outline) -> np.ndarray:
    """[2, 3] lowest and highest place of an outline, its thickness included, mm."""
    bounds = np.reshape(outline.GetPolyData().GetBounds(), (3, 2))
    return bounds.T


@pytest.mark.parametrize(
    "choices",
    [
        {"rotate": 90},
        {"mirror": True},
        {"crop": (5, 8, 40, 30)},
        {"rotate": 270, "mirror": True, "crop": (3, 6, 36, 52)},
        {"rotate": 180, "crop": (5, 8, 50, 30), "first_frame": 3, "last_frame": 20},
    ],
    ids=str,
)
def test_tissue_and_frames_lie_where_they_lay_without_preparation(scene, browser, choices):
    first, last = choices.get("first_frame", 0), choices.get("last_frame")
    plain = shown(scene, browser, first_frame=first, last_frame=last)
    before, mark = motions(plain), mark_of(plain.volume)
    prepared = shown(scene, browser, **choices)
    np.testing.assert_allclose(motions(prepared), before, atol=1e-9)
    np.testing.assert_allclose(mark_of(prepared.volume), mark, atol=0.6)  # mm; voxels are 0.5


def test_the_outline_is_that_of_the_crop(scene, browser):
    nodes = shown(scene, browser, mirror=True, crop=(4, 8, 40, 20), mask="none")
    across, down = SWEEP.spacing_mm
    left, right = 10 - (63 - 4 + 0.5) * across, 10 - (63 - 44 + 0.5) * across  # the clip runs to the left from R = 10
    upper, lower = -20 - 7.5 * down, -20 - 27.5 * down
    low, high = box_of(nodes.outlines[0])
    thick = (high - low)[2] / 2
    np.testing.assert_allclose(low[:2] + thick, (left, lower), atol=0.05)
    np.testing.assert_allclose(high[:2] - thick, (right, upper), atol=0.05)


def test_a_clip_of_unknown_size_gets_the_size_that_its_depth_gives(scene, tmp_path):
    frames = SWEEP.frames[:]
    browser, _ = add_clip(scene, frames, ijk_to_ras((1, 1)))
    clip = sweepFromBrowser(browser)
    assert clip.sweep.spacing_mm is None
    poses = Trajectory.from_parameters(np.tile([0, 0, 0.2, 0, 0, 0], (23, 1)), origin="estimated")
    settings = RunSettings(poses=written(poses, tmp_path), depth_mm=24, crop=(0, 0, 64, 48))
    nodes = showResults(scene, clip, run(clip.sweep, settings))
    moved = motions(nodes)
    np.testing.assert_allclose(np.linalg.norm(moved[5][:3, :2], axis=0), 0.5, atol=1e-9)
    middle = [-31.5, -23.5, 0, 1]
    np.testing.assert_allclose(moved[5] @ middle, np.add(middle, [0, 0, 1, 0]), atol=1e-9)


def test_a_turned_and_cropped_result_is_turned_over_and_back(scene, browser, tmp_path):
    clip = sweepFromBrowser(browser)
    estimate = Trajectory.from_parameters(SWEEP.tracked.parameters, {"model": "mini"})
    settings = RunSettings(poses=written(estimate, tmp_path), rotate=90, crop=(2, 4, 40, 50), voxel_mm=0.5)
    nodes = showResults(scene, clip, run(clip.sweep, settings))
    before, grey = motions(nodes), slicer.util.arrayFromVolume(nodes.volume).copy()
    once = turnOver(nodes)
    assert np.abs(motions(once) - before).max() > 1
    again = turnOver(once)
    np.testing.assert_allclose(motions(again), before, atol=1e-9)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(again.volume), grey)
