"""The names that Slicer looks for: module, reader, sample, self-test, console."""

import importlib
import sys
import types
import unittest

import numpy as np
import pytest
import slicer
from journey import add_clip
from oracle import noise_sweep

from DualTrackCore import save_sweep
from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.trajectory import Trajectory


def test_the_module_describes_itself(host):
    parent = host.module_parent
    assert parent.title == "DualTrack"
    assert parent.categories == ["Ultrasound"]
    assert "research use only" in parent.helpText
    assert "2509.09530" in parent.acknowledgementText


def test_slicer_starts_without_the_panel_and_what_it_is_made_of(host):
    """They are imported when the module is first opened, so that Slicer starts fast."""
    names = {name for name in sys.modules if name.startswith("DualTrackSlicerLib.")}
    assert "DualTrackSlicerLib.sweep_nodes" in names
    assert not [name for name in names if name.split(".")[1] in ("widget", "logic", "run", "parameters")]
    assert not names & {"DualTrackSlicerLib.scene.input", "DualTrackSlicerLib.scene.results"}


def test_the_sample_is_listed_with_its_checksum_and_loads(host):
    slicer.app.complete_startup()
    (sample,) = host.samples
    assert sample.category == "Ultrasound"
    assert sample.checksums.startswith("SHA256:")
    (browser,) = sample.customDownloader(None)
    assert browser.GetNumberOfItems() == 168
    assert sample.customDownloader(None) == [browser]


@pytest.mark.parametrize("simulated", [True, False])
def test_a_clip_in_the_scene_stays_known_as_simulated_and_no_other_becomes_it(host, simulated):
    from DualTrackSlicerLib.scene import sweepFromBrowser

    sweep = noise_sweep(4, provenance={"simulated": simulated})
    assert sweepFromBrowser(add_clip(host, sweep)).sweep.is_simulated is simulated


def test_a_clip_that_names_its_scanner_keeps_its_own_name(host):
    browser = add_clip(host, noise_sweep(4, provenance={"scanner": {"device": "Maker One"}}), "mine")
    images = browser.GetMasterSequenceNode()
    assert [node.GetName() for node in (browser, images, images.GetNthDataNode(0))] == ["mine"] * 3


@pytest.mark.parametrize("origin", ["measured", "simulated", "unknown", "estimated"])
def test_a_clip_in_the_scene_keeps_where_its_poses_are_from(host, origin):
    from DualTrackSlicerLib.scene import sweepFromBrowser

    tracked = Trajectory.from_parameters(np.tile([0, 0, 0.5, 0, 0, 0], (3, 1)), origin=origin)
    assert sweepFromBrowser(add_clip(host, noise_sweep(4, tracked=tracked))).sweep.tracked.origin == origin


def test_the_panel_compares_nothing_with_an_estimate_and_says_why(host, panel):
    from DualTrackSlicerLib.widget.tabs import EvaluationTab

    report = types.SimpleNamespace(evaluation=None, sweep={"poses_origin": "estimated"})
    EvaluationTab(panel.ui).update(types.SimpleNamespace(report=report, result=None))
    assert panel.ui.evaluationLabel.text.startswith("The poses of this clip are estimated")


def test_a_simulated_sweep_that_slicer_opens_itself_stays_known_as_simulated(host, tmp_path):
    from DualTrackSlicerLib.scene import sweepFromBrowser

    path = tmp_path / "clip.seq.nrrd"
    save_sweep(noise_sweep(4, provenance={"simulated": True}), path)
    images = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode")
    storage = slicer.vtkMRMLVolumeSequenceStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(images)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(images.GetID())
    assert sweepFromBrowser(browser).sweep.is_simulated


def self_tests(host):
    """The self-tests as Slicer finds them: those of every class that the module names."""
    return unittest.defaultTestLoader.loadTestsFromModule(host.module)


def test_the_self_tests_of_the_module_are_found_once_and_pass(host):
    names = {name for name in dir(host.module.DualTrackSlicerTest) if name.startswith("test_")}
    assert len(names) >= 6
    result = unittest.TestResult()
    self_tests(host).run(result)
    assert result.testsRun == len(names)
    assert not [text for _, text in result.failures + result.errors]


def test_the_self_tests_fail_where_packages_are_missing(host, monkeypatch):
    from DualTrackSlicerLib.dependencies import Dependencies

    monkeypatch.setattr(Dependencies, "missing", lambda self: ["timm"])
    result = unittest.TestResult()
    self_tests(host).run(result)
    failed = {case.id().rpartition(".")[2]: text for case, text in result.failures}
    assert set(failed) == {
        "test_a_tracked_clip_becomes_a_volume",
        "test_an_estimated_path_comes_with_its_error",
    }
    assert all("Not installed: timm" in text for text in failed.values())


def test_reload_reads_the_library_and_the_core_anew(host, panel, monkeypatch):
    ours = ("DualTrackSlicer", "DualTrackSlicerLib", "DualTrackCore")
    for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
        monkeypatch.setitem(sys.modules, name, sys.modules[name])  # put back after the test
    kept = [sys.modules[name] for name in ("DualTrackSlicerLib.widget.texts", "DualTrackCore.progress")]
    reloaded = []
    reload = lambda name: reloaded.append(importlib.reload(sys.modules[name]))  # noqa: E731
    monkeypatch.setattr(slicer.util, "reloadScriptedModule", reload, raising=False)
    panel.onReload()
    (module,) = reloaded
    for old in kept:
        assert sys.modules.get(old.__name__) is not old
    again = module.DualTrackSlicerWidget(panel.parent)
    assert type(again).__mro__[1] is sys.modules["DualTrackSlicerLib.widget.panel"].Panel
    assert not isinstance(panel, sys.modules["DualTrackSlicerLib.widget.panel"].Panel)
    assert sys.modules["DualTrackSlicerLib.widget.texts"] is not kept[0]


def test_the_logic_runs_from_the_console_without_the_panel(host, tiny_model_file):
    browser, reports = add_clip(host), []
    logic = host.module.DualTrackSlicerLogic()
    try:
        nodes = logic.run(browser, model=str(tiny_model_file), onProgress=reports.append)
    finally:
        logic.close()
    assert nodes.transform_sequence.GetNumberOfDataNodes() == 24
    assert {"network", "reconstructing"} <= {report.stage for report in reports}


def test_a_callback_gets_the_run_and_the_console_is_free_meanwhile(host, tiny_model_file):
    browser, ended = add_clip(host), []
    logic = host.module.DualTrackSlicerLogic()
    run = logic.run(browser, model=str(tiny_model_file), onDone=ended.append)
    assert run.state == "running"
    host.wait_until(lambda: ended, 120)
    assert ended == [run]
    assert run.nodes.volume is not None
    logic.close()


def test_a_blocking_run_raises_what_went_wrong(host, tmp_path):
    browser = add_clip(host)
    logic = host.module.DualTrackSlicerLogic()
    with pytest.raises(InputError, match="frames 0 to 99"):
        logic.run(browser, settings=RunSettings(last_frame=99))
    logic.dependencies.is_satisfied = lambda wanted: "torch" not in wanted
    host.dialogs.answer = False
    with pytest.raises(Cancelled, match="cannot run without torch"):
        logic.run(browser)
    logic.close()


def test_a_script_says_only_what_differs_from_the_defaults(host):
    from DualTrackSlicerLib.parameters import consoleScript

    plain = consoleScript("clip", RunSettings())
    assert "RunSettings" not in plain
    assert plain.endswith("nodes = logic.run(clip, model='mini')\n")
    several = consoleScript("it's", RunSettings(fan="auto"), (0.2, 0.3), is_volume=True, sequence_name="b")
    compile(several, "script", "exec")
    assert "fan='auto'" in several
    assert "logic.sequenceFromVolume(clip)" in several
    assert "sequenceNode=images" in several
