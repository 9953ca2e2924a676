"""Compounding frames of 480 x 640 pixels.

Against copying and numpy; how it grows; frames that come one by one; holes; the first volume of a machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import cache

import numpy as np
import pytest
from sweeps import curved_sweep, numpy_mean

from DualTrackCore.reconstruction import (
    HoleFilling,
    PlacedFrames,
    VolumeBuilder,
    VoxelGrid,
    plan_grid,
    reconstruct_volume,
    select_pixels,
)
from DualTrackCore.reconstruction.holes import fill_holes
from DualTrackCore.reconstruction.sources import find_sources
from DualTrackCore.sweep import Sweep, image_from_pixel
from DualTrackCore.trajectory import Trajectory, matrices_from_parameters

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


@pytest.mark.parametrize("method", ["nearest", "gaussian", "distance", "stick"])
@pytest.mark.parametrize("every", [1, 4])
def test_filling_holes(ratio, method, every):
    sweep, trajectory, grid = short()
    sweep, trajectory = Sweep(sweep.frames[::every], sweep.spacing_mm), Trajectory(trajectory.poses[::every])
    made = reconstruct_volume(sweep, trajectory, grid)
    timing = ratio(
        lambda: fill_holes(made.volume, made.coverage > 0, [HoleFilling(method)]),
        {"compounding": lambda: reconstruct_volume(sweep, trajectory, grid) and None},
        what=f"filling holes, {method}, {len(sweep)} frames {0.2 * every:.1f} mm apart",
        note=f"{grid.voxels / 1e6:.1f} million voxels; 1 and more says that filling takes no longer than compounding",
    )
    timing.figures["holes that were filled, %"] = 100 * float(timing.result[1].mean())
    assert timing.ratio() > 1


def frame_by_frame(grid: VoxelGrid, placed: PlacedFrames, point: np.ndarray) -> dict[int, float]:
    """{frame: weight} of linear interpolation, in plain numpy: the pixels of each frame around the point's foot."""
    voxel, found = np.rint((grid.voxel_from_frame0 @ [*point, 1])[:3]), {}
    for number, matrix in enumerate(grid.voxel_from_frame0 @ placed.frame0_from_pixel):
        foot = np.linalg.lstsq(matrix[:3, :2], voxel - matrix[:3, 3], rcond=None)[0].round()
        half = np.ceil(2 / np.linalg.norm(matrix[:3, :2], axis=0).min())
        columns, rows = np.meshgrid(*(foot[axis] + np.arange(-half, half + 1) for axis in (0, 1)))
        at = columns[..., None] * matrix[:3, 0] + rows[..., None] * matrix[:3, 1] + matrix[:3, 3]
        weight = np.maximum(1 - np.abs(at - voxel), 0).prod(axis=-1).sum()
        if weight > 0:
            found[number] = float(weight)
    return found


@pytest.mark.parametrize(("pixel_mm", "voxel_mm"), [(0.1, 0.1), (0.1, 0.3), (0.05, 1.0)])
@pytest.mark.parametrize("probe", ["moving", "standing"])
def test_the_frames_behind_a_voxel(ratio, probe, pixel_mm, voxel_mm):
    random, size = np.random.default_rng(0), (480, 640)
    if probe == "moving":
        poses = Trajectory.from_parameters(random.normal([0.01, 0, 0.05, 0.01, 0.02, 0.01], 0.01, (4095, 6))).poses
    else:
        poses = matrices_from_parameters(random.normal(0, 0.02, (4096, 6)))
    placed = PlacedFrames(
        np.arange(4096), poses @ image_from_pixel((pixel_mm, pixel_mm), 0.0, size), select_pixels(size).runs
    )
    point = (placed.frame0_from_pixel[2000] @ [200, 300, 0, 1])[:3]
    grid = VoxelGrid(point - 100 * voxel_mm, voxel_mm, (201, 201, 201))
    how = {"interpolation": "linear", "compounding": "mean", "reject_below": 0}
    timing = ratio(
        lambda: find_sources(grid, placed, how, point, None),
        {"frame by frame in numpy": lambda: frame_by_frame(grid, placed, point)},
        what=f"frames behind a voxel of {voxel_mm} mm, pixels of {pixel_mm} mm, 4096 frames, {probe}",
        once=("frame by frame in numpy",),
        rounds=5,
    )
    wanted, found = timing.reference_results["frame by frame in numpy"], timing.result
    assert found.left_out or set(found.frames.tolist()) == set(wanted)
    np.testing.assert_allclose(found.weights, [wanted[int(frame)] for frame in found.frames], rtol=1e-9)
    start = time.process_time()
    for _ in range(10):
        find_sources(grid, placed, how, point, None)
    spent = 100 * (time.process_time() - start)
    timing.figures.update({"frames found": len(found.frames), "left out": found.left_out, "ms of processor": spent})


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
