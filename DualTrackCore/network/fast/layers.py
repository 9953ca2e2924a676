"""Convolutions by torch's own kernels, which every machine has.

A layer reads frames, border and all, and writes the pixels of other frames. Where its kernel reaches over three frames,
n output frames come from n + 2 input frames.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from DualTrackCore.network.fast.folding import Folded
from DualTrackCore.network.fast.images import Frames


class Layer(Protocol):
    """A convolution, ready to run.

    Attributes:
        outputs: channels.
        stride: in rows and columns.
    """

    outputs: int
    stride: int

    def run(self, x: Frames, y: Frames, shortcut: Frames | None = None) -> None:
        """Write the pixels of y; `shortcut` is added before the activation. y may hold no frames."""
        ...


def has_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN can be called for such images: on the CPU in single precision, where this torch brings it.

    In half precision torch chooses it by itself, where the processor allows it.
    """
    brought = torch.backends.mkldnn.is_available() and hasattr(torch, "mkldnn_convolution")
    return device.type == "cpu" and dtype == torch.float32 and brought


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
        seen = x.pixels if self._side == 1 else x.tensor[:, : x.rows + 2, : x.columns + 2]
        image = seen.permute(3, 0, 1, 2)[None]
        result = self._convolution(image, self._weight, self._bias, (1, self.stride, self.stride))
        result = result[0].permute(1, 2, 3, 0)
        if shortcut is not None:
            result += shortcut.pixels
        if self._activate:
            torch.clamp_min(result, 0, out=y.pixels)
        else:
            y.pixels.copy_(result)


class FirstLayer:
    """The first convolution of the stem, on images of one channel."""

    def __init__(self, folded: Folded, device: torch.device, dtype: torch.dtype) -> None:
        self.outputs, self.stride = folded.weight.shape[0], folded.stride
        self._padding = folded.weight.shape[3] // 2
        self._weight = folded.weight[:, :, 0].to(dtype).to(device).contiguous(memory_format=torch.channels_last)
        self._bias = folded.bias.to(dtype).to(device)

    def run(self, images: torch.Tensor, y: Frames) -> None:
        """Images [n, rows, columns] to n frames."""
        if len(images):
            result = nn.functional.conv2d(
                images[:, None].to(self._weight.dtype), self._weight, self._bias, self.stride, self._padding
            )
            y.pixels.copy_(result.relu_().permute(0, 2, 3, 1))
