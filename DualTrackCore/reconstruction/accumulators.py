"""What is kept for each voxel while pixels come in: one class a way of compounding.

`prepare` does what needs no other block, on any thread; `add` is called for one block at a time, in the order of the
sweep. Mean compounding keeps sum and weight in one number, because the time goes into reaching the voxel in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch

from DualTrackCore.reconstruction.insertion import Placement

#: Linear insertion, latest and maximum: corners of smaller weight are left alone, as in IGSIO.
LEAST_CORNER_WEIGHT = 0.125 - 1e-6
#: Linear insertion, mean: a voxel whose weights sum to less counts as unseen, as in IGSIO.
LEAST_MEAN_WEIGHT = 1.0 / 512.0
#: Nearest insertion, mean: the sum of grey values fills the lower bits of an int64, the number of pixels the upper
#: ones, which leaves room for 2^27 pixels in one voxel.
COUNT_SHIFT = 36
#: Voxels that are finished at a time: small enough for the cache, and for torch to leave its thread pool alone, whose
#: barriers cost far more than they save when the cores are busy.
FINISH_VOXELS = 1 << 15


class Accumulator(Protocol):
    """What a way of compounding keeps."""

    def prepare(self, placement: Placement) -> Any:
        """Work out what the pixels contribute; thread-safe."""

    def add(self, contribution: Any) -> None:
        """Take in what was prepared."""

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """(grey values [voxels] uint8, coverage [voxels] float32)."""


def accumulator_for(compounding: str, linear: bool, voxels: int) -> Accumulator:
    """The empty accumulator of "mean", "latest" or "maximum"."""
    if compounding == "mean":
        return LinearMean(voxels) if linear else NearestMean(voxels)
    return Latest(voxels) if compounding == "latest" else Maximum(voxels)


class NearestMean:
    """Mean of whole pixels, exact: grey values and pixels are counted in whole numbers."""

    def __init__(self, voxels: int) -> None:
        self._packed = _filled(voxels, np.int64)

    def prepare(self, placement: Placement) -> tuple[torch.Tensor, torch.Tensor]:
        """(index, grey value and one pixel in one number)."""
        return placement.index, placement.values.long().add_(1 << COUNT_SHIFT)

    def add(self, contribution: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Add sums and counts."""
        self._packed.scatter_add_(0, *contribution)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean rounded to the nearest grey value, halves up; number of pixels."""
        volume = _filled(len(self._packed), np.uint8)
        coverage = _filled(len(self._packed), np.float32)
        for part in _parts(len(self._packed)):
            count = self._packed[part] >> COUNT_SHIFT
            total = self._packed[part] & ((1 << COUNT_SHIFT) - 1)
            volume[part] = (total.double() / count.clamp(min=1)).add_(0.5).to(torch.uint8)
            coverage[part] = count.float()
        return volume.numpy(), coverage.numpy()


class LinearMean:
    """Weighted mean, in sums of float32: within 0.001 grey levels of float64 for thousands of pixels a voxel."""

    def __init__(self, voxels: int) -> None:
        self._sums = _filled(voxels, np.complex64)

    def prepare(self, placement: Placement) -> tuple[torch.Tensor, list[tuple[int, torch.Tensor]]]:
        """(index, (offset, weight + weighted grey value i) of each corner)."""
        x, y, z = placement.parts
        values = placement.values.float()
        # Weight and weighted grey value lie side by side, and so must the factors y and z that multiply both.
        high = x * values
        along_x = (_pairs(1 - x, values - high), _pairs(x, high))
        along_y, along_z = ((1 - pairs, pairs) for pairs in (_pairs(y, y), _pairs(z, z)))
        step_x, step_y, step_z = placement.steps
        corners = []
        for k, j in itertools.product((0, 1), (0, 1)):
            upper = along_z[k] * along_y[j]
            for i in (0, 1):
                offset = k * step_z + j * step_y + i * step_x
                corners.append((offset, torch.view_as_complex(upper * along_x[i])))
        return placement.index, corners

    def add(self, contribution: tuple[torch.Tensor, list[tuple[int, torch.Tensor]]]) -> None:
        """Add weights and weighted grey values."""
        index, corners = contribution
        for offset, sums in corners:
            self._sums[offset:].scatter_add_(0, index, sums)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean rounded to the nearest grey value, and weight; voxels of next to no weight are unseen."""
        volume = _filled(len(self._sums), np.uint8)
        coverage = _filled(len(self._sums), np.float32)
        for part in _parts(len(self._sums)):
            weight, total = self._sums[part].real, self._sums[part].imag
            seen = weight >= LEAST_MEAN_WEIGHT
            mean = torch.where(seen, total / weight.clamp(min=LEAST_MEAN_WEIGHT), 0.0)
            volume[part] = mean.add_(0.5).clamp_(0, 255).to(torch.uint8)
            coverage[part] = torch.where(seen, weight, 0.0)
        return volume.numpy(), coverage.numpy()


class Latest:
    """The pixel that came last, in the order of frames, rows and columns."""

    def __init__(self, voxels: int) -> None:
        self._key = _filled(voxels, np.int64, -1)
        self._weight = _filled(voxels, np.float32)

    def prepare(self, placement: Placement) -> list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """(offset, index, order and grey value in one number, weight) of each corner."""
        return _heavy_corners(placement, placement.keys * 256 + placement.values)

    def add(self, contribution: list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]) -> None:
        """Keep the highest number: the order decides, and the grey value comes along."""
        for offset, index, keys, weights in contribution:
            self._key[offset:].scatter_reduce_(0, index, keys, "amax")
            self._weight[offset:].scatter_add_(0, index, weights)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Grey value of the last pixel; number of pixels or sum of weights."""
        volume = _filled(len(self._key), np.uint8)
        for part in _parts(len(self._key)):
            volume[part] = torch.where(self._key[part] < 0, 0, self._key[part] & 255).to(torch.uint8)
        return volume.numpy(), self._weight.numpy()


class Maximum:
    """The brightest pixel; a black one counts as seen."""

    def __init__(self, voxels: int) -> None:
        self._value = _filled(voxels, np.uint8)
        self._weight = _filled(voxels, np.float32)

    def prepare(self, placement: Placement) -> list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """(offset, index, grey value, weight) of each corner."""
        return _heavy_corners(placement, placement.values)

    def add(self, contribution: list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]) -> None:
        """Keep the larger grey value."""
        for offset, index, values, weights in contribution:
            self._value[offset:].scatter_reduce_(0, index, values, "amax")
            self._weight[offset:].scatter_add_(0, index, weights)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Largest grey value; number of pixels or sum of weights."""
        return self._value.numpy(), self._weight.numpy()


def _pairs(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """[n, 2] from two [n]; by way of complex numbers, which is several times as fast as stacking."""
    return torch.view_as_real(torch.complex(first, second))


def _heavy_corners(
    placement: Placement, values: torch.Tensor
) -> list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """The corners whose weight counts, as (offset, index, values, weights)."""
    if placement.parts is None:
        return [(0, placement.index, values, torch.ones(1).expand(len(values)))]
    corners = []
    for offset, weights in placement.corners():
        chosen = torch.nonzero(weights >= LEAST_CORNER_WEIGHT).squeeze(1)
        corners.append((offset, placement.index[chosen], values[chosen], weights[chosen]))
    return corners


def _filled(voxels: int, dtype: type, value: int = 0) -> torch.Tensor:
    # Allocated by numpy, which asks for huge pages: first touching a gigabyte in small ones takes seconds.
    array = np.zeros(voxels, dtype)
    if value:
        array.fill(value)
    return torch.from_numpy(array)


def _parts(voxels: int) -> Iterator[slice]:
    for start in range(0, voxels, FINISH_VOXELS):
        yield slice(start, min(start + FINISH_VOXELS, voxels))
