"""Compounding as one would first write it: slow, obvious, and independent of the product."""

import numpy as np


def plain_volume(sweep, trajectory, grid, interpolation, compounding, fan=None, reject_below=0):
    """The definition, pixel by pixel in float64: (grey values, coverage)."""
    keep = np.ones(sweep.frame_size, bool) if fan is None else fan.mask(sweep.frame_size)
    size = np.array(grid.size)
    sums, weights = np.zeros(grid.shape), np.zeros(grid.shape)
    values = np.zeros(grid.shape)
    for pose, frame in zip(trajectory.poses, sweep.frames, strict=True):
        matrix = grid.voxel_from_frame0 @ pose @ sweep.image_from_pixel
        for (v, u), grey in np.ndenumerate(frame):
            if not keep[v, u] or grey < reject_below:
                continue
            p = (matrix @ [u, v, 0, 1])[:3]
            if interpolation == "nearest":
                hits = [(np.floor(p + 0.5).astype(int), 1.0)]
            elif (p < 0).any() or (p > size - 1).any():
                continue
            else:
                low = np.floor(p).astype(int)
                corners = [low + corner for corner in np.ndindex(2, 2, 2)]
                hits = [(c, np.prod(1 - np.abs(p - c))) for c in corners]
            for cell, weight in hits:
                if (cell < 0).any() or (cell >= size).any() or (compounding != "mean" and weight < 0.125):
                    continue
                at = tuple(cell[::-1])
                sums[at] += weight * grey
                weights[at] += weight
                values[at] = max(values[at], grey) if compounding == "maximum" else grey
    if compounding == "mean":
        seen = weights >= (1 / 512 if interpolation == "linear" else 1)
        values = np.floor(np.divide(sums, weights, out=np.zeros_like(sums), where=seen) + 0.5)
        weights = np.where(seen, weights, 0)
    return values.astype(np.uint8), weights
