"""Frames of a clip before a run: looked up when they are read, and where they lie once they are turned and mirrored."""

from types import SimpleNamespace

import numpy as np
import pytest
import slicer
from clip_nodes import add_clip, ijk_to_ras
from DualTrackSlicerLib.scene import clips, frameOf, framesOf, sweepFromBrowser
from DualTrackSlicerLib.scene.prepared import prepared_clip

from DualTrackCore.run import RunSettings

FRAMES = np.random.default_rng(5).integers(0, 255, (7, 20, 30, 3), dtype=np.uint8)
KINDS = {"grey": FRAMES[..., 0], "colour": FRAMES, "16 bit": FRAMES[..., 0].astype(np.int16) * 9}


def chosen(scene):
    """The one clip of the scene."""
    (clip,) = clips(scene)
    return clip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stored", ["MF", "UN"])
def test_frames_that_are_looked_up_are_those_of_a_run(scene, kind, stored):
    browser, images = add_clip(scene, KINDS[kind], ijk_to_ras((0.3, 0.2)), rate_hz=20.0)
    images.SetAttribute("UltrasoundImageOrientation", stored)
    looked_up, read = framesOf(chosen(scene), (0.3, 0.2)), sweepFromBrowser(browser).sweep
    assert looked_up.spacing_mm == (0.3, 0.2)
    np.testing.assert_array_equal(looked_up.timestamps_s, read.timestamps_s)
    for start, stop in ((0, 7), (2, 3), (4, 4), (5, 7)):
        np.testing.assert_array_equal(looked_up.window(start, stop), read.window(start, stop))


def test_slices_of_a_volume_are_frames_too(scene):
    array = KINDS["grey"]
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "volume")
    slicer.util.updateVolumeFromArray(node, array)
    clip = chosen(scene)
    assert clip.volume is node
    np.testing.assert_array_equal(framesOf(clip).window(0, 7), array)
    assert frameOf(clip, RunSettings()).frame_size == (20, 30)
    assert scene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode") is None


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("stored", ["MF", "UN"])
def test_what_is_drawn_on_the_turned_picture_lies_where_its_frame_is_laid(scene, rotate, mirror, stored):
    browser, images = add_clip(scene, KINDS["grey"], ijk_to_ras((0.3, 0.2), origin=(4, 5, 6)))
    images.SetAttribute("UltrasoundImageOrientation", stored)
    settings = RunSettings(rotate=rotate, mirror=mirror)
    frame = frameOf(chosen(scene), settings)
    sweep = sweepFromBrowser(browser)
    size = list(sweep.sweep.spacing_mm)[:: -1 if rotate % 180 else 1]
    report = SimpleNamespace(settings=settings.as_dict(), sweep={"spacing_mm": size})
    laid = prepared_clip(sweep, report)
    assert frame.frame_size == laid.sweep.frame_size
    expected = np.linalg.inv(laid.image_from_node[0]) @ laid.sweep.image_from_pixel
    np.testing.assert_allclose(frame.node_from_pixel[:, [0, 1, 3]], expected[:, [0, 1, 3]], atol=1e-9)


def test_few_of_many_frames_are_touched(scene, monkeypatch):
    from DualTrackSlicerLib.scene import frames

    add_clip(scene, np.tile(KINDS["grey"], (30, 1, 1)), ijk_to_ras((0.3, 0.2)))
    clip, touched, image = chosen(scene), [], frames._image
    monkeypatch.setattr(frames, "_image", lambda *given: touched.append(given[1]) or image(*given))
    sweep = framesOf(clip)
    assert touched == []
    sweep.window(100, 102)
    assert touched == [100, 101]
