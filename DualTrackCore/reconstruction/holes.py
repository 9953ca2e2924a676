"""Filling voxels that no pixel reached, from those that pixels did reach.

The methods and their parameters are those of IGSIO, so its configurations give the same volumes. Only voxels that
pixels reached are read: a filled voxel never fills another. Values are cut to whole grey levels, as in IGSIO.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from DualTrackCore.compilation import compiled_kernels, in_parts
from DualTrackCore.errors import InputError
from DualTrackCore.progress import Reporter, Stage

METHODS = ("gaussian", "distance", "nearest", "stick")
#: Voxels between two reports.
SLAB_VOXELS = 4_000_000
#: One of each pair of opposite directions (x, y, z): 3 along axes, 6 across faces, 4 along space diagonals.
DIRECTIONS = (
    *((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    *((1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1), (0, 1, 1), (0, 1, -1)),
    *((1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1)),
)


@dataclass(frozen=True)
class HoleFilling:
    """One way of filling holes.

    Attributes:
        method: "gaussian" (weights exp(-d^2 / 2 stdev^2)), "distance" (weights 1 / d), "nearest" (mean of the smallest
            cube around the hole that holds a seen voxel) or "stick" (along the shortest line between two seen voxels).
        size: width of the largest cube around the hole, voxels, odd; not used by "stick".
        stdev_voxels: of "gaussian".
        min_known_ratio: seen voxels of the cube over size cubed must be above this; None is 0.5 for "gaussian" and
            "distance", so that the outside of the sweep stays empty, and 0 for "nearest".
        stick_length: largest distance that a stick may bridge, voxels along its direction.
        sticks: how many of the best sticks are averaged; equally good ones count together.
    """

    method: Literal["gaussian", "distance", "nearest", "stick"]
    size: int = 5
    stdev_voxels: float = 2.0 / 3.0
    min_known_ratio: float | None = None
    stick_length: int = 9
    sticks: int = 1

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"The hole filling {self.method!r} is unknown; choose one of {', '.join(METHODS)}.")
        if self.size not in range(3, 26, 2):
            raise InputError(f"The hole filling size {self.size!r} must be an odd number from 3 to 25 voxels.")
        if not 0 < self.stdev_voxels < float("inf"):
            raise InputError(f"The standard deviation of {self.stdev_voxels!r} voxels must be finite and above 0.")
        if self.min_known_ratio is None:
            object.__setattr__(self, "min_known_ratio", 0.0 if self.method == "nearest" else 0.5)
        if not 0 <= self.min_known_ratio < 1:
            raise InputError(f"The ratio of known voxels {self.min_known_ratio!r} must lie in 0 to below 1.")
        if self.stick_length not in range(3, 65):
            raise InputError(f"The stick length {self.stick_length!r} must be a whole number from 3 to 64 voxels.")
        if self.sticks not in range(1, 14):
            raise InputError(f"The number of sticks {self.sticks!r} must be a whole number from 1 to 13.")


def validated_hole_filling(hole_filling: object) -> tuple[HoleFilling, ...]:
    """Return the ways of filling to try in turn, from a name, "none", a :class:`HoleFilling`, or several of them.

    Raises InputError: it is none of these.
    """
    if isinstance(hole_filling, HoleFilling):
        return (hole_filling,)
    if isinstance(hole_filling, str):
        return () if hole_filling == "none" else (HoleFilling(hole_filling),)
    if isinstance(hole_filling, Sequence) and all(isinstance(item, HoleFilling) for item in hole_filling):
        return tuple(hole_filling)
    raise InputError(f"The hole filling {hole_filling!r} is unknown; choose 'none' or one of {', '.join(METHODS)}.")


def fill_holes(
    volume: np.ndarray, seen: np.ndarray, fillings: Sequence[HoleFilling], reporter: Reporter | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Fill each unseen voxel by the first of the fillings that has a value for it.

    Args:
        volume: [nz, ny, nx] uint8.
        seen: [nz, ny, nx] bool, the voxels that pixels reached.
        fillings: tried in turn for each voxel.
        reporter: receives `Stage.FILLING_HOLES` (slices) before each slab and at the end.

    Returns:
        (volume with the holes filled, [nz, ny, nx] bool true where a voxel was filled); new arrays.
    """
    reporter = reporter or Reporter()
    result, filled = np.array(volume, order="C"), np.zeros(volume.shape, bool)
    slices, rows = volume.shape[:2]
    read = tuple(np.ascontiguousarray(array).view(np.uint8) for array in (volume, seen))
    for array in read:
        array.flags.writeable = False  # the kernels are compiled for arrays that they cannot write
    works = [_work(filling, seen, reporter) for filling in fillings]
    depth = max(1, SLAB_VOXELS // (rows * volume.shape[2]))
    for start in range(0, slices, depth):
        reporter.report(Stage.FILLING_HOLES, start, slices)
        for kernel, arguments in works:
            ends = np.array([start, min(start + depth, slices)]) * rows

            def fill(part: tuple[int, int], kernel: Callable = kernel, arguments: tuple = arguments) -> None:
                kernel(*read, result, filled.view(np.uint8), *part, *arguments)

            in_parts(fill, lambda count, ends=ends: pairwise(np.linspace(*ends, count + 1).astype(int).tolist()))
    reporter.report(Stage.FILLING_HOLES, slices, slices)
    return result, filled


def _work(filling: HoleFilling, seen: np.ndarray, reporter: Reporter) -> tuple[Callable, tuple]:
    """The kernel of one way of filling, and its arguments after the rows."""
    steps = np.arange(filling.size // 2 + 1)
    least = float(np.float32(filling.min_known_ratio * filling.size**3 + 1e-3))  # the margin: rounding of the ratio
    cube = (filling.size, least)
    if filling.method == "nearest":
        name, arguments = "fill_nearest", cube
    elif filling.method == "gaussian":
        name, arguments = "fill_by_profile", (*cube, np.exp(-(steps**2) / (2 * filling.stdev_voxels**2)))
    elif filling.method == "distance":
        distance = np.sqrt(steps[:, None, None] ** 2 + steps[:, None] ** 2 + steps**2)
        weights = np.divide(1.0, distance, out=np.zeros_like(distance), where=distance > 0)
        name, arguments = "fill_by_distance", (*cube, weights)
    else:
        directions, reach = np.array(DIRECTIONS, np.int64), filling.stick_length - 1
        slices, *sides = seen.shape
        around = np.full((slices, *(side + 2 * reach for side in sides)), 255, np.uint8)
        np.subtract(seen.view(np.uint8), np.uint8(1), out=around[:, reach:-reach, reach:-reach])
        around.flags.writeable = False
        lines = (around, seen.any(axis=2), directions, (directions**2).sum(axis=1))
        name, arguments = "fill_by_sticks", (*lines, reach, filling.sticks)
    module = "stick_kernels" if filling.method == "stick" else "hole_kernels"
    (kernel,) = compiled_kernels(f"DualTrackCore.reconstruction.{module}", [name], reporter)
    return kernel, arguments
