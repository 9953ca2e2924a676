"""The direction of a sweep, on the panel: told before a run, and turned over after it; and the trust line."""

import html

import numpy as np
import pytest
import slicer
from journey import add_clip, choose_file, finish, turn_over


def trajectoryFromTable(table):
    """The trajectory in a table of poses."""
    from DualTrackSlicerLib import scene

    return scene.trajectoryFromTable(table)


def moved(panel) -> np.ndarray:
    """[4, 4] where the last image lies, and [nz, ny, nx] the volume with its place."""
    nodes = panel.view().result
    last = nodes.transform_sequence.GetNthDataNode(nodes.transform_sequence.GetNumberOfDataNodes() - 1)
    return slicer.util.arrayFromTransformMatrix(last)


def test_a_result_runs_the_other_way_at_the_press_of_a_button_and_back(host, panel, tiny_model_file):
    add_clip(host)
    choose_file(panel, tiny_model_file)
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert "as the model says" in panel.ui.resultLabel.text
    first, place = slicer.util.arrayFromVolume(panel.view().result.volume).copy(), moved(panel)
    path = trajectoryFromTable(panel.view().result.pose_table)
    turn_over(host, panel)
    assert not panel.runSection.isRunning()
    assert "told by you" in panel.ui.resultLabel.text
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(panel.view().result.volume), first[::-1])
    assert np.abs(moved(panel) - place).max() > 1e-3
    mirror = np.diag([1.0, 1, -1, 1])
    np.testing.assert_array_equal(
        trajectoryFromTable(panel.view().result.pose_table).poses, mirror @ path.poses @ mirror
    )
    turn_over(host, panel)
    assert "as the model says" in panel.ui.resultLabel.text
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(panel.view().result.volume), first)
    np.testing.assert_array_equal(moved(panel), place)


@pytest.mark.parametrize("ended_by", ["the button", "the scene"])
def test_turning_over_is_stopped_by_the_button_and_with_the_scene(host, panel, tiny_model_file, monkeypatch, ended_by):
    from DualTrackSlicerLib import events

    from DualTrackCore import reconstruction
    from DualTrackCore.reconstruction import builder

    add_clip(host)
    choose_file(panel, tiny_model_file)
    host.click(panel.ui.applyButton)
    finish(host, panel)
    nodes, card, place = panel.view().result, panel.ui.resultLabel.text, moved(panel)
    monkeypatch.setattr(events, "PIECE_S", 0.0)
    monkeypatch.setattr(reconstruction, "_SLAB_BYTES", 1)
    done, slabs = [], builder.slabs
    monkeypatch.setattr(builder, "slabs", lambda array: (done.append(1) or part for part in slabs(array)))
    panel.ui.turnOverButton.click()
    host.wait_until(lambda: len(done) > 3, 10)
    assert panel.ui.turnOverButton.text == "Stop turning over"
    assert not panel.ui.deleteResultButton.enabled
    assert not panel.ui.resultComboBox.enabled
    if ended_by == "the scene":
        slicer.mrmlScene.Clear(False)
    else:
        panel.ui.turnOverButton.click()
        assert panel.ui.turnOverButton.text == "Runs the other way"
        assert panel.ui.deleteResultButton.enabled
    before = len(done)
    for _turn in range(20):
        host.process()
    assert len(done) == before
    assert panel.ui.errorLabel.text == ""
    if ended_by == "the button":
        assert list(panel.view().result) == list(nodes)
        assert panel.ui.resultLabel.text == card
        np.testing.assert_array_equal(moved(panel), place)


def test_measured_poses_have_no_button_to_turn_them_over(host, panel, tiny_model_file):
    add_clip(host)
    choose_file(panel, tiny_model_file)
    panel.ui.posesComboBox.currentIndex = 1
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert panel.runSection.run.state == "done", panel.ui.errorLabel.text
    assert panel.view().report.trajectory["origin"] == "simulated"
    assert not panel.ui.turnOverButton.isVisible()
    assert "Direction" not in panel.ui.resultLabel.text
    assert "Trust" not in panel.ui.resultLabel.text


def test_the_card_says_what_the_path_is_good_for_in_the_words_of_the_report(host, panel, tiny_model_file):
    from DualTrackSlicerLib.widget.texts import trustText

    add_clip(host)
    choose_file(panel, tiny_model_file)
    host.click(panel.ui.applyButton)
    finish(host, panel)
    said = panel.view().report.trajectory["trust"]
    assert said["level"] == "do not measure"
    assert "The weights are untrained." in said["reasons"]
    assert said["text"] in html.unescape(panel.ui.resultLabel.text)
    assert trustText({"level": "usable", "reasons": []}) == "usable"


def test_a_result_whose_poses_were_deleted_cannot_be_turned_over_and_says_so(host, panel, tiny_model_file):
    add_clip(host)
    choose_file(panel, tiny_model_file)
    host.click(panel.ui.applyButton)
    finish(host, panel)
    nodes, card = panel.view().result, panel.ui.resultLabel.text
    slicer.mrmlScene.RemoveNode(nodes.pose_table)
    host.process()
    turn_over(host, panel)
    assert "table of poses of DualTrack clip was deleted" in panel.ui.errorLabel.text
    assert panel.ui.resultLabel.text == card


def test_the_panel_can_be_told_the_direction_before_the_run(host, panel):
    add_clip(host)
    assert panel.view().settings().direction == "auto"
    assert [panel.ui.directionComboBox.itemText(index) for index in range(3)] == [
        "as the model says",
        "as found",
        "the other way",
    ]
    panel.ui.directionComboBox.currentIndex = 2
    assert panel.view().settings().direction == "other-way"
