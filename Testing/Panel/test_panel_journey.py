"""A user's way through the panel, in a strict stand-in for the application, with the real worker process."""

import os
import signal

import numpy as np
import pytest
import slicer
from journey import add_clip, card, choose_file, clip_of, finish, mark_in_red, run, scene_names, use_a_model
from named_clips import named_sweep
from worker_processes import comes_true, is_running

from DualTrackCore import Sweep
from DualTrackCore.progress import Progress, Stage


def test_an_empty_scene_says_what_to_do(host, panel, pictures):
    assert not panel.ui.applyButton.enabled
    assert "Load an ultrasound clip" in panel.ui.applyButton.toolTip
    assert panel.ui.applyButton.toolTip == panel.ui.progressLabel.text
    assert "not for diagnosis" in panel.ui.noticeLabel.text
    host.picture(panel, pictures / "panel-empty.png")


def test_from_the_sample_to_a_result(host, panel, pictures, tiny_model_file, monkeypatch):
    from DualTrackSlicerLib import run as running

    monkeypatch.setattr(running, "LEAST_PACE_S", 0.2)  # so that the picture has the time left
    host.click(panel.ui.sampleButton)
    assert "168 frames, 160 x 128 pixels" in panel.ui.clipInfoLabel.text
    use_a_model(panel, tiny_model_file)
    host.picture(panel, pictures / "panel-before.png")
    host.click(panel.ui.applyButton)
    assert panel.ui.applyButton.text == "Cancel"
    seen = []

    def moved():
        text = panel.ui.progressLabel.text
        if not seen or seen[-1] != text:
            told = any(" left" in earlier for earlier in seen)
            seen.append(text)
            if text.startswith("Looking at the frames: ") and not told:  # with the time left, where there was one
                host.picture(panel, pictures / "panel-during.png")
        return not panel.runSection.isRunning()

    host.wait_until(moved, 400)
    assert panel.runSection.run.error == ""
    assert seen[0] == "Starting"
    assert any(text.startswith("Looking at the frames: ") and " of 168" in text for text in seen)
    assert panel.ui.applyButton.text == "Apply"
    for part in (
        "Length of the sweep",
        "Coverage",
        "Error against the simulation",
        panel.view().report.trajectory["source"]["model"],
    ):
        assert part in panel.ui.resultLabel.text
    assert "(95 %)" in panel.ui.resultLabel.text
    assert "by rule of thumb" not in panel.ui.resultLabel.text  # the model states its errors itself
    tube, box = panel.view().result.error_tube, panel.ui.errorTubeCheckBox
    for shown in (False, True):
        assert (box.checked, bool(tube.GetDisplayNode().GetVisibility())) == (shown, shown)
        host.click(box)
    assert panel.view().result.transform_sequence.GetNumberOfDataNodes() == 168
    assert panel.view().result.volume.GetScene() is slicer.mrmlScene
    host.picture(panel, pictures / "panel-after.png")
    _correct_the_sample(host, panel, pictures)
    panel.ui.tabs.currentIndex = 1
    assert panel.ui.evaluationTable.rowCount >= 5
    assert panel.ui.evaluationLabel.text.startswith("Compared with the simulation over 168 of 168 frames.")
    assert panel.ui.evaluationTable.item(0, 1).text().endswith("mm")
    host.picture(panel, pictures / "panel-evaluation.png")
    panel.ui.tabs.currentIndex = 2
    host.picture(panel, pictures / "panel-script.png")


def _correct_the_sample(host, panel, pictures):
    """Say its true length, and picture the section before that is applied and after it."""
    ui, report = panel.ui, panel.view().report
    ui.correctSection.collapsed = False
    true, found = round(report.sweep["path_length_mm"], 1), report.trajectory["path_length_mm"]
    ui.lengthCheckBox.checked, ui.lengthSpinBox.value = True, true
    host.click(ui.applyCorrectionsButton)
    finish(host, panel)
    assert panel.view().report.trajectory["path_length_mm"] == pytest.approx(true)
    assert f"is {true:.1f} mm long and was {found:.1f} mm" in ui.lengthStateLabel.text
    for frame, x, y in ((40, 70.0, 60.0), (52, 68.5, 61.0)):
        mark_in_red(host, panel, "A", frame, x, y)
    ui.monotoneCheckBox.checked = True
    host.click(ui.beforeButton)
    host.picture(panel, pictures / "panel-correct.png", ui.correctSection)
    ui.correctSection.collapsed = True


def test_the_sections_that_are_folded_hold_what_they_promise(host, panel, pictures):
    add_clip(host)
    for name in ("partSection", "prepareSection", "advancedSection"):
        getattr(panel.ui, name).collapsed = False
    panel.ui.modelsFolderEdit.currentPath = "/data/ultrasound/models"
    host.process()
    host.wait_until(lambda: not panel.ui.preparedLabel.text.startswith("Looking"), 60)
    assert panel.ui.areaComboBox.isVisible()
    assert panel.ui.deviceComboBox.isVisible()
    host.picture(panel, pictures / "panel-all-settings.png")


def test_the_whole_journey_from_a_prepared_clip_to_a_scene_that_is_read_again(host, panel, tiny_model_file, tmp_path):
    slicer.mrmlScene.SetUndoOn()
    add_clip(host, named_sweep())
    choose_file(panel, tiny_model_file)
    panel.ui.prepareSection.collapsed = False
    panel.ui.firstFrameSpinBox.value, panel.ui.lastFrameSpinBox.value = 1, 6
    run(host, panel, 1.0)
    assert panel.view().report.sweep["prepared"]["masked"]
    assert panel.view().report.trajectory["poses"] == 6
    masked = card(panel)
    host.click(panel.ui.maskCheckBox)
    run(host, panel, 1.5)
    assert panel.view().report.sweep["prepared"]["masked"] == []
    panel.ui.compareComboBox.currentIndex = 1
    host.process()
    both, compared = card(panel), panel.ui.comparisonLabel.text
    whole = [[node.GetClassName() for node in result] for result in panel.view().results]
    assert "1.5 mm" in compared
    slicer.mrmlScene.Undo()
    host.process()
    assert card(panel) == masked
    assert not panel.ui.comparisonFrame.isVisible()
    slicer.mrmlScene.Redo()
    host.process()
    assert (card(panel), panel.ui.comparisonLabel.text) == (both, compared)
    assert [[node.GetClassName() for node in result] for result in panel.view().results] == whole
    path = tmp_path / "journey.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(path))
    slicer.mrmlScene.Clear(False)
    host.process()
    assert not panel.ui.resultGroup.isVisible()
    assert panel.ui.firstFrameSpinBox.value == 0
    slicer.mrmlScene.SetURL(str(path))
    assert slicer.mrmlScene.ReadFromMRB(str(path), False)
    host.process()
    assert (card(panel), panel.ui.comparisonLabel.text) == (both, compared)
    assert panel.ui.comparisonFrame.isVisible()
    assert [[node.GetClassName() for node in result] for result in panel.view().results] == whole
    assert (panel.ui.firstFrameSpinBox.value, panel.ui.lastFrameSpinBox.value) == (1, 6)
    assert not panel.ui.maskCheckBox.checked
    host.click(panel.ui.previousResultButton)
    assert panel.view().report.sweep["prepared"]["masked"]


def test_cancel_ends_the_work_and_leaves_the_scene(host, panel, tiny_model_file):
    host.click(panel.ui.sampleButton)
    choose_file(panel, tiny_model_file)
    before = scene_names()
    host.click(panel.ui.applyButton)
    host.wait_until(lambda: " of 168" in panel.ui.progressLabel.text, 120)
    pid = panel.logic.worker().pid
    host.click(panel.ui.applyButton)
    finish(host, panel, 10)
    assert panel.runSection.run.state == "cancelled"
    assert scene_names() == before
    assert comes_true(lambda: not is_running(pid))
    assert panel.ui.applyButton.text == "Apply"
    assert panel.ui.applyButton.enabled
    assert not panel.ui.resultGroup.isVisible()


def test_a_second_run_reuses_the_process_and_leaves_the_first_result(host, panel, tiny_model_file):
    add_clip(host)
    choose_file(panel, tiny_model_file)
    host.click(panel.ui.applyButton)
    finish(host, panel)
    first, nodes = panel.logic.worker().pid, panel.view().result
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert panel.runSection.run.state == "done"
    assert panel.logic.worker().pid == first
    assert [nodes.name, panel.view().result.name] == ["DualTrack clip", "DualTrack clip 2"]


def test_a_worker_that_dies_becomes_a_sentence(host, panel, pictures, tiny_model_file):
    host.click(panel.ui.sampleButton)
    choose_file(panel, tiny_model_file)
    before = scene_names()
    host.click(panel.ui.applyButton)
    host.wait_until(lambda: " of 168" in panel.ui.progressLabel.text, 120)
    os.kill(panel.logic.worker().pid, signal.SIGKILL)
    finish(host, panel, 30)
    assert panel.runSection.run.state == "failed"
    assert panel.ui.errorLabel.text == panel.runSection.run.error
    assert panel.ui.errorFrame.isVisible()
    assert scene_names() == before
    host.click(panel.ui.copyErrorButton)
    assert panel.runSection.run.error in slicer.app.clipboard().text()
    assert '"dualtrack"' in slicer.app.clipboard().text()
    host.picture(panel, pictures / "panel-error.png")


def test_a_file_that_is_no_model_is_refused_in_one_sentence(host, panel, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    add_clip(host)
    choose_file(panel, broken)
    assert "no model card" in panel.ui.modelInfoLabel.text
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert "broken.safetensors" in panel.ui.errorLabel.text
    assert not panel.ui.resultGroup.isVisible()


def test_an_unknown_pixel_size_stops_apply_until_it_is_given(host, panel, tiny_model_file):
    frames = np.random.default_rng(0).integers(0, 255, (8, 32, 40), dtype=np.uint8)
    add_clip(host, Sweep(frames))
    choose_file(panel, tiny_model_file)
    assert panel.ui.spacingXSpinBox.text == "unknown"
    assert "size of a pixel is unknown" in panel.ui.applyButton.toolTip
    assert not panel.ui.spacingResetButton.enabled
    panel.ui.spacingXSpinBox.value = 0.2
    assert not panel.ui.applyButton.enabled
    panel.ui.spacingYSpinBox.value = 0.25
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert panel.runSection.run.error == ""
    np.testing.assert_allclose(panel.view().report.sweep["spacing_mm"], (0.2, 0.25))


def test_a_loaded_volume_is_taken_as_a_clip(host, panel, tiny_model_file):
    array = np.random.default_rng(1).integers(0, 255, (10, 32, 40), dtype=np.uint8)
    node = slicer.util.addVolumeFromArray(array, name="loaded")
    node.SetSpacing(0.3, 0.3, 1.0)
    host.process()
    choose_file(panel, tiny_model_file)
    assert "slices are taken as frames" in panel.ui.clipInfoLabel.text
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert panel.runSection.run.error == ""
    assert panel.view().clip.volume is node
    assert panel.ui.clipComboBox.currentText == "loaded"
    assert panel.view().result.transform_sequence.GetNumberOfDataNodes() == 10


def test_a_cancelled_run_of_a_volume_leaves_scene_and_settings_as_they_were(host, panel, tiny_model_file):
    node = slicer.util.addVolumeFromArray(np.random.default_rng(1).integers(0, 255, (10, 32, 40), np.uint8))
    node.SetSpacing(0.3, 0.3, 1.0)
    host.process()
    choose_file(panel, tiny_model_file)
    panel.ui.firstFrameSpinBox.value = 2
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)  # the application has it always
    before = scene_names()
    host.click(panel.ui.applyButton)
    assert scene_names() != before
    host.click(panel.ui.applyButton)
    finish(host, panel)
    host.process()
    assert panel.runSection.run.state == "cancelled"
    assert scene_names() == before
    assert (panel.view().clip.volume, panel.ui.firstFrameSpinBox.value) == (node, 2)
    run(host, panel, 1.0)
    assert panel.view().report.trajectory["poses"] == 8


def test_the_shown_script_does_what_apply_does(host, panel, tiny_model_file):
    add_clip(host)
    choose_file(panel, tiny_model_file)
    panel.ui.firstFrameSpinBox.value = 2
    panel.ui.voxelSpinBox.value = 0.6
    host.click(panel.ui.applyButton)
    finish(host, panel)
    by_panel = slicer.util.arrayFromVolume(panel.view().result.volume).copy()
    script = panel.ui.scriptEdit.plainText
    assert "voxel_mm=0.6" in script
    assert "first_frame=2" in script
    names = {"slicer": slicer}
    exec(script, names)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(names["nodes"].volume), by_panel)
    names["logic"].close()


def test_closing_the_scene_during_a_run_leaves_nothing_behind(host, panel, tiny_model_file):
    host.click(panel.ui.sampleButton)
    choose_file(panel, tiny_model_file)
    host.click(panel.ui.applyButton)
    host.wait_until(lambda: " of 168" in panel.ui.progressLabel.text, 120)
    pid, run = panel.logic.worker().pid, panel.runSection.run
    slicer.mrmlScene.Clear(False)
    panel.runSection._on_progress(Progress(Stage.NETWORK, 3, 168))  # one that was on its way
    host.wait_until(lambda: run.state == "cancelled", 10)
    assert comes_true(lambda: not is_running(pid))
    assert panel.ui.clipComboBox.count == 0
    assert "Load an ultrasound clip" in panel.ui.applyButton.toolTip


def test_a_run_ends_well_while_another_module_is_shown(host, panel, tiny_model_file):
    add_clip(host)
    choose_file(panel, tiny_model_file)
    host.click(panel.ui.applyButton)
    panel.exit()
    finish(host, panel)
    panel.enter()
    assert panel.runSection.run.state == "done"
    assert panel.ui.resultGroup.isVisible()


def test_reloading_the_module_ends_the_worker(host, panel, tiny_model_file):
    add_clip(host)
    choose_file(panel, tiny_model_file)
    host.click(panel.ui.applyButton)
    finish(host, panel)
    pid = panel.logic.worker().pid
    host.close_panel(panel)
    assert comes_true(lambda: not is_running(pid))


def test_the_check_says_in_one_sentence_whether_the_computer_is_ready(host, panel):
    assert "Check" in panel.ui.preflightButton.text
    host.click(panel.ui.preflightButton)
    assert not panel.ui.preflightButton.enabled
    host.wait_until(lambda: panel.ui.preflightButton.enabled, 120)
    assert panel.ui.preflightLabel.text.startswith("Ready: torch")
    host.click(panel.ui.copyDiagnosticsButton)
    assert '"memory_free_bytes"' in slicer.app.clipboard().text()


def test_choosing_another_clip_takes_its_own_pixel_size_and_frames(host, panel):
    add_clip(host)
    panel.ui.firstFrameSpinBox.value = 4
    frames = np.zeros((6, 20, 30), np.uint8)
    add_clip(host, Sweep(frames, 0.11), "other")
    panel.ui.clipComboBox.currentIndex = clip_of(panel, "other")
    assert panel.parameters.spacingX == panel.parameters.spacingY == 0.11
    assert panel.parameters.firstFrame == 0
    panel.ui.clipComboBox.currentIndex = clip_of(panel, "clip")
    assert panel.parameters.spacingX == 0.4
