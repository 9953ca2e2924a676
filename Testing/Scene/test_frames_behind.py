"""The frames behind a point of the scene: those of the core, at the pixels of the images as they are loaded."""

import numpy as np
import pytest
import slicer
from clip_nodes import random_rigid, vtk_matrix
from DualTrackSlicerLib.scene import framesBehind, pixelAt, turnOver
from DualTrackSlicerLib.scene import input as reading
from DualTrackSlicerLib.scene.nodes import finished
from DualTrackSlicerLib.scene.records import clip_of
from DualTrackSlicerLib.scene.wiring import BROWSER, IMAGES
from test_results_again import FAN, corrected, reloaded, shown
from test_results_again import browser as tracked_browser

from DualTrackCore.errors import InputError

browser = tracked_browser  # the fixture
PREPARED = {"first_frame": 3, "last_frame": 20, "rotate": 90, "mirror": True, "crop": (4, 2, 40, 50), "fan": "none"}


def world_of(nodes, voxel):
    """The centre of a voxel in the scene, RAS, mm."""
    ijk, ras = vtk_matrix(np.eye(4)), np.zeros(3)
    nodes.volume.GetIJKToRASMatrix(ijk)
    nodes.volume.TransformPointToWorld(ijk.MultiplyPoint([*map(float, voxel), 1.0])[:3], ras)
    return ras


def seen_voxels(nodes, count=6):
    """(i, j, k) of some voxels that pixels reached."""
    places = np.argwhere(slicer.util.arrayFromVolume(nodes.coverage) > 0.5)[:, ::-1]
    return np.random.default_rng(0).permutation(places)[:count]


def require_found(result, nodes):
    """What is found at some voxels is what the core finds, and lies where the scene shows it."""
    behind, images = finished(framesBehind(nodes)), nodes.transform_sequence.GetNodeReference(IMAGES)
    clip, prepared = clip_of(nodes), result.sweep.frames
    browser_node = nodes.transform_sequence.GetNodeReference(BROWSER)
    for voxel in seen_voxels(nodes):
        found = behind.at(world_of(nodes, voxel))
        wanted = result.reconstruction.sources((result.grid.frame0_from_voxel @ [*voxel, 1])[:3], prepared)
        np.testing.assert_array_equal(found.frames, wanted.frames + result.first_frame)
        np.testing.assert_allclose(found.weights, wanted.weights, atol=1e-5)
        np.testing.assert_allclose(found.times_s, clip.sweep.timestamps_s[found.frames])
        for frame, pixel, place, (column, row) in zip(
            found.frames, found.pixels, found.places, wanted.pixels, strict=True
        ):
            browser_node.SetSelectedItemNumber(int(frame))
            np.testing.assert_allclose(pixelAt(browser_node, images, place), pixel, atol=1e-2)
            across, down = pixel.round().astype(int)
            np.testing.assert_allclose([across, down], pixel, atol=1e-9)
            raw = clip.sweep.frames[int(frame) : int(frame) + 1][0]
            assert raw[down, across] == prepared[frame - result.first_frame :][0][row, column]


@pytest.mark.parametrize(
    ("first", "choices"),
    [
        (0, {"fan": FAN}),
        (0, {"fan": FAN, "compounding": "maximum", "interpolation": "nearest"}),
        (3, PREPARED),
        (3, {**PREPARED, "rotate": 270, "mirror": False, "interpolation": "nearest"}),
    ],
    ids=str,
)
def test_frames_and_pixels_are_those_of_the_core_also_of_a_prepared_clip(scene, browser, tmp_path, first, choices):
    path = corrected(first, choices.get("last_frame", 23))
    require_found(*shown(scene, browser, tmp_path, path, mask="none", **choices))


def test_they_are_found_after_turning_over_and_in_a_scene_that_was_loaded(scene, browser, tmp_path):
    result, nodes = shown(scene, browser, tmp_path, corrected(3, 20), mask="none", **PREPARED)
    nodes = turnOver(nodes)
    require_found(result.turned_over(), nodes)
    other, nodes = reloaded(scene, tmp_path)
    require_found(result.turned_over(), nodes)
    other.close()


def test_they_are_found_where_the_whole_result_was_moved(scene, browser, tmp_path):
    result, nodes = shown(scene, browser, tmp_path, corrected(), fan=FAN, mask="none")
    moved = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    moved.SetMatrixTransformToParent(vtk_matrix(random_rigid(np.random.default_rng(1))))
    for node in (nodes.transform_proxy, nodes.volume):
        node.SetAndObserveTransformNodeID(moved.GetID())
    require_found(result, nodes)


def test_a_click_beside_the_picture_or_off_its_plane_is_no_click_into_it(scene, browser, tmp_path):
    shown(scene, browser, tmp_path, corrected(), fan=FAN, mask="none")
    images = browser.GetMasterSequenceNode()
    browser.SetSelectedItemNumber(12)
    image = browser.GetProxyNode(images)
    ijk, world = vtk_matrix(np.eye(4)), np.zeros(3)
    image.GetIJKToRASMatrix(ijk)
    for pixel, expected in (
        ((20.3, 11.6, 0), True),
        ((-0.7, 11, 0), False),
        ((20, 48, 0), False),
        ((20, 11, 0.1), False),
    ):
        image.TransformPointToWorld(ijk.MultiplyPoint([*map(float, pixel), 1.0])[:3], world)
        found = pixelAt(browser, images, world)
        assert (found is not None) == expected
        if expected:
            np.testing.assert_allclose(found, pixel[:2], atol=1e-6)


def test_where_nothing_was_seen_one_sentence_says_so(scene, browser, tmp_path):
    _, nodes = shown(scene, browser, tmp_path, corrected(), fan=FAN, mask="none")
    behind = finished(framesBehind(nodes))
    coverage, volume = (slicer.util.arrayFromVolume(node) for node in (nodes.coverage, nodes.volume))
    unseen = np.argwhere((coverage == 0) & (volume == 0))[0][::-1]
    with pytest.raises(InputError, match=r"^No frame saw this place; click where the volume shows something\.$"):
        behind.at(world_of(nodes, unseen))
    volume[tuple(unseen[::-1])] = 90
    with pytest.raises(InputError, match=r"the gap between frames was filled"):
        behind.at(world_of(nodes, unseen))
    for voxel in ([-0.6, 3, 3], [*(np.array(volume.shape[::-1]) - [1, 1, 0.4])]):
        with pytest.raises(InputError, match=r"lies outside of the volume of DualTrack clip; click into the volume"):
            behind.at(world_of(nodes, voxel))


def test_a_result_that_lacks_something_says_what(scene, browser, tmp_path):
    _, nodes = shown(scene, browser, tmp_path, corrected(), fan=FAN, mask="none")
    nodes.pose_table.GetTable().RemoveColumnByName("In the volume")
    with pytest.raises(InputError, match="earlier version, which did not note its frames"):
        finished(framesBehind(nodes))
    scene.RemoveNode(browser.GetMasterSequenceNode())
    with pytest.raises(InputError, match="is no longer in the scene"):
        finished(framesBehind(nodes))
    with pytest.raises(InputError, match="was deleted; run the clip again"):
        finished(framesBehind(type(nodes)(None, nodes.transform_sequence, None)))


def test_no_picture_is_read_but_where_grey_values_decide(scene, browser, tmp_path, monkeypatch):
    results = [
        shown(scene, browser, tmp_path, corrected(), fan=FAN, mask="none", compounding=compounding)
        for compounding in ("mean", "maximum")
    ]
    read = []
    frames = reading.frames_in_pieces
    monkeypatch.setattr(reading, "frames_in_pieces", lambda *given: read.append(1) or frames(*given))
    for (_, nodes), expected in zip(results, (0, 1), strict=True):
        pieces = framesBehind(nodes)
        assert sum(1 for _ in pieces) >= 3
        assert len(read) == expected
