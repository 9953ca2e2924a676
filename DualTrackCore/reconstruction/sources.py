"""The frames behind a voxel, found when they are asked for: no index is kept, the planes of all frames are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction import PlacedFrames
from DualTrackCore.reconstruction.grid import VoxelGrid
from DualTrackCore.sweep import FrameSource

#: As in the kernels, which say why: nearest voxel; least weight where one pixel decides; rounding at the outermost.
_NEAREST_SHIFT, _LEAST_CORNER, _EDGE_TOLERANCE = 0.5 + 1e-9, 0.125 - 1e-6, 1e-6


@dataclass(frozen=True, eq=False)
class Sources:
    """What made a voxel, the frame of the largest weight first; nothing for a voxel that no pixel reached.

    Attributes:
        voxel: (i, j, k) of the voxel.
        point_mm: [3] its centre, mm in frame0.
        frames: [m] int64, their numbers in the sweep, from 0.
        pixels: [m, 2] int64, (column, row) of the pixel that is nearest to the centre, of those that made the voxel.
        distances_mm: [m] of the centre from the plane of the frame.
        weights: [m] sum of the weights of the frame's pixels: their number for the nearest voxel, their trilinear
            weights for linear interpolation; 1 for the single pixel that the brightest or the latest one is.
    """

    voxel: tuple[int, int, int]
    point_mm: np.ndarray
    frames: np.ndarray
    pixels: np.ndarray
    distances_mm: np.ndarray
    weights: np.ndarray


def find_sources(
    grid: VoxelGrid, placed: PlacedFrames, how: Mapping[str, Any], point_mm: object, frames: FrameSource | None
) -> Sources:
    """:meth:`Reconstruction.sources` of frames that were placed on a grid, compounded as the settings `how` say."""
    voxel = _voxel_of(grid, point_mm)
    linear, compounding, reject_below = how["interpolation"] == "linear", how["compounding"], how["reject_below"]
    matrices = grid.voxel_from_frame0 @ placed.frame0_from_pixel
    near = _frames_through(matrices, voxel, 1.0 if linear else 0.5)
    frame, column, row = _pixels_around(matrices[near], voxel, 1.0 if linear else 0.5)
    keep = _within(placed.runs, column, row)
    frame, column, row = near[frame[keep]], column[keep], row[keep]
    weight, apart = _weights(grid, matrices[frame], column, row, voxel, linear)
    keep = weight >= (_LEAST_CORNER if linear and compounding != "mean" else np.finfo(float).tiny)
    if compounding == "maximum" or reject_below:
        grey = _grey_values(frames, placed.numbers[frame], column, row, compounding)
        keep &= grey >= reject_below
    if compounding != "mean" and keep.any():
        # Pixels are in the order in which they were put in.
        place = np.flatnonzero(keep)
        chosen = place[grey[place].argmax()] if compounding == "maximum" else place[-1]
        keep, weight = np.arange(len(keep)) == chosen, np.ones(len(keep))
    frame, column, row, weight, apart = (values[keep] for values in (frame, column, row, weight, apart))
    order = np.lexsort((apart, frame))
    used, first, place = np.unique(frame[order], return_index=True, return_inverse=True)
    total = np.bincount(place, weight[order], len(used))
    best, order = np.argsort(-total, kind="stable"), order[first]
    used, order = used[best], order[best]
    centre = (grid.frame0_from_voxel @ [*voxel, 1])[:3]
    pixels = np.stack([column[order], row[order]], axis=1)
    distances = _plane_distances(placed.frame0_from_pixel[used], centre)
    return Sources(tuple(voxel.tolist()), centre, placed.numbers[used], pixels, distances, total[best])


def _voxel_of(grid: VoxelGrid, point_mm: object) -> np.ndarray:
    """[3] int64 of the voxel that a point, mm in frame0, lies in."""
    point = np.asarray(point_mm, dtype=np.float64)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise InputError(f"The point {point_mm!r} is not three finite numbers x, y, z in mm.")
    voxel = np.floor((grid.voxel_from_frame0 @ [*point, 1])[:3] + _NEAREST_SHIFT)
    if (voxel < 0).any() or (voxel >= grid.size).any():
        raise InputError(
            f"The point {point.round(1).tolist()} mm lies outside of the volume of {grid.size} voxels; "
            "choose one inside of it."
        )
    return voxel.astype(np.int64)


def _frames_through(matrices: np.ndarray, voxel: np.ndarray, reach: float) -> np.ndarray:
    """[m] those of the frames [n, 4, 4], voxel_from_pixel, whose planes pass a voxel by no more than so many voxels."""
    normals = np.cross(matrices[:, :3, 0], matrices[:, :3, 1])
    passes = np.abs(np.einsum("ni,ni->n", normals, voxel - matrices[:, :3, 3]))
    return np.flatnonzero(passes <= (reach + _EDGE_TOLERANCE) * np.abs(normals).sum(axis=1))


def _pixels_around(matrices: np.ndarray, voxel: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(frame [p], column [p], row [p]) of all pixels that may lie so near to a voxel, in the order of the frames."""
    flat = matrices[:, :3, :2]
    pixel_from_voxel = np.linalg.inv(np.swapaxes(flat, 1, 2) @ flat) @ np.swapaxes(flat, 1, 2)
    centre = (pixel_from_voxel @ (voxel - matrices[:, :3, 3])[:, :, None])[:, :, 0]
    half = (reach + _EDGE_TOLERANCE) * np.abs(pixel_from_voxel).sum(axis=2)
    low, high = np.ceil(centre - half).astype(np.int64), np.floor(centre + half).astype(np.int64)
    columns, rows = (np.arange(most) for most in (high - low).max(axis=0, initial=-1) + 1)
    found = np.broadcast_arrays(
        np.arange(len(matrices))[:, None, None],
        low[:, 0, None, None] + columns[None, None, :],
        low[:, 1, None, None] + rows[None, :, None],
    )
    frame, column, row = (values.ravel() for values in found)
    return frame, column, row


def _within(runs: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """[p] whether pixels [p] are in the runs [r, 3] (row, first column, column after the last), in their order."""
    longest = int(runs.max()) + 1
    starts, stops = runs[:, 0] * longest + runs[:, 1], runs[:, 0] * longest + runs[:, 2]
    at = row * longest + column
    run = np.searchsorted(starts, at, side="right") - 1
    return (column >= 0) & (column < longest) & (run >= 0) & (at < stops[run])


def _plane_distances(frame0_from_pixel: np.ndarray, point_mm: np.ndarray) -> np.ndarray:
    """[m] distances (mm) of a point from the planes of frames [m, 4, 4]."""
    normals = np.cross(frame0_from_pixel[:, :3, 0], frame0_from_pixel[:, :3, 1])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return np.abs(np.einsum("mi,mi->m", normals, point_mm - frame0_from_pixel[:, :3, 3]))


def _weights(
    grid: VoxelGrid, matrices: np.ndarray, column: np.ndarray, row: np.ndarray, voxel: np.ndarray, linear: bool
) -> tuple[np.ndarray, np.ndarray]:
    """([p] weight in the voxel of pixels [p], [p] their distance from its centre, mm), placed as the kernels do."""
    shift = 0.0 if linear else _NEAREST_SHIFT
    at = matrices[:, :3, 1] * row[:, None] + (matrices[:, :3, 3] + shift) + matrices[:, :3, 0] * column[:, None]
    apart = np.linalg.norm((at - shift - voxel) * grid.spacing_mm, axis=1)
    if not linear:
        return (np.floor(at) == voxel).all(axis=1).astype(np.float64), apart
    last = np.array(grid.size) - 1
    inside = ((at >= -_EDGE_TOLERANCE) & (at <= last + _EDGE_TOLERANCE)).all(axis=1)
    parts = np.maximum(1 - np.abs(np.clip(at, 0, last) - voxel), 0)
    return inside * parts.prod(axis=1), apart


def _grey_values(
    frames: FrameSource | None, number: np.ndarray, column: np.ndarray, row: np.ndarray, compounding: str
) -> np.ndarray:
    """[p] uint8 of pixels in frames [p]."""
    if frames is None:
        rule = "the brightest pixel counts" if compounding == "maximum" else "dark pixels are left out"
        raise InputError(f"In this volume {rule}, so its sources need the pictures; give the frames of the sweep.")
    grey = np.empty(len(number), np.uint8)
    for one in np.unique(number):
        here = number == one
        grey[here] = np.asarray(frames[int(one) : int(one) + 1])[0][row[here], column[here]]
    return grey
