"""A user's way through the panel, in a strict stand-in for the application, with the real worker process."""

import os
from pathlib import Path

import pytest
import slicer

PICTURES = Path(os.environ.get("DUALTRACK_PANEL_PICTURES", "")) if os.environ.get("DUALTRACK_PANEL_PICTURES") else None


@pytest.fixture
def pictures(tmp_path):
    """Where screenshots are written: DUALTRACK_PANEL_PICTURES, or a folder of this test."""
    folder = PICTURES or tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def panel(host):
    """The open panel."""
    return host.open_panel()


def add_clip(name="clip", sweep=None):
    """A synthetic tracked clip in the scene."""
    from DualTrackSlicerLib.self_test import syntheticSweep
    from DualTrackSlicerLib.sweep_nodes import addSweep

    return addSweep(slicer.mrmlScene, sweep or syntheticSweep(), name)


def choose_file(panel, path):
    """Take a weights file as the model."""
    panel.ui.modelComboBox.currentIndex = panel.ui.modelComboBox.count - 1
    panel.ui.modelFileEdit.currentPath = str(path)


def finish(host, panel, seconds=120):
    """Wait until the run has ended."""
    host.wait_until(lambda: not panel.isRunning(), seconds)


def test_an_empty_scene_says_what_to_do(host, panel, pictures):
    assert not panel.ui.applyButton.enabled
    assert "Load an ultrasound clip" in panel.ui.applyButton.toolTip
    assert panel.ui.applyButton.toolTip == panel.ui.progressLabel.text
    assert "not for diagnosis" in panel.ui.noticeLabel.text
    host.picture(panel, pictures / "panel-empty.png")


def test_from_clip_to_result(host, panel, pictures, tiny_model_file):
    add_clip()
    host.process()
    assert "24 frames, 64 x 48 pixels, 0.4 x 0.3 mm a pixel, 20 frames/s" in panel.ui.clipInfoLabel.text
    choose_file(panel, tiny_model_file)
    assert "not trained" in panel.ui.modelInfoLabel.text
    host.picture(panel, pictures / "panel-before.png")
    host.click(panel.ui.applyButton)
    assert panel.ui.applyButton.text == "Cancel"
    seen = set()
    host.wait_until(lambda: seen.add(panel.ui.progressLabel.text) or len(seen) > 2 or not panel.isRunning(), 120)
    host.picture(panel, pictures / "panel-during.png")
    finish(host, panel)
    assert panel.run.error == ""
    assert len(seen) > 2
    assert panel.ui.applyButton.text == "Apply"
    for part in ("Length of the sweep", "Coverage", "Error against the tracker", "tiny"):
        assert part in panel.ui.resultLabel.text
    assert "untrained" in panel.ui.warningsLabel.text
    host.picture(panel, pictures / "panel-after.png")
    for index, name in ((1, "evaluation"), (2, "script")):
        panel.ui.tabs.currentIndex = index
        host.picture(panel, pictures / f"panel-{name}.png")
