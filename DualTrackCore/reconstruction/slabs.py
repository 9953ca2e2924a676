"""Cutting the work of some frames into slabs of the grid that threads can fill side by side."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from DualTrackCore.reconstruction.insertion import EDGE_TOLERANCE
from DualTrackCore.reconstruction.mask import PixelSelection, Rectangle

#: Columns and rows of the raster of pixels that stands for a frame when the work is shared out.
_RASTER = 24


def pixel_runs(selection: PixelSelection) -> np.ndarray:
    """[r, 3] int64: (row, first column, column after the last) of the selected pixels, row by row."""
    box = selection.rectangle
    if selection.keep is None:
        rows = np.arange(box.top, box.bottom + 1)
        return np.stack([rows, np.full_like(rows, box.left), np.full_like(rows, box.right + 1)], axis=1)
    edges = np.diff(np.pad(selection.keep.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(edges == 1)
    stops = np.nonzero(edges == -1)[1]
    return np.stack([rows + box.top, starts + box.left, stops + box.left], axis=1)


def cut_grid(
    voxel_from_pixel: np.ndarray, rectangle: Rectangle, size: tuple[int, int, int], count: int
) -> list[tuple[int, int, int]]:
    """At most `count` slabs (axis, first voxel, voxel after the last) that together are the grid and share no voxel.

    The axis is the one along which the rows of a frame follow each other fastest, so that whole rows fall into one
    slab; every slab receives about as many pixels.

    Args:
        voxel_from_pixel: [n, 4, 4] float64, of the frames to come.
        rectangle: their pixels that count.
        size: (nx, ny, nz) of the grid.
        count: at least 1.
    """
    axis = int(np.argmax(np.abs(voxel_from_pixel[:, :3, 1]).mean(axis=0) * (np.asarray(size) >= 2 * count)))
    if count == 1 or size[axis] < 2 * count:
        return [(axis, 0, size[axis])]
    columns = np.linspace(rectangle.left, rectangle.right, _RASTER)
    rows = np.linspace(rectangle.top, rectangle.bottom, _RASTER)
    u, v = (part.ravel() for part in np.meshgrid(columns, rows))
    pixels = np.stack([u, v, np.zeros_like(u), np.ones_like(u)])
    positions = voxel_from_pixel[:, :3] @ pixels
    limits = np.array(size)[:, None]
    inside = ((positions >= 0) & (positions <= limits - 1)).all(axis=1)
    along = positions[:, axis][inside]
    if len(along) == 0:
        return [(axis, 0, size[axis])]
    cuts = np.round(np.quantile(along, np.arange(1, count) / count)).astype(int)
    # Two voxels at the end at least: the kernels give the last cell to one slab.
    edges = [0, *sorted({int(cut) for cut in cuts if 0 < cut < size[axis] - 1}), size[axis]]
    return [(axis, first, stop) for first, stop in pairwise(edges)]


def slab_box(slab: tuple[int, int, int], size: tuple[int, int, int], linear: bool) -> np.ndarray:
    """[3, 2] float64: where the pixels of a slab lie along x, y, z; the first is included, the second is not.

    For the nearest voxel positions count with the shift that makes its index their floor. With `linear`, pixels that
    reach into the slab from the cell before it are included.
    """
    if not linear:
        box = np.array([[0.0, n] for n in size])
        box[slab[0]] = slab[1:]
        return box
    box = np.array([[-EDGE_TOLERANCE, np.nextafter(n - 1 + EDGE_TOLERANCE, np.inf)] for n in size])
    axis, first, stop = slab
    if first > 0:
        box[axis, 0] = first - 1
    if stop < size[axis]:
        box[axis, 1] = stop
    return box
