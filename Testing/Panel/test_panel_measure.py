"""Measuring in the panel: a line is drawn, moved, saved, copied and exported, always with its band."""

import csv
import re
from dataclasses import replace

import numpy as np
import pytest
import slicer
from journey import add_clip

from DualTrackCore.io import write_trajectory_csv
from DualTrackCore.progress import finished
from DualTrackCore.run import RunSettings, run
from DualTrackCore.sample import sample_sweep
from DualTrackCore.trajectory import Trajectory

SAMPLE = sample_sweep()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A result of the sample by a path that drifts, and that says how sure it is."""
    motions = SAMPLE.tracked.parameters * [1, 1, 0.9, 1, 1, 1]
    source = {"model": "mini", "model_trained": True, "step_error_correlation": [0.3] * 6, "direction": "sure"}
    sigma = np.tile([0.02, 0.02, 0.05, 0.05, 0.05, 0.05], (len(motions), 1))
    path = tmp_path_factory.mktemp("poses") / "poses.csv"
    write_trajectory_csv(Trajectory.from_parameters(motions, source, sigma=sigma), path)
    sweep = replace(SAMPLE, tracked=None)
    return run(sweep, RunSettings(poses=str(path), voxel_mm=1.2, pictures=False))


@pytest.fixture
def measuring(host, panel, found):
    """The panel with the result."""
    from DualTrackSlicerLib.scene import showResults, sweepFromBrowser

    browser = add_clip(host, replace(SAMPLE, tracked=None), "sweep")
    showResults(slicer.mrmlScene, sweepFromBrowser(browser), found)
    host.process()
    assert panel.view().result is not None
    return panel


def place(panel, found, frame, column, row):
    """Where a pixel of a frame lies in the scene, RAS, mm."""
    from DualTrackSlicerLib.scene import measuresIn

    (point,) = found.measurements().planes.points_of([frame], [[column, row]])
    world = np.linalg.inv(finished(measuresIn(panel.view().result)).frame0_from_world)
    return world[:3, :3] @ point + world[:3, 3]


def click_ends(host, button, places):
    """Draw as a user does: press the button, click; each click places a point of the node that is being placed."""
    host.click(button)
    selection = slicer.app.applicationLogic().GetSelectionNode()
    node = slicer.mrmlScene.GetNodeByID(selection.GetActivePlaceNodeID())
    for point in places:
        node.AddControlPoint(*point)
    slicer.app.applicationLogic().GetInteractionNode().SetCurrentInteractionMode(2)
    return node


def wait(host, panel):
    host.wait_until(lambda: "Measuring" not in panel.ui.measureLabel.text)


def test_a_line_is_measured_while_it_is_drawn_and_moved(host, measuring, found, pictures):
    panel, ui = measuring, measuring.ui
    assert "Draw a line" in ui.measureLabel.text
    assert not ui.copyMeasuresButton.enabled
    ends = [place(panel, found, 20, 60, 40), place(panel, found, 120, 100, 70)]
    node = click_ends(host, ui.measureLineButton, ends)
    wait(host, panel)
    planes = found.measurements().planes
    first, second = (planes.points_of([frame], [pixel])[0] for frame, pixel in ((20, (60, 40)), (120, (100, 70))))
    wanted = found.measurements().distance(first, second)
    for text in (f"{wanted.value:.1f} mm", f"{wanted.band_95[0]:.1f} to {wanted.band_95[1]:.1f} mm", wanted.level):
        assert text in ui.measureLabel.text
    assert "the errors that the model states" in ui.measureLabel.text
    assert f"95 %: {wanted.band_text(wanted.band_95)}" in node.GetDescription()
    for section in (ui.clipSection, ui.modelSection, ui.volumeSection):
        section.collapsed = True
    host.picture(panel, pictures / "panel-measure.png")
    moved = place(panel, found, 20, 100, 80)
    node.SetNthControlPointPosition(1, *moved)
    assert ui.measureLabel.text == "Measuring…"
    wait(host, panel)
    assert f"{np.linalg.norm(moved - ends[0]):.1f} mm" in ui.measureLabel.text
    assert "the size of a pixel alone" in ui.measureLabel.text
    node.SetNthControlPointPosition(1, *(moved + 200))
    wait(host, panel)
    assert "away from the nearest frame" in ui.measureLabel.text
    assert "DualTrack" not in node.GetDescription()


def test_the_last_thing_that_was_moved_is_shown_and_all_are_copied_and_exported(
    host, measuring, found, tmp_path, monkeypatch
):
    panel, ui = measuring, measuring.ui
    points = [place(panel, found, *pixel) for pixel in ((20, 60, 40), (60, 100, 70), (100, 40, 90))]
    line, outline = (
        click_ends(host, button, points[:count])
        for button, count in ((ui.measureLineButton, 2), (ui.measureOutlineButton, 3))
    )
    wait(host, panel)
    assert ui.measureComboBox.currentText == "Outline"
    assert "mm²" in ui.measureLabel.text
    line.SetNthControlPointPosition(1, *points[2])
    host.process()
    assert ui.measureComboBox.currentText == "Length"
    host.click(ui.copyMeasuresButton)  # what is due is measured first
    copied = [text.split("\t") for text in slicer.app.clipboard().text().splitlines()]
    assert [entry[:2] for entry in copied] == [["Length", "length"], ["Outline", "length"], ["Outline", "area"]]
    assert copied[0][2] == f"{np.linalg.norm(points[2] - points[0]):.1f} mm"
    assert copied[0][3].startswith("in 95 of 100 cases ")
    monkeypatch.setattr("PySide6.QtWidgets.QFileDialog.getSaveFileName", lambda *a: (str(tmp_path / "a.csv"), ""))
    host.click(ui.exportButton)
    host.wait_until(lambda: ui.exportButton.enabled)
    assert not ui.errorFrame.isVisible()
    assert sorted(file.name for file in tmp_path.glob("a*.csv")) == ["a-figures.csv", "a-measures.csv", "a.csv"]
    with open(tmp_path / "a-measures.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [entry[0] for entry in copied]
    assert float(rows[0]["value"]) == pytest.approx(np.linalg.norm(points[2] - points[0]), abs=1e-6)
    assert outline.GetMeasurement("DualTrack area").GetEnabled()


def test_measuring_goes_on_in_another_module_and_in_a_scene_that_was_saved(host, measuring, found, tmp_path):
    panel, ends = measuring, [place(measuring, found, 20, 60, 40), place(measuring, found, 120, 100, 70)]
    panel.exit()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "by hand")
    for end in ends:
        node.AddControlPoint(*end)
    host.wait_until(lambda: "DualTrack length" in node.GetDescription())
    panel.enter()
    host.process()
    shown = panel.ui.measureLabel.text
    assert f"{np.linalg.norm(ends[1] - ends[0]):.1f} mm" in shown
    path = tmp_path / "scene.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(path))
    host.close_panel(panel)
    host.new_scene()
    again = host.open_panel()
    slicer.mrmlScene.SetURL(str(path))
    assert slicer.mrmlScene.ReadFromMRB(str(path), False)
    host.process()
    wait(host, again)
    assert again.ui.measureLabel.text == shown
    node = slicer.mrmlScene.GetFirstNodeByName("by hand")
    node.SetNthControlPointPosition(1, *ends[0] + [3, 0, 0])
    wait(host, again)
    assert "3.0 mm" in again.ui.measureLabel.text
    slicer.mrmlScene.Clear(False)
    host.process()
    assert not again.ui.measureSection.isVisible()


def test_a_segment_is_measured_when_it_is_chosen_and_what_was_painted_since_is_told(host, measuring):
    ui, volume = measuring.ui, measuring.view().result.volume
    array = np.zeros_like(slicer.util.arrayFromVolume(volume))
    array[14:22, 10:20, 14:22] = 1
    label = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "painted")
    slicer.util.updateVolumeFromArray(label, array)
    label.CopyOrientation(volume)
    segments = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "tumour")
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    assert logic.ImportLabelmapToSegmentationNode(label, segments)
    host.process()
    host.wait_until(lambda: ui.measureComboBox.count == 1)
    assert "was not measured yet" in ui.measureLabel.text
    host.click(ui.measureAgainButton)
    wait(host, measuring)
    (volume_mm3,) = [float(number) for number in re.findall(r"([0-9.]+) mm³ \([0-9.]+ ml\)", ui.measureLabel.text)[:1]]
    assert volume_mm3 == pytest.approx(array.sum() * 1.2**3, rel=0.1)
    slicer.vtkSlicerSegmentationsModuleLogic.ClearSegment(segments, segments.GetSegmentation().GetNthSegmentID(0))
    host.wait_until(lambda: "has changed since" in ui.measureLabel.text)
    host.click(ui.measureAgainButton)
    wait(host, measuring)
    assert "is empty; paint it first" in ui.measureLabel.text


def test_the_ruler_of_the_picture_is_not_measured_and_a_result_that_goes_takes_its_measures_along(host, measuring):
    panel = measuring
    panel.ui.prepareSection.collapsed = False
    host.click(panel.ui.rulerButton)
    host.process()
    assert panel.ui.measureComboBox.count == 0
    host.click(panel.ui.deleteResultButton)
    assert not panel.ui.measureSection.isVisible()
    assert panel.measureSection.measuring.targets == []
