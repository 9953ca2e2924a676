"""Seconds and memory of putting the result of 600 frames of 480 x 640 pixels into a scene.

The frames are in the scene before the clock starts, as a user would have loaded them. What is measured is reading the
clip and then the transform sequence, its wiring, models and tables; the reconstructed volume, whose size is the user's
choice, is reported on its own.

Run: python Testing/Benchmarks/bench_scene.py [--frames 600]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "DualTrackSlicer"), str(ROOT / "Testing" / "Scene")]

import numpy as np  # noqa: E402
from clip_nodes import add_clip, ijk_to_ras  # noqa: E402
from DualTrackSlicerLib.scene import showResults, sweepFromBrowser  # noqa: E402
from mrml import Application  # noqa: E402

from DualTrackCore.jobs import JobResult, RunSettings  # noqa: E402
from DualTrackCore.reconstruction.grid import VoxelGrid  # noqa: E402
from DualTrackCore.trajectory import Trajectory  # noqa: E402


def resident_mb() -> float:
    """Memory of this process, MB."""
    with open("/proc/self/statm", encoding="ascii") as status:
        return int(status.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def result_of(frames: int, volume: np.ndarray | None) -> JobResult:
    """A result of a gently curved sweep, with a volume or without."""
    motions = np.tile([0.02, 0.0, 0.2, 0.02, 0.05, 0.0], (frames - 1, 1))
    grid = None if volume is None else VoxelGrid(np.zeros(3), 0.4, volume.shape[::-1])
    coverage = None if volume is None else np.ones(volume.shape, np.float32)
    provenance = {"settings": RunSettings().as_dict(), "dualtrack_version": "0", "created": "now", "trajectory": {}}
    return JobResult(Trajectory.from_parameters(motions), 0, volume, coverage, grid, None, [], provenance, {})


def main() -> None:
    """Print seconds and megabytes of each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=600)
    count = parser.parse_args().frames
    application = Application()
    frames = np.random.default_rng(0).integers(0, 256, (count, 480, 640), dtype=np.uint8)
    browser, _ = add_clip(application.scene, frames, ijk_to_ras((0.229, 0.221)), rate_hz=20)
    del frames
    small = result_of(count, None)
    large = result_of(count, np.zeros((320, 280, 360), np.uint8))
    print(f"{count} frames of 480 x 640 in the scene: {resident_mb():.0f} MB resident")
    for what, result in (
        ("the result without a volume", small),
        ("the same again", small),
        ("with 32 M voxels", large),
    ):
        memory, cpu, wall = resident_mb(), time.process_time(), time.perf_counter()
        clip = sweepFromBrowser(browser)
        read = time.perf_counter() - wall
        showResults(application.scene, clip, result)
        print(
            f"{what}: {time.perf_counter() - wall:.3f} s ({read:.3f} s of it reading the clip; "
            f"{time.process_time() - cpu:.3f} s of processor), {resident_mb() - memory:+.1f} MB"
        )
    application.close()


if __name__ == "__main__":
    main()
