"""A server computes for the panel: it is chosen, tested, asked about once, and no setting of it is in the scene."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
import slicer
from journey import add_clip, finish, titles
from serving import light_server

from DualTrackCore.remote import consent

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Ends servers by signals, which Windows has not.")
KEY = "the-key-of-this-test"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "key").write_text(KEY)
    with light_server(folder, key_file=str(folder / "key"), models=("mini",)) as running:
        yield running


@pytest.fixture
def at_server(panel, server):
    """The panel, with the server chosen and its key given."""
    panel.ui.advancedSection.collapsed = False
    panel.ui.deviceComboBox.currentIndex = titles(panel.ui.deviceComboBox).index("server")
    panel.ui.serverEdit.text, panel.ui.serverKeyEdit.text = server.address, KEY
    return panel


def connection(host, panel):
    """What a test of the connection says."""
    assert panel.ui.preflightButton.text == "Test connection"
    host.click(panel.ui.preflightButton)
    host.wait_until(lambda: panel.ui.preflightButton.enabled, 60)
    return panel.ui.preflightLabel.text


def test_a_run_at_a_server_needs_no_torch_and_leaves_its_key_out_of_the_scene(
    host, at_server, server, python_of_its_own
):
    panel = at_server
    missing = {"torch", "torchvision", "timm", "safetensors"}
    panel.logic.dependencies.is_satisfied = lambda wanted: not any(wanted.startswith(name) for name in missing)
    add_clip(host)
    assert panel.view().problem() == ""
    assert panel.ui.preflightLabel.text.startswith("The software is installed. Test connection")
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert panel.runSection.run.error == ""
    assert panel.view().report.trajectory["source"]["server"] == server.address
    assert panel.view().report.settings["device"] == server.address
    assert panel.view().result.volume is not None
    assert host.dialogs.asked == []  # this address is this computer
    assert server.is_clean()
    maps = Path(f"/proc/{panel.logic.worker().pid}/maps")
    assert not maps.exists() or "libtorch" not in maps.read_text()
    slicer.mrmlScene.SetSaveToXMLString(1)
    slicer.mrmlScene.Commit()
    assert KEY not in slicer.mrmlScene.GetSceneXMLString()
    assert KEY not in panel.logic.diagnostics()
    slicer.mrmlScene.Clear(False)
    host.close_panel(panel)
    again = host.open_panel()
    assert again.ui.deviceComboBox.currentText == "server"
    assert (again.ui.serverEdit.text, again.ui.serverKeyEdit.text) == (server.address, KEY)
    assert again.view().settings().device == server.address


def test_a_test_of_the_connection_is_one_plain_sentence_and_shows_the_models(host, at_server, server):
    panel = at_server
    sentence = connection(host, panel)
    assert sentence.startswith("Reachable: DualTrack ")
    assert sentence.endswith(" models mini; 8 of 8 places are free.")
    assert [choice.name for choice in panel.view().models] == ["mini"]
    panel.parameters.model = "dualtrack-tusrec2024"
    assert (
        panel.view().modelProblem() == "The server does not offer the model dualtrack-tusrec2024; choose another one."
    )
    panel.ui.serverKeyEdit.text = "another key than it has"
    assert "Reachable" not in panel.ui.preflightLabel.text
    assert "The key is missing or wrong" in connection(host, panel)
    panel.ui.serverEdit.text = "http://127.0.0.1:9"
    assert "cannot be reached" in connection(host, panel)
    assert len(panel.view().models) > 1


def test_the_application_stays_alive_while_a_server_does_not_answer(host, at_server):
    from serving import answering

    with answering(None) as silent:
        at_server.ui.serverEdit.text = silent
        host.click(at_server.ui.preflightButton)
        longest, end = 0.0, time.monotonic() + 2
        while time.monotonic() < end:
            start = time.monotonic()
            slicer.app.processEvents()
            longest = max(longest, time.monotonic() - start)
        assert not at_server.ui.preflightButton.enabled
        assert longest < 1.0  # the server would take 30 s


def test_an_address_that_is_none_keeps_apply_from_being_pressed(host, at_server):
    add_clip(host)
    at_server.ui.serverEdit.text = ""
    assert "is not the address of a server" in at_server.view().problem()
    assert not at_server.ui.applyButton.enabled
    at_server.ui.serverEdit.text = "gpu.lab"
    assert at_server.view().settings().server == "https://gpu.lab"
    assert at_server.ui.applyButton.enabled


def test_frames_leave_the_computer_only_after_a_question_that_is_asked_once(host, at_server, server, monkeypatch):
    panel = at_server
    add_clip(host)
    monkeypatch.setattr(consent, "leaves_computer", lambda address: True)
    host.dialogs.answer = False
    host.click(panel.ui.applyButton)
    assert f"they are sent to {server.address}, NOT encrypted" in host.dialogs.asked[-1]
    assert "Nothing was sent" in panel.ui.errorLabel.text
    assert not panel.runSection.isRunning()
    host.dialogs.answer = True
    panel.ui.volumeCheckBox.checked = False
    panel.logic.worker()._command = (sys.executable, "-c", "pass")  # it would not take this address for a far one
    for _ in range(2):
        host.click(panel.ui.applyButton)
        finish(host, panel)
    assert len(host.dialogs.asked) == 2
    file = panel.logic.modelsFolder() / "servers.json"
    assert json.loads(file.read_text())["agreed"] == [server.address]


def test_only_a_server_shows_what_a_server_needs(host, panel):
    panel.ui.advancedSection.collapsed = False
    names = ("serverEdit", "serverKeyEdit", "serverCertificateEdit")
    assert not any(getattr(panel.ui, name).isVisible() for name in names)
    panel.ui.deviceComboBox.currentIndex = titles(panel.ui.deviceComboBox).index("server")
    assert all(getattr(panel.ui, name).isVisible() for name in names)
    panel.ui.deviceComboBox.currentIndex = 0
    assert panel.ui.preflightButton.text == "Check"
    assert panel.view().settings().device == "auto"


def test_less_memory_stays_at_the_server(host):
    from DualTrackSlicerLib.logic import withLessMemory

    from DualTrackCore.run.settings import RunSettings

    assert withLessMemory(RunSettings(device="https://gpu.lab")).device == "https://gpu.lab"
    assert withLessMemory(RunSettings()).device == "cpu"
