"""Sweeps to measure with, and compounding as one would first write it."""

from __future__ import annotations

import numpy as np

from DualTrackCore.reconstruction import VoxelGrid
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

#: Pixel spacing that the published network was trained at, rounded, mm.
SPACING_MM = (0.229, 0.221)


def curved_sweep(frames: int, frame_size: tuple[int, int] = (480, 640)) -> tuple[Sweep, Trajectory]:
    """Speckle of a field of view of 147 x 106 mm on a path that bends and tilts: 0.2 mm and 0.05 degrees a frame."""
    random = np.random.default_rng(0)
    images = np.empty((frames, *frame_size), np.uint8)
    for image in images:
        image[...] = random.rayleigh(40, frame_size).clip(0, 255)
    steps = np.zeros((frames - 1, 6))
    phase = np.linspace(0, 2 * np.pi, frames - 1)
    steps[:, 0], steps[:, 1], steps[:, 2] = 0.04 * np.sin(phase), 0.02 * np.cos(2 * phase), 0.2
    steps[:, 3], steps[:, 4], steps[:, 5] = 0.02, 0.05 * np.cos(phase), 0.01
    spacing = (SPACING_MM[0] * 640 / frame_size[1], SPACING_MM[1] * 480 / frame_size[0])
    return Sweep(images, spacing), Trajectory.from_parameters(steps)


def numpy_mean(sweep: Sweep, trajectory: Trajectory, grid: VoxelGrid, linear: bool) -> np.ndarray:
    """Mean compounding in float64 with np.add.at, one frame after the other: [nz, ny, nx] uint8."""
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
