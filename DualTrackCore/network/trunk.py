"""The convolutional trunk that both encoders share: a ResNet-18 over (time, row, column).

The local encoder's trunk mixes neighbouring frames in every layer (kernels of three frames), the global encoder's
treats each frame on its own (kernels of one). Layer names are those of the published state dicts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: Rows and columns of a crop over those of its feature map: the stem halves them once, stages 2 to 4 once each.
TRUNK_STRIDE = 16


def convolution(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int = 1, activate: bool = True
) -> nn.Sequential:
    """Convolution without bias, padded to keep the size (times `stride` in space only), BatchNorm, optional ReLU."""
    padding = tuple(k // 2 for k in kernel)
    layers = [
        nn.Conv3d(inputs, outputs, kernel, stride=(1, stride, stride), padding=padding, bias=False),
        nn.BatchNorm3d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if activate else nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut; the first convolution carries the spatial stride."""

    def __init__(self, inputs: int, outputs: int, frames: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, (frames, 3, 3), stride)
        self.conv2 = convolution(outputs, outputs, (frames, 3, 3), activate=False)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = convolution(inputs, outputs, (1, 1, 1), stride, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, N, h, w] to [B, C', N, h / stride, w / stride]."""
        return torch.relu(self.conv2(self.conv1(x)) + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """The shortcut: the input itself, or its projection where the shape changes."""
        return x if self.downsample is None else self.downsample(x)


class Trunk(nn.Module):
    """Stem and four stages.

    Args:
        widths: channels of the four stages.
        stem_width: channels between the two stem convolutions.
        blocks: basic blocks a stage.
        temporal: whether kernels cover three frames (local encoder) or one (global encoder).
    """

    def __init__(self, widths: Sequence[int], stem_width: int, blocks: int, temporal: bool) -> None:
        super().__init__()
        frames = 3 if temporal else 1
        second = (3, 1, 1) if temporal else (1, 3, 3)
        self.stem = nn.Sequential(
            *convolution(1, stem_width, (1, 7, 7), stride=2), *convolution(stem_width, widths[0], second)
        )
        inputs = widths[0]
        for stage, width in enumerate(widths):
            first_stride = 1 if stage == 0 else 2
            stage_blocks = [
                BasicBlock(inputs if b == 0 else width, width, frames, first_stride if b == 0 else 1)
                for b in range(blocks)
            ]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*stage_blocks))
            inputs = width
        self.width = inputs

    @property
    def blocks(self) -> list[BasicBlock]:
        """All basic blocks in order."""
        return [block for stage in range(1, 5) for block in getattr(self, f"layer{stage}")]

    @property
    def reach_frames(self) -> int:
        """Frames on either side that an output frame depends on: half the receptive field."""
        return sum(module.kernel_size[0] // 2 for module in self.modules() if isinstance(module, nn.Conv3d))

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, N, H, W] in 0 to 1 to [B, width, N, H / 16, W / 16]."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x
