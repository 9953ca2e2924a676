"""The expected error over the volume, switched on and off in drawn views."""

import numpy as np
import slicer
import test_panel_behind as others
from test_picture import changed, write_png

windows, result = others.windows, others.result  # fixtures


def drawn(windows):
    return {name: windows[name].picture() for name in ("Red", "Yellow", "Green")}


def switched(host, panel):
    """Press the switch and wait until that is done."""
    host.click(panel.ui.errorOverCheckBox)
    host.wait_until(lambda: panel.ui.errorOverCheckBox.enabled, 30)
    host.process()


def test_the_switch_lays_colours_in_mm_over_what_the_volume_shows_and_takes_them_off(
    host, panel, windows, result, pictures
):
    before = drawn(windows)
    host.click(panel.ui.errorOverCheckBox)
    assert panel.ui.errorOverCheckBox.enabled or "being computed" in panel.ui.errorOverCheckBox.toolTip
    host.wait_until(lambda: panel.ui.errorOverCheckBox.enabled, 30)
    host.process()
    assert panel.ui.errorOverCheckBox.checked
    assert panel.ui.errorLabel.text == ""
    with_frame = drawn(windows)
    assert not changed(before["Red"], with_frame["Red"]).any()
    for name in ("Yellow", "Green"):
        legend = np.s_[:, :340]  # beside it
        coloured, shown = changed(before[name], with_frame[name])[legend], before[name].max(axis=2)[legend] > 40
        assert coloured[shown].mean() > 0.95
        assert coloured.sum() < 1.06 * shown.sum()
        assert changed(before[name], with_frame[name])[:, 380:].any()
    host.click(panel.ui.frameOverCheckBox)
    result[0].SetSelectedItemNumber(14)
    plain = drawn(windows)
    write_png(pictures / "expected-error.png", np.concatenate(list(plain.values()), axis=1))
    assert changed(before["Red"], plain["Red"]).mean() > 0.3
    host.picture(panel, pictures / "panel-expected-error.png")
    result[0].SetSelectedItemNumber(0)
    host.click(panel.ui.frameOverCheckBox)
    assert not changed(before["Red"], windows["Red"].picture()).any()
    switched(host, panel)
    assert not panel.ui.errorOverCheckBox.checked
    for name, picture in drawn(windows).items():
        assert not changed(before[name], picture).any()


def test_it_belongs_to_the_shown_result_and_what_cannot_be_computed_is_said(host, panel, windows, result):
    switched(host, panel)
    composite = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeYellow")
    assert composite.GetForegroundVolumeID() == panel.view().result.expected_error.GetID()
    host.click(panel.ui.turnOverButton)
    host.wait_until(lambda: not panel.ui.errorOverCheckBox.checked, 20)
    host.process()
    assert composite.GetForegroundVolumeID() is None
    slicer.mrmlScene.RemoveNode(panel.view().result.pose_table)
    host.process()
    switched(host, panel)
    assert "was deleted; run the clip again" in panel.ui.errorLabel.text
    assert not panel.ui.errorOverCheckBox.checked
    host.click(panel.ui.errorOverCheckBox)
    panel.exit()
    host.process()
    assert panel.errorSection._work is None
    panel.enter()
