"""The panel host, and models and clips for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Testing" / "Core"))
sys.path.insert(0, str(ROOT / "Testing" / "Scene"))
sys.path.insert(0, str(ROOT / "DualTrackSlicer"))

pytest.importorskip("PySide6", reason="The panel host needs PySide6-Essentials.")
pytest.importorskip("vtk", reason="The panel host needs slicer-core.")


@pytest.fixture
def host(tmp_path, monkeypatch):
    """An application with an empty scene and settings of its own; what slots raise fails the test."""
    from slicer_host import SlicerHost

    monkeypatch.setenv("DUALTRACK_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    for name in [name for name in sys.modules if name.split(".")[0] in ("DualTrackSlicer", "DualTrackSlicerLib")]:
        monkeypatch.delitem(sys.modules, name)
    opened = SlicerHost(tmp_path / "settings", monkeypatch)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def tiny_model_file(tmp_path_factory):
    """A model of milliseconds, untrained, as a file."""
    from oracle import tiny_model

    from DualTrackCore.network import save_model

    model = tiny_model()
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(model.network, model.card, path)
    return path


@pytest.fixture
def panel(host):
    """The open panel."""
    return host.open_panel()


@pytest.fixture
def pictures(tmp_path):
    """Where screenshots are written: the folder that DUALTRACK_PANEL_PICTURES names, or one of this test."""
    folder = Path(os.environ.get("DUALTRACK_PANEL_PICTURES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
