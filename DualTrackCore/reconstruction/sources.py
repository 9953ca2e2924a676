"""The frames behind a voxel, found when they are asked for: no index is kept, the planes of all frames are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction import PlacedFrames
from DualTrackCore.reconstruction.grid import VoxelGrid
from DualTrackCore.sweep import FrameSource

#: As in the kernels, which say why: nearest voxel; least weight where one pixel decides; rounding at the outermost.
_NEAREST_SHIFT, _LEAST_CORNER, _EDGE_TOLERANCE = 0.5 + 1e-9, 0.125 - 1e-6, 1e-6
#: Most pixels that are weighed for a voxel, and most pictures that are read where grey values decide.
MOST_PIXELS, MOST_PICTURES = 400_000, 64
#: Pixels that are weighed at a time, so that they stay in the cache of the processor.
_TOGETHER = 16_384


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
        left_out: frames that pass the voxel as well and are not listed, because so many pass nearer to its centre.
    """

    voxel: tuple[int, int, int]
    point_mm: np.ndarray
    frames: np.ndarray
    pixels: np.ndarray
    distances_mm: np.ndarray
    weights: np.ndarray
    left_out: int = 0

    @property
    def note(self) -> str:
        """A sentence where frames were left out, else nothing."""
        text = f"{self.left_out} more frames pass this voxel farther from its centre; they are too many to be listed."
        return text if self.left_out else ""


def find_sources(
    grid: VoxelGrid, placed: PlacedFrames, how: Mapping[str, Any], point_mm: object, frames: FrameSource | None
) -> Sources:
    """:meth:`Reconstruction.sources` of frames that were placed on a grid, compounded as the settings `how` say."""
    voxel = _voxel_of(grid, point_mm)
    rules = _Rules(how["interpolation"] == "linear", how["compounding"], how["reject_below"])
    matrices = grid.voxel_from_frame0 @ placed.frame0_from_pixel
    near, low, size = _frames_through(matrices, placed.runs, voxel, 1.0 if rules.linear else 0.5)
    most = max(MOST_PIXELS // int(size.prod()), 1)
    listed = np.arange(len(near))[: min(most, MOST_PICTURES) if rules.by_grey else most]
    listed = listed[np.argsort(near[listed])]
    left_out, near, low = len(near) - len(listed), near[listed], low[listed]
    mask, step = _mask(placed.runs), max(_TOGETHER // int(size.prod()), 1)
    made = [_Made(*(np.empty(0, np.int64) for _ in range(5)))]
    for start in range(0, len(near), step):
        part = near[start : start + step]
        column, row = (low[start : start + step, axis, None] + np.arange(size[axis]) for axis in (0, 1))
        weight, apart = _weights(grid, matrices[part], column, row, voxel, rules.linear)
        if mask is not None:
            weight *= mask[row[:, :, None], column[:, None, :]]
        grey = _grey_values(frames, placed.numbers[part], column, row, weight, rules) if rules.by_grey else None
        made.append(_best_pixels(part, column, row, rules.counted(weight, grey), rules.score(apart, grey)))
    frame, column, row, total, score = (np.concatenate(values) for values in zip(*made, strict=True))
    if rules.compounding != "mean" and len(frame):
        # Frames are in the order in which they were put in.
        one = [score.argmax() if rules.compounding == "maximum" else -1]
        frame, column, row, total = frame[one], column[one], row[one], np.ones(1)
    best = np.argsort(-total, kind="stable")
    used, pixels, centre = frame[best], np.stack([column, row], axis=1)[best], grid.frame0_from_voxel @ [*voxel, 1]
    distances = _plane_distances(placed.frame0_from_pixel[used], centre[:3])
    return Sources(tuple(voxel.tolist()), centre[:3], placed.numbers[used], pixels, distances, total[best], left_out)


class _Rules(NamedTuple):
    """How the volume was compounded."""

    linear: bool
    compounding: str
    reject_below: int

    @property
    def by_grey(self) -> bool:
        """Whether grey values decide which pixels count."""
        return self.compounding == "maximum" or self.reject_below > 0

    def counted(self, weight: np.ndarray, grey: np.ndarray | None) -> np.ndarray:
        """The weights [m, rows, columns] of the pixels that count; 0 for others."""
        if self.linear and self.compounding != "mean":
            weight[weight < _LEAST_CORNER] = 0
        if grey is not None:
            weight[grey < self.reject_below] = 0
        return weight

    def score(self, apart: np.ndarray, grey: np.ndarray | None) -> np.ndarray:
        """[m, rows, columns], the largest for the pixel of a frame that is named."""
        if self.compounding == "mean":
            return -apart
        return grey if self.compounding == "maximum" else np.arange(apart[0].size).reshape(1, *apart.shape[1:])


class _Made(NamedTuple):
    """Of frames [m], those that gave anything to a voxel: their index, the pixel that is named, their weight."""

    frame: np.ndarray
    column: np.ndarray
    row: np.ndarray
    weight: np.ndarray
    score: np.ndarray


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


def _frames_through(
    matrices: np.ndarray, runs: np.ndarray, voxel: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The frames, of [n, 4, 4] voxel_from_pixel, with pixels that may lie no more than `reach` voxels from a voxel.

    Returns:
        [m] their indices, those whose planes pass nearest first; [m, 2] the first (column, row) of these pixels; [2]
        how many (columns, rows) they take at most.
    """
    normals = np.cross(matrices[:, :3, 0], matrices[:, :3, 1])
    passes = np.abs(np.einsum("ni,ni->n", normals, voxel - matrices[:, :3, 3])) / np.abs(normals).sum(axis=1)
    near = np.flatnonzero(passes <= reach + _EDGE_TOLERANCE)
    near = near[np.argsort(passes[near], kind="stable")]
    across, down = matrices[near, :3, 0], matrices[near, :3, 1]
    # Least squares, written out: inverting matrices one by one takes longer than all the rest.
    one, both, two = (
        np.einsum("mi,mi->m", *pair)[:, None] for pair in ((across, across), (across, down), (down, down))
    )
    pixel_from_voxel = np.stack([two * across - both * down, one * down - both * across], axis=1)
    pixel_from_voxel /= (one * two - both * both)[:, :, None]
    centre = np.einsum("mpi,mi->mp", pixel_from_voxel, voxel - matrices[near, :3, 3])
    half = (reach + _EDGE_TOLERANCE) * np.abs(pixel_from_voxel).sum(axis=2)
    first, last = runs.min(axis=0)[[1, 0]], runs.max(axis=0)[[2, 0]] - [1, 0]
    low, high = np.maximum(np.ceil(centre - half), first), np.minimum(np.floor(centre + half), last)
    meets = (low <= high).all(axis=1)
    low, high = low[meets].astype(np.int64), high[meets].astype(np.int64)
    size = (high - low).max(axis=0, initial=0) + 1
    # Where it takes fewer than others, it begins earlier, so that none lies beside the picture.
    return near[meets], np.minimum(low, last + 1 - size), size


def _mask(runs: np.ndarray) -> np.ndarray | None:
    """[H, W] bool, the pixels of the runs [r, 3] (row, first column, column after the last); None for a rectangle."""
    (top, left, _), (bottom, _, stop) = runs.min(axis=0), runs.max(axis=0)
    if (runs[:, 2] - runs[:, 1]).sum() == (bottom + 1 - top) * (stop - left):
        return None
    edges = np.zeros((bottom + 1, stop + 1), np.int8)
    edges[runs[:, 0], runs[:, 1]] += 1
    np.subtract.at(edges, (runs[:, 0], runs[:, 2]), 1)
    return edges.cumsum(axis=1, dtype=np.int8)[:, :-1] > 0


def _plane_distances(frame0_from_pixel: np.ndarray, point_mm: np.ndarray) -> np.ndarray:
    """[m] distances (mm) of a point from the planes of frames [m, 4, 4]."""
    normals = np.cross(frame0_from_pixel[:, :3, 0], frame0_from_pixel[:, :3, 1])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return np.abs(np.einsum("mi,mi->m", normals, point_mm - frame0_from_pixel[:, :3, 3]))


def _weights(
    grid: VoxelGrid, matrices: np.ndarray, column: np.ndarray, row: np.ndarray, voxel: np.ndarray, linear: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Of the pixels at columns [m, c] and rows [m, r] of frames [m], placed as the kernels do.

    Returns:
        [m, r, c] their weights in the voxel, and the squares of their distances from its centre, mm2.
    """
    shift, shape = 0.0 if linear else _NEAREST_SHIFT, (len(matrices), row.shape[1], column.shape[1])
    weight, apart = np.ones(shape), np.zeros(shape)
    for axis, spacing in enumerate(grid.spacing_mm):
        across, down, start = (matrices[:, axis, place, None] for place in (0, 1, 3))
        at = (down * row + (start + shift))[:, :, None] + (across * column)[:, None, :]
        away = (at - (shift + voxel[axis])) * spacing
        apart += np.square(away, out=away)
        if not linear:
            weight *= (at >= voxel[axis]) & (at < voxel[axis] + 1)
            continue
        if not 0 < voxel[axis] < grid.size[axis] - 1:
            last = grid.size[axis] - 1
            weight *= (at >= -_EDGE_TOLERANCE) & (at <= last + _EDGE_TOLERANCE)
            np.clip(at, 0, last, out=at)
        at -= voxel[axis]
        np.subtract(1, np.abs(at, out=at), out=at)
        weight *= np.maximum(at, 0, out=at)
    return weight, apart


def _grey_values(
    frames: FrameSource | None,
    number: np.ndarray,
    column: np.ndarray,
    row: np.ndarray,
    weight: np.ndarray,
    rules: _Rules,
) -> np.ndarray:
    """[m, r, c] uint8 of the pixels in frames [m] that have a weight."""
    if frames is None:
        rule = "the brightest pixel counts" if rules.compounding == "maximum" else "dark pixels are left out"
        raise InputError(f"In this volume {rule}, so its sources need the pictures; give the frames of the sweep.")
    grey = np.zeros(weight.shape, np.uint8)
    for place in np.flatnonzero(weight.any(axis=(1, 2))):
        one = int(number[place])
        grey[place] = np.asarray(frames[one : one + 1])[0][np.ix_(row[place], column[place])]
    return grey


def _best_pixels(
    frame: np.ndarray, column: np.ndarray, row: np.ndarray, weight: np.ndarray, score: np.ndarray
) -> _Made:
    """Of frames [m] that gave anything, the pixel of the largest score of those [r, c] that have a weight."""
    total, flat = weight.sum(axis=(1, 2)), np.where(weight > 0, score, -np.inf).reshape(len(frame), -1)
    gave, place = np.flatnonzero(total > 0), flat.argmax(axis=1)
    down, across = np.divmod(place[gave], weight.shape[2])
    return _Made(frame[gave], column[gave, across], row[gave, down], total[gave], flat[gave, place[gave]])
