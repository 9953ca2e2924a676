"""Putting the result of 600 frames of 480 x 640 pixels into a scene, in seconds and megabytes.

The frames are in the scene before the clock starts, as a user would have loaded them. What is measured is reading the
clip and then the transform sequence, its wiring, models and tables.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "DualTrackSlicer"), str(ROOT / "Testing" / "Scene")]

import numpy as np  # noqa: E402
import pytest  # noqa: E402

pytest.importorskip("mrml", reason="the MRML libraries are not installed")

from clip_nodes import add_clip, ijk_to_ras  # noqa: E402
from DualTrackSlicerLib.scene import showResults, sweepFromBrowser  # noqa: E402
from mrml import Application  # noqa: E402

from DualTrackCore.reconstruction import Reconstruction, VoxelGrid  # noqa: E402
from DualTrackCore.run.results import RunResult, run_report  # noqa: E402
from DualTrackCore.run.settings import RunSettings  # noqa: E402
from DualTrackCore.sweep import Sweep  # noqa: E402
from DualTrackCore.trajectory import Trajectory  # noqa: E402

FRAMES = 600


@pytest.fixture(scope="module")
def browser():
    """The clip in a scene."""
    application = Application()
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, 480, 640), dtype=np.uint8)
    node, _ = add_clip(application.scene, frames, ijk_to_ras((0.229, 0.221)), rate_hz=20)
    yield application.scene, node
    application.close()


def resident_mb() -> float:
    """Memory of this process, MB."""
    with open("/proc/self/statm", encoding="ascii") as status:
        return int(status.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def result_of(volume: np.ndarray | None) -> RunResult:
    """A result of a gently curved sweep, with a volume or without."""
    motions = np.tile([0.02, 0.0, 0.2, 0.02, 0.05, 0.0], (FRAMES - 1, 1))
    trajectory = Trajectory.from_parameters(motions)
    reconstruction = None
    if volume is not None:
        grid = VoxelGrid(np.zeros(3), 0.4, volume.shape[::-1])
        seen = np.ones(volume.shape, np.float32)
        reconstruction = Reconstruction(volume, seen, np.zeros(volume.shape, bool), grid, FRAMES, 0)
    sweep = Sweep(np.zeros((FRAMES, 4, 4), np.uint8), 0.2)
    report = run_report(RunSettings(), sweep, trajectory, reconstruction, None)
    return RunResult(sweep, trajectory, reconstruction, report, {})


@pytest.mark.parametrize("voxels", [None, (320, 280, 360)], ids=["no-volume", "volume"])
def test_showing_a_result(ratio, browser, voxels):
    scene, node = browser
    result = result_of(None if voxels is None else np.zeros(voxels, np.uint8))
    reading = []

    def show():
        start = time.perf_counter()
        clip = sweepFromBrowser(node)
        reading.append(time.perf_counter() - start)
        showResults(scene, clip, result)

    before = resident_mb()
    show()
    grown = resident_mb() - before
    volume = "without a volume" if voxels is None else f"with {np.prod(voxels) / 1e6:.0f} million voxels"
    timing = ratio(show, what=f"the result of {FRAMES} frames into the scene, {volume}", warm_up=0)
    timing.figures["s of it reading the clip"] = min(reading)
    timing.figures["MB the first time"] = grown
