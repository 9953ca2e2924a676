"""Clips become sweeps in pieces, none of which holds the application up."""

import sys

import numpy as np
import pytest
import slicer
from clip_nodes import (
    add_simulated_clip,
    add_transforms,
    ijk_to_ras,
    random_rigid,
    simulated,
    volume_image,
    vtk_matrix,
)
from DualTrackSlicerLib.scene import clipFromVolume, copyInPieces, frames, input, slices, sweepFromBrowser, tracking
from DualTrackSlicerLib.scene.input import sweepInPieces

from DualTrackCore.errors import InputError

RANDOM = np.random.default_rng(5)
FRAMES = RANDOM.integers(0, 256, (5, 6, 8), dtype=np.uint8)


@pytest.fixture
def volume(scene):
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetName("scan")
    node.SetIJKToRASMatrix(vtk_matrix(ijk_to_ras((0.3, 0.2))))
    node.SetAndObserveImageData(volume_image(FRAMES))
    return scene.AddNode(node)


def test_a_volume_is_copied_slice_by_slice_and_only_the_last_piece_changes_the_scene(scene, volume, monkeypatch):
    work, convert = [], slices.numpy_to_vtk
    monkeypatch.setattr(slices, "numpy_to_vtk", lambda *a, **k: (work.append(1), convert(*a, **k))[1])
    pieces, before, counts, browser = copyInPieces(volume), scene.GetNumberOfNodes(), [], None
    while browser is None:
        assert scene.GetNumberOfNodes() == before
        work.clear()
        try:
            next(pieces)
        except StopIteration as end:
            browser = end.value
        counts.append(len(work))
    assert counts == [1] * len(FRAMES) + [0]
    assert clipFromVolume(volume) is browser


def test_a_volume_that_changes_while_it_is_copied_makes_no_clip(scene, volume):
    pieces, before = copyInPieces(volume), scene.GetNumberOfNodes()
    next(pieces)
    volume.GetImageData().Modified()
    with pytest.raises(InputError, match="scan changed while it was looked at"):
        list(pieces)
    assert scene.GetNumberOfNodes() == before


def test_the_places_of_a_long_clip_are_read_in_pieces_and_those_of_a_short_one_at_once(scene, monkeypatch):
    sweep = simulated(50)
    browser, images = add_simulated_clip(scene, sweep)
    world_from_node = np.array([random_rigid(RANDOM) for _frame in range(50)])
    add_transforms(scene, browser, images, world_from_node, name="ImageToReference")
    assert len(list(sweepInPieces(browser))) == 0
    whole, read = sweepFromBrowser(browser), []
    monkeypatch.setattr(frames, "ITEMS", 8)
    monkeypatch.setattr(tracking, "ITEMS", 8)
    monkeypatch.setattr(input, "ITEMS", 8)
    matrix = tracking.matrix_to_parent
    monkeypatch.setattr(tracking, "matrix_to_parent", lambda node: (read.append(1), matrix(node))[1])
    pieces, most, parts = sweepInPieces(browser, pictures=False), 0, None
    while parts is None:
        read.clear()
        try:
            next(pieces)
        except StopIteration as end:
            parts = end.value
        most = max(most, len(read))
    assert most == 8
    np.testing.assert_array_equal(parts.sweep.tracked.poses, whole.sweep.tracked.poses)
    np.testing.assert_array_equal(parts.image_from_node, whole.image_from_node)


def test_looking_at_frames_brings_no_image_of_them_into_python(scene):
    browser, _images = add_simulated_clip(scene, simulated(50))
    called = []
    sys.setprofile(lambda _frame, event, what: called.append(what.__name__) if event == "c_call" else None)
    try:
        sweepFromBrowser(browser).sweep.window(0, 50)
    finally:
        sys.setprofile(None)
    assert called.count("Export") >= 50
    assert called.count("GetImageData") <= 3  # the first one says the spacing
