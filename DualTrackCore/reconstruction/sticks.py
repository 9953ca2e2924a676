"""Filling holes along sticks: straight lines between two seen voxels on opposite sides of a hole."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from DualTrackCore.reconstruction.kernels import compiled

#: One of each pair of opposite directions (x, y, z): 3 along axes, 6 across faces, 4 along space diagonals.
DIRECTIONS = (
    *((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    *((1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1), (0, 1, 1), (0, 1, -1)),
    *((1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1)),
)
#: Two scores closer than this are equal.
_TIE = 1e-9


def stick_values(
    volume: np.ndarray, seen: np.ndarray, part: slice, length: int, sticks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return grey values for the holes in the `part` of a slab (along its first axis).

    A stick goes from the hole along a direction to the first seen voxel, at most length - 1 steps away, and against it
    to the first one within the steps left. With f and b steps and the grey values F and B, its value is
    ((b + 1) F + f B) / (f + b + 1), cut to a whole number, and its score is 1 / ((f + b + 1) |direction|). The best
    scores are averaged, weighted by themselves; all sticks of one score count together.

    Args:
        volume: [nz, ny, nx] uint8.
        seen: [nz, ny, nx] bool.
        part: voxels along z.
        length: longest stick, voxels along its direction.
        sticks: how many of the best scores are averaged.

    Returns:
        (grey values uint8, whether there is one) of the part.
    """
    margin = length - 1
    # One array for both questions: 0 is unseen, seen is grey value + 1. The margin spares the search any border check.
    coded = np.pad(np.where(seen, volume.astype(np.int16) + 1, np.int16(0)), margin)
    strides = np.array(coded.strides) // coded.itemsize
    near = ndimage.maximum_filter(seen, 2 * margin + 1, mode="constant")  # elsewhere no stick reaches a seen voxel
    holes = np.argwhere(near[part] & ~seen[part])
    homes = (holes + np.array([part.start + margin, margin, margin])) @ strides
    directions = np.array(DIRECTIONS)
    steps, lengths = directions @ strides[::-1], np.linalg.norm(directions, axis=1)
    grey = _best_sticks(coded.ravel(), homes, steps, lengths, length, sticks)
    values, found = np.zeros(volume[part].shape, np.uint8), np.zeros(volume[part].shape, bool)
    at = tuple(holes.T)
    values[at], found[at] = np.maximum(grey, 0), grey >= 0
    return values, found


@compiled
def _best_sticks(
    coded: np.ndarray, homes: np.ndarray, steps: np.ndarray, lengths: np.ndarray, length: int, sticks: int
) -> np.ndarray:
    """[n] int64: score-weighted mean of the best sticks of each hole, cut to a whole number; -1 where there is none."""
    result = np.full(len(homes), -1, np.int64)
    scores, values = np.zeros(len(steps)), np.zeros(len(steps), np.int64)
    for number in range(len(homes)):
        home = homes[number]
        for d in range(len(steps)):
            scores[d] = 0.0
            f = _steps_to_seen(coded, home, steps[d], length - 1)
            b = _steps_to_seen(coded, home, -steps[d], length - 1 - f) if f > 0 else 0
            if b > 0:
                ahead, behind = coded[home + f * steps[d]] - 1, coded[home - b * steps[d]] - 1
                values[d] = ((b + 1) * ahead + f * behind) // (f + b + 1)
                scores[d] = 1.0 / ((f + b + 1) * lengths[d])
        least = np.sort(scores)[len(scores) - sticks] - _TIE
        total, weighted = 0.0, 0.0
        for d in range(len(steps)):
            if scores[d] > 0 and scores[d] >= least:
                total += scores[d]
                weighted += scores[d] * values[d]
        if total > 0:
            result[number] = np.int64(np.floor(weighted / total + 1e-6))
    return result


@compiled
def _steps_to_seen(coded: np.ndarray, home: int, step: int, limit: int) -> int:
    """Number of steps from `home` to the first seen voxel; 0 where there is none within the limit."""
    for count in range(1, limit + 1):
        if coded[home + count * step] > 0:
            return count
    return 0
