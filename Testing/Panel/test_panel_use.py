"""What is done with a result: keys, tables, a page to paste, one step of undo."""

import csv
import html
import json
import xml.etree.ElementTree as ET

import numpy as np
import slicer
from journey import add_clip, card, choose_file, finish, run, scene_names
from PySide6 import QtWidgets
from PySide6.QtGui import QKeySequence
from PySide6.QtTest import QTest
from pythonqt import unwrap
from test_panel_scene import proxy, red_view

from DualTrackCore.io.trajectory_csv import read_trajectory_csv

#: Of Slicer: "Mouse & Keyboard Shortcuts" of its user guide, its modules Markups, Sequences and Segment Editor, and
#: what every editor has.
SLICERS = {
    *(f"Ctrl+{key}" for key in ("F", "O", "S", "W", "0", "1", "2", "3", "4", "5", "`", "H", "B", "G", "V", "C", "X")),
    *(f"Ctrl+{key}" for key in ("Z", "Y", "A", "Q", "Tab")),
    *(f"Ctrl+Shift+{key}" for key in ("A", "T", "Space", "Left", "Right", "Down", "Z")),
}


def press(host, panel, keys):
    """Press keys while the panel has the focus; a button that has them is down for a tenth of a second."""
    window, (combination,) = unwrap(panel.parent), QKeySequence(keys)
    window.activateWindow()
    host.process()
    QTest.keyClick(window, combination.key(), combination.keyboardModifiers())
    QTest.qWait(150)
    host.process()


def tracked(host, panel, model_file):
    """The panel with one result."""
    add_clip(host)
    choose_file(panel, model_file)
    return run(host, panel)


def test_no_key_is_one_of_slicers_or_used_twice_and_each_stands_in_its_tool_tip(host, panel):
    keys = ["Ctrl+."]
    for element in ET.parse(panel.resourcePath("UI/DualTrackSlicer.ui")).iter("widget"):
        own = {part.get("name"): part.findtext("string") for part in element.findall("property")}
        if "shortcut" in own or element.get("name") == "applyButton":
            keys.append(own.get("shortcut", "Ctrl+Return"))
            assert f"({keys[-1]})" in own["toolTip"], element.get("name")
    assert len(keys) == len(set(keys)) == 6
    assert not SLICERS & set(keys)


def test_keys_start_and_cancel_a_run_and_go_through_results_while_the_module_is_shown(host, panel, tiny_model_file):
    add_clip(host)
    press(host, panel, "Ctrl+.")
    assert panel.runSection.run is None
    choose_file(panel, tiny_model_file)
    unwrap(panel.parent).hide()
    press(host, panel, "Ctrl+Return")
    assert panel.runSection.run is None
    unwrap(panel.parent).show()
    press(host, panel, "Ctrl+Return")
    assert panel.ui.applyButton.toolTip == "Stop; the scene stays as it is (Ctrl+.)."
    press(host, panel, "Ctrl+.")
    finish(host, panel)
    assert panel.runSection.run.state == "cancelled"
    press(host, panel, "Ctrl+Return")
    finish(host, panel)
    assert panel.runSection.run.state == "done"
    before = panel.ui.resultLabel.text
    press(host, panel, "Ctrl+Shift+D")
    host.wait_until(lambda: before != panel.ui.resultLabel.text, 20)
    assert "told by you" in panel.ui.resultLabel.text
    press(host, panel, "Ctrl+Shift+F")
    assert not panel.ui.frameOverCheckBox.checked
    assert not panel.ui.nextResultButton.enabled
    run(host, panel, 0.6)
    press(host, panel, "Ctrl+PgUp")
    assert (panel.ui.resultComboBox.currentIndex, panel.view().result.name) == (0, "DualTrack clip")
    press(host, panel, "Ctrl+PgDown")
    assert panel.view().result.name == "DualTrack clip 2"
    press(host, panel, "Ctrl+PgDown")
    assert panel.view().result.name == "DualTrack clip"


def export(host, panel):
    """Press the button, and wait for what it began."""
    host.click(panel.ui.exportButton)
    host.wait_until(lambda: panel.ui.exportButton.enabled)


def test_path_and_figures_are_exported_as_tables_and_nothing_else_is_replaced(
    host, panel, tiny_model_file, tmp_path, monkeypatch
):
    nodes = tracked(host, panel, tiny_model_file)
    chosen = [str(tmp_path / "out" / "clip.1")]
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(QtWidgets.QFileDialog, "getSaveFileName", lambda *arguments: (chosen[-1], ""))
    export(host, panel)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clip.1-figures.csv", "clip.1.csv"]
    path = read_trajectory_csv(tmp_path / "out" / "clip.1.csv")
    from DualTrackSlicerLib.scene import trajectoryFromTable

    kept = trajectoryFromTable(nodes.pose_table)
    np.testing.assert_array_equal(path.poses, kept.poses)
    assert (path.origin, path.provenance["trust"]) == (kept.origin, kept.provenance["trust"])
    report = panel.view().report
    with (tmp_path / "out" / "clip.1-figures.csv").open(encoding="utf-8", newline="") as stream:
        figures = dict(csv.reader(stream))
    assert float(figures["trajectory.path_length_mm"]) == report.trajectory["path_length_mm"]
    assert figures["trajectory.trust.text"] == report.trajectory["trust"]["text"]
    assert float(figures["evaluation.metrics.gpe_mm"]) == report.evaluation["metrics"]["gpe_mm"]
    assert [figures[f"warnings.{number}"] for number in range(len(report.warnings))] == list(report.warnings)
    assert json.loads(figures["volume.size.2"]) == report.volume["size"][2]
    assert figures["settings.calibration"] == ""

    figures = tmp_path / "out" / "other-figures.csv"
    figures.write_text("mine")
    chosen.append(str(figures.with_name("other.csv")))
    host.dialogs.answer = False
    export(host, panel)
    assert "other-figures.csv" in host.dialogs.asked[-1]
    assert (figures.read_text(), figures.with_name("other.csv").exists()) == ("mine", False)
    chosen.append("")
    export(host, panel)
    chosen.append(str(tmp_path / "out" / "clip.1.csv" / "below.csv"))
    export(host, panel)
    assert "Cannot write" in panel.ui.errorLabel.text


def test_one_page_on_a_result_is_copied_in_the_words_of_the_report(host, panel, tiny_model_file):
    panel.ui.rejectSpinBox.value = 3
    tracked(host, panel, tiny_model_file)
    report = panel.view().report
    host.click(panel.ui.copyResultButton)
    copied = slicer.app.clipboard().mimeData()
    text, page = copied.text(), html.unescape(copied.html())
    assert text.splitlines()[0] == "DualTrack clip: tracked by DualTrack"
    width, height = 64, 48
    for part in (
        "clip",
        f"0 to 23, {width} x {height} pixels",
        "0.4 x 0.3 mm",
        report.trajectory["source"]["model"],
        report.trajectory["trust"]["text"],
        f"{report.trajectory['path_length_mm']:.1f} mm",
        "voxel_mm: 0.8",
        "reject_below: 3",
        report.notice,
        *report.warnings,
    ):
        assert part in text, part
        assert part in page, part
    assert "hole_filling" not in text
    assert len(text.splitlines()) < 60
    panel.view().result.transform_sequence.SetAttribute("DualTrack.Report", "{}")
    host.click(panel.ui.copyResultButton)
    assert "made by another version" in panel.ui.errorLabel.text


def test_one_undo_takes_away_all_that_apply_made_and_one_redo_brings_it_back_with_card_and_views(
    host, panel, tiny_model_file
):
    slicer.mrmlScene.SetUndoOn()
    _, red = red_view()
    browser = add_clip(host)
    choose_file(panel, tiny_model_file)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    before = scene_names()
    nodes = run(host, panel)
    volume, after, shown = nodes.volume.GetID(), scene_names(), card(panel)
    assert hierarchy.GetItemByName(nodes.name)
    assert slicer.mrmlScene.GetNumberOfUndoLevels() == 1
    slicer.mrmlScene.Undo()
    host.process()
    assert scene_names() == before
    assert not hierarchy.GetItemByName("DualTrack clip")
    assert not panel.ui.resultGroup.isVisible()
    assert red.GetBackgroundVolumeID() == proxy(browser).GetID()
    slicer.mrmlScene.Redo()
    host.process()
    assert scene_names() == after
    assert card(panel) == shown
    assert (red.GetBackgroundVolumeID(), red.GetForegroundVolumeID()) == (volume, proxy(browser).GetID())
