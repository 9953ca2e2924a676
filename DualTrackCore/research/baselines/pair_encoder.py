"""Features of pairs of neighbouring frames: a small residual network over the two frames as channels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from DualTrackCore.errors import InputError


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    """Convolution without bias, padded to keep the size over the stride, and BatchNorm."""
    return [nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016); the first halves rows and columns."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(inputs, outputs, 3, 2), nn.ReLU(inplace=True), *convolution(outputs, outputs, 3)
        )
        self.shortcut = nn.Sequential(*convolution(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h / 2, w / 2]."""
        # Every second pixel, and no stride: the weight gradient of oneDNN's 1x1 convolution with a stride is wrong, or
        # ends the process, on processors without AVX-512 where channels are no multiple of 8 (torch 2.14.1).
        return torch.relu(self.body(x) + self.shortcut(x[..., ::2, ::2]))


class PairEncoder(nn.Module):
    """Stem, residual blocks, one linear layer over the last feature map.

    Args:
        crop_size: pixels a side of the images; a multiple of 2 to the number of widths.
        widths: channels of the stem and of each block; each halves rows and columns.
        features: numbers a pair.
    """

    def __init__(self, crop_size: int, widths: Sequence[int], features: int) -> None:
        super().__init__()
        side = map_side(crop_size, len(widths))
        self.trunk = nn.Sequential(
            *convolution(2, widths[0], 5, 2),
            nn.ReLU(inplace=True),
            *(ResidualBlock(inputs, outputs) for inputs, outputs in pairwise(widths)),
        )
        self.project = nn.Linear(widths[-1] * side**2, features)
        self.to(memory_format=torch.channels_last)  # about twice as fast on CPUs

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, n, H, W] in 0 to 1 to features [B, n - 1, features] of pairs of neighbours."""
        return self.project(self.trunk(pairs(images)).flatten(1)).unflatten(0, (len(images), -1))


def pairs(images: Tensor) -> Tensor:
    """Images [B, n, H, W] in 0 to 1 to pairs of neighbours [B (n - 1), 2, H, W], about zero."""
    both = torch.stack([images[:, :-1], images[:, 1:]], dim=2).flatten(0, 1)
    return (both - 0.5).contiguous(memory_format=torch.channels_last)


def map_side(crop_size: int, halvings: int) -> int:
    """Rows of the feature map after so many halvings.

    Raises:
        InputError: they do not divide the crop.
    """
    side, rest = divmod(crop_size, 2**halvings)
    if halvings < 1 or side < 1 or rest:
        raise InputError(f"crop_size is {crop_size}; it must be a multiple of 2 to the number of widths ({halvings}).")
    return side
