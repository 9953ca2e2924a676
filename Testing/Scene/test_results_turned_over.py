"""A result that runs the other way, in the scene."""

import numpy as np
import pytest
import slicer
import vtk
from clip_nodes import add_simulated_clip, add_transforms, array_of, drifting, job_result, simulated
from DualTrackSlicerLib.scene import (
    removeResults,
    reportOf,
    shownResult,
    showResults,
    sweepFromBrowser,
    trajectoryFromTable,
    turnOver,
    turnOverInPieces,
)
from DualTrackSlicerLib.scene.records import clip_of, result_in_pieces

from DualTrackCore import reconstruction
from DualTrackCore.errors import InputError
from DualTrackCore.evaluation import all_pixels
from DualTrackCore.progress import finished
from DualTrackCore.reconstruction import builder

TRUTH = simulated()
ESTIMATE = drifting(TRUTH.tracked)


def world_from_image(volume) -> np.ndarray:
    """[4, 4] from the voxels of a volume node to the world, transforms above it included."""
    matrix, parent = vtk.vtkMatrix4x4(), volume.GetParentTransformNode()
    volume.GetIJKToRASMatrix(matrix)
    to_world = np.eye(4) if parent is None else slicer.util.arrayFromTransformMatrix(parent, toWorld=True)
    return to_world @ array_of(matrix)


def test_a_result_turned_over_is_shown_in_place_of_the_first_with_frames_in_the_volume(scene):
    browser, _ = add_simulated_clip(scene, TRUTH)
    clip = sweepFromBrowser(browser)
    result = job_result(clip.sweep, ESTIMATE)
    first = showResults(scene, clip, result)
    grey = slicer.util.arrayFromVolume(first.volume).copy()
    before, name, figures = scene.GetNumberOfNodes(), first.name, reportOf(first).as_dict()
    once = result.turned_over()
    nodes = turnOver(first)
    assert (scene.GetNumberOfNodes(), nodes.name) == (before, name)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(nodes.volume), grey[::-1])
    image, mirror = clip.browser.GetProxyNode(clip.image_sequence), np.diag([1.0, 1, -1, 1])
    pixels = np.array([(0, 0, 0, 1), (63, 0, 0, 1), (20, 47, 0, 1)], float).T
    for number in (0, 9, 23):
        clip.browser.SetSelectedItemNumber(number)
        moved = clip.node_from_image @ mirror @ ESTIMATE.poses[number] @ mirror @ np.linalg.inv(clip.node_from_image)
        shown = slicer.util.arrayFromTransformMatrix(nodes.transform_proxy)
        np.testing.assert_allclose(shown, moved, atol=1e-12)
        shown = np.linalg.inv(world_from_image(nodes.volume)) @ world_from_image(image) @ pixels
        inserted = result.grid.voxel_from_frame0 @ ESTIMATE.poses[number] @ TRUTH.image_from_pixel @ pixels
        inserted[2] = result.grid.size[2] - 1 - inserted[2]
        np.testing.assert_allclose(shown, inserted, atol=1e-6)
    np.testing.assert_array_equal(trajectoryFromTable(nodes.pose_table).poses, once.trajectory.poses)
    turned, expected = reportOf(nodes).trajectory, once.report.trajectory
    for key in {*expected} - {"source"}:
        assert turned[key] == expected[key], key
    assert reportOf(nodes).settings == once.report.settings
    for share in ("covered_fraction", "filled_fraction"):
        assert reportOf(nodes).volume[share] == result.report.volume[share], share
    again, filled = finished(result_in_pieces(nodes, clip_of(nodes))).reconstruction, result.reconstruction.filled[::-1]
    np.testing.assert_array_equal(again.filled, filled & (grey[::-1] > 0))  # black ones look unseen
    again = turnOver(nodes)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(again.volume), grey)
    shown = reportOf(again).as_dict()
    for name in ("trajectory", "settings", "warnings"):
        assert shown[name] == figures[name], name
    assert shown["volume"]["origin_mm"] == pytest.approx(figures["volume"]["origin_mm"])


@pytest.mark.parametrize("stopped", [False, True])
def test_a_result_is_turned_over_a_slab_or_a_block_of_errors_a_piece_and_wholly_or_not_at_all(
    scene, monkeypatch, stopped
):
    browser, images = add_simulated_clip(scene, TRUTH)
    add_transforms(scene, browser, images, TRUTH.tracked.poses @ TRUTH.image_from_pixel, name="ImageToReference")
    clip = sweepFromBrowser(browser)
    first = showResults(scene, clip, job_result(clip.sweep, ESTIMATE))
    grey, shown, count = slicer.util.arrayFromVolume(first.volume).copy(), list(first), scene.GetNumberOfNodes()
    assert len(grey) > 8
    several = -(-len(grey) // 3)
    work, slabs, sums = [], builder.slabs, all_pixels.PixelGrid._sums
    monkeypatch.setattr(reconstruction, "_SLAB_BYTES", 3 * grey[0].nbytes)
    monkeypatch.setattr(builder, "slabs", lambda array: (work.append("slab") or part for part in slabs(array)))
    monkeypatch.setattr(all_pixels.PixelGrid, "_sums", lambda grid, turned: work.append("errors") or sums(grid, turned))
    pieces, done = turnOverInPieces(first), []
    nodes = None
    while nodes is None and not (stopped and len(done) > 2 * several):
        assert scene.GetNumberOfNodes() == count
        assert list(shownResult(browser)) == shown
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(first.volume), grey)
        work.clear()
        try:
            next(pieces)
        except StopIteration as end:
            nodes = end.value
        assert len(work) <= 1
        done += work
    if stopped:
        pieces.close()
        assert list(shownResult(browser)) == shown
        return
    assert done.count("slab") >= 3 * several
    assert done.count("errors") == 3  # the estimate, no motion, mean motion
    assert list(shownResult(browser)) == list(nodes)
    assert first.volume.GetScene() is None
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(nodes.volume), grey[::-1])


def test_a_result_that_is_deleted_while_it_is_turned_over_stays_deleted(scene):
    browser, _ = add_simulated_clip(scene, TRUTH)
    clip = sweepFromBrowser(browser)
    pieces = turnOverInPieces(showResults(scene, clip, job_result(clip.sweep, ESTIMATE)))
    for _piece in range(4):
        next(pieces)
    removeResults(shownResult(browser))
    count = scene.GetNumberOfNodes()
    with pytest.raises(InputError, match="deleted meanwhile"):
        list(pieces)
    assert (scene.GetNumberOfNodes(), shownResult(browser)) == (count, None)
