"""Compounding frames of 480 x 640 pixels.

Against copying and numpy; how it grows; frames that come one by one; holes; the first volume of a machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from sweeps import curved_sweep, numpy_mean

from DualTrackCore.reconstruction import VolumeBuilder, VoxelGrid, plan_grid, reconstruct_volume

FRAMES, VOXEL_MM = 600, 0.3
#: Most memory that a volume of the benchmarks may take.
LIMIT = 3 * 1024**3
#: Seconds that IGSIO's own loops take for this work, compiled, one thread, on two-core machines of this kind.
IGSIO = {"nearest latest": (1.2, 1.6), "nearest mean": (1.2, 4.3), "linear mean": (12, 19)}


@cache
def full_size():
    sweep, trajectory = curved_sweep(FRAMES)
    return sweep, trajectory, plan_grid(sweep, trajectory, spacing_mm=VOXEL_MM, max_bytes=LIMIT)


@cache
def short():
    sweep, trajectory = curved_sweep(24)
    return sweep, trajectory, plan_grid(sweep, trajectory, spacing_mm=VOXEL_MM, max_bytes=LIMIT)


def copying(sweep, grid: VoxelGrid):
    """A copy of as many bytes as compounding must at least read and write: frames, and volume with coverage."""
    written = np.ones(grid.voxels * 5, np.uint8)
    target = np.ones_like(written)
    frames = np.ones_like(sweep.frames)

    def copy() -> None:
        np.copyto(frames, sweep.frames)
        np.copyto(target, written)

    return copy


@pytest.mark.parametrize("how", IGSIO)
def test_compounding_600_frames(ratio, how):
    interpolation, compounding = how.split()
    sweep, trajectory, grid = full_size()

    def ours():
        return reconstruct_volume(sweep, trajectory, grid, interpolation=interpolation, compounding=compounding)

    timing = ratio(
        ours,
        {"copying the same bytes": copying(sweep, grid)},
        what=f"{how}, {FRAMES} frames",
        note=f"{grid.size[0]} x {grid.size[1]} x {grid.size[2]} voxels of {VOXEL_MM} mm",
    )
    timing.figures["million pixels a second"] = sweep.frames.size / 1e6 / timing.seconds
    low, high = IGSIO[how]
    timing.notes.append(f"IGSIO's loops were measured at {low:g} to {high:g} s on such a machine, not in this run")


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_plain_numpy(ratio, interpolation):
    sweep, trajectory, grid = short()
    timing = ratio(
        lambda: reconstruct_volume(sweep, trajectory, grid, interpolation=interpolation).volume,
        {"plain numpy": lambda: numpy_mean(sweep, trajectory, grid, interpolation == "linear")},
        what=f"{interpolation} mean, {len(sweep)} frames",
        once=("plain numpy",),
    )
    difference = np.abs(timing.result.astype(np.int16) - timing.reference_results["plain numpy"])
    assert difference.max() <= 1
    timing.figures["voxels that differ, of a million"] = 1e6 * np.count_nonzero(difference) / difference.size


@pytest.mark.parametrize(
    ("varied", "frames", "height", "voxel_mm"),
    [
        *(("frames", frames, 480, 0.6) for frames in (100, 200, 400)),
        *(("pixels", 200, height, 0.6) for height in (240, 360)),
        *(("voxels", 200, 480, voxel_mm) for voxel_mm in (0.8, 0.4)),
    ],
)
def test_cost_grows(ratio, varied, frames, height, voxel_mm):
    sweep, trajectory = curved_sweep(frames, (height, height * 4 // 3))
    grid = plan_grid(sweep, trajectory, spacing_mm=voxel_mm, max_bytes=LIMIT)
    timing = ratio(
        lambda: reconstruct_volume(sweep, trajectory, grid) and None, what=f"linear mean, growth with {varied}"
    )
    timing.figures.update(
        {
            "frames": frames,
            "million pixels": sweep.frames.size / 1e6,
            "million voxels": grid.voxels / 1e6,
            "ns a pixel": 1e9 * timing.seconds / sweep.frames.size,
        }
    )


def test_a_frame_at_a_time(ratio):
    sweep, trajectory, grid = short()

    def one_by_one():
        growing = VolumeBuilder(grid, sweep.frame_size, sweep.image_from_pixel)
        for frame, pose in zip(sweep.frames, trajectory.poses, strict=True):
            growing.add(frame, pose)
        return growing.snapshot()[0]

    timing = ratio(
        one_by_one,
        {"all at once": lambda: reconstruct_volume(sweep, trajectory, grid).volume},
        what=f"linear mean, {len(sweep)} frames that come one by one, with a view of the volume at the end",
    )
    assert np.array_equal(timing.result, timing.reference_results["all at once"])
    timing.figures["ms a frame"] = 1e3 * timing.seconds / len(sweep)


@pytest.mark.parametrize("method", ["nearest", "gaussian", "stick"])
def test_filling_holes(ratio, method):
    sweep, trajectory, grid = short()
    ratio(
        lambda: reconstruct_volume(sweep, trajectory, grid, hole_filling=method) and None,
        {"without": lambda: reconstruct_volume(sweep, trajectory, grid) and None},
        what=f"linear mean with holes filled, {method}",
        rounds=1,
        note=f"{grid.voxels / 1e6:.1f} million voxels; a ratio of 0.5 says that filling takes as long as compounding",
    )


FIRST_VOLUME = """
import numpy as np
from DualTrackCore.reconstruction import reconstruct_volume
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory
reconstruct_volume(Sweep(np.ones((2, 40, 40), np.uint8), 0.3), Trajectory(np.tile(np.eye(4), (2, 1, 1))))
"""


def test_the_first_volume_of_a_machine(ratio, tmp_path):
    def in_a_new_process(cache_folder):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache_folder)}
        subprocess.run([sys.executable, "-c", FIRST_VOLUME], env=environment, check=True)

    ratio(
        lambda: in_a_new_process(tmp_path / "kept"),
        {"nothing compiled yet": lambda: in_a_new_process(tmp_path / "new")},
        what="a new process with a tiny volume, compiled loops kept",
        rounds=1,
        note="imports included; the difference is what compiling takes, once",
    )
