"""The direction of a sweep, on the panel: told before a run, and turned over after it; and the trust line."""

import html

import numpy as np
import slicer
from journey import add_clip, choose_file, finish


def moved(panel) -> np.ndarray:
    """[4, 4] where the last image lies, and [nz, ny, nx] the volume with its place."""
    nodes = panel.run.nodes
    last = nodes.transform_sequence.GetNthDataNode(nodes.transform_sequence.GetNumberOfDataNodes() - 1)
    return slicer.util.arrayFromTransformMatrix(last)


def test_a_result_runs_the_other_way_at_the_press_of_a_button_and_back(host, panel, tiny_model_file):
    add_clip(host)
    choose_file(panel, tiny_model_file)
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert "as the model says" in panel.ui.resultLabel.text
    first, place = slicer.util.arrayFromVolume(panel.run.nodes.volume).copy(), moved(panel)
    path = panel.run.result.trajectory
    host.click(panel.ui.turnOverButton)
    assert not panel.isRunning()
    assert "told by you" in panel.ui.resultLabel.text
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(panel.run.nodes.volume), first[::-1])
    assert np.abs(moved(panel) - place).max() > 1e-3
    mirror = np.diag([1.0, 1, -1, 1])
    np.testing.assert_array_equal(panel.run.result.trajectory.poses, mirror @ path.poses @ mirror)
    host.click(panel.ui.turnOverButton)
    assert "as the model says" in panel.ui.resultLabel.text
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(panel.run.nodes.volume), first)
    np.testing.assert_array_equal(moved(panel), place)


def test_measured_poses_have_no_button_to_turn_them_over(host, panel, tiny_model_file):
    add_clip(host)
    choose_file(panel, tiny_model_file)
    panel.ui.posesComboBox.currentIndex = 1
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert panel.run.state == "done", panel.ui.errorLabel.text
    assert panel.run.result.trajectory.origin.is_truth
    assert not panel.ui.turnOverButton.isVisible()
    assert "Direction" not in panel.ui.resultLabel.text
    assert "Trust" not in panel.ui.resultLabel.text


def test_the_card_says_what_the_path_is_good_for_in_the_words_of_the_report(host, panel, tiny_model_file):
    from DualTrackSlicerLib.widget.texts import trustText

    add_clip(host)
    choose_file(panel, tiny_model_file)
    host.click(panel.ui.applyButton)
    finish(host, panel)
    said = panel.run.result.report.trajectory["trust"]
    assert said["level"] == "do not measure"
    assert "The weights are untrained." in said["reasons"]
    assert said["text"] in html.unescape(panel.ui.resultLabel.text)
    assert trustText({"level": "usable", "reasons": []}) == "usable"


def test_a_result_whose_clip_has_gone_says_so_and_stays(host, panel, tiny_model_file):
    browser = add_clip(host)
    choose_file(panel, tiny_model_file)
    host.click(panel.ui.applyButton)
    finish(host, panel)
    path = panel.run.result.trajectory
    slicer.mrmlScene.RemoveNode(browser)
    panel.runSection._on_turn_over()
    assert "no longer in the scene" in panel.ui.errorLabel.text
    assert panel.run.result.trajectory is path


def test_the_panel_can_be_told_the_direction_before_the_run(host, panel):
    add_clip(host)
    assert panel.settings().direction == "auto"
    assert [panel.ui.directionComboBox.itemText(index) for index in range(3)] == [
        "as the model says",
        "as found",
        "the other way",
    ]
    panel.ui.directionComboBox.currentIndex = 2
    assert panel.settings().direction == "other-way"
