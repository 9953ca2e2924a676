"""The section *Correct*: what the user knows becomes a result of its own, and one click takes it back."""

import html

import numpy as np
import pytest
import slicer
from clip_nodes import job_result
from journey import add_clip, choose_file, finish, mark_in_red, run, scene_names, titles
from scipy.spatial.transform import Rotation

from DualTrackCore import Sweep, Trajectory
from DualTrackCore.corrections import Corrections, KnownLength, correct, knowledge_of, propose_loops
from DualTrackCore.path_error import CORRECTIONS, turned_over
from DualTrackCore.progress import finished
from DualTrackCore.run import run as run_clip
from DualTrackCore.run.correction import correct_result
from DualTrackCore.run.settings import RunSettings


def path_of(nodes):
    """The trajectory of a result."""
    from DualTrackSlicerLib import scene

    return scene.trajectoryFromTable(nodes.pose_table)


def apply(host, panel):
    """Press *Apply corrections*, and wait."""
    host.click(panel.ui.applyCorrectionsButton)
    finish(host, panel)
    host.process()


def known(panel):
    """What the shown result was corrected by, of its report."""
    return RunSettings.from_dict(panel.view().report.settings).corrections


def test_from_tracking_over_a_known_length_and_landmarks_to_a_scene_that_is_read_again(
    host, panel, tiny_model_file, tmp_path
):
    from DualTrackSlicerLib.scene.records import clip_of, result_in_pieces

    slicer.mrmlScene.SetUndoOn()
    add_clip(host)
    choose_file(panel, tiny_model_file)
    panel.ui.correctSection.collapsed = False
    run(host, panel, 1.0)
    first, length = panel.view().result, panel.view().report.trajectory["path_length_mm"]
    finished(result_in_pieces(first, clip_of(first))).write(tmp_path / "results")
    _know_the_length(host, panel, tmp_path / "results")
    _take_it_back_and_say_it_again(host, panel, first)
    _mark_two_points(host, panel, tmp_path)
    _compare_with_before(host, panel, first)
    _undo_save_and_read(host, panel, tmp_path / "scene.mrb")
    host.click(panel.ui.landmarksUndoButton)
    assert [name for name, _text in corrected_rows(panel)] == ["Corrected, known length"]
    host.click(panel.ui.lengthUndoButton)
    assert corrected_rows(panel) == []
    assert panel.view().report.trajectory["path_length_mm"] == length


def _know_the_length(host, panel, folder):
    """A result of its own, the same to the byte as the command's and as that of a run; the first one stays."""
    from DualTrackSlicerLib.self_test import syntheticSweep

    first, before = panel.view().result, path_of(panel.view().result)
    worker, volume = panel.logic.worker().pid, slicer.util.arrayFromVolume(first.volume).copy()
    assert panel.ui.applyCorrectionsButton.toolTip == "Say first what is known of the sweep."
    panel.ui.lengthCheckBox.checked, panel.ui.lengthSpinBox.value = True, 9.5
    assert "Would make the path 9.5 mm long; it was found 9.0 mm long." in panel.ui.lengthStateLabel.text
    apply(host, panel)
    assert (panel.runSection.run.error, panel.logic.worker().pid) == ("", worker)
    scaled, poses = panel.view().result, path_of(panel.view().result).poses.tobytes()
    assert (first.name, scaled.name) == ("DualTrack clip", "DualTrack clip corrected")
    np.testing.assert_array_equal(path_of(first).poses, before.poses)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(first.volume), volume)
    assert slicer.util.arrayFromVolume(scaled.volume).shape != volume.shape
    (entry,) = panel.view().report.trajectory["source"][CORRECTIONS]
    assert entry["text"] in panel.ui.lengthStateLabel.text
    assert entry["text"] in panel.ui.resultLabel.text
    by_command = correct_result(folder, {"corrections": {"known_length_mm": 9.5}})
    assert by_command.trajectory.poses.tobytes() == poses
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(scaled.volume), by_command.volume)
    assert by_command.report.trajectory["source"][CORRECTIONS] == [entry]
    settings = RunSettings.from_dict(panel.view().report.settings)
    assert settings.corrections == Corrections(known_length_mm=9.5)
    assert run_clip(syntheticSweep(), settings).trajectory.poses.tobytes() == poses


def _take_it_back_and_say_it_again(host, panel, first):
    scaled = panel.view().result
    host.click(panel.ui.lengthUndoButton)
    assert panel.view().result.transform_sequence is first.transform_sequence
    assert (panel.ui.lengthCheckBox.checked, panel.ui.lengthStateLabel.text) == (False, "")
    panel.ui.lengthCheckBox.checked = True
    host.click(panel.ui.applyCorrectionsButton)
    assert not panel.runSection.isRunning()  # it is there already
    assert panel.view().result.transform_sequence is scaled.transform_sequence


def _mark_two_points(host, panel, tmp_path):
    for frame, x, y in ((3, 20, 15), (12, 21, 16), (20, 24, 18)):
        mark_in_red(host, panel, "A", frame, x, y)
    mark_in_red(host, panel, "B", 5, 40, 30)
    sentence = "The point B is marked in frame 5 alone; mark it in another frame as well."
    assert sentence in panel.ui.landmarksStateLabel.text
    assert panel.ui.applyCorrectionsButton.toolTip == sentence
    mark_in_red(host, panel, "B", 17, 41, 30)
    assert "A (frames 3, 12, 20); B (frames 5, 17)" in panel.ui.landmarksStateLabel.text
    apply(host, panel)
    marks = known(panel).places
    assert [(one.point, one.frame, one.x, one.y) for one in marks][:2] == [("A", 3, 20, 15), ("A", 12, 21, 16)]
    rows = "\n".join(f"{one.point},{one.frame},{one.x},{one.y}" for one in marks)
    (tmp_path / "marks.csv").write_text(f"point,frame,x,y\n{rows}\n")
    knowledge = {"known_length_mm": 9.5, "places": str(tmp_path / "marks.csv")}
    by_command = correct_result(tmp_path / "results", {"corrections": knowledge})
    assert by_command.trajectory.poses.tobytes() == path_of(panel.view().result).poses.tobytes()
    assert "Left over: " in panel.ui.landmarksStateLabel.text
    assert [name for name, _text in corrected_rows(panel)] == ["Corrected, known length", "Corrected, same points"]


def _compare_with_before(host, panel, first):
    host.click(panel.ui.beforeButton)
    assert panel.ui.comparisonFrame.isVisible()
    assert "DualTrack clip" in panel.ui.compareComboBox.currentText
    assert "Corrected, same points" in panel.ui.comparisonLabel.text
    panel.ui.fadeSlider.value = 100
    volumes = panel.view().result.volume, first.volume
    assert [volume.GetNthDisplayNode(1).GetVisibility() for volume in volumes] == [0, 1]


def _undo_save_and_read(host, panel, path):
    texts, marks = states(panel), known(panel).places
    slicer.mrmlScene.Undo()
    host.process()
    assert [name for name, _text in corrected_rows(panel)] == ["Corrected, known length"]
    slicer.mrmlScene.Redo()
    host.process()
    assert states(panel) == texts
    assert slicer.mrmlScene.WriteToMRB(str(path))
    slicer.mrmlScene.Clear(False)
    host.process()
    assert not panel.ui.lengthCheckBox.checked
    slicer.mrmlScene.SetURL(str(path))
    assert slicer.mrmlScene.ReadFromMRB(str(path), False)
    host.process()
    assert (states(panel), known(panel).places) == (texts, marks)


def corrected_rows(panel):
    """What the card says of corrections."""
    from DualTrackSlicerLib.widget.cards import cardRows

    found = [row for row in cardRows(panel.view().report, None) if row[0].startswith("Corrected")]
    assert all(text in panel.ui.resultLabel.text for _name, text in found)
    return found


def states(panel):
    """What the rows say, and what can be taken back."""
    rows = ("direction", "length", "landmarks", "loops", "limits", "orientations", "tracker")
    parts = [
        (getattr(panel.ui, f"{row}StateLabel").text, getattr(panel.ui, f"{row}UndoButton").enabled) for row in rows
    ]
    return [*parts, panel.ui.lengthSpinBox.value, panel.ui.landmarksComboBox.currentText, panel.ui.beforeButton.enabled]


#: A probe that goes 20 frames on and comes back: each place has speckle of its own.
PLACES = np.concatenate([np.arange(24), np.arange(23, -1, -1)])


@pytest.fixture
def estimated(host, panel):
    """The panel with the result of an estimate that drifts, which nobody had to track; and sweep and path."""
    from DualTrackSlicerLib.scene import showResults, sweepFromBrowser

    pictures = np.random.default_rng(5).integers(0, 255, (24, 48, 64), np.uint8)
    steps = np.diff(PLACES)[:, None] * [0.02, 0.0, 0.4, 0.3, 0.0, 0.0]
    truth = Trajectory.from_parameters(steps, origin="measured")
    sweep = Sweep(pictures[PLACES], 0.3, tracked=truth)
    path = Trajectory.from_parameters(steps * [1, 1, 1.3, 1, 1, 1] + [0.01, 0, 0.05, 0, 0, 0], {"model": "mini"})
    browser = add_clip(host, sweep)
    clip = sweepFromBrowser(browser)
    result = job_result(clip.sweep, path, voxel_mm=2)
    nodes = showResults(slicer.mrmlScene, clip, result)
    host.process()
    panel.ui.correctSection.collapsed = False
    host.process()
    return clip.sweep, path_of(nodes)


def test_every_row_is_applied_as_the_core_does_it_and_taken_back_by_one_click(host, panel, estimated, tmp_path):
    sweep, path = estimated
    first, ui = panel.view().result, panel.ui
    turns = Rotation.from_matrix(sweep.tracked.poses[:, :3, :3]).as_quat()
    rows = "\n".join(f"{k},{w:.9f},{x:.9f},{y:.9f},{z:.9f}" for k, (x, y, z, w) in enumerate(turns))
    (tmp_path / "imu.csv").write_text(f"frame,qw,qx,qy,qz\n{rows}\n")

    def say_loops():
        ui.loopsEdit.text = "0, 47; 5, 42"

    def say_limits():
        ui.monotoneCheckBox.checked, ui.stepSpinBox.value, ui.stopsEdit.text = True, 0.5, "22, 25"

    def say_orientations():
        ui.orientationsEdit.currentPath = str(tmp_path / "imu.csv")

    def say_tracker():
        ui.trackerComboBox.currentIndex = 1

    for row, say, would, known_then in (
        ("loops", say_loops, "at one place: 0 and 47; 5 and 42.", {"loops": ((0, 47), (5, 42))}),
        ("limits", say_limits, "never back; steps up to 0.5 mm; still in frames 22 and 25.",
         {"monotone": True, "most_step_mm": 0.5, "stops": ((22, 25),)}),
        ("orientations", say_orientations, "as imu.csv says.", {"orientations": str(tmp_path / "imu.csv")}),
        ("tracker", say_tracker, "the places of PlacedImageToReference.", {"tracker": "clip"}),
    ):  # fmt: skip
        label, undo = getattr(ui, f"{row}StateLabel"), getattr(ui, f"{row}UndoButton")
        assert not undo.enabled
        say()
        assert would in label.text
        apply(host, panel)
        assert ui.errorLabel.text == ""
        expected = correct(path, knowledge_of(Corrections(**known_then), sweep))
        np.testing.assert_array_equal(path_of(panel.view().result).poses, expected.poses)
        (entry,) = panel.view().report.trajectory["source"][CORRECTIONS]
        assert html.escape(entry["text"]) in label.text
        host.click(undo)
        assert panel.view().result.transform_sequence is first.transform_sequence, row
        assert (label.text, undo.enabled) == ("", False)
    assert len(panel.view().results) == 5


def test_a_sweep_is_turned_over_before_it_is_corrected_and_back_by_one_click(host, panel, estimated):
    path, ui = estimated[1], panel.ui
    ui.otherWayCheckBox.checked, ui.lengthCheckBox.checked, ui.lengthSpinBox.value = True, True, 15.0
    apply(host, panel)
    expected = correct(turned_over(path), [KnownLength(15.0)])
    np.testing.assert_array_equal(path_of(panel.view().result).poses, expected.poses)
    assert "told by you" in ui.resultLabel.text
    assert "link" not in ui.turnOverButton.toolTip
    assert not ui.turnOverButton.enabled
    host.click(ui.directionUndoButton)
    finish(host, panel)
    assert "told by you" not in ui.resultLabel.text
    np.testing.assert_array_equal(path_of(panel.view().result).poses, correct(path, [KnownLength(15.0)]).poses)


def test_what_cannot_be_is_one_sentence_in_its_row_and_nothing_is_changed(host, panel, estimated, tmp_path):
    ui, before, shown = panel.ui, scene_names(), panel.view().result.name
    (tmp_path / "none.csv").write_text("frame,a,b\n0,1,2\n")

    def set_length(length):
        ui.lengthCheckBox.checked, ui.lengthSpinBox.value = True, length

    def set_path(edit):
        edit.currentPath = str(tmp_path / "none.csv")

    for row, say, sentence in (
        ("length", lambda: set_length(0.0), "The known length is 0 mm; give the length in mm"),
        ("length", lambda: set_length(900.0), "scaled by 0.2 to 5 it is"),
        ("loops", lambda: setattr(ui.loopsEdit, "text", "0 310"), "The frames are “0 310”; give pairs"),
        (
            "loops",
            lambda: setattr(ui.loopsEdit, "text", "0, 310"),
            "known of frame 310, and the frames 0 to 47 are used",
        ),
        ("limits", lambda: setattr(ui.stopsEdit, "text", "9, 3"), "cannot stand still from frame 9 to frame 3"),
        ("orientations", lambda: set_path(ui.orientationsEdit), "none.csv has no column qx"),
        ("tracker", lambda: set_path(ui.trackerEdit), "none.csv"),
    ):
        say()
        if ui.applyCorrectionsButton.enabled:
            apply(host, panel)
        label = getattr(ui, f"{row}StateLabel")
        assert sentence in label.text, label.text
        assert label.text.count(". ") == 0
        assert not ui.errorFrame.isVisible()
        assert (scene_names(), panel.view().result.name) == (before, shown)
        host.click(getattr(ui, f"{row}UndoButton"))
        assert label.text == ""


def test_a_probe_that_came_back_is_proposed_looked_at_and_taken(host, panel, estimated):
    sweep, path = estimated
    ui, browser = panel.ui, panel.view().clip.browser
    host.click(ui.proposeButton)
    assert not ui.proposeButton.enabled
    host.wait_until(lambda: ui.proposeButton.enabled, 60)
    expected = propose_loops(sweep, path)
    assert expected
    places = [place.frames for place, _alike in expected]
    assert ui.proposalLabel.text.startswith("Look at both pictures")
    assert [text.split(",")[0] for text in titles(ui.proposalComboBox)] == [f"{a} and {b}" for a, b in places]
    assert panel.parameters.loops == ""
    for frame in places[0]:
        host.click(ui.lookButton)
        assert browser.GetSelectedItemNumber() == frame
    host.click(ui.takeProposalButton)
    assert ui.loopsEdit.text == f"{places[0][0]}, {places[0][1]}"
    assert ui.applyCorrectionsButton.enabled
