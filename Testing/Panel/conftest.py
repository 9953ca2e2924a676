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


#: How the processes of a panel compute.
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory):
    """Stands for Slicer's Python and starts worker processes in moments; None where that is not possible."""
    from warm_python import IS_POSSIBLE, WarmPython

    from DualTrackCore.worker.process import core_environment

    if not IS_POSSIBLE:
        yield None
        return
    warm = WarmPython(tmp_path_factory.mktemp("warm"), core_environment({**os.environ, **THREADS}))
    yield warm.program if warm.is_warm else None
    warm.close()


@pytest.fixture
def host(tmp_path, monkeypatch, warm_python):
    """An application with an empty scene and settings of its own; what slots raise fails the test."""
    from slicer_host import SlicerHost

    monkeypatch.setenv("DUALTRACK_MODELS", str(tmp_path / "models"))
    for name, value in THREADS.items():
        monkeypatch.setenv(name, value)
    if warm_python is not None:
        monkeypatch.setenv("PATH", str(warm_python.parent), prepend=os.pathsep)
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
def python_of_its_own(host, monkeypatch, warm_python):
    """Processes start anew in this test, and load only what they need."""
    if warm_python is not None:
        monkeypatch.setenv("PATH", os.environ["PATH"].partition(os.pathsep)[2])


@pytest.fixture
def views(host):
    """The slice views of the application, and its colours."""
    import slicer
    from view import SliceViews

    colours = slicer.vtkSlicerColorLogic()
    colours.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    colours.SetMRMLScene(slicer.mrmlScene)
    shown = SliceViews(slicer.app.applicationLogic(), slicer.mrmlScene)
    yield shown
    shown.close()
    colours.SetMRMLScene(None)


@pytest.fixture
def pictures(tmp_path):
    """Where screenshots are written: the folder that DUALTRACK_PANEL_PICTURES names, or one of this test."""
    folder = Path(os.environ.get("DUALTRACK_PANEL_PICTURES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
