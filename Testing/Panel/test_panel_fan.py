"""The fan of a curvilinear probe: found, typed, dragged, and what a run makes of it."""

import numpy as np
import pytest
import slicer
from journey import add_clip, choose_file, finish

from DualTrackCore import Sweep
from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction import Fan

FAN = Fan((59.5, -12.0), (-32.0, 32.0), (25.0, 100.0))
#: Place of the fan in the chooser of areas.
FAN_AREA = 3


def fan_sweep(frames=8, fan=FAN, size=(96, 120)):
    """Noise in a fan, black around it."""
    noise = np.random.default_rng(0).integers(20, 255, (frames, *size), dtype=np.uint8)
    return Sweep(noise * fan.mask(size), 0.3)


def corners(panel):
    """[4, 3] places of the corners."""
    return slicer.util.arrayFromMarkupsControlPoints(panel.parameters.fanCorners)


def choose_fan(host, panel):
    """Choose a fan as the area, and wait for one to start from."""
    panel.ui.areaComboBox.currentIndex = FAN_AREA
    host.wait_until(lambda: panel.parameters.fanStop > 0, 60)


@pytest.fixture
def with_fan(host, panel):
    """A panel with a clip that has a fan, the section of it unfolded."""
    add_clip(host, fan_sweep())
    panel.ui.partSection.collapsed = False
    host.process()
    return panel


def test_a_fan_is_found_and_written_in_numbers(host, with_fan, pictures):
    host.click(with_fan.ui.findAreaButton)
    host.wait_until(lambda: with_fan.ui.areaComboBox.currentText == "a fan, as given below", 60)
    found = with_fan.view().settings().fan
    np.testing.assert_allclose(found.origin_pixel, FAN.origin_pixel, atol=4)
    np.testing.assert_allclose(found.angles_deg, FAN.angles_deg, atol=2)
    np.testing.assert_allclose(found.radii_pixel, FAN.radii_pixel, atol=4)
    assert with_fan.view().settings().clip is None
    host.picture(with_fan, pictures / "panel-fan.png")


def test_choosing_a_fan_starts_from_the_one_that_is_found(host, with_fan):
    choose_fan(host, with_fan)
    host.process()
    assert with_fan.ui.fanFrame.isVisible()
    assert not with_fan.ui.rectangleFrame.isVisible()
    np.testing.assert_allclose(with_fan.ui.fanStopSpinBox.value, FAN.radii_pixel[1], atol=4)
    with_fan.ui.areaComboBox.currentIndex = 0
    host.process()
    assert not with_fan.ui.fanFrame.isVisible()
    assert with_fan.view().settings().fan == "none"


def test_a_clip_without_a_fan_starts_from_a_usual_one(host, panel):
    add_clip(host)
    choose_fan(host, panel)
    fan = panel.view().settings().fan
    assert (fan.origin_pixel, fan.angles_deg) == ((31.5, 0.0), (-30.0, 30.0))
    assert fan.aspect == pytest.approx(0.3 / 0.4)
    assert fan.mask((48, 64)).mean() > 0.2


def test_typed_numbers_move_the_corners_and_the_outline(host, with_fan):
    choose_fan(host, with_fan)
    host.click(with_fan.ui.drawAreaButton)
    outline = with_fan.parameters.fanOutline
    before, around = corners(with_fan), slicer.util.arrayFromMarkupsControlPoints(outline)
    assert before.shape == (4, 3)
    with_fan.ui.fanStopSpinBox.value += 10
    after = corners(with_fan)
    np.testing.assert_allclose(np.linalg.norm(after - before, axis=1), [0, 3, 3, 0], atol=1e-6)
    assert np.abs(slicer.util.arrayFromMarkupsControlPoints(outline) - around).max() > 1
    assert outline.GetLocked()


def test_a_dragged_corner_changes_the_numbers_and_stays_where_it_is(host, with_fan):
    choose_fan(host, with_fan)
    host.click(with_fan.ui.drawAreaButton)
    before, places = with_fan.view().settings().fan, corners(with_fan)
    wider = places[2] + (places[2] - places[1]) * 0.1
    with_fan.parameters.fanCorners.SetNthControlPointPosition(2, *wider)
    host.process()
    after = with_fan.view().settings().fan
    assert after.angles_deg[1] > before.angles_deg[1] + 1
    assert after.angles_deg[0] == pytest.approx(before.angles_deg[0], abs=0.5)
    np.testing.assert_allclose(corners(with_fan)[2], wider)


def test_corners_that_make_no_fan_are_answered_with_a_sentence(host, with_fan):
    choose_fan(host, with_fan)
    host.click(with_fan.ui.drawAreaButton)
    before, places = with_fan.view().settings().fan, corners(with_fan)
    parallel = places[3] + places[1] - places[0]
    with_fan.parameters.fanCorners.SetNthControlPointPosition(2, *parallel)
    host.process()
    assert "sides of the fan do not meet" in with_fan.ui.clipInfoLabel.text
    assert with_fan.view().settings().fan == before


def test_the_drawing_hides_with_another_area_and_comes_back_with_the_scene(host, with_fan):
    choose_fan(host, with_fan)
    host.click(with_fan.ui.drawAreaButton)
    assert with_fan.parameters.fanCorners.GetDisplayVisibility()
    points = with_fan.parameters.fanCorners
    assert {points.GetNthControlPointLabel(number) for number in range(4)} == {""}
    with_fan.ui.areaComboBox.currentIndex = 0
    assert not with_fan.parameters.fanCorners.GetDisplayVisibility()
    assert not with_fan.parameters.fanOutline.GetDisplayVisibility()
    choose_fan(host, with_fan)
    slicer.mrmlScene.Clear(False)
    host.process()
    assert with_fan.parameters.fanCorners is None
    assert with_fan.ui.areaComboBox.currentIndex == 0


def test_angles_that_do_not_rise_stop_apply_with_a_sentence(host, with_fan, tiny_model_file):
    choose_file(with_fan, tiny_model_file)
    choose_fan(host, with_fan)
    with_fan.ui.fanLeftSpinBox.value = 40
    assert not with_fan.ui.applyButton.enabled
    assert "fan angles 40 to" in with_fan.ui.applyButton.toolTip


def test_a_run_and_its_script_take_the_fan(host, panel):
    from DualTrackSlicerLib.self_test import syntheticSweep

    add_clip(host, syntheticSweep())
    panel.ui.posesComboBox.currentIndex = 1
    choose_fan(host, panel)
    panel.ui.holesComboBox.currentIndex = 1
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert panel.runSection.run.error == ""
    coverage = slicer.util.arrayFromVolume(panel.view().result.coverage).copy()
    assert (coverage > 0).mean() < 0.75
    names = {"slicer": slicer}
    exec(panel.ui.scriptEdit.plainText, names)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(names["nodes"].coverage), coverage)
    names["logic"].close()


@pytest.mark.parametrize("aspect", [1.0, 0.7, 1.6])
def test_corners_and_fan_say_the_same(host, aspect):
    from DualTrackSlicerLib.region import fanCorners, fanOfCorners, fanOutline

    fan = Fan((50.0, -7.0), (-41.0, 25.0), (12.0, 88.0), aspect)
    again = fanOfCorners(fanCorners(fan), aspect)
    for name in ("origin_pixel", "angles_deg", "radii_pixel"):
        np.testing.assert_allclose(getattr(again, name), getattr(fan, name), atol=1e-9)
    size = (round(90 / aspect), 130)
    rows, columns = np.nonzero(fan.mask(size))
    inside = np.column_stack([columns, rows])
    outline = fanOutline(fan)
    assert (np.abs(inside.max(axis=0) - outline.max(axis=0)) <= 1.5).all()


def test_corners_in_the_wrong_order_are_no_fan(host):
    from DualTrackSlicerLib.region import fanCorners, fanOfCorners

    with pytest.raises(InputError, match="fan"):
        fanOfCorners(fanCorners(FAN)[::-1], 1.0)
