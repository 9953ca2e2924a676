"""What is kept, what is explained, what is asked before."""

import importlib.metadata
import sys
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import slicer
from journey import add_clip, choose_file, finish
from pythonqt import unwrap
from slicer_host import MODULE_FOLDER

from DualTrackCore.errors import Cancelled, MissingDependencyError
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.worker import JobFailed


def test_settings_come_back_with_the_scene(host, panel):
    add_clip(host)
    panel.ui.voxelSpinBox.value = 0.7
    panel.ui.compoundingComboBox.currentIndex = 1
    panel.ui.areaComboBox.currentIndex = 1
    panel.ui.testTimeAugmentationComboBox.currentIndex = 2
    panel.ui.volumeCheckBox.checked = False
    saved = _saved(slicer.mrmlScene)
    slicer.mrmlScene.Clear(False)
    host.process()
    assert panel.ui.voxelSpinBox.text == "automatic"
    assert panel.ui.volumeCheckBox.checked
    assert panel.view().settings().test_time_augmentation == 1
    slicer.mrmlScene.SetLoadFromXMLString(1)
    slicer.mrmlScene.SetSceneXMLString(saved)
    slicer.mrmlScene.Import()
    host.process()
    assert panel.ui.voxelSpinBox.value == 0.7
    assert panel.ui.compoundingComboBox.currentText == "brightest"
    assert not panel.ui.volumeCheckBox.checked
    assert panel.view().settings().fan == "auto"
    assert panel.ui.testTimeAugmentationComboBox.currentText == "also mirrored and backwards"
    assert panel.view().settings().test_time_augmentation == 4


def test_device_and_models_folder_belong_to_the_computer(host, panel, tmp_path):
    panel.ui.deviceComboBox.currentIndex = 1
    panel.ui.modelsFolderEdit.currentPath = str(tmp_path / "mine")
    slicer.mrmlScene.Clear(False)
    host.close_panel(panel)
    again = host.open_panel()
    assert again.ui.deviceComboBox.currentText == "processor"
    assert again.ui.modelsFolderEdit.currentPath == str(tmp_path / "mine")
    assert again.view().settings().device == "cpu"
    assert again.logic.modelsFolder() == tmp_path / "mine"
    again.ui.modelsFolderEdit.currentPath = ""
    assert again.logic.modelsFolder() == tmp_path / "models"


@pytest.mark.parametrize("state", ["empty", "clip", "running", "no volume"])
def test_every_disabled_control_says_why(host, panel, tiny_model_file, state):
    if state != "empty":
        add_clip(host)
        choose_file(panel, tiny_model_file)
    if state == "no volume":
        panel.ui.volumeCheckBox.checked = False
    if state == "running":
        host.click(panel.ui.applyButton)
    named = {element.get("name") for element in ET.parse(panel.resourcePath("UI/DualTrackSlicer.ui")).iter("widget")}
    disabled = [getattr(panel.ui, name) for name in sorted(named & set(vars(panel.ui)))]
    disabled = [widget for widget in disabled if _is_disabled_itself(unwrap(widget))]
    assert disabled
    for widget in disabled:
        assert widget.toolTip.endswith("."), widget.name
        assert not widget.toolTip.startswith(("The ", "Width of", "Height of", "Left edge", "Upper edge")), widget.name
    finish(host, panel)


def test_apply_asks_before_it_installs_and_goes_no_further_without_consent(host, panel, tiny_model_file):
    calls = _pretend_missing(panel, {"torch", "timm"})
    add_clip(host)
    choose_file(panel, tiny_model_file)
    assert "first Apply installs torch, timm" in panel.ui.preflightLabel.text
    host.dialogs.answer = False
    host.click(panel.ui.applyButton)
    assert "torch, timm" in host.dialogs.asked[-1]
    assert "cannot run without torch, timm" in panel.ui.errorLabel.text
    assert calls == []


def test_apply_installs_what_is_missing_and_then_runs(host, panel, tiny_model_file):
    calls = _pretend_missing(panel, {"torch", "timm"})
    add_clip(host)
    choose_file(panel, tiny_model_file)
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert [call[0] for call in calls] == ["torch", "packages"]
    assert "timm>=1.0" in calls[1][1]
    assert "numpy==" in calls[1][2]
    assert panel.runSection.run.state == "done"


def test_an_installer_that_fails_is_told_in_one_sentence(host):
    from DualTrackSlicerLib.dependencies import Dependencies

    def fail(*paths):
        raise RuntimeError("no route to host\nlong log")

    dependencies = Dependencies(
        is_satisfied=lambda wanted: "timm" not in wanted, ask=lambda missing: True, install_packages=fail
    )
    with pytest.raises(MissingDependencyError, match=r"timm failed \(no route to host\); check the network"):
        dependencies.ensure()


def test_packages_that_are_not_there_afterwards_are_named(host):
    from DualTrackSlicerLib.dependencies import Dependencies

    dependencies = Dependencies(
        is_satisfied=lambda wanted: "timm" not in wanted, ask=lambda missing: True, install_packages=lambda *paths: None
    )
    with pytest.raises(MissingDependencyError, match="timm could not be installed; restart Slicer"):
        dependencies.ensure()


def test_nothing_is_asked_where_nothing_is_missing(host):
    from DualTrackSlicerLib.dependencies import Dependencies

    def never(*arguments):
        raise AssertionError(arguments)

    Dependencies(lambda wanted: True, ask=never, install_torch=never, install_packages=never).ensure()
    with pytest.raises(Cancelled):
        Dependencies(lambda wanted: "timm" not in wanted, ask=lambda missing: False, install_torch=never).ensure()


def test_a_package_that_is_too_old_counts_as_missing(host, monkeypatch):
    from DualTrackSlicerLib.dependencies import Dependencies

    found = {"timm": "0.9.16", "pydicom": "2.4.4"}
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: found.get(name) or version(name))
    dependencies = Dependencies()
    assert dependencies.missing() == ["timm"]
    assert dependencies.unfit() == "This Slicer lacks pydicom>=3.0, which Slicer 5.12 brings: install Slicer anew."
    found.clear()
    assert (dependencies.missing(), dependencies.unfit()) == ([], "")


def test_an_older_slicer_is_told_in_the_first_line_and_nothing_is_installed_there(host, panel, monkeypatch):
    _pretend_missing(panel, {"timm"})
    monkeypatch.setattr(slicer.app, "minorVersion", 10, raising=False)
    panel.update()
    sentence = "DualTrack needs Slicer 5.12 or later; this is Slicer 5.10."
    assert panel.ui.preflightLabel.text == sentence
    with pytest.raises(MissingDependencyError, match=sentence):
        panel.logic.dependencies.ensure()
    assert host.dialogs.asked == []


def test_packages_are_never_installed_from_another_thread(host):
    from DualTrackSlicerLib.dependencies import Dependencies

    calls = []
    dependencies = Dependencies(lambda wanted: "timm" not in wanted, ask=calls.append, install_packages=calls.append)
    with ThreadPoolExecutor(1) as thread, pytest.raises(MissingDependencyError, match="by the panel alone"):
        thread.submit(dependencies.ensure).result()
    assert calls == []


def test_slicers_own_installer_is_the_only_one(host, monkeypatch, tmp_path):
    from DualTrackSlicerLib.dependencies import installPackages

    calls = []
    ensure = lambda wanted, **options: calls.append((wanted, options))  # noqa: E731
    monkeypatch.setattr(sys.modules["slicer.packaging"], "pip_ensure", ensure, raising=False)
    installPackages(["timm>=1.0"], tmp_path)
    options = {"constraints": tmp_path, "prompt_install": False, "requester": "DualTrack"}
    assert calls == [(["timm>=1.0"], options)]
    for path in MODULE_FOLDER.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for words in ("pip_install", "executePythonModule", '"pip"', "-m pip"):
            assert words not in text, path


def test_too_little_memory_offers_a_run_that_needs_less(host, panel, tiny_model_file, monkeypatch, tmp_path):
    from DualTrackSlicerLib.events import soon
    from DualTrackSlicerLib.worker import Job

    add_clip(host)
    choose_file(panel, tiny_model_file)
    asked = []

    class Failing:
        """A worker whose memory never suffices."""

        def submit(self, sweep, settings):
            asked.append(settings)
            job = Job(None, None)
            soon(lambda: job.finish(JobFailed("The memory did not suffice.", tmp_path / "log", "the log", "memory")))
            return job

    monkeypatch.setattr(panel.logic, "worker", Failing)
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert panel.ui.retryButton.isVisible()
    host.click(panel.ui.retryButton)
    finish(host, panel)
    assert [(s.chunk_frames, s.device) for s in asked] == [("auto", "auto"), (4, "cpu")]
    assert isinstance(asked[1], RunSettings)


def test_an_area_is_drawn_on_the_picture_and_kept_in_pixels(host, panel):
    add_clip(host)
    panel.ui.partSection.collapsed = False
    host.click(panel.ui.drawAreaButton)
    region = panel.parameters.region
    assert (panel.ui.areaXSpinBox.value, panel.ui.areaWidthSpinBox.value) == (0, 63)
    size = list(region.GetSize())
    np.testing.assert_allclose(size[:2], (63 * 0.4, 47 * 0.3))
    region.SetSize(size[0] / 2, size[1], size[2])
    host.process()
    assert panel.ui.areaComboBox.currentText == "as given below"
    assert panel.ui.areaWidthSpinBox.value in (31, 32)
    assert panel.view().settings().clip[2] == panel.ui.areaWidthSpinBox.value
    region.SetCenter(500, 0, 0)
    host.process()
    assert "beside the picture" in panel.ui.clipInfoLabel.text


def test_the_area_is_found_without_the_scanners_frame(host, panel):
    from DualTrackCore import Sweep

    frames = np.zeros((12, 60, 80), np.uint8)
    frames[:, 10:50, 20:70] = np.random.default_rng(0).integers(20, 255, (12, 40, 50))
    frames[:, 2:5, 2:40] = 200
    add_clip(host, Sweep(frames, 0.3))
    panel.ui.partSection.collapsed = False
    host.click(panel.ui.findAreaButton)
    host.wait_until(lambda: panel.view().settings().clip, 60)
    x, y, width, height = panel.view().settings().clip
    assert abs(x - 20) <= 2
    assert abs(y - 10) <= 2
    assert abs(width - 49) <= 4
    assert abs(height - 39) <= 4


def test_a_published_model_is_not_downloaded_before_size_and_licence_are_accepted(host, panel, monkeypatch):
    index = [choice.name for choice in panel.view().models].index("dualtrack-tusrec2024")
    panel.ui.modelComboBox.currentIndex = index
    assert "healthy forearms" in panel.ui.modelInfoLabel.text
    assert "CC BY-NC-SA 4.0" in panel.ui.modelInfoLabel.text
    assert "about 408 MB" in panel.ui.modelInfoLabel.text
    started = []
    monkeypatch.setattr(panel.logic, "downloadModel", started.append)
    host.dialogs.answer = False
    host.click(panel.ui.downloadButton)
    assert "about 408 MB" in host.dialogs.asked[-1]
    assert "CC BY-NC-SA 4.0" in host.dialogs.asked[-1]
    assert started == []
    add_clip(host)
    assert panel.ui.applyButton.toolTip.startswith("Download the model")


def test_a_model_is_installed_from_a_file_and_deleted_by_name_after_asking(host, panel, tiny_model_file, tmp_path):
    task, folder = panel.logic.importModel("mine", tiny_model_file), tmp_path / "models"
    host.wait_until(lambda: task.state != "running", 120)
    assert task.state == "done", task.message
    for path in list(folder.glob("mine*")):
        path.with_name(path.name.replace("mine", "other")).write_bytes(path.read_bytes())
    show_model(panel, "mine")
    assert panel.view().modelProblem() == ""
    size = sum(path.stat().st_size for path in folder.glob("mine*"))
    info = panel.ui.modelInfoLabel.text.replace("&#8203;", "")
    assert f"On the disk: {size / 1e3:.3g} kB, {folder / 'mine.safetensors'}." in info
    assert f"All models in {folder}: {2 * size / 1e3:.3g} kB." in info
    host.dialogs.answer = False
    host.click(panel.ui.deleteModelButton)
    for part in ("mine.safetensors", f"{size / 1e3:.3g} kB", str(folder), "Keep its file elsewhere"):
        assert part in host.dialogs.asked[-1]
    assert (folder / "mine.safetensors").is_file()
    host.dialogs.answer = True
    host.click(panel.ui.deleteModelButton)
    assert sorted({path.name.split(".")[0] for path in folder.iterdir()}) == ["other"]
    assert f"{size / 1e3:.3g} kB of disk are free again." in panel.ui.modelMessageLabel.text
    assert "is not on this computer" in panel.view().modelProblem()
    assert "All models" in panel.ui.modelInfoLabel.text
    show_model(panel, "mini")
    assert panel.ui.deleteModelButton.toolTip == "This model ships with DualTrack and stays."
    assert not panel.ui.deleteModelButton.enabled


def test_what_has_arrived_of_a_model_can_be_deleted_and_a_file_in_use_is_told(host, panel, tmp_path, monkeypatch):
    name, folder = "dualtrack-tusrec2024", tmp_path / "models"
    folder.mkdir()
    part = folder / f"{name}.part"
    part.write_bytes(bytes(4321))
    show_model(panel, name)
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **options: (_ for _ in ()).throw(PermissionError(13, "in use")))
    host.click(panel.ui.deleteModelButton)
    assert f"Cannot delete {part}: in use" in panel.ui.modelMessageLabel.text
    monkeypatch.setattr(Path, "unlink", unlink)
    host.click(panel.ui.deleteModelButton)
    assert f"{part.name}, 4.32 kB" in host.dialogs.asked[-1]
    assert "can be downloaded again" in host.dialogs.asked[-1]
    assert list(folder.iterdir()) == []
    assert panel.ui.deleteModelButton.toolTip == "Nothing of this model is on this computer."
    assert panel.ui.downloadButton.enabled


def show_model(panel, name):
    """Look anew which models there are, and choose one."""
    panel.enter()
    panel.ui.modelComboBox.currentIndex = [choice.name for choice in panel.view().models].index(name)


def test_a_file_that_is_no_model_is_not_installed(host, panel, tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"nothing")
    task = panel.logic.importModel("mine", broken)
    host.wait_until(lambda: task.state != "running", 120)
    assert task.state == "failed"
    assert "broken.pt" in task.message
    assert not list((tmp_path / "models").glob("mine*"))


def _is_disabled_itself(widget):
    return not widget.isEnabledTo(widget.parentWidget())


def _saved(scene):
    scene.SetSaveToXMLString(1)
    scene.Commit()
    return scene.GetSceneXMLString()


def _pretend_missing(panel, names):
    """Make the panel's dependencies lack packages until they are installed; the calls of the installers."""
    from DualTrackSlicerLib.dependencies import packageOf

    calls, missing = [], set(names)
    dependencies = panel.logic.dependencies

    def packages(requirements, constraints):
        calls.append(("packages", requirements, Path(constraints).read_text()))
        missing.discard("timm")

    def torch():
        calls.append(("torch",))
        missing.discard("torch")

    dependencies.is_satisfied = lambda wanted: packageOf(wanted) not in missing
    dependencies.install_torch, dependencies.install_packages = torch, packages
    panel.update()
    return calls


def test_every_setting_of_a_run_that_is_a_plain_choice_has_a_widget_and_reaches_the_run(host, panel):
    from DualTrackSlicerLib.parameters import SETTING_OF

    add_clip(host)
    widgets = {widget.property("SlicerParameterName"): widget for widget in vars(panel.ui).values()}
    for parameter, name in SETTING_OF.items():
        before, widget = getattr(panel.view().settings(), name), widgets[parameter]
        if hasattr(widget, "currentIndex"):
            widget.currentIndex = 1 - (widget.currentIndex == 1)
        elif hasattr(widget, "checked"):
            widget.checked = not widget.checked
        else:
            widget.value = 7
        assert getattr(panel.view().settings(), name) != before, name


def test_the_limits_of_numbers_in_the_panel_are_those_of_the_settings(panel):
    assert (panel.ui.rejectSpinBox.minimum, panel.ui.rejectSpinBox.maximum) == (0, 255)
    assert (panel.ui.voxelSpinBox.minimum, panel.ui.voxelSpinBox.maximum) == (0, 100)
    assert panel.ui.spacingXSpinBox.maximum == 10
