"""Preparing the clip on the panel: what is shown before a run is what a run takes, and it holds nothing up."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import slicer
from journey import add_clip, choose_file, finish
from named_clips import SHOWN, named_frames, named_sweep, speckle

from DualTrackCore.cli import main
from DualTrackCore.io import load_sweep, save_sweep
from DualTrackCore.reconstruction import Fan
from DualTrackCore.run import RunSettings
from DualTrackCore.run.preparation import prepare, seen
from DualTrackCore.sweep import Sweep


def unfold(host, panel, sweep):
    """The section with a clip, once the clip has been looked at."""
    add_clip(host, sweep)
    panel.ui.prepareSection.collapsed = False
    looked_at(host, panel)


def looked_at(host, panel):
    """Wait until the panel knows what is in the pictures."""
    host.process()
    host.wait_until(lambda: not panel.ui.preparedLabel.text.startswith("Looking"), 60)


def prepared(panel):
    """What the panel shows a picture of."""
    view = panel.view()
    return panel.logic.preview.of(view.clip, view.preparing(), view.pixel_mm)


def outside_of_this_process(monkeypatch):
    """From now on nothing is looked for in pictures here."""
    from DualTrackCore.reconstruction import detect
    from DualTrackCore.run import preparation

    def never(*arguments):
        raise AssertionError("The main thread looks for area and text.")

    for module in (detect, preparation):
        monkeypatch.setattr(module, "picture_parts", never)


def test_the_folded_section_says_in_one_line_what_is_done(host, panel):
    assert panel.ui.prepareSection.collapsed
    assert not panel.ui.preparedLabel.isVisible()
    add_clip(host)
    assert panel.ui.preparedLabel.text == "Text beside the ultrasound blacked out."
    panel.ui.firstFrameSpinBox.value, panel.ui.lastFrameSpinBox.value = 2, 19
    panel.ui.rotateComboBox.currentIndex = 3
    panel.ui.mirrorCheckBox.checked = True
    panel.ui.cropEdit.text = "2, 3, 20, 30"
    panel.ui.depthSpinBox.value = 44
    said = (
        "Frames 2 to 19, turned left by 90°, mirrored, cropped to 20 x 30 pixels, 44 mm deep, "
        "text beside the ultrasound blacked out."
    )
    assert panel.ui.preparedLabel.text == said
    expected = RunSettings(first_frame=2, last_frame=19, rotate=270, mirror=True, crop=(2, 3, 20, 30), depth_mm=44)
    assert panel.view().preparing() == expected
    assert panel.logic.worker().pid is None  # nothing was looked for


def test_the_preview_shows_area_and_text_that_was_found_elsewhere(host, panel, pictures, monkeypatch):
    outside_of_this_process(monkeypatch)
    unfold(host, panel, named_sweep())
    text = panel.ui.preparedLabel.text
    assert "Picture area: 150 x 90 pixels, found with a confidence of 100%." in text
    assert "Blacked out, for it stands still: " in text
    assert panel.ui.previewLabel.text.startswith('<img src="data:image/png;base64,')
    made = prepared(panel)
    x, y, width, height = SHOWN
    frame = made.sweep.window(0, 1)[0]
    assert np.array_equal(frame[y : y + height, x : x + width], named_frames()[0, y : y + height, x : x + width])
    assert frame[:30].max() == 0
    host.picture(panel, pictures / "panel-prepare.png")
    host.click(panel.ui.maskCheckBox)
    looked_at(host, panel)
    assert "text stays" in panel.ui.preparedLabel.text.lower()
    assert prepared(panel).sweep.window(0, 1)[0][:30].max() > 200


def test_the_picture_of_the_preview_has_outlines_around_area_crop_and_text(host):
    from DualTrackSlicerLib import preview

    made = prepare(named_sweep(), RunSettings(crop=(10, 2, 180, 146)))
    data, size = preview.previewPng(made)
    assert size == (200, 150)
    picture = read_png(data)
    assert picture.shape == (150, 200, 3)
    places = {
        preview.CROP_COLOUR: {(2, 100), (147, 100), (80, 10), (80, 189)},
        preview.AREA_COLOUR: {(made.area.clip[1], 100), (80, made.area.clip[0])},
        preview.TEXT_COLOUR: {(box[1], box[0] + box[2] // 2) for box in made.regions},
    }
    for colour, pixels in places.items():
        assert pixels
        assert all(tuple(picture[pixel]) == colour for pixel in pixels), colour
    frame, inside = named_frames()[0], np.s_[60:100, 60:120]
    assert np.array_equal(picture[inside][..., 0], frame[inside])


def read_png(data):
    """[H, W, 3] uint8."""
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_clip_in_which_nothing_moves_is_told(host, panel):
    unfold(host, panel, Sweep(np.repeat(named_frames(frames=1), 5, axis=0), 0.2))
    assert "No picture area was found" in panel.ui.preparedLabel.text


def test_what_the_panel_prepares_is_what_the_command_line_prepares(host, panel, tiny_model_file, tmp_path, monkeypatch):
    sweep = named_sweep(frames=24, tracked=None, spacing_mm=0.25)
    save_sweep(sweep, tmp_path / "clip.igs.mha")
    options = "--frames 2,20 --rotate 90 --mirror --crop 12,10,130,180 --depth-mm 44 --no-pictures --device cpu"
    command = ["run", str(tmp_path / "clip.igs.mha"), "-o", str(tmp_path / "out"), "--model", str(tiny_model_file)]
    assert main([*command, *options.split(), "--voxel", "1"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    outside_of_this_process(monkeypatch)
    add_clip(host, load_sweep(tmp_path / "clip.igs.mha"))
    choose_file(panel, tiny_model_file)
    panel.ui.firstFrameSpinBox.value, panel.ui.lastFrameSpinBox.value = 2, 20
    panel.ui.rotateComboBox.currentIndex = 1
    panel.ui.mirrorCheckBox.checked = True
    panel.ui.cropEdit.text = "12, 10, 130, 180"
    panel.ui.depthSpinBox.value = 44
    panel.ui.deviceComboBox.currentIndex = 1
    panel.ui.voxelSpinBox.value = 1
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert panel.runSection.run.error == ""
    shown = panel.view().report.as_dict()
    assert shown["sweep"]["prepared"] == report["sweep"]["prepared"]
    assert report["sweep"]["prepared"]["masked"]
    for name in ("frames", "frame_size", "spacing_mm", "first_frame", "repeats"):
        assert shown["sweep"][name] == report["sweep"][name], name
    # The processes may have other numbers of threads, which change the last bits.
    lengths = [said["trajectory"]["path_length_mm"] for said in (shown, report)]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)
    assert shown["volume"]["size"] == report["volume"]["size"]


def test_a_crop_is_drawn_on_the_turned_picture_and_taken_off_again(host, panel):
    unfold(host, panel, named_sweep())
    panel.ui.rotateComboBox.currentIndex = 1
    host.click(panel.ui.drawCropButton)
    assert panel.ui.cropEdit.text == "0, 0, 150, 200"
    box, size = panel.parameters.cropRegion, list(panel.parameters.cropRegion.GetSize())
    np.testing.assert_allclose(size[:2], (149 * 0.2, 199 * 0.2))
    centre = np.array(box.GetCenter())
    box.SetSize(size[0], size[1] / 2, size[2])
    box.SetCenter(*(centre + slicer.util.arrayFromVTKMatrix(box.GetObjectToNodeMatrix())[:3, 1] * size[1] / 4))
    host.process()
    x, y, width, height = panel.view().preparing().crop
    assert (x, width) == (0, 150)
    assert (abs(y - 100) <= 1, abs(height - 100) <= 1) == (True, True)
    looked_at(host, panel)
    below = np.rot90(named_frames()[0], -1)[y:]
    shown = prepared(panel).sweep.window(0, 1)[0]
    assert np.array_equal(shown[:, 30:100], below[:, 30:100])
    host.click(panel.ui.cropOffButton)
    assert panel.view().preparing().crop is None
    assert panel.parameters.cropRegion is None
    assert not slicer.mrmlScene.GetNodesByClass("vtkMRMLMarkupsROINode").GetNumberOfItems()


@pytest.mark.parametrize("drawn", [True, False])
def test_a_crop_stays_on_its_tissue_where_the_picture_is_turned_and_mirrored_later(host, panel, drawn):
    from DualTrackSlicerLib import region

    sweep = named_sweep()
    unfold(host, panel, sweep)
    panel.ui.mirrorCheckBox.checked = True
    if drawn:
        host.click(panel.ui.drawCropButton)
        box, size = panel.parameters.cropRegion, list(panel.parameters.cropRegion.GetSize())
        box.SetSize(size[0] / 2, size[1] / 4, size[2])
        host.process()
    else:
        panel.ui.cropEdit.text = "30, 8, 100, 60"
    first = panel.view().preparing()
    tissue = seen(sweep, first, first.crop).window(0, 1)[0]
    upright = tissue[:, ::-1]
    for turn, mirror in ((1, True), (1, False), (2, False), (3, True), (0, True)):
        panel.ui.rotateComboBox.currentIndex = turn
        panel.ui.mirrorCheckBox.checked = mirror
        host.process()
        settings = panel.view().preparing()
        expected = np.rot90(upright, -turn)
        shown = seen(sweep, settings, settings.crop).window(0, 1)[0]
        np.testing.assert_array_equal(shown, expected[:, ::-1] if mirror else expected)
        if drawn:
            frame = panel.prepareSection._drawn_on()
            x, y, width, height = region.areaOfRegion(panel.parameters.cropRegion, frame)
            np.testing.assert_allclose(settings.crop, (x, y, width + 1, height + 1), atol=1)
    assert panel.view().preparing() == first
    panel.exit()
    panel.enter()
    assert panel.view().preparing() == first


def test_area_and_masked_boxes_follow_later_turns_and_fans_are_mirrored_or_found_anew(host, panel):
    from DualTrackSlicerLib.parameters import Area, givenArea, givenFan, takeFan, takeSettings

    sweep = named_sweep()
    add_clip(host, sweep)
    parameters = panel.parameters
    parameters.area = Area.GIVEN
    parameters.areaX, parameters.areaY, parameters.areaWidth, parameters.areaHeight = 5, 10, 30, 40
    parameters.mask = "0,1,20,10;50,60,7,8"
    panel.ui.rotateComboBox.currentIndex = 1
    assert givenArea(parameters) == (150 - 1 - 50, 5, 40, 30)
    assert panel.view().preparing().mask == ((139, 0, 10, 20), (82, 50, 8, 7))
    fan = Fan((70.0, -12.0), (-32.0, 30.0), (25.0, 100.0))
    takeFan(parameters, fan)
    panel.ui.mirrorCheckBox.checked = True
    assert givenFan(parameters) == Fan((149 - 70.0, -12.0), (-30.0, 32.0), (25.0, 100.0))
    panel.ui.mirrorCheckBox.checked = False
    assert givenFan(parameters) == fan
    # The settings of a result are taken as they are.
    wanted = RunSettings(rotate=180, mirror=True, crop=(1, 2, 30, 40), clip=(3, 4, 20, 30), mask=((6, 7, 8, 9),))
    takeSettings(parameters, wanted)
    host.process()
    assert panel.view().preparing() == RunSettings(**wanted.chosen("rotate", "mirror", "crop", "mask"))
    assert givenArea(parameters) == wanted.clip
    panel.chooseClip(panel.view().clip)
    host.process()
    assert panel.view().preparing().crop is None
    panel.ui.cropEdit.text = "ten"
    panel.ui.rotateComboBox.currentIndex = 1
    assert panel.ui.cropEdit.text == "ten"
    parameters.area = Area.FAN
    parameters.fanStop = 90.0
    panel.ui.cropEdit.text = ""
    panel.ui.rotateComboBox.currentIndex = 2
    assert parameters.fanStop == 0.0


def test_two_clicks_on_the_ruler_give_the_pixel_size(host, panel):
    unfold(host, panel, named_sweep(tracked=None, spacing_mm=None))
    assert not panel.ui.rulerFrame.isVisible()
    host.click(panel.ui.rulerButton)
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    ruler = panel.parameters.ruler
    assert slicer.app.applicationLogic().GetSelectionNode().GetActivePlaceNodeID() == ruler.GetID()
    for row in (20, 120):  # the clip is shown with pixels of 1 mm, upright: rows run to the posterior
        ruler.AddControlPoint(10.0, -(row - 74.5), 0.0)
    host.process()
    assert panel.view().spacing() == pytest.approx((0.1, 0.1))
    panel.ui.rulerLengthSpinBox.value = 40
    host.process()
    assert panel.view().spacing() == pytest.approx((0.4, 0.4))


def test_a_depth_takes_the_place_of_the_pixel_size(host, panel, tiny_model_file):
    choose_file(panel, tiny_model_file)
    unfold(host, panel, named_sweep(tracked=None, spacing_mm=None))
    assert "size of a pixel is unknown" in panel.ui.applyButton.toolTip
    panel.ui.depthSpinBox.value = 18
    looked_at(host, panel)
    assert panel.ui.applyButton.enabled
    assert "A pixel is 0.2 x 0.2 mm." in panel.ui.preparedLabel.text
    assert not panel.ui.spacingXSpinBox.enabled
    assert "depth" in panel.ui.spacingXSpinBox.toolTip


def test_few_frames_of_a_long_clip_are_read(host, panel, monkeypatch):
    from DualTrackSlicerLib.scene import frames

    frame = speckle(8, 40, 50)
    add_clip(host, Sweep(np.tile(frame, (50, 1, 1)), 0.2))
    read, window = [], frames._StoredPixels.window
    monkeypatch.setattr(
        frames._StoredPixels,
        "window",
        lambda own, start, stop: read.extend(range(start, stop)) or window(own, start, stop),
    )
    panel.clipSection.stop()  # it looks at every frame, for repeats, piece by piece
    panel.clipSection._searched = panel.view().clip
    panel.ui.prepareSection.collapsed = False
    looked_at(host, panel)
    panel.ui.mirrorCheckBox.checked = True
    looked_at(host, panel)
    assert len(set(read)) <= 24
    assert len(read) <= 2 * (24 + 4)


def test_the_area_of_the_volume_counts_pixels_of_the_turned_picture(host, panel, monkeypatch):
    outside_of_this_process(monkeypatch)
    fan = Fan((59.5, -12.0), (-32.0, 32.0), (25.0, 100.0))
    noise = np.random.default_rng(0).integers(20, 255, (8, 96, 120), dtype=np.uint8)
    upside_down = (noise * fan.mask((96, 120)))[:, ::-1, ::-1]
    add_clip(host, Sweep(upside_down, (0.3, 0.3)))
    panel.ui.rotateComboBox.currentIndex = 2
    panel.ui.partSection.collapsed = False
    host.click(panel.ui.findAreaButton)
    host.wait_until(lambda: panel.ui.areaComboBox.currentText == "a fan, as given below", 60)
    np.testing.assert_allclose(panel.view().settings().fan.origin_pixel, fan.origin_pixel, atol=4)
    host.click(panel.ui.drawAreaButton)
    corners = slicer.util.arrayFromMarkupsControlPoints(panel.parameters.fanCorners)
    # The clip stands on its head in Slicer, so the beams meet at the posterior edge: A is -y.
    assert corners[1:3, 1].mean() > corners[[0, 3], 1].mean()


def test_an_earlier_result_brings_back_how_its_clip_was_prepared(host, panel):
    from DualTrackSlicerLib.parameters import takeSettings

    add_clip(host)
    given = RunSettings(
        rotate=90, mirror=True, crop=(1, 2, 30, 40), depth_mm=33, mask=((0, 0, 4, 5), (6, 7, 8, 9)), first_frame=2
    )
    takeSettings(panel.parameters, given)
    host.process()
    assert panel.view().preparing() == given
    takeSettings(panel.parameters, RunSettings(mask="none"))
    assert panel.view().preparing() == RunSettings(mask="none")
    assert not panel.ui.maskCheckBox.checked


def test_another_clip_is_taken_as_it_is_and_its_text_blacked_out(host, panel):
    add_clip(host, named_sweep())
    add_clip(host, named_sweep(), "other")
    panel.ui.prepareSection.collapsed = False
    panel.ui.rotateComboBox.currentIndex = 1
    for name in ("mirrorCheckBox", "maskCheckBox", "drawCropButton", "rulerButton"):
        host.click(getattr(panel.ui, name))
    panel.ui.depthSpinBox.value = 20
    panel.ui.clipComboBox.currentIndex = 1
    assert panel.view().preparing() == RunSettings()
    assert (panel.parameters.cropRegion, panel.parameters.ruler) == (None, None)
    assert not slicer.mrmlScene.GetNodesByClass("vtkMRMLMarkupsNode").GetNumberOfItems()


def test_a_crop_that_makes_no_sense_is_told_and_stops_apply(host, panel, tiny_model_file):
    choose_file(panel, tiny_model_file)
    unfold(host, panel, named_sweep())
    panel.ui.cropEdit.text = "ten"
    assert "The crop is “ten”; give left, top, width and height" in panel.ui.preparedLabel.text
    assert "The crop is" in panel.ui.applyButton.toolTip
    panel.ui.cropEdit.text = "100, 100, 400, 20"
    host.process()
    assert "the picture as it is turned has 200 columns" in panel.ui.preparedLabel.text
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert "the picture as it is turned has 200 columns" in panel.ui.errorLabel.text


def test_a_worker_that_cannot_look_is_told(host, panel):
    add_clip(host, named_sweep())
    panel.logic.worker()._command = (sys.executable, "-c", "raise SystemExit(3)")
    panel.ui.prepareSection.collapsed = False
    looked_at(host, panel)
    assert "The worker process" in panel.ui.preparedLabel.text


def test_nothing_of_a_clip_is_kept_when_the_scene_closes_while_it_is_looked_at(host, panel):
    add_clip(host, named_sweep())
    panel.ui.prepareSection.collapsed = False
    host.process()
    assert panel.ui.preparedLabel.text.startswith("Looking")
    slicer.mrmlScene.Clear(False)
    host.process()
    assert panel.ui.preparedLabel.text == "Text beside the ultrasound blacked out."
    assert not panel.ui.previewLabel.isVisible()
    add_clip(host, replace(named_sweep(), spacing_mm=0.3))
    looked_at(host, panel)
    assert "Picture area" in panel.ui.preparedLabel.text
