"""A scene with the logics that Slicer attaches to its own, and clips to put into it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest

pytest.importorskip("slicer", reason="The scene tests need Slicer's MRML libraries: pip install slicer-core.")

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "DualTrackSlicer"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Core"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from mrml import Application


@pytest.fixture
def application():
    """A scene with its logics; both end with the test."""
    running = Application()
    yield running
    running.close()


@pytest.fixture
def scene(application):
    return application.scene
