"""Convolutions of the trunk with their BatchNorm folded in, the frames they read, and the layers of plain torch.

A layer reads frames, border and all, and writes the pixels of other frames. Where its kernel covers three frames, n + 2
input frames give n output frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

#: Output pixels a side of a Winograd tile; images are stored rounded up to whole tiles.
TILE = 4
CPU = torch.device("cpu")


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
    def pixels(self) -> Tensor:
        """[n, rows, columns, channels], without the border; a view."""
        return self.tensor[:, 1 : self.rows + 1, 1 : self.columns + 1]

    def part(self, start: int, stop: int) -> Frames:
        """Frames start to stop; a view."""
        return Frames(self.tensor[start:stop], self.rows, self.columns)

    def clear_overhang(self) -> None:
        """Zeros below and to the right of the pixels."""
        self.tensor[:, self.rows + 1 :] = 0
        self.tensor[:, :, self.columns + 1 :] = 0


class Workspace:
    """Numbered buffers for frames, used again: allocating memory takes as long as a short convolution."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._memory: dict[int, Tensor] = {}

    def clear(self) -> None:
        """Release the memory."""
        self._memory.clear()

    def take(self, number: int, frames: int, rows: int, columns: int, channels: int) -> Frames:
        """Return frames in a buffer, border zero, pixels undefined; earlier frames in that buffer are overwritten."""
        shape = (frames, _stored(rows), _stored(columns), channels)
        size = frames * shape[1] * shape[2] * channels
        if number not in self._memory or len(self._memory[number]) < size:
            self._memory.pop(number, None)
            # Memory that nothing touches costs nothing on the CPU, and a buffer that grows is touched anew.
            self._memory[number] = large(2 * size if self._device.type == "cpu" else size, self._device, self._dtype)
        taken = Frames(self._memory[number][:size].view(shape), rows, columns)
        taken.tensor[:, 0] = 0
        taken.tensor[:, :, 0] = 0
        taken.clear_overhang()
        return taken


def large(size: int, device: torch.device = CPU, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uninitialised numbers; numpy asks for huge pages, without which first touching them takes long."""
    if device.type != "cpu":
        return torch.empty(size, dtype=dtype, device=device)
    count = max(-(-size * dtype.itemsize // 4), 1)  # torch views no empty array as numbers of another size
    return torch.from_numpy(np.empty(count, np.float32)).view(dtype)[:size]


def _stored(size: int) -> int:
    return -(-size // TILE) * TILE + 2


@dataclass(frozen=True)
class Folded:
    """A convolution with bias.

    Attributes:
        weight: [outputs, inputs, frames, rows, columns] float64.
        bias: [outputs] float64.
        stride: in rows and columns.
        activate: whether negative results become 0.
    """

    weight: Tensor
    bias: Tensor
    stride: int
    activate: bool


def fold(convolution: nn.Conv3d, norm: nn.BatchNorm3d, activate: bool) -> Folded:
    """The convolution and the BatchNorm in evaluation mode as one, computed in float64 on the CPU."""
    kernel, gain, offset, mean, variance = (
        tensor.detach().cpu().double()  # Apple's GPU has no float64
        for tensor in (convolution.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    scale = gain / torch.sqrt(variance + norm.eps)
    weight, bias = kernel * scale[:, None, None, None, None], offset - mean * scale
    return Folded(weight, bias, convolution.stride[1], activate)


def padded_channels(folded: Folded, lanes: int) -> Folded:
    """The same convolution between channels rounded up to whole vectors of `lanes`, the new ones zero."""
    outputs, inputs = (-(-size // lanes) * lanes for size in folded.weight.shape[:2])
    weight = folded.weight.new_zeros((outputs, inputs, *folded.weight.shape[2:]))
    weight[: folded.weight.shape[0], : folded.weight.shape[1]] = folded.weight
    bias = folded.bias.new_zeros(outputs)
    bias[: len(folded.bias)] = folded.bias
    return Folded(weight, bias, folded.stride, folded.activate)


class Layer(Protocol):
    """A convolution with `outputs` channels and a stride in rows and columns, ready to run."""

    outputs: int
    stride: int

    def run(self, x: Frames, y: Frames, shortcut: Frames | None = None) -> None:
        """Write the pixels of y; `shortcut` is added before the activation. y may hold no frames."""
        ...


class ImageConvolution(Protocol):
    """The first convolution of the stem, with its activation."""

    outputs: int
    stride: int

    def run(self, images: Tensor, y: Frames) -> None:
        """Images [n, rows, columns] to n frames."""
        ...


def has_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN can be called for such images: on the CPU in single precision, where this torch was built with it.

    In half precision torch chooses it by itself, where the processor allows it.
    """
    is_built_in = torch.backends.mkldnn.is_available() and hasattr(torch, "mkldnn_convolution")
    return device.type == "cpu" and dtype == torch.float32 and is_built_in


def onednn_convolution(image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: tuple) -> torch.Tensor:
    """`conv3d` by oneDNN, whatever the size.

    For single images below some size torch takes a general matrix product in its place, which is ten times as slow.
    """
    return torch.mkldnn_convolution(image, weight, bias, (0, 0, 0), stride, (1, 1, 1), 1)


class TorchLayer:
    """A folded convolution through torch, channels last."""

    def __init__(self, folded: Folded, device: torch.device, dtype: torch.dtype) -> None:
        self.outputs, self.stride = folded.weight.shape[0], folded.stride
        self._activate, self._side = folded.activate, folded.weight.shape[3]
        self._weight = folded.weight.to(dtype).to(device).contiguous(memory_format=torch.channels_last_3d)
        self._bias = folded.bias.to(dtype).to(device)
        self._convolution = onednn_convolution if has_onednn(device, dtype) else nn.functional.conv3d

    def run(self, x: Frames, y: Frames, shortcut: Frames | None = None) -> None:
        """See :class:`Layer`."""
        if not len(y):
            return
        inputs = x.pixels if self._side == 1 else x.tensor[:, : x.rows + 2, : x.columns + 2]
        image = inputs.permute(3, 0, 1, 2)[None]
        result = self._convolution(image, self._weight, self._bias, (1, self.stride, self.stride))
        result = result[0].permute(1, 2, 3, 0)
        if shortcut is not None:
            result += shortcut.pixels
        if self._activate:
            torch.clamp_min(result, 0, out=y.pixels)
        else:
            y.pixels.copy_(result)


class FirstLayer:
    """The first convolution of the stem, on images of one channel, through torch."""

    def __init__(self, folded: Folded, device: torch.device, dtype: torch.dtype) -> None:
        self.outputs, self.stride = folded.weight.shape[0], folded.stride
        self._padding = folded.weight.shape[3] // 2
        self._weight = folded.weight[:, :, 0].to(dtype).to(device).contiguous(memory_format=torch.channels_last)
        self._bias = folded.bias.to(dtype).to(device)

    def run(self, images: Tensor, y: Frames) -> None:
        """See :class:`ImageConvolution`."""
        if len(images):
            result = nn.functional.conv2d(
                images[:, None].to(self._weight.dtype), self._weight, self._bias, self.stride, self._padding
            )
            y.pixels.copy_(result.relu_().permute(0, 2, 3, 1))


class Backend(Protocol):
    """Makes layers of folded convolutions, between frames whose channels are multiples of `lanes`."""

    device: torch.device
    dtype: torch.dtype
    lanes: int

    def first(self, folded: Folded) -> ImageConvolution:
        """The first convolution, of images of one channel, ready to run."""
        ...

    def layer(self, folded: Folded) -> Layer:
        """The convolution, ready to run."""
        ...


class TorchBackend:
    """torch's own convolutions, on any device and in any precision."""

    lanes = 1

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype

    def first(self, folded: Folded) -> ImageConvolution:
        """See :class:`Backend`."""
        return FirstLayer(folded, self.device, self.dtype)

    def layer(self, folded: Folded) -> Layer:
        """See :class:`Backend`."""
        return TorchLayer(folded, self.device, self.dtype)
