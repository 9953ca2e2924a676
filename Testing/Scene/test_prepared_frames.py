"""Frames of a clip before a run: looked up when they are read, and where they lie once they are turned and mirrored."""

from types import SimpleNamespace

import numpy as np
import pytest
import slicer
from clip_nodes import add_clip, ijk_to_ras
from DualTrackSlicerLib.scene import clips, frameOf, framesInPieces, sweepFromBrowser
from DualTrackSlicerLib.scene.prepared import prepared_clip

from DualTrackCore import grey
from DualTrackCore.errors import InputError
from DualTrackCore.progress import finished
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
    looked_up, read = finished(framesInPieces(chosen(scene), (0.3, 0.2))), sweepFromBrowser(browser).sweep
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
    np.testing.assert_array_equal(finished(framesInPieces(clip)).window(0, 7), array)
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
    clip, touched, pixels = chosen(scene), [], frames._pixels_like
    monkeypatch.setattr(frames, "_pixels_like", lambda *given: touched.append(given[1]) or pixels(*given))
    sweep = finished(framesInPieces(clip))
    assert set(touched) == {0}
    touched.clear()
    sweep.window(100, 102)
    assert touched == [100, 101]


@pytest.mark.parametrize("kind", ["sequence", "volume"])
def test_deep_pixels_are_looked_at_a_frame_a_piece_and_again_only_where_they_have_changed(scene, monkeypatch, kind):
    deep = KINDS["16 bit"]
    if kind == "sequence":
        add_clip(scene, deep, ijk_to_ras((0.3, 0.2)))
    else:
        slicer.util.updateVolumeFromArray(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "volume"), deep)
    clip, looked, add = chosen(scene), [], grey._Survey.add
    monkeypatch.setattr(grey._Survey, "add", lambda survey, values: looked.append(len(values)) or add(survey, values))

    def in_pieces():
        """(the frames, how many were looked at in each piece)."""
        counts, pieces = [], framesInPieces(clip)
        while True:
            looked.clear()
            try:
                next(pieces)
            except StopIteration as end:
                return end.value, [*counts, sum(looked)]
            counts.append(sum(looked))

    sweep, counts = in_pieces()
    assert counts == [1] * 7 + [0]
    np.testing.assert_array_equal(sweep.window(0, 7), grey.to_grey_uint8(deep, colour_axis=None)[0])
    assert in_pieces()[1] == [0]
    node = clip.volume or clip.sequence.GetNthDataNode(3)
    slicer.util.arrayFromVolume(node)[-1, 2, 1] = -30000
    slicer.util.arrayFromVolumeModified(node)
    sweep, counts = in_pieces()
    assert counts == [1] * 7 + [0]
    slicer.util.arrayFromVolumeModified(node)
    next(pieces := framesInPieces(clip))
    slicer.util.arrayFromVolumeModified(node)
    with pytest.raises(InputError, match="changed while it was looked at"):
        list(pieces)
