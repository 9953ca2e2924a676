"""Seconds of compounding 600 frames of 480 x 640 pixels at 0.3 mm, against plain numpy in the same run.

Run: python Testing/Benchmarks/bench_reconstruction.py [--frames 600] [--spacing 0.3] [--threads N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from DualTrackCore.reconstruction import VoxelGrid, plan_grid, reconstruct_volume
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory


def curved_sweep(frames: int) -> tuple[Sweep, Trajectory]:
    """Speckle on a path that bends and tilts: about 0.2 mm and 0.05 degrees a frame."""
    random = np.random.default_rng(0)
    images = random.rayleigh(40, (frames, 480, 640)).clip(0, 255).astype(np.uint8)
    steps = np.zeros((frames - 1, 6))
    phase = np.linspace(0, 2 * np.pi, frames - 1)
    steps[:, 0], steps[:, 1], steps[:, 2] = 0.04 * np.sin(phase), 0.02 * np.cos(2 * phase), 0.2
    steps[:, 3], steps[:, 4], steps[:, 5] = 0.02, 0.05 * np.cos(phase), 0.01
    return Sweep(images, (0.229, 0.221)), Trajectory.from_parameters(steps)


def numpy_mean(sweep: Sweep, trajectory: Trajectory, grid: VoxelGrid, linear: bool) -> np.ndarray:
    """Mean compounding as one would first write it: float64, np.add.at, one frame after the other."""
    height, width = sweep.frame_size
    v, u = np.divmod(np.arange(height * width), width)
    pixels = np.stack([u, v, np.zeros_like(u), np.ones_like(u)]).astype(np.float64)
    total, weight = np.zeros(grid.voxels), np.zeros(grid.voxels)
    size = np.array(grid.size)[:, None]
    for pose, frame in zip(trajectory.poses, sweep.frames, strict=True):
        positions = (grid.voxel_from_frame0 @ pose @ sweep.image_from_pixel @ pixels)[:3]
        values = frame.ravel().astype(np.float64)
        if not linear:
            cell = np.floor(positions + 0.5).astype(np.int64)
            inside = ((cell >= 0) & (cell < size)).all(axis=0)
            index = np.ravel_multi_index(tuple(cell[::-1, inside]), grid.shape)
            np.add.at(total, index, values[inside])
            np.add.at(weight, index, 1.0)
            continue
        # The grid begins and ends at the outermost pixels, which rounding may put just outside.
        inside = ((positions >= -1e-6) & (positions <= size - 1 + 1e-6)).all(axis=0)
        positions, values = np.clip(positions[:, inside], 0, size - 1), values[inside]
        cell = np.minimum(np.floor(positions).astype(np.int64), size - 2)
        part = positions - cell
        for corner in np.ndindex(2, 2, 2):
            shift = np.array(corner)[:, None]
            share = np.where(shift == 1, part, 1 - part).prod(axis=0)
            index = np.ravel_multi_index(tuple((cell + shift)[::-1]), grid.shape)
            np.add.at(total, index, share * values)
            np.add.at(weight, index, share)
    seen = weight >= (1 / 512 if linear else 1)
    mean = np.divide(total, weight, out=np.zeros_like(total), where=seen)
    return np.floor(mean + 0.5).astype(np.uint8).reshape(grid.shape)


def _timed(work: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main() -> None:
    """Print seconds, the ratio to numpy, and how far the results differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--spacing", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--without-numpy", action="store_true", help="leave out the slow comparison")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sweep, trajectory = curved_sweep(arguments.frames)
    grid = plan_grid(sweep, trajectory, spacing_mm=arguments.spacing)
    print(f"{arguments.frames} frames, {arguments.threads} threads: {grid.describe()}")
    for interpolation in ("nearest", "linear"):
        for compounding in ("mean", "latest", "maximum"):
            seconds, result = _timed(
                lambda i=interpolation, c=compounding: reconstruct_volume(
                    sweep, trajectory, grid, interpolation=i, compounding=c
                )
            )
            line = f"{interpolation:8s} {compounding:8s} {seconds:6.2f} s, {result.covered_fraction:.1%} seen"
            if compounding == "mean" and not arguments.without_numpy:
                plain, expected = _timed(lambda i=interpolation: numpy_mean(sweep, trajectory, grid, i == "linear"))
                difference = np.abs(result.volume.astype(np.int16) - expected)
                line += (
                    f"; plain numpy {plain:.2f} s, {plain / seconds:.1f} times as long; "
                    f"{np.count_nonzero(difference)} voxels differ, by at most {difference.max()}"
                )
            print(line, flush=True)


if __name__ == "__main__":
    main()
