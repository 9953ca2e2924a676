"""The 3D trunk over a stream of frames, with the result of the whole sequence at once.

Every temporal convolution keeps its last two input frames, and every shortcut waits for the convolutions it goes
around, so nothing is computed twice and memory does not depend on the length of the sweep. An output frame appears once
the frames it depends on have been pushed: 17 frames behind the newest one for the published trunk.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from DualTrackCore.network.trunk import BasicBlock, Trunk


class StreamingTrunk:
    """Push frames in pieces of any length, get feature maps in order.

    A push either happens as a whole or, if it raises (out of memory), not at all: it can be repeated with fewer frames.

    Args:
        trunk: in evaluation mode.
        consume: what is done with the feature maps [m, width, h, w] of a push; a failure of it undoes the push as well.
    """

    def __init__(self, trunk: Trunk, consume: Callable[[Tensor], Tensor] | None = None) -> None:
        self._trunk, self._consume = trunk, consume
        self._kept: dict[str, Tensor] = {}

    def push(self, images: Tensor, last: bool = False) -> Tensor:
        """Next frames of the sweep.

        Args:
            images: [n, crop, crop] float32 in 0 to 1.
            last: whether the sweep ends with these frames; the remaining maps are then returned as well.

        Returns:
            Feature maps [m, width, h, w] of the frames that have become complete, in order (m may be 0), or what
            `consume` makes of them.
        """
        step = _Step(self._kept, last)
        x = step.run("stem", self._trunk.stem, images[None, None])
        for index, block in enumerate(self._trunk.blocks):
            x = step.block(str(index), block, x)
        maps = x[0].transpose(0, 1)
        result = maps if self._consume is None else self._consume(maps)
        self._kept = step.kept
        return result


class _Step:
    """One push: reads what the previous one kept, collects what the next one needs."""

    def __init__(self, before: dict[str, Tensor], last: bool) -> None:
        self._before, self._last = before, last
        self.kept: dict[str, Tensor] = {}

    def block(self, name: str, block: BasicBlock, x: Tensor) -> Tensor:
        """A basic block; its shortcut is delayed until its convolutions have caught up."""
        waiting = self._joined(f"{name}.shortcut", block.shortcut(x) if x.shape[2] else None)
        out = self.run(f"{name}.conv2", block.conv2, self.run(f"{name}.conv1", block.conv1, x))
        if waiting is None:
            return out
        ready = out.shape[2]
        self.kept[f"{name}.shortcut"] = waiting[:, :, ready:].clone()
        return torch.relu_(out + waiting[:, :, :ready]) if ready else out

    def run(self, name: str, layers: nn.Sequential, x: Tensor) -> Tensor:
        """Convolutions with their norms and activations."""
        for index, layer in enumerate(layers):
            if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] == 3:
                x = self._temporal(f"{name}.{index}", layer, x)
            elif x.shape[2]:
                x = layer(x)
            elif isinstance(layer, nn.Conv3d):
                x = _no_frames(layer, x)
        return x

    def _temporal(self, name: str, convolution: nn.Conv3d, x: Tensor) -> Tensor:
        """Kernel of three frames: keeps the last two, sees a zero frame before the first and after the last."""
        if name not in self._before and x.shape[2]:
            x = nn.functional.pad(x, (0, 0, 0, 0, 1, 0))
        x = self._joined(name, x)
        if self._last:
            x = nn.functional.pad(x, (0, 0, 0, 0, 0, 1))
        if x.shape[2]:
            self.kept[name] = x[:, :, -2:].clone()
        if x.shape[2] < 3:
            return _no_frames(convolution, x)
        _, rows, columns = convolution.padding
        return nn.functional.conv3d(x, convolution.weight, None, convolution.stride, (0, rows, columns))

    def _joined(self, name: str, new: Tensor | None) -> Tensor:
        old = self._before.get(name)
        if old is None or new is None:
            return new if old is None else old
        return torch.cat([old.to(new.dtype), new], dim=2) if new.shape[2] else old


def _no_frames(convolution: nn.Conv3d, x: Tensor) -> Tensor:
    """What the convolution gives for no frames at all: the right channels and size, zero frames."""
    rows, columns = (
        (size + 2 * pad - kernel) // stride + 1
        for size, pad, kernel, stride in zip(
            x.shape[3:],
            convolution.padding[1:],
            convolution.kernel_size[1:],
            convolution.stride[1:],
            strict=True,
        )
    )
    return x.new_empty((x.shape[0], convolution.out_channels, 0, rows, columns))
