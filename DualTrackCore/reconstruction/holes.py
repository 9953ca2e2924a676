"""Filling voxels that no pixel reached, from those that pixels did reach.

The methods and their parameters are those of IGSIO, so its configurations give the same volumes. Only voxels that
pixels reached are read: a filled voxel never fills another. Values are cut to whole grey levels, as in IGSIO.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from DualTrackCore.compilation import compile_kernels, kernel_module
from DualTrackCore.errors import InputError
from DualTrackCore.progress import Reporter, Stage

METHODS = ("gaussian", "distance", "nearest", "stick")
#: Added before a value is cut to a whole number, so that rounding in float32 cannot cost a grey level.
CUT_TOLERANCE = 1e-3
#: Voxels of a slab, so that the working arrays stay below some hundred megabytes.
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

    @property
    def reach(self) -> int:
        """Largest distance of a voxel that is read from the hole, in voxels along an axis."""
        return self.stick_length - 1 if self.method == "stick" else self.size // 2


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
    result, filled = volume.copy(), np.zeros(volume.shape, bool)
    depth = max(1, SLAB_VOXELS // (volume.shape[1] * volume.shape[2]))
    for start in range(0, volume.shape[0], depth):
        reporter.report(Stage.FILLING_HOLES, start, volume.shape[0])
        stop = min(start + depth, volume.shape[0])
        for filling in fillings:
            low, high = max(0, start - filling.reach), min(volume.shape[0], stop + filling.reach)
            values, has_value = _candidates(filling, volume[low:high], seen[low:high], slice(start - low, stop - low))
            new = has_value & ~seen[start:stop] & ~filled[start:stop]
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
        return _stick_values(volume, seen, part, filling.stick_length, filling.sticks)
    weighted_mean = _nearest_mean if filling.method == "nearest" else _kernel_mean
    values, has_value = weighted_mean(filling, volume, seen.astype(np.float32))
    return np.floor(values[part] + CUT_TOLERANCE).clip(0, 255).astype(np.uint8), has_value[part]


def _kernel_mean(filling: HoleFilling, volume: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean of the seen voxels around each voxel, weighted by a kernel; whether enough are seen)."""
    offsets = np.arange(filling.size) - filling.size // 2
    if filling.method == "gaussian":
        kernel = np.exp(-(offsets**2) / (2 * filling.stdev_voxels**2))
    else:
        distance = np.sqrt(offsets[:, None, None] ** 2 + offsets[:, None] ** 2 + offsets**2)
        kernel = np.divide(1.0, distance, out=np.zeros_like(distance), where=distance > 0)
    weight, total = _convolved(seen, kernel), _convolved(seen * volume, kernel)
    has_value = _enough(_convolved(seen, np.ones(filling.size)), filling) & (weight > 0)
    return np.divide(total, weight, out=np.zeros_like(total), where=has_value), has_value


def _nearest_mean(filling: HoleFilling, volume: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean of the seen voxels in the smallest cube that holds one; whether enough are seen)."""
    values, has_value = np.zeros(volume.shape, np.float32), np.zeros(volume.shape, bool)
    open_holes = np.ones(volume.shape, bool)
    for width in range(3, filling.size + 1, 2):
        count, total = _convolved(seen, np.ones(width)), _convolved(seen * volume, np.ones(width))
        reached = open_holes & (count > 0.5)
        np.divide(total, count, out=values, where=reached)
        has_value |= reached & _enough(count, filling)
        open_holes &= ~reached
    return values, has_value


def _enough(count: np.ndarray, filling: HoleFilling) -> np.ndarray:
    """Whether more voxels than the least ratio are seen; the margin keeps rounding out of the comparison."""
    return count > filling.min_known_ratio * filling.size**3 + 1e-3


def _convolved(array: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolution [float32] with a symmetric kernel, a cube or one profile for all axes; zeros beyond the border."""
    if kernel.ndim == 1:
        for axis in range(3):
            array = ndimage.correlate1d(array, kernel, axis=axis, mode="constant")
        return array
    import torch  # with a cube several times as fast as SciPy

    tensors = (torch.from_numpy(np.asarray(part, np.float32))[None, None] for part in (array, kernel))
    return torch.nn.functional.conv3d(*tensors, padding=len(kernel) // 2)[0, 0].numpy()


def _stick_values(
    volume: np.ndarray, seen: np.ndarray, part: slice, length: int, sticks: int
) -> tuple[np.ndarray, np.ndarray]:
    """(grey values uint8, whether there is one) for the `part` of a slab, along sticks: lines between two seen voxels.

    A stick goes from the hole along a direction to the first seen voxel, at most length - 1 steps away, and against it
    to the first one within the steps left. With f and b steps and the grey values F and B, its value is
    ((b + 1) F + f B) / (f + b + 1), cut to a whole number, and its score is 1 / ((f + b + 1) |direction|). The best
    scores are averaged, weighted by themselves; all sticks of one score count together.
    """
    margin = length - 1
    # One array for both questions: 0 is unseen, seen is grey value + 1. The margin spares the search any border check.
    coded = np.pad(np.where(seen, volume.astype(np.int16) + 1, np.int16(0)), margin)
    strides = np.array(coded.strides, np.int64) // coded.itemsize
    near = ndimage.maximum_filter(seen, 2 * margin + 1, mode="constant")  # elsewhere no stick reaches a seen voxel
    holes = np.argwhere(near[part] & ~seen[part])
    homes = (holes + np.array([part.start + margin, margin, margin])) @ strides
    directions = np.array(DIRECTIONS, np.int64)
    steps, lengths = directions @ strides[::-1], np.linalg.norm(directions, axis=1)
    (best_sticks,) = compiled_kernels(["best_sticks"])
    grey = best_sticks(coded.ravel(), homes, steps, lengths, length, sticks)
    values, has_value = np.zeros(volume[part].shape, np.uint8), np.zeros(volume[part].shape, bool)
    at = tuple(holes.T)
    values[at], has_value[at] = np.maximum(grey, 0), grey >= 0
    return values, has_value


def compiled_kernels(names: Sequence[str], reporter: Reporter | None = None) -> list[Callable]:
    """Return kernels of :mod:`DualTrackCore.reconstruction.kernels`, compiled or loaded now, not at their first call.

    Raises MissingDependencyError: numba cannot be imported.
    """
    module = kernel_module("DualTrackCore.reconstruction.kernels")
    chosen = [getattr(module, name) for name in names]
    compile_kernels({one: module.SIGNATURES[one] for one in chosen}, reporter)
    return chosen
