"""A 3D ResNeXt over a short window of frames, to the mean motion in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from DualTrackCore.errors import InputError
from DualTrackCore.research.baselines.motion_network import MotionNetwork, State

#: Windows that go through the network at a time outside training: bounds memory where a piece holds many.
_WINDOWS_AT_A_TIME = 16


def convolution(inputs: int, outputs: int, size: tuple[int, int, int], stride: int = 1, groups: int = 1) -> list:
    """3D convolution without bias, padded to keep the size (over `stride` in space only), and BatchNorm."""
    padding = tuple(s // 2 for s in size)
    layer = nn.Conv3d(inputs, outputs, size, (1, stride, stride), padding, groups=groups, bias=False)
    return [layer, nn.BatchNorm3d(outputs)]


class Bottleneck(nn.Module):
    """1x1x1, grouped 3x3x3 and 1x1x1 convolutions beside a shortcut (Xie et al. 2017, in three dimensions)."""

    def __init__(self, inputs: int, width: int, groups: int, stride: int) -> None:
        super().__init__()
        outputs = 2 * width
        self.body = nn.Sequential(
            *convolution(inputs, width, (1, 1, 1)),
            nn.ReLU(inplace=True),
            *convolution(width, width, (3, 3, 3), stride, groups),
            nn.ReLU(inplace=True),
            *convolution(width, outputs, (1, 1, 1)),
        )
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential(*(convolution(inputs, outputs, (1, 1, 1), stride) if changes else ()))

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, W, h, w] to [n, 2 width, W, h / stride, w / stride]."""
        return torch.relu(self.body(x) + self.shortcut(x))


class SpaceTimeAttention(nn.Module):
    """One weight in 0 to 1 for each place and time of the feature map; the features are taken 1 + weight times."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Conv3d(channels, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, C, W, h, w] to the same shape."""
        return x * (1 + torch.sigmoid(self.weigh(x)))


class WindowResNeXt(MotionNetwork):
    """Grouped 3D bottlenecks over a window of frames, attention over its feature map, one linear layer.

    Guo, Xu, Wood and Yan 2020, "Sensorless freehand 3D ultrasound reconstruction via deep contextual learning"
    (DCL-Net, MICCAI), whose network DC2-Net (Guo, Chao, Xu, Wood, Wang and Yan 2022, IEEE Trans. Biomed. Eng.) keeps.

    From the description: a 3D ResNeXt takes a short window of frames, a self-attention module tells which places
    matter, the network gives the mean of the motions in the window, and the motion of a step is the mean over the
    windows that hold it. Different: the losses that the papers add to the squared error (case-wise correlation;
    contrastive in DC2-Net) are left out, so that all baselines here learn by one loss; the attention is one convolution
    and a sigmoid; the feature map is averaged over time and to `grid` rows and columns, and not to one number a channel
    (`grid` 1); the crop of the card in place of the whole frame; sizes.

    Args:
        crop_size: pixels a side of the crop; a multiple of 2 to the number of widths plus 1.
        window_frames: frames of a window, 2 or more.
        stem: channels of the first convolution, 3x7x7, which halves rows and columns.
        widths: channels of the grouped convolutions of each stage, which halves rows and columns.
        blocks: bottlenecks a stage.
        groups: of the grouped convolutions; divides every width.
        grid: rows and columns that the last feature map is averaged to.
    """

    architecture = "resnext"

    def __init__(
        self,
        crop_size: int = 64,
        window_frames: int = 5,
        stem: int = 8,
        widths: Sequence[int] = (16, 48, 96),
        blocks: int = 1,
        groups: int = 8,
        grid: int = 4,
    ) -> None:
        super().__init__(crop_size, locals())
        if window_frames < 2 or any(width % groups for width in widths):
            raise InputError(
                f"window_frames ({window_frames}) must be at least 2, and groups ({groups}) divide the widths {widths}."
            )
        if crop_size % 2 ** (len(widths) + 1):
            raise InputError(f"crop_size is {crop_size}; it must be a multiple of {2 ** (len(widths) + 1)}.")
        self.window_frames = window_frames
        layers, inputs = [*convolution(1, stem, (3, 7, 7), 2), nn.ReLU(inplace=True)], stem
        for width in widths:
            for block in range(blocks):
                layers.append(Bottleneck(inputs, width, groups, 2 if block == 0 else 1))
                inputs = 2 * width
        self.trunk = nn.Sequential(*layers, SpaceTimeAttention(inputs)).to(memory_format=torch.channels_last_3d)
        self.pool = nn.AdaptiveAvgPool3d((1, grid, grid))
        self.head = nn.Linear(inputs * grid**2, 6)

    def outputs(self, images: Tensor, state: State = None) -> tuple[Tensor, State]:
        """See :meth:`MotionNetwork.outputs`; there is no state."""
        windows = images.unfold(1, self.window_frames, 1).movedim(-1, 2)  # [B, m, W, crop, crop], a view
        rows = windows.flatten(0, 1)[:, None] - 0.5
        parts = [rows] if self.training else rows.split(_WINDOWS_AT_A_TIME)
        motions = torch.cat([self._window_motions(part) for part in parts])
        return motions.unflatten(0, windows.shape[:2]), None

    def _window_motions(self, windows: Tensor) -> Tensor:
        """Windows [n, 1, W, crop, crop] to mean motions [n, 6]."""
        maps = self.trunk(windows.contiguous(memory_format=torch.channels_last_3d))
        return self.head(self.pool(maps).flatten(1))
