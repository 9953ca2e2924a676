"""The results of a clip in the panel: all of it is in the scene, and comes back with it."""

import slicer
from journey import add_clip, card, choose_file, run, titles, turn_over


def test_a_panel_that_never_saw_the_run_shows_the_same_card_from_a_saved_scene(host, panel, tiny_model_file, tmp_path):
    add_clip(host)
    choose_file(panel, tiny_model_file)
    run(host, panel)
    run(host, panel, 0.6)
    panel.ui.resultComboBox.currentIndex = 0
    host.process()
    before, evaluated = card(panel), panel.ui.evaluationTable.item(0, 1).text()
    assert "0.8 mm" in before[0]
    assert "untrained" in before[0]
    path = tmp_path / "scene.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(path))
    host.close_panel(panel)
    host.new_scene()
    again = host.open_panel()
    assert not again.ui.resultGroup.isVisible()
    slicer.mrmlScene.SetURL(str(path))
    assert slicer.mrmlScene.ReadFromMRB(str(path), False)
    host.process()
    assert card(again) == before
    assert again.ui.resultGroup.isVisible()
    assert again.ui.evaluationTable.item(0, 1).text() == evaluated
    turn_over(host, again)
    assert "told by you" in again.ui.resultLabel.text


def test_the_card_follows_undo_and_redo_and_the_closing_of_the_scene(host, panel, tiny_model_file):
    slicer.mrmlScene.SetUndoOn()
    add_clip(host)
    choose_file(panel, tiny_model_file)
    run(host, panel)
    one = card(panel)
    run(host, panel, 0.6)
    two = card(panel)
    assert one[0] != two[0]
    slicer.mrmlScene.Undo()
    host.process()
    assert card(panel) == one
    slicer.mrmlScene.Redo()
    host.process()
    assert card(panel) == two
    slicer.mrmlScene.Clear(False)
    host.process()
    assert not panel.ui.resultGroup.isVisible()


def test_results_are_listed_chosen_compared_and_deleted(host, panel, tiny_model_file, pictures):
    add_clip(host)
    choose_file(panel, tiny_model_file)
    first = run(host, panel)
    assert not panel.ui.compareComboBox.enabled
    second = run(host, panel, 0.6)
    listed = titles(panel.ui.resultComboBox)
    assert [text.split(", ")[-1] for text in listed] == ["DualTrack clip", "DualTrack clip 2"]
    assert all(" mm" in text for text in listed)
    panel.ui.compareComboBox.currentIndex = 1
    host.process()
    for part in ("DualTrack clip 2", "0.8 mm", "0.6 mm"):
        assert part in panel.ui.comparisonLabel.text
    displays = [nodes.trajectory_model.GetDisplayNode() for nodes in (first, second)]
    assert [bool(display.GetVisibility()) for display in displays] == [True, True]
    assert displays[0].GetColor() != displays[1].GetColor()
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    panel.ui.fadeSlider.value = 30
    assert composite.GetForegroundOpacity() == 0.3
    assert composite.GetBackgroundVolumeID() == second.volume.GetID()
    assert composite.GetForegroundVolumeID() == first.volume.GetID()
    host.picture(panel, pictures / "panel-compare.png")
    panel.ui.compareComboBox.currentIndex = 0
    host.process()
    assert not panel.ui.comparisonFrame.isVisible()
    assert [bool(display.GetVisibility()) for display in displays] == [False, True]
    panel.ui.resultComboBox.currentIndex = 0
    host.process()
    assert [bool(display.GetVisibility()) for display in displays] == [True, False]
    host.dialogs.answer = False
    host.click(panel.ui.deleteResultButton)
    assert titles(panel.ui.resultComboBox) == listed
    host.dialogs.answer = True
    host.click(panel.ui.deleteResultButton)
    assert titles(panel.ui.resultComboBox) == listed[1:]
    assert "0.6 mm" in panel.ui.resultLabel.text


def test_the_settings_of_a_result_come_back(host, panel, tiny_model_file):
    add_clip(host)
    choose_file(panel, tiny_model_file)
    panel.ui.firstFrameSpinBox.value = 2
    panel.ui.compoundingComboBox.currentIndex = 1
    asked = run(host, panel) and panel.view().settings()
    panel.ui.firstFrameSpinBox.value = 0
    panel.ui.compoundingComboBox.currentIndex = 0
    panel.ui.voxelSpinBox.value = 2.0
    panel.ui.spacingXSpinBox.value = 0.9
    panel.ui.modelComboBox.currentIndex = 0
    assert panel.view().settings() != asked
    host.click(panel.ui.settingsButton)
    assert panel.view().settings() == asked
    assert panel.ui.spacingXSpinBox.value == 0.4


def test_a_result_of_another_version_says_so_in_place_of_its_figures(host, panel, tiny_model_file):
    add_clip(host)
    choose_file(panel, tiny_model_file)
    nodes = run(host, panel)
    nodes.transform_sequence.SetAttribute("DualTrack.Report", "{}")
    panel.update()
    assert "made by another version of DualTrack" in panel.ui.resultLabel.text
    assert panel.ui.resultComboBox.currentText == "DualTrack clip"
