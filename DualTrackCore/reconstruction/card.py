"""Compounding by the mean on a graphics card, by the expressions of :mod:`~DualTrackCore.reconstruction.kernels`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from DualTrackCore.memory import is_out_of_memory
from DualTrackCore.reconstruction.builder import VolumeBuilder
from DualTrackCore.reconstruction.grid import slab_box

#: As in the kernels, which import numba.
_NEAREST_SHIFT, _ONE_PIXEL, _LEAST_MEAN = 0.5 + 1e-9, 1 << 36, 1.0 / 512.0


class CardBuilder(VolumeBuilder):
    """A :class:`VolumeBuilder` for the mean whose sums lie on a card; where that is full they go on in main memory.

    Counts and sums of the nearest voxel are those of the CPU. Weighted sums are added up in any order, so that a grey
    value may differ by one where its mean lies between two.

    Args:
        device: of torch, with float64.
        arguments, options: of :class:`VolumeBuilder`, with `compounding="mean"`.
    """

    def __init__(self, device: str | torch.device, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._device = torch.device(device)
        self._card: Tensor | None = None
        self._full = False
        rows = np.concatenate([np.full(stop - first, row) for row, first, stop in self._runs])
        columns = np.concatenate([np.arange(first, stop) for _, first, stop in self._runs])
        self._at = torch.from_numpy(np.stack([rows, columns]))
        self._box = torch.from_numpy(slab_box((0, 0, self.grid.size[0]), self.grid.size, self._linear))

    @property
    def settings(self) -> dict[str, Any]:
        """As of :class:`VolumeBuilder`, and the device."""
        return {**super().settings, "device": "cpu" if self._full else str(self._device)}

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """As of :class:`VolumeBuilder`."""
        if self._card is not None:
            try:
                finished = _means(self._card) if self._linear else _counted(self._card)
                volume, coverage = (part.cpu().numpy().reshape(self.grid.shape) for part in finished)
                return volume, coverage
            except RuntimeError as error:
                self._move_back(error)
        return super().finish()

    def _insert_placed(self, frames: np.ndarray, voxel_from_pixel: np.ndarray) -> None:
        if not self._full:
            try:
                return self._insert_there(frames, voxel_from_pixel)
            except RuntimeError as error:
                self._move_back(error)
        return super()._insert_placed(frames, voxel_from_pixel)

    def _insert_there(self, frames: np.ndarray, matrices: np.ndarray) -> None:
        """Add frames [n, H, W] to the sums; where memory runs out, none of them."""
        if self._card is None:
            self._at, self._box = self._at.to(self._device), self._box.to(self._device)
            self._card = torch.from_numpy(self._sums[0][:0]).to(self._device).new_zeros(self._sums[0].shape)
        rows, columns = self._at
        grey = torch.from_numpy(np.require(frames, requirements="CW")).to(self._device)[:, rows, columns].flatten()
        m, shift = torch.from_numpy(matrices).to(self._device), 0.0 if self._linear else _NEAREST_SHIFT
        u, v, m = columns.double(), rows.double(), m[:, :3, :, None].transpose(0, 1)
        positions = ((m[:, :, 1] * v + (m[:, :, 3] + shift)) + m[:, :, 0] * u).flatten(1)
        counts = ((positions >= self._box[:, :1]) & (positions < self._box[:, 1:])).all(dim=0)
        counts &= grey >= self._options["reject_below"]
        corners = _spread if self._linear else _nearest
        index, values = corners(positions, grey, counts, self.grid.size)
        self._card.view(self.grid.voxels, -1).index_add_(0, index, values)

    def _move_back(self, error: RuntimeError) -> None:
        """Go on in main memory, whose sums lie in the same way."""
        if not is_out_of_memory(error):
            raise error
        if self._card is not None:
            self._sums = (self._card.cpu().numpy(),)
        self._card, self._full = None, True


def _nearest(positions: Tensor, grey: Tensor, counts: Tensor, size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Voxel [p] of each pixel, and what it adds [p, 1]; pixels that do not count add nothing, each where it lies."""
    i, j, k = (p.long().clamp(0, n - 1) for p, n in zip(positions, size, strict=True))
    return (k * size[1] + j) * size[0] + i, torch.where(counts, grey.long() + _ONE_PIXEL, 0)[:, None]


def _spread(positions: Tensor, grey: Tensor, counts: Tensor, size: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """The eight voxels [8 p] around each pixel, and the weight and the weighted grey value [8 p, 2] that they get."""
    last = torch.tensor(size, device=positions.device)[:, None] - 1
    within = positions.clamp_min(0).minimum(last.double())
    cells = within.floor().long().minimum((last - 1).clamp_min(0))
    x, y, z = (within - cells).float()
    i, j, k = cells
    base, strides = (k * size[1] + j) * size[0] + i, (1, size[0], size[0] * size[1])
    steps = [stride if n > 1 else 0 for n, stride in zip(size, strides, strict=True)]
    high = x * grey
    shares = torch.stack([torch.stack([1 - x, grey - high], dim=-1), torch.stack([x, high], dim=-1)])
    shares = torch.where(counts[:, None], shares, 0.0)
    index, values = [], []
    lower, deeper = 1 - z, (0, steps[1], steps[2], steps[1] + steps[2])
    for upper, to in zip((lower * (1 - y), lower * y, z * (1 - y), z * y), deeper, strict=True):
        index += [base + to, base + to + steps[0]]
        values.append(upper[:, None] * shares)
    return torch.cat(index), torch.cat(values).flatten(0, 1)


def _counted(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Mean rounded to the nearest grey value, halves up, and number of pixels."""
    counts = sums >> 36
    mean = (sums & (_ONE_PIXEL - 1)).double() / counts.clamp_min(1)
    return (mean + 0.5).to(torch.uint8), counts.float()


def _means(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Mean rounded to the nearest grey value, and weight; next to no weight is unseen."""
    weight, total = sums.view(-1, 2).unbind(dim=1)
    seen = weight >= _LEAST_MEAN
    mean = (total / weight.clamp_min(_LEAST_MEAN) + 0.5).clamp(0, 255)
    return torch.where(seen, mean, 0).to(torch.uint8), torch.where(seen, weight, 0)
