"""Frames in memory as the fast layers want them: channels last, a border of zeros, in memory that is used again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: Output pixels a side of a Winograd tile; images are stored rounded up to whole tiles.
TILE = 4


@dataclass(frozen=True)
class Frames:
    """Frames [n, stored rows, stored columns, channels] around the pixels themselves.

    Attributes:
        tensor: contiguous; pixel (row, column) lies at [:, row + 1, column + 1].
        rows, columns: of the pixels; what lies outside them is zero when a convolution reads it.
    """

    tensor: Tensor
    rows: int
    columns: int

    def __len__(self) -> int:
        return self.tensor.shape[0]

    @property
    def channels(self) -> int:
        """Channels of a pixel."""
        return self.tensor.shape[3]

    @property
    def pixels(self) -> Tensor:
        """[n, rows, columns, channels], without the border; a view."""
        return self.tensor[:, 1 : self.rows + 1, 1 : self.columns + 1]

    def part(self, start: int, stop: int) -> Frames:
        """Frames start to stop; a view."""
        return Frames(self.tensor[start:stop], self.rows, self.columns)

    def clear_border(self) -> None:
        """Zeros around the pixels, up to the end of the last tiles."""
        self.tensor[:, 0] = 0
        self.tensor[:, :, 0] = 0
        self.clear_overhang()

    def clear_overhang(self) -> None:
        """Zeros below and to the right of the pixels."""
        self.tensor[:, self.rows + 1 :] = 0
        self.tensor[:, :, self.columns + 1 :] = 0

    @property
    def fills_tiles(self) -> bool:
        """Whether rows and columns are whole tiles."""
        return self.rows % TILE == 0 and self.columns % TILE == 0


class Workspace:
    """Memory for frames under numbers, taken again and again: new memory costs as much as a short convolution."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._memory: dict[int, Tensor] = {}

    def clear(self) -> None:
        """Give the memory back."""
        self._memory.clear()

    def take(self, number: int, frames: int, rows: int, columns: int, channels: int) -> Frames:
        """Frames with a clear border and any pixels; what was taken under the number before is overwritten."""
        shape = (frames, _stored(rows), _stored(columns), channels)
        size = frames * shape[1] * shape[2] * channels
        if number not in self._memory or len(self._memory[number]) < size:
            self._memory.pop(number, None)
            self._memory[number] = self._new(size)
        taken = Frames(self._memory[number][:size].view(shape), rows, columns)
        taken.clear_border()
        return taken

    def _new(self, size: int) -> Tensor:
        if self._device.type == "cpu":
            return large(-(-size * self._dtype.itemsize // 4)).view(self._dtype)[:size]
        return torch.empty(size, dtype=self._dtype, device=self._device)


def large(size: int) -> Tensor:
    """Uninitialised float32 numbers; numpy asks for huge pages, without which first touching them takes long."""
    return torch.from_numpy(np.empty(size, np.float32))


def _stored(size: int) -> int:
    return -(-size // TILE) * TILE + 2
