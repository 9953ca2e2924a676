"""Filling holes along sticks: straight lines between two seen voxels on opposite sides of a hole."""

from __future__ import annotations

import numpy as np

#: One of each pair of opposite directions (x, y, z): 3 along axes, 6 across faces, 4 along space diagonals.
DIRECTIONS = (
    *((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    *((1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1), (0, 1, 1), (0, 1, -1)),
    *((1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1)),
)
#: Voxels looked at together, which bounds the working memory.
BATCH = 500_000
#: Two scores closer than this are a tie.
TIE = 1e-9


def stick_values(
    volume: np.ndarray, seen: np.ndarray, part: slice, length: int, sticks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Grey values for the holes in the `part` of a slab (along its first axis).

    A stick walks from the hole along a direction to the first seen voxel at most length - 1 steps away, and against it
    to the first one within the steps left. With f and b steps gone, the value between F and B is
    ((b + 1) F + f B) / (f + b + 1), cut to a whole number, and its score is 1 / ((f + b + 1) |direction|). The best
    scores are averaged, weighted by themselves; all sticks of one score count together.

    Args:
        volume: [nz, ny, nx] uint8.
        seen: [nz, ny, nx] bool.

    Returns:
        (grey values uint8, whether there is one) of the part.
    """
    margin = length - 1
    padded = np.zeros(tuple(n + 2 * margin for n in volume.shape), np.int16)
    inner = (slice(margin, -margin),) * 3
    # One array for both questions: 0 is unseen, and grey value + 1 is seen.
    padded[inner] = np.where(seen, volume.astype(np.int16) + 1, 0)
    holes = np.flatnonzero(_reachable(seen, margin)[part] & ~seen[part])
    shape = volume[part].shape
    values, found = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    k, j, i = np.unravel_index(holes, shape)
    strides = (1, padded.shape[2], padded.shape[1] * padded.shape[2])
    home = (k + part.start + margin) * strides[2] + (j + margin) * strides[1] + i + margin
    for start in range(0, len(holes), BATCH):
        batch = slice(start, start + BATCH)
        best = _best_sticks(padded.ravel(), home[batch], strides, length, sticks)
        values.ravel()[holes[batch]] = np.nan_to_num(best, nan=0.0)
        found.ravel()[holes[batch]] = ~np.isnan(best)
    return values, found


def _reachable(seen: np.ndarray, distance: int) -> np.ndarray:
    """Voxels with a seen one at most `distance` away along every axis: where no other voxel can have a stick."""
    import torch

    width = 2 * distance + 1
    known = torch.from_numpy(seen.astype(np.float32))[None, None]
    for axis in range(3):
        size, padding = [1, 1, 1], [0, 0, 0]
        size[axis], padding[axis] = width, distance
        known = torch.nn.functional.max_pool3d(known, tuple(size), stride=1, padding=tuple(padding))
    return known[0, 0].numpy() > 0


def _best_sticks(
    coded: np.ndarray, home: np.ndarray, strides: tuple[int, int, int], length: int, sticks: int
) -> np.ndarray:
    """[n] float64: score-weighted mean of the best sticks of each hole, NaN where there is none."""
    scores = np.zeros((len(DIRECTIONS), len(home)))
    values = np.zeros_like(scores)
    for number, direction in enumerate(DIRECTIONS):
        step = sum(a * stride for a, stride in zip(direction, strides, strict=True))
        forward, ahead = _walk(coded, home, step, np.full(len(home), length - 1))
        some = np.flatnonzero(forward)
        forward, ahead = forward[some], ahead[some]
        backward, behind = _walk(coded, home[some], -step, length - 1 - forward)
        both = np.flatnonzero(backward)
        f, b, some = forward[both], backward[both], some[both]
        values[number, some] = ((b + 1) * ahead[both] + f * behind[both]) // (f + b + 1)
        scores[number, some] = 1.0 / ((f + b + 1) * np.linalg.norm(direction))
    ranked = np.sort(scores, axis=0)[::-1]
    chosen = (scores >= ranked[sticks - 1] - TIE) & (scores > 0)
    weight = np.where(chosen, scores, 0.0)
    total = weight.sum(axis=0)
    mean = np.divide((weight * values).sum(axis=0), total, out=np.full(len(home), np.nan), where=total > 0)
    return np.floor(mean + 1e-6)


def _walk(coded: np.ndarray, home: np.ndarray, step: int, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(steps to the first seen voxel, 0 where there is none within the limit; its grey value), both [n] int64."""
    steps, values = np.zeros(len(home), np.int64), np.zeros(len(home), np.int64)
    active = np.arange(len(home))
    for count in range(1, int(limits.max(initial=0)) + 1):
        active = active[limits[active] >= count]
        reached = coded[home[active] + count * step]
        hit = reached > 0
        steps[active[hit]], values[active[hit]] = count, reached[hit] - 1
        active = active[~hit]
        if len(active) == 0:
            break
    return steps, values
