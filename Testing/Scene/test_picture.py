"""Pictures of a result and of a scene bundle in 3D, drawn without a window and kept to be looked at."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clip_nodes import add_simulated_clip, drifting, job_result
from DualTrackSlicerLib.scene import FrameFollower, showResults, sweepFromBrowser, trajectoryFromTable
from DualTrackSlicerLib.scene.display import renderVolume
from view import ThreeDView

from DualTrackCore.research.simulation import simulated_sweep
from DualTrackCore.run import RunSettings, run
from DualTrackCore.sample import sample_sweep

VIEW_SIZE = (720, 560)


@pytest.fixture
def picture_folder(tmp_path):
    """Where pictures are kept: DUALTRACK_PICTURES, else with the temporary files of the run."""
    folder = Path(os.environ.get("DUALTRACK_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_png(path: Path, picture: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(np.ascontiguousarray(picture)).quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def changed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[H, W] bool: where two pictures differ visibly."""
    return np.abs(one.astype(int) - other).max(axis=2) > 12


@pytest.fixture
def shown(application):
    """(view, result nodes, clip) of a clip with volume, truth, and a slice that follows frame 45 of 90."""
    scene = application.scene
    sweep = simulated_sweep(3, frames=90, frame_size=(96, 128), spacing_mm=0.45, family="Per_S_PtD")
    browser, images = add_simulated_clip(scene, sweep)
    clip = sweepFromBrowser(browser)
    clip = replace(clip, sweep=replace(clip.sweep, tracked=sweep.tracked))
    nodes = showResults(scene, clip, job_result(sweep, drifting(sweep.tracked)))
    view = ThreeDView(application, VIEW_SIZE)
    image = browser.GetProxyNode(images)
    slice_node = view.add_slice(image)
    browser.SetSelectedItemNumber(45)
    follower = FrameFollower(slice_node, browser, images)
    view.fit_slices()
    view.look((-0.9, 0.75, -0.45), (0, 1, 0), 1.1)
    yield view, nodes, clip
    follower.stop()
    view.close()


def test_the_picture_shows_volume_slice_tube_and_outlines_where_they_belong(shown, picture_folder):
    view, nodes, clip = shown
    picture = view.picture()
    write_png(picture_folder / "scene-3d.png", picture)

    nodes.volume.GetNthDisplayNode(1).SetVisibility(False)
    without_volume = view.picture()
    haze = changed(picture, without_volume)
    assert haze.mean() > 0.05, "the volume is not visible"
    middle_of_frame_70 = clip.node_from_image @ trajectoryFromTable(nodes.pose_table).poses[70] @ [0, 0, 0, 1]
    row, column = view.pixel(middle_of_frame_70)
    assert haze[row - 15 : row + 15, column - 15 : column + 15].any(), "the volume is not where the frames are"
    border = np.ones_like(haze)
    border[8:-8, 8:-8] = False
    assert not (haze & border).any(), "the volume reaches beyond the view"

    clip.browser.SetSelectedItemNumber(70)
    moved = changed(without_volume, view.picture())
    assert moved.mean() > 0.01, "the slice does not follow the frame"
    clip.browser.SetSelectedItemNumber(45)

    for model, smallest in ((nodes.trajectory_model, 1e-4), (nodes.outlines[0], 1e-3), (nodes.outlines[1], 1e-3)):
        before = view.picture()
        model.GetDisplayNode().SetVisibility(False)
        assert changed(before, view.picture()).mean() > smallest, f"{model.GetName()} is not visible"


def box_of(mask: np.ndarray) -> np.ndarray:
    """(first row, first column, last row, last column) of what is true."""
    places = np.argwhere(mask)
    return np.concatenate([places.min(axis=0), places.max(axis=0)])


def test_the_picture_of_a_bundle_shows_the_moving_frame_in_its_volume(application, tmp_path, picture_folder):
    run(sample_sweep(), RunSettings(poses="tracked", voxel_mm=0.5, pictures=False, slicer=True)).write(tmp_path)
    scene = application.scene
    assert scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    browser = scene.GetFirstNodeByName("scene browser")
    images = browser.GetMasterSequenceNode()
    view = ThreeDView(application, VIEW_SIZE)
    rendering = renderVolume(scene.GetFirstNodeByName("scene volume"))
    slice_node = view.add_slice(browser.GetProxyNode(images))
    browser.SetSelectedItemNumber(84)
    follower = FrameFollower(slice_node, browser, images)
    view.fit_slices()
    view.look((0.8, 0.6, -1.0), (0, 1, 0), 1.1)
    picture = view.picture()
    write_png(picture_folder / "bundle-3d.png", picture)

    rendering.SetVisibility(False)
    alone = view.picture()
    browser.SetSelectedItemNumber(150)
    moved = view.picture()
    slice_node.SetSliceVisible(False)
    empty = view.picture()
    frame, later, haze = changed(alone, empty), changed(moved, empty), changed(picture, alone)
    follower.stop()
    view.close()
    assert frame.mean() > 0.03, "the frame is not visible"
    assert np.abs(box_of(later) - box_of(frame)).max() > 20, "the frame does not move"
    reach = box_of(frame) - box_of(haze)
    assert (reach[:2] > -8).all(), "the frame reaches beyond the volume"
    assert (reach[2:] < 8).all(), "the frame reaches beyond the volume"
