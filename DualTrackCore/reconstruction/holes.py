"""Filling voxels that no pixel reached, from those that pixels did reach.

The methods and their parameters are those of IGSIO, so that its configurations give the same volumes. Only voxels seen
originally are read: a filled voxel never fills another. Values are cut to whole grey levels, not rounded, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.reconstruction.sticks import stick_values

METHODS = ("gaussian", "distance", "nearest", "stick")
#: Added before a value is cut to a whole number, so that rounding in float32 cannot cost a grey level.
CUT_TOLERANCE = 1e-3
#: Voxels of a slab, so that the working arrays stay below some hundred megabytes.
SLAB_VOXELS = 4_000_000


@dataclass(frozen=True)
class HoleFilling:
    """One way of filling holes.

    Attributes:
        method: "gaussian" (weights exp(-d^2 / 2 stdev^2)), "distance" (weights 1 / d), "nearest" (mean of the smallest
            cube around the hole that holds a seen voxel) or "stick" (along the shortest line between two seen voxels).
        size: width of the largest cube that is looked at, voxels, odd; not used by "stick".
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

    @property
    def reach(self) -> int:
        """How far from a hole voxels are looked at, in voxels along an axis."""
        return self.stick_length - 1 if self.method == "stick" else self.size // 2


def validated_hole_filling(hole_filling: object) -> tuple[HoleFilling, ...]:
    """The ways of filling to try in turn, from a name, "none", a :class:`HoleFilling`, or several of them."""
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
    """Fill unseen voxels by the first of the fillings that can.

    Args:
        volume: [nz, ny, nx] uint8.
        seen: [nz, ny, nx] bool, the voxels that pixels reached.
        fillings: tried in turn for each voxel.
        reporter: told about each slab finished.

    Returns:
        (volume with the holes filled, [nz, ny, nx] bool true where a voxel was filled); new arrays.
    """
    reporter = reporter or Reporter()
    result, filled = volume.copy(), np.zeros(volume.shape, bool)
    depth = max(1, SLAB_VOXELS // (volume.shape[1] * volume.shape[2]))
    for start in range(0, volume.shape[0], depth):
        reporter.report(Stage.FILLING_HOLES, start, volume.shape[0])
        stop = min(start + depth, volume.shape[0])
        for filling in fillings:
            low, high = max(0, start - filling.reach), min(volume.shape[0], stop + filling.reach)
            values, found = _candidates(filling, volume[low:high], seen[low:high], slice(start - low, stop - low))
            new = found & ~seen[start:stop] & ~filled[start:stop]
            result[start:stop][new] = values[new]
            filled[start:stop] |= new
    reporter.report(Stage.FILLING_HOLES, volume.shape[0], volume.shape[0])
    return result, filled


def _candidates(
    filling: HoleFilling, volume: np.ndarray, seen: np.ndarray, part: slice
) -> tuple[np.ndarray, np.ndarray]:
    """(grey values uint8, whether there is one) for the `part` of a slab, by one way of filling."""
    if not seen.any():
        shape = volume[part].shape
        return np.zeros(shape, np.uint8), np.zeros(shape, bool)
    if filling.method == "stick":
        return stick_values(volume, seen, part, filling.stick_length, filling.sticks)
    by_kernel = _nearest_values if filling.method == "nearest" else _kernel_values
    values, found = by_kernel(filling, volume, seen)
    return np.floor(values[part] + CUT_TOLERANCE).clip(0, 255).astype(np.uint8), found[part]


def _kernel_values(filling: HoleFilling, volume: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = seen.astype(np.float32)
    count = _convolve(known, np.ones(filling.size), separable=True)
    offsets = np.arange(filling.size) - filling.size // 2
    if filling.method == "gaussian":
        kernel, separable = np.exp(-(offsets**2) / (2 * filling.stdev_voxels**2)), True
    else:
        distance = np.sqrt(offsets[:, None, None] ** 2 + offsets[:, None] ** 2 + offsets**2)
        kernel, separable = np.divide(1.0, distance, out=np.zeros_like(distance), where=distance > 0), False
    weight = _convolve(known, kernel, separable)
    total = _convolve(known * volume, kernel, separable)
    # Counts are whole numbers in float32: half a voxel keeps the comparison exact.
    found = (count > filling.min_known_ratio * filling.size**3 + 1e-3) & (weight > 0)
    return np.divide(total, weight, out=np.zeros_like(total), where=found), found


def _nearest_values(filling: HoleFilling, volume: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = seen.astype(np.float32)
    values, found = np.zeros(volume.shape, np.float32), np.zeros(volume.shape, bool)
    open_still = np.ones(volume.shape, bool)
    for width in range(3, filling.size + 1, 2):
        count = _convolve(known, np.ones(width), separable=True)
        total = _convolve(known * volume, np.ones(width), separable=True)
        reached = open_still & (count > 0.5)
        np.divide(total, count, out=values, where=reached)
        found |= reached & (count > filling.min_known_ratio * filling.size**3 + 1e-3)
        open_still &= ~reached
    return values, found


def _convolve(array: np.ndarray, kernel: np.ndarray, separable: bool) -> np.ndarray:
    """Convolution with a symmetric kernel, zeros beyond the border; a separable kernel is given as its one profile."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None, None]
    weights = torch.from_numpy(np.asarray(kernel, dtype=np.float32))
    half = len(kernel) // 2
    if not separable:
        return torch.nn.functional.conv3d(tensor, weights[None, None], padding=half)[0, 0].numpy()
    for axis in range(3):
        shape, padding = [1, 1, 1], [0, 0, 0]
        shape[axis], padding[axis] = len(kernel), half
        tensor = torch.nn.functional.conv3d(tensor, weights.view(1, 1, *shape), padding=tuple(padding))
    return tensor[0, 0].numpy()
