"""The networks of earlier methods, each built from the description in its paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from DualTrackCore.errors import DualTrackError, InputError
from DualTrackCore.research.baselines.motion_network import MotionNetwork, State

#: Windows of frames that go through the 3D network at a time outside training; bounds the memory.
_WINDOWS_AT_A_TIME = 16


def convolution_2d(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    """Convolution without bias, padded to keep the size over the stride, and BatchNorm."""
    return [nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)]


def convolution_3d(inputs: int, outputs: int, size: tuple[int, int, int], stride: int = 1, groups: int = 1) -> list:
    """The same in three dimensions; the stride is in space only, not in time."""
    padding = tuple(side // 2 for side in size)
    layer = nn.Conv3d(inputs, outputs, size, (1, stride, stride), padding, groups=groups, bias=False)
    return [layer, nn.BatchNorm3d(outputs)]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016); the first halves rows and columns."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution_2d(inputs, outputs, 3, 2), nn.ReLU(inplace=True), *convolution_2d(outputs, outputs, 3)
        )
        self.shortcut = nn.Sequential(*convolution_2d(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h / 2, w / 2]."""
        # Every second pixel, and no stride: the weight gradient of oneDNN's 1x1 convolution with a stride is wrong, or
        # ends the process, on processors without AVX-512 where channels are no multiple of 8 (torch 2.14.1).
        return torch.relu(self.body(x) + self.shortcut(x[..., ::2, ::2]))


class PairEncoder(nn.Module):
    """Residual network over pairs of frames: stem, residual blocks, one linear layer over the last feature map.

    Args:
        crop_size: pixels a side of the images; a multiple of 2 to the number of widths.
        widths: channels of the stem (5x5) and of each block; each halves rows and columns.
        features: length of the feature vector of a pair.
    """

    def __init__(self, crop_size: int, widths: Sequence[int], features: int) -> None:
        super().__init__()
        side = map_side(crop_size, len(widths))
        self.trunk = nn.Sequential(
            *convolution_2d(2, widths[0], 5, 2),
            nn.ReLU(inplace=True),
            *(ResidualBlock(inputs, outputs) for inputs, outputs in pairwise(widths)),
        )
        self.project = nn.Linear(widths[-1] * side**2, features)
        self.to(memory_format=torch.channels_last)  # about twice as fast on a CPU

    def forward(self, images: Tensor) -> Tensor:
        """Return features [B, n - 1, features] of the pairs of neighbours in images [B, n, H, W], 0 to 1."""
        return self.project(self.trunk(pairs(images)).flatten(1)).unflatten(0, (len(images), -1))


def pairs(images: Tensor) -> Tensor:
    """Return the pairs of neighbours [B (n - 1), 2, H, W], -0.5 to 0.5, of images [B, n, H, W], 0 to 1."""
    both = torch.stack([images[:, :-1], images[:, 1:]], dim=2).flatten(0, 1)
    return (both - 0.5).contiguous(memory_format=torch.channels_last)


def map_side(crop_size: int, halvings: int) -> int:
    """Return the rows of the feature map after so many halvings.

    Raises InputError: the crop is no multiple of 2 to the number of halvings.
    """
    side, rest = divmod(crop_size, 2**halvings)
    if halvings < 1 or side < 1 or rest:
        raise InputError(f"crop_size is {crop_size}; it must be a multiple of 2 to the number of widths ({halvings}).")
    return side


class TwoFrameCNN(MotionNetwork):
    """Convolutions over two frames as channels, then two dense layers, to six numbers.

    Prevost, Salehi, Jagoda, Kumar, Sprung, Ladikos, Bauer, Zettinig and Wein 2018, "3D freehand ultrasound without
    external tracking using deep learning" (Med. Image Anal. 48: 187).

    From the description: the two frames are the channels of one image; convolutions that halve it lead to dense layers.
    Different: no optical flow between the frames as two more channels, no orientations of an inertial sensor; BatchNorm
    after every convolution; strides in place of pooling; the crop of the card in place of the whole frame; sizes.

    Args:
        crop_size: pixels a side of the crop; a multiple of 2 to the number of widths.
        widths: channels of the convolutions (5x5, then 3x3); each halves rows and columns.
        hidden: numbers between the two dense layers.
        dropout: before the last layer, in training.
    """

    architecture = "two-frame"

    def __init__(
        self,
        crop_size: int = 64,
        widths: Sequence[int] = (16, 32, 64, 64),
        hidden: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(crop_size, locals())
        side = map_side(crop_size, len(widths))
        layers: list[nn.Module] = []
        for inputs, outputs in zip((2, *widths), widths, strict=False):
            layers += [*convolution_2d(inputs, outputs, 3 if layers else 5, 2), nn.ReLU(inplace=True)]
        self.trunk = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.dense = nn.Sequential(nn.Linear(widths[-1] * side**2, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout))
        self.head = nn.Linear(hidden, 6)

    def outputs(self, images: Tensor, state: State = None) -> tuple[Tensor, State]:
        motions = self.head(self.dense(self.trunk(pairs(images)).flatten(1)))
        return motions.unflatten(0, (len(images), -1)), None


class Bottleneck(nn.Module):
    """1x1x1, grouped 3x3x3 and 1x1x1 convolutions beside a shortcut (Xie et al. 2017, in three dimensions)."""

    def __init__(self, inputs: int, width: int, groups: int, stride: int) -> None:
        super().__init__()
        outputs = 2 * width
        self.body = nn.Sequential(
            *convolution_3d(inputs, width, (1, 1, 1)),
            nn.ReLU(inplace=True),
            *convolution_3d(width, width, (3, 3, 3), stride, groups),
            nn.ReLU(inplace=True),
            *convolution_3d(width, outputs, (1, 1, 1)),
        )
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential(*(convolution_3d(inputs, outputs, (1, 1, 1), stride) if changes else ()))

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

    From the description: the network gives the mean of the motions in the window, and the motion of a step is the mean
    over the windows that hold it. Different: the losses that the papers add to the squared error (case-wise
    correlation; contrastive in DC2-Net) are left out, as in all baselines here; the attention is a convolution and a
    sigmoid; the feature map is averaged over time and to `grid` rows and columns, and not to one number a channel
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
        layers, inputs = [*convolution_3d(1, stem, (3, 7, 7), 2), nn.ReLU(inplace=True)], stem
        for width in widths:
            for block in range(blocks):
                layers.append(Bottleneck(inputs, width, groups, 2 if block == 0 else 1))
                inputs = 2 * width
        self.trunk = nn.Sequential(*layers, SpaceTimeAttention(inputs)).to(memory_format=torch.channels_last_3d)
        self.pool = nn.AdaptiveAvgPool3d((1, grid, grid))
        self.head = nn.Linear(inputs * grid**2, 6)

    def outputs(self, images: Tensor, state: State = None) -> tuple[Tensor, State]:
        windows = images.unfold(1, self.window_frames, 1).movedim(-1, 2)  # [B, m, W, crop, crop], a view
        rows = windows.flatten(0, 1)[:, None] - 0.5
        parts = [rows] if self.training else rows.split(_WINDOWS_AT_A_TIME)
        maps = (self.trunk(part.contiguous(memory_format=torch.channels_last_3d)) for part in parts)
        motions = torch.cat([self.head(self.pool(part).flatten(1)) for part in maps])
        return motions.unflatten(0, windows.shape[:2]), None


class CnnLstm(MotionNetwork):
    """A residual network over frame pairs, an LSTM over the sweep, one linear layer.

    Luo, Yang, Wang, Du and Ni 2022, "Deep motion network for freehand 3D ultrasound reconstruction" (MoNet, MICCAI).

    Different from the description: no branches for the inertial sensor and no self-supervision by its readings, because
    plain sweeps have no sensor; the two frames enter as channels; the loss is that of all baselines here; sizes. Such a
    network is what the comparisons of that paper and of DualTrack's call a CNN-LSTM.

    Args:
        crop_size, widths, features: of the :class:`PairEncoder`.
        hidden, layers: of the LSTM; `hidden` numbers make its state.
    """

    architecture = "cnn-lstm"

    def __init__(
        self,
        crop_size: int = 64,
        widths: Sequence[int] = (16, 32, 48, 64),
        features: int = 64,
        hidden: int = 96,
        layers: int = 1,
    ) -> None:
        super().__init__(crop_size, locals())
        self.encoder = PairEncoder(crop_size, widths, features)
        self.recurrent = nn.LSTM(features, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, 6)

    def outputs(self, images: Tensor, state: State = None) -> tuple[Tensor, State]:
        values, state = self.recurrent(self.encoder(images).relu(), state)
        return self.head(values), state


class BackwardAttention(nn.Module):
    """Multi-head attention of each step to itself and the `reach` - 1 steps before it.

    A learnt number for each head and distance is added to the scores. Distances are the only code for time, so a sweep
    may have any length.
    """

    def __init__(self, hidden: int, heads: int, reach: int) -> None:
        super().__init__()
        self.heads, self.reach = heads, reach
        self.project = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.distance_bias = nn.Parameter(torch.zeros(heads, reach))

    def forward(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """Let steps x [B, n, C] attend to themselves and to keys and values `before` [2, B, heads, k, C / heads].

        Return the outputs [B, n, C] and the keys and values that the next piece needs.
        """
        query, *latest = self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        both = torch.stack(latest)
        if before is not None:
            both = torch.cat([before, both], dim=3)
        steps, keys = x.shape[1], both.shape[3]
        index = torch.arange(keys, device=x.device)
        distance = index[keys - steps :, None] - index
        visible = (distance >= 0) & (distance < self.reach)
        scores = self.distance_bias[:, distance.clamp(0, self.reach - 1)].masked_fill(~visible, -torch.inf)
        values = F.scaled_dot_product_attention(query, *both, attn_mask=scores.to(query.dtype))
        kept = both[:, :, :, max(keys - self.reach + 1, 0) :]
        return self.output(values.transpose(1, 2).flatten(2)), kept


class _Layer(nn.Module):
    """Attention and an MLP, each with a LayerNorm before it and a shortcut around it."""

    def __init__(self, hidden: int, heads: int, mlp: int, reach: int) -> None:
        super().__init__()
        self.attention = BackwardAttention(hidden, heads, reach)
        self.mlp = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, mlp), nn.GELU(), nn.Linear(mlp, hidden))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the steps [B, n, C] and the layer's keys and values for the next piece."""
        attended, kept = self.attention(self.norm(x), before)
        x = x + attended
        return x + self.mlp(x), kept


class HybridTransformer(MotionNetwork):
    """A residual network over frame pairs, a transformer over the sweep, one linear layer.

    Ning, Liang, Zhou, Zhang and Liao 2022, "Spatial position estimation method for 3D ultrasound reconstruction based
    on hybrid transformers" (ISBI).

    Different from the description: the backbone looks at pairs of frames; attention goes back `reach` steps a layer and
    never forward, with a learnt term for the distance in place of position codes, so that a sweep of any length is
    tracked as it comes in; LayerNorm before each part; the loss is that of all baselines here; sizes.

    Args:
        crop_size, widths: of the :class:`PairEncoder`.
        hidden: numbers a step; a multiple of `heads`.
        layers, heads, mlp: of the transformer.
        reach: receptive field of a layer in steps, its own included; at most the length of the training windows, so
            that every distance is trained.
    """

    architecture = "hybrid"

    def __init__(
        self,
        crop_size: int = 64,
        widths: Sequence[int] = (16, 32, 48, 64),
        hidden: int = 64,
        layers: int = 2,
        heads: int = 4,
        mlp: int = 128,
        reach: int = 19,
    ) -> None:
        super().__init__(crop_size, locals())
        if hidden % heads or reach < 1:
            raise InputError(
                f"hidden ({hidden}) must be a multiple of heads ({heads}), and reach ({reach}) at least 1."
            )
        self.encoder = PairEncoder(crop_size, widths, hidden)
        self.layers = nn.ModuleList(_Layer(hidden, heads, mlp, reach) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, 6)

    def outputs(self, images: Tensor, state: State = None) -> tuple[Tensor, State]:
        x, kept = self.encoder(images), []
        for layer, before in zip(self.layers, state or [None] * len(self.layers), strict=True):
            x, latest = layer(x, before)
            kept.append(latest)
        return self.head(self.norm(x)), kept


#: Name to network.
ARCHITECTURES: Mapping[str, type[MotionNetwork]] = MappingProxyType(
    {network.architecture: network for network in (TwoFrameCNN, WindowResNeXt, CnnLstm, HybridTransformer)}
)


def build_baseline(kind: str, **arguments: Any) -> MotionNetwork:
    """Return a network with random weights.

    Args:
        kind: a key of :data:`ARCHITECTURES`.
        arguments: of the network's class; the others have defaults.

    Raises InputError: an unknown kind or argument, or sizes that do not fit together.
    """
    if kind not in ARCHITECTURES:
        raise InputError(f"The baseline kind {kind!r} is unknown; choose {', '.join(ARCHITECTURES)}.")
    try:
        return ARCHITECTURES[kind](**arguments)
    except (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
        if isinstance(error, DualTrackError):
            raise
        raise InputError(f"These sizes make no {kind} network: {error}.") from None
