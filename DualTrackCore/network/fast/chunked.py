"""The trunk in whole chunks of frames, for graphics cards: torch's convolutions, weights resident in one piece.

A chunk goes through the layers with the convolutions' own zero padding. Where the sweep goes on beyond it, the frames
that this padding has reached (17 on either side for the published trunk) are computed for nothing and left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from DualTrackCore.memory import is_out_of_memory
from DualTrackCore.network.blocks import TRUNK_STRIDE, Trunk
from DualTrackCore.network.fast.layers import Folded, fold, padded_channels

#: Tensor cores take channels in eights; tensors in a packed block start at multiples of so many bytes.
_LANES, _ALIGNED = 8, 256


def uploaded(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Contiguous copies of tensors on a device, sent as one block of bytes."""
    if device.type == "mps":  # nobody tried such a block on Apple's GPUs
        return [tensor.detach().contiguous().to(device) for tensor in tensors]
    sizes = [-(-tensor.nbytes // _ALIGNED) * _ALIGNED for tensor in tensors]
    block = torch.zeros(sum(sizes), dtype=torch.uint8)
    for part, tensor in zip(block.split(sizes), tensors, strict=True):
        part[: tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())
    there = block.to(device).split(sizes)
    return [p[: t.nbytes].view(t.dtype).view(t.shape) for p, t in zip(there, tensors, strict=True)]


class Convolution:
    """A folded convolution between whole maps [1, C, n, h, w], channels last in memory."""

    def __init__(self, folded: Folded, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight.permute(0, 4, 1, 2, 3), bias
        self.stride, self.padding = (1, folded.stride, folded.stride), [size // 2 for size in folded.weight.shape[2:]]
        self.activate = folded.activate
        self._fused = weight.is_cuda and hasattr(torch, "cudnn_convolution_add_relu")

    def __call__(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """The maps of x, plus a shortcut, activated."""
        if self._fused and self.activate:
            try:
                return self._in_one(x, shortcut)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self._fused = False  # this cuDNN or this card has no such kernel
        y = F.conv3d(x, self.weight, self.bias, self.stride, self.padding)
        y = y if shortcut is None else y.add_(shortcut)
        return y.relu_() if self.activate else y

    def _in_one(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        rest = self.bias, self.stride, self.padding, (1, 1, 1), 1
        if shortcut is None:
            return torch.cudnn_convolution_relu(x, self.weight, *rest)
        return torch.cudnn_convolution_add_relu(x, self.weight, shortcut, 1.0, *rest)


class ChunkedTrunk:
    """A trunk on a device.

    Args:
        trunk: in evaluation mode, on any device.
        device: where the frames will be.
        dtype: of the convolutions; their sums are in float32.
    """

    def __init__(self, trunk: Trunk, device: torch.device, dtype: torch.dtype) -> None:
        stem, self.width, self.reach_frames = trunk.stem, trunk.width, trunk.reach_frames
        self.device, self.dtype = device, dtype
        pairs: list[tuple[nn.Sequential, bool]] = [(stem[0:2], True), (stem[3:5], True)]
        for block in trunk.blocks:
            pairs += [(block.conv1[:2], True), (block.conv2, True)]
            pairs += [] if block.downsample is None else [(block.downsample, False)]
        folded = [padded_channels(fold(*pair, activate), _LANES) for pair, activate in pairs]
        weights = [one.weight.permute(0, 2, 3, 4, 1).to(dtype) for one in folded]
        weights[0] = weights[0][..., :1]
        there = uploaded([*weights, *(one.bias.to(dtype) for one in folded)], device)
        made = iter([Convolution(*parts) for parts in zip(folded, there, there[len(folded) :], strict=False)])
        self._stem = next(made), next(made)
        self._blocks = [(next(made), next(made), block.downsample and next(made)) for block in trunk.blocks]

    def __call__(self, images: Tensor) -> Tensor:
        """Images [n, rows, columns] in 0 to 1 to maps [n, width, h, w], zero frames before and after them."""
        x = images.to(self.dtype)[None, None]
        for convolution in self._stem:
            x = convolution(x)
        for first, second, projection in self._blocks:
            x = second(first(x), x if projection is None else projection(x))
        return x[0, : self.width].transpose(0, 1)

    def stream(self) -> ChunkStream:
        """A sweep from its first frame on."""
        return ChunkStream(self)


class ChunkStream:
    """Push frames in pieces of any length, get feature maps in order; nothing is kept but the frames of the borders.

    Attributes:
        tail: maps [m, width, h, w] of the last frames pushed, which are not complete, as if the sweep ended with them;
            None before any frame is complete.
    """

    def __init__(self, trunk: ChunkedTrunk) -> None:
        self._trunk = trunk
        self._ring = torch.empty(0)
        self.tail: Tensor | None = None
        self._first = self._count = self._done = 0  # first frame in the ring, frames pushed, maps returned

    def push(self, images: Tensor, last: bool = False) -> Tensor:
        """See :class:`~DualTrackCore.network.session.MapStream`."""
        reach, held = self._trunk.reach_frames, self._count - self._first
        if held + len(images) > len(self._ring):
            ring = images.new_empty((2 * reach + len(images), *images.shape[1:]), dtype=self._trunk.dtype)
            if held:
                ring[:held] = self._ring[:held]
            self._ring = ring
        self._ring[held : held + len(images)] = images
        self._count += len(images)
        ready = self._count if last else max(self._count - reach, self._done)
        start, self._done = self._done, ready
        if ready == start:
            side = self._trunk.width, *(size // TRUNK_STRIDE for size in images.shape[1:])
            return images.new_empty((0, *side), dtype=self._trunk.dtype)
        maps = self._trunk(self._ring[: self._count - self._first])
        maps, self.tail = maps[start - self._first : ready - self._first], maps[ready - self._first :].clone()
        keep = max(ready - reach, 0)
        self._ring[: self._count - keep] = self._ring[keep - self._first : self._count - self._first].clone()
        self._first = keep
        return maps
