"""A trunk prepared for inference, and its frames as a stream."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch
from torch import Tensor

from DualTrackCore.network.fast.backend import Backend
from DualTrackCore.network.fast.folding import FoldedTrunk
from DualTrackCore.network.fast.images import Frames, Workspace
from DualTrackCore.network.fast.layers import FirstLayer, Layer

#: Where the three inputs alive at a time go around, and where a projected shortcut goes.
_ROUND, _BESIDE = 3, 3


@dataclass(frozen=True)
class FastBlock:
    """Two convolutions and the projection around them, if there is one."""

    conv1: Layer
    conv2: Layer
    shortcut: Layer | None


class FastTrunk:
    """Prepared weights, and the memory that pushing frames through them needs, for one push at a time.

    Args:
        folded: the trunk.
        backend: makes the layers.
    """

    def __init__(self, folded: FoldedTrunk, backend: Backend) -> None:
        self.width = folded.width
        self.first = FirstLayer(backend.padded(folded.stem[0], first=True), backend.device, backend.dtype)
        self.second = backend.layer(folded.stem[1])
        self.blocks = [
            FastBlock(
                backend.layer(block.conv1),
                backend.layer(block.conv2),
                None if block.shortcut is None else backend.layer(block.shortcut),
            )
            for block in folded.blocks
        ]
        self.workspace = Workspace(backend.device, backend.dtype)
        self.lock = threading.Lock()


@dataclass(frozen=True)
class Kept:
    """The last frames that a convolution has seen; `first` is the index of the first in the sweep, -1 for none yet."""

    frames: Tensor
    first: int


@dataclass(frozen=True)
class Window:
    """What a convolution over three frames sees of a push: kept frames, `new` ones, zeros beyond the ends."""

    frames: Frames
    new: Frames
    first: int

    @property
    def ready(self) -> int:
        """Frames that the convolution gives."""
        return max(len(self.frames) - 2, 0)


class Step:
    """One push: reads what the previous one kept, collects what the next one needs."""

    def __init__(self, trunk: FastTrunk, before: dict[int, Kept], last: bool) -> None:
        self._trunk, self._before, self._last = trunk, before, last
        self._taken = 0
        self.kept: dict[int, Kept] = {}

    def run(self, images: Tensor) -> Tensor:
        """Images [n, crop, crop] to the maps [m, width, h, w] that have become complete."""
        trunk = self._trunk
        rows, columns = (size // trunk.first.stride for size in images.shape[1:])
        window = self._window(len(images), rows, columns, trunk.first.outputs)
        trunk.first.run(images, window.new)
        stem = self._done(window)
        window = self._window(stem.ready, rows, columns, trunk.second.outputs)
        trunk.second.run(stem.frames, window.new)
        for index, block in enumerate(trunk.blocks):
            window = self._block(block, self._done(window), index == len(trunk.blocks) - 1)
        return window.new.pixels[..., : trunk.width].permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)

    def _block(self, block: FastBlock, x: Window, is_last: bool) -> Window:
        """A basic block; its shortcut is taken from those frames of the input that its convolutions have reached."""
        rows, columns = (size // block.conv1.stride for size in (x.frames.rows, x.frames.columns))
        middle = self._window(x.ready, rows, columns, block.conv1.outputs)
        block.conv1.run(x.frames, middle.new)
        middle = self._done(middle)
        start = middle.first + 1 - x.first
        around = x.frames.part(start, start + middle.ready)
        if block.shortcut is not None:
            projected = self._trunk.workspace.take(_BESIDE, middle.ready, rows, columns, block.shortcut.outputs)
            block.shortcut.run(around, projected)
            around = projected
        if is_last:
            frames = self._take(middle.ready, rows, columns, block.conv2.outputs)
            y = Window(frames, frames, 0)
        else:
            y = self._window(middle.ready, rows, columns, block.conv2.outputs)
        block.conv2.run(middle.frames, y.new, around)
        return y

    def _take(self, frames: int, rows: int, columns: int, channels: int) -> Frames:
        self._taken += 1
        return self._trunk.workspace.take(self._taken % _ROUND, frames, rows, columns, channels)

    def _window(self, new: int, rows: int, columns: int, channels: int) -> Window:
        """Room for `new` frames behind the kept ones; a zero frame before the first and after the last of the sweep."""
        kept = self._before.get(self._taken)
        before = len(kept.frames) if kept else min(new, 1)
        end = int(self._last and before + new > 0)
        frames = self._take(before + new + end, rows, columns, channels)
        frames.tensor[:before] = kept.frames if kept else 0
        frames.tensor[before + new :] = 0
        return Window(frames, frames.part(before, before + new), kept.first if kept else -1)

    def _done(self, window: Window) -> Window:
        """Keep the last frames of a window whose new frames have been written."""
        count = len(window.frames)
        if count:
            start = max(count - 2, 0)
            self.kept[self._window_number()] = Kept(window.frames.tensor[start:].clone(), window.first + start)
        return window

    def _window_number(self) -> int:
        return self._taken - 1


class FastStream:
    """Frames of one sweep through a fast trunk, in pieces of any length.

    Attributes:
        kept: by convolution, the frames that it has seen last. A step leaves it as it is; whoever has used the maps of
            the step puts what the step returned in its place, and the step has happened.
    """

    def __init__(self, trunk: FastTrunk) -> None:
        self._trunk = trunk
        self.kept: dict[int, Kept] = {}

    @property
    def kept_bytes(self) -> int:
        """Memory of the kept frames."""
        return sum(kept.frames.untyped_storage().nbytes() for kept in self.kept.values())

    def step(self, images: Tensor, last: bool) -> tuple[Tensor, dict[int, Kept]]:
        """Maps [m, width, h, w] that become complete with these images, and what to keep once they have been used."""
        step, workspace = Step(self._trunk, self.kept, last), self._trunk.workspace
        # Memory that stays between calls must not become inference tensors, which only inference mode may write.
        plain = torch.inference_mode(False), torch.no_grad(), torch.autocast(images.device.type, enabled=False)
        with self._trunk.lock, plain[0], plain[1], plain[2]:
            try:
                maps = step.run(images)
            except (RuntimeError, MemoryError):
                workspace.clear()  # what is tried next needs less
                raise
            if last:
                workspace.clear()
            return maps, step.kept
