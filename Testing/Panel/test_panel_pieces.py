"""What takes long for large clips is done in pieces, also when Apply is pressed, and can be stopped between them."""

import gc

import numpy as np
import pytest
import slicer
from journey import add_clip, choose_file, finish, scene_names


@pytest.fixture
def deep(host, panel, monkeypatch):
    """A clip of 16 bits that was not looked at yet, and a list of the frames that have been; a frame a turn."""
    from DualTrackSlicerLib import events

    from DualTrackCore import grey

    browser, looked, add = add_clip(host), [], grey._Survey.add
    images = browser.GetMasterSequenceNode()
    for number in range(images.GetNumberOfDataNodes()):
        item = images.GetNthDataNode(number)
        slicer.util.updateVolumeFromArray(item, slicer.util.arrayFromVolume(item).astype(np.int16) * 100)
    monkeypatch.setattr(events, "PIECE_S", 0.0)
    monkeypatch.setattr(grey._Survey, "add", lambda survey, values: looked.append(len(values)) or add(survey, values))
    images.Modified()
    return images, looked


def test_deep_pixels_are_looked_at_before_the_run_begins_which_is_cancelled_or_goes_on(
    host, panel, tiny_model_file, deep
):
    images, looked = deep
    choose_file(panel, tiny_model_file)
    before = scene_names()
    panel.ui.applyButton.click()
    assert panel.runSection.isRunning()
    host.wait_until(lambda: len(looked) >= 3, 10)
    assert len(looked) < images.GetNumberOfDataNodes()
    panel.ui.applyButton.click()
    assert panel.runSection.run.state == "cancelled"
    assert panel.logic._worker is None
    looked.clear()
    for _turn in range(10):
        host.process()
    assert scene_names() == before
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert panel.runSection.run.error == ""
    report = panel.view().report
    assert report.sweep["provenance"]["conversions"][0].startswith("Scaled pixel values 0 to 32767")


def test_a_deep_clip_that_cannot_be_read_ends_the_run_with_a_sentence(host, panel, tiny_model_file, deep):
    images, _looked = deep
    choose_file(panel, tiny_model_file)
    other = next(n for n in range(2, 23) if n)  # behind the first frame that is read within the press of the button
    images.GetNthDataNode(other).SetAndObserveImageData(images.GetNthDataNode(0).GetImageData())
    panel.ui.applyButton.click()
    images.GetNthDataNode(other).SetAndObserveImageData(None)
    finish(host, panel)
    assert panel.runSection.run.state == "failed"
    assert "Frame 2 of clip has no image" in panel.ui.errorLabel.text


def test_a_scene_that_closes_while_a_deep_clip_is_looked_at_ends_that(host, panel, tiny_model_file, deep):
    _images, looked = deep
    choose_file(panel, tiny_model_file)
    panel.ui.prepareSection.collapsed = False
    panel.ui.applyButton.click()
    host.wait_until(lambda: len(looked) >= 3, 10)
    run = panel.runSection.run
    slicer.mrmlScene.Clear(False)
    assert run.state == "cancelled"
    host.process()
    count = len(looked)
    for _turn in range(20):
        host.process()
    assert len(looked) == count
    gc.collect()
    names = {"_StoredPixels", "SceneSweep"}
    assert [thing for thing in gc.get_objects() if type(thing).__name__ in names] == []
