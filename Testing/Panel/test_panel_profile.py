"""A scanner profile is made in four steps, chosen, used, and removed; its numbers are those of the command line."""

from dataclasses import replace
from pathlib import Path

import pytest
import slicer
import yaml
from journey import add_clip, choose_file, clip_of, run, titles

from DualTrackCore import cli
from DualTrackCore.io import save_sweep
from DualTrackCore.sample import sample_sweep
from DualTrackCore.sweep import Sweep

SCANNER = {"device": "Maker One", "transducer": "L12-3"}
#: The untrained network finds a bent path in everything, of which enough runs across the picture at this length.
LENGTH = 50.0


def slide(frames=40, **scanner):
    """A recording that names scanner and probe."""
    part = sample_sweep().slice(0, frames)
    return Sweep(part.frames, part.spacing_mm, part.timestamps_s, provenance={"scanner": scanner or SCANNER})


@pytest.fixture
def recorded(host, panel, tiny_model_file, tmp_path):
    """The panel with the recording of a slide, and the file of the same."""
    panel.ui.profileSection.collapsed = False
    save_sweep(slide(), tmp_path / "slide.igs.mha")
    add_clip(host, slide(), "slide")
    choose_file(panel, tiny_model_file)
    return panel, tmp_path / "slide.igs.mha"


def measure(host, panel):
    host.click(panel.ui.profileMeasureButton)
    assert panel.ui.profileMeasureButton.text == "Cancel"
    host.wait_until(lambda: panel.ui.profileMeasureButton.text != "Cancel", 120)


def stored(folder, name):
    return yaml.safe_load((Path(folder) / "profiles" / f"{name}.yaml").read_text())


def test_four_steps_make_the_profile_of_the_command_line_and_the_next_run_uses_it(
    host, recorded, tiny_model_file, tmp_path, pictures, monkeypatch
):
    (panel, file), ui = recorded, recorded[0].ui
    assert not ui.profilePictureLabel.pixmap.isNull()
    assert titles(ui.profileClipComboBox) == ["slide"]
    assert not ui.profileSaveButton.enabled
    ui.profileLengthSpinBox.value = LENGTH
    measure(host, panel)
    made = ["profile", "make", str(file), "--name", "lab", "--length-mm", str(LENGTH), "--quiet"]
    with monkeypatch.context() as there:
        there.setenv("DUALTRACK_MODELS", str(tmp_path / "other"))
        assert cli.main([*made, "--model", str(tiny_model_file)]) == 0
    by_command = stored(tmp_path / "other", "lab")
    text = f"x {by_command['factor']:.3g}, known to {by_command['spread']:.0%}"
    for words in (text, f"{LENGTH:.1f} mm, found as", "probe L12-3", "make the profile of three"):
        assert words in ui.profileFoundLabel.text
    for section in (ui.clipSection, ui.modelSection, ui.volumeSection):
        section.collapsed = True
    host.picture(panel, pictures / "panel-profile.png")
    assert "Type a name first" in ui.profileSaveButton.toolTip
    ui.profileNameEdit.text = "lab"
    host.click(ui.profileSaveButton)
    own = stored(panel.logic.modelsFolder(), "lab")
    assert {**own, "made": 0} == {**by_command, "made": 0}
    assert ui.profileComboBox.currentText == "lab"
    assert text in ui.profileInfoLabel.text
    assert panel.view().settings().profile == "lab"
    assert "profile='lab'" in ui.scriptEdit.plainText
    result = run(host, panel)
    assert f"Scaled the elevational motion by {own['factor']:.3g}" in str(panel.view().report.trajectory["source"])
    assert "as the scanner profile lab says" in ui.resultLabel.text
    ui.profileComboBox.currentIndex = 1
    host.click(ui.settingsButton)
    assert (ui.profileComboBox.currentText, panel.view().result.name) == ("lab", result.name)


def test_the_profile_that_fits_is_used_by_itself_and_outside_of_its_preset_the_result_warns(
    host, recorded, tiny_model_file
):
    (panel, file), ui = recorded, recorded[0].ui
    made = ["profile", "make", str(file), "--name", "clinic", "--length-mm", str(LENGTH), "--quiet"]
    assert cli.main([*made, "--model", str(tiny_model_file)]) == 0
    run(host, panel)
    assert "as the scanner profile clinic says" in ui.resultLabel.text
    assert "outside of what" not in ui.warningsLabel.text
    add_clip(host, slide(24, transducer="C5-1"), "abdomen")
    ui.clipComboBox.currentIndex = clip_of(panel, "abdomen")
    run(host, panel)
    assert "scanner profile" not in ui.resultLabel.text
    ui.profileComboBox.currentIndex = titles(ui.profileComboBox).index("clinic")
    run(host, panel)
    assert "as the scanner profile clinic says" in ui.resultLabel.text
    assert "scanner profile clinic was made for (probe C5-1, not L12-3)" in ui.warningsLabel.text
    host.dialogs.answer = False
    host.click(ui.profileRemoveButton)
    assert "clinic" in titles(ui.profileComboBox)
    host.dialogs.answer = True
    host.click(ui.profileRemoveButton)
    assert titles(ui.profileComboBox) == ["automatic: the one that fits the clip", "none"]
    assert not (panel.logic.modelsFolder() / "profiles" / "clinic.yaml").exists()


def test_what_makes_no_profile_is_told_in_one_sentence_and_what_was_measured_stays(host, recorded):
    (panel, _), ui = recorded, recorded[0].ui
    ui.profileLengthSpinBox.value = 0
    assert ui.profileLengthSpinBox.text == "as tracked"
    measure(host, panel)
    assert "No tracker tells how long slide is; type its length in step 3." in ui.profileFoundLabel.text
    ui.profileLengthSpinBox.value = 10
    measure(host, panel)
    assert "It is 10 mm long, and a profile needs 20 mm at least" in ui.profileFoundLabel.text
    ui.profileLengthSpinBox.value = LENGTH
    measure(host, panel)
    found = ui.profileFoundLabel.text
    assert "x " in found
    add_clip(host, replace(slide(), provenance={"scanner": {"transducer": "C5-1"}}), "other")
    ui.profileClipComboBox.currentIndex = clip_of(panel, "other")
    host.process()
    assert ui.clipComboBox.currentText == "other"
    measure(host, panel)
    assert "recorded with another preset" in ui.profileFoundLabel.text
    assert found in ui.profileFoundLabel.text
    ui.profileNameEdit.text = "No Name"
    host.click(ui.profileSaveButton)
    assert "is not a valid name of a profile" in ui.profileFoundLabel.text
    host.click(ui.profileResetButton)
    assert not ui.profileFoundLabel.isVisible()


def test_a_measurement_is_cancelled_and_ends_with_its_scene(host, recorded):
    (panel, _), ui = recorded, recorded[0].ui
    host.click(ui.profileMeasureButton)
    host.click(ui.profileMeasureButton)
    host.wait_until(lambda: ui.profileMeasureButton.text != "Cancel", 30)
    assert "Cancelled" in ui.profileFoundLabel.text
    host.click(ui.profileMeasureButton)
    slicer.mrmlScene.Clear(False)
    host.wait_until(lambda: panel.logic.worker()._job is None, 30)
    assert panel.profileSection._found == {}
    assert "Load the recording" in ui.profileMeasureButton.toolTip


def test_the_slices_of_a_volume_are_measured_as_those_of_a_clip(host, recorded):
    panel, ui = recorded[0], recorded[0].ui
    ui.profileLengthSpinBox.value = LENGTH
    measure(host, panel)
    node = slicer.util.addVolumeFromArray(sample_sweep().frames[:40], name="volume")
    across, down = panel.view().clip.spacing_mm
    node.SetSpacing(across, down, 1.0)
    host.process()
    panel.chooseClip(panel.view().clips[clip_of(panel, "volume")])
    measure(host, panel)
    assert panel.profileSection._message == ""
    by_clip, by_volume = (panel.profileSection._found[name].sweep.factor for name in ("slide", "volume"))
    assert by_volume == pytest.approx(by_clip, rel=1e-6)
