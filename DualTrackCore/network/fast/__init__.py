"""The trunk of the local encoder over a stream of frames, with the result of the whole sequence; and the global one.

Every temporal convolution keeps its last two input frames, and every shortcut waits for the convolutions that it
bypasses, so nothing is computed twice and memory does not grow with the length of the sweep. An output frame appears
once all frames of its receptive field have been pushed: 17 frames behind the newest one for the published trunk.

On the CPU in single precision numba compiles the kernels; in half precision, on Apple's GPUs and on processors without
fused multiply-add torch's own convolutions run. On CUDA whole chunks go through a trunk of its own (`chunked.py`).
README.md in this folder explains both. Import from here only.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from DualTrackCore import lazy_exports
from DualTrackCore.compilation import Signatures, compile_kernels, kernel_module
from DualTrackCore.errors import InputError
from DualTrackCore.network.blocks import BasicBlock, Trunk
from DualTrackCore.network.fast import layers
from DualTrackCore.progress import Reporter

if TYPE_CHECKING:
    from DualTrackCore.network.fast.chunked import ChunkedTrunk as ChunkedTrunk
    from DualTrackCore.network.fast.chunked import uploaded as uploaded

__getattr__, __dir__, __all__ = lazy_exports(__name__, {"chunked": ["ChunkedTrunk", "uploaded"]})

#: Environment variable that switches the compiled kernels off where it is "torch".
ENGINE_VARIABLE = "DUALTRACK_ENGINE"
#: A ring of three buffers: input and output of a convolution, and input of its block. A fourth is for projections.
_RING, _PROJECTED = 3, 3
#: Images that go through a trunk at a time where each is by itself.
_IMAGES = 4


class PreparedBlock:
    """The layers of a basic block: two convolutions, and the projection of the shortcut if it has one."""

    def __init__(self, block: BasicBlock, backend: layers.Backend) -> None:
        self.conv1 = backend.layer(layers.fold(*block.conv1[:2], activate=True))
        # The activation comes after the shortcut is added; the layer does both.
        self.conv2 = backend.layer(layers.fold(*block.conv2, activate=True))
        projection = block.downsample
        self.projection = None if projection is None else backend.layer(layers.fold(*projection, activate=False))


class PreparedTrunk:
    """The layers of a trunk, and the memory that a push through them needs; one push at a time.

    Preparing takes about as long as ten frames. Winograd's weights take five to eight times the memory of the
    convolutions they belong to.

    Args:
        trunk: in evaluation mode.
        backend: makes the layers.
    """

    def __init__(self, trunk: Trunk, backend: layers.Backend) -> None:
        stem, self.width = trunk.stem, trunk.width
        self.first = backend.first(layers.fold(stem[0], stem[1], activate=True))
        self.second = backend.layer(layers.fold(stem[3], stem[4], activate=True))
        self.blocks = [PreparedBlock(block, backend) for block in trunk.blocks]
        self.workspace = layers.Workspace(backend.device, backend.dtype)
        self.lock = threading.Lock()

    def stream(self) -> StreamingTrunk:
        """A sweep from its first frame on."""
        return StreamingTrunk(self)

    def __call__(self, images: Tensor) -> Tensor:
        """Images [n, rows, columns], each by itself, to maps [n, width, h, w]: for kernels that cover one frame."""
        with self.lock, _plain(images.device):
            return torch.cat([self._maps(part) for part in images.split(_IMAGES)])

    def _maps(self, images: Tensor) -> Tensor:
        x = self._room(0, images.shape[1:], self.first, len(images))
        self.first.run(images, x)
        y = self._room(1, (x.rows, x.columns), self.second, len(x))
        self.second.run(x, y)
        for number, block in enumerate(self.blocks):
            x, size = y, (y.rows, y.columns)
            middle, y = (self._room((2 * number + at) % _RING, size, block.conv1, len(x)) for at in (2, 3))
            block.conv1.run(x, middle)
            shortcut = x
            if block.projection is not None:
                shortcut = self._room(_PROJECTED, size, block.projection, len(x))
                block.projection.run(x, shortcut)
            block.conv2.run(middle, y, shortcut)
        return y.pixels[..., : self.width].permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)

    def _room(self, number: int, size: Sequence[int], layer: layers.Layer, frames: int) -> layers.Frames:
        """A buffer for what a layer makes of frames of some rows and columns."""
        rows, columns = (-(-side // layer.stride) for side in size)
        return self.workspace.take(number, frames, rows, columns, layer.outputs)


@dataclass(frozen=True)
class Kept:
    """The last input frames of a convolution; `first` is the index of the first one in the sweep, -1 for the zeros."""

    frames: Tensor
    first: int


@dataclass(frozen=True)
class Window:
    """Input of a convolution over three frames in a push: kept frames, `new` ones, zeros beyond the sweep's ends."""

    frames: layers.Frames
    new: layers.Frames
    first: int

    @property
    def ready(self) -> int:
        """Number of output frames."""
        return max(len(self.frames) - 2, 0)


class Step:
    """One push: reads the frames kept by the previous one, collects those that the next one needs."""

    def __init__(self, trunk: PreparedTrunk, before: dict[int, Kept], last: bool) -> None:
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

    def _block(self, block: PreparedBlock, x: Window, is_last: bool) -> Window:
        """Run a basic block; its shortcut takes those input frames for which the convolutions give an output."""
        rows, columns = (size // block.conv1.stride for size in (x.frames.rows, x.frames.columns))
        middle = self._window(x.ready, rows, columns, block.conv1.outputs)
        block.conv1.run(x.frames, middle.new)
        middle = self._done(middle)
        start = middle.first + 1 - x.first
        shortcut = x.frames.part(start, start + middle.ready)
        if block.projection is not None:
            projected = self._trunk.workspace.take(_PROJECTED, middle.ready, rows, columns, block.projection.outputs)
            block.projection.run(shortcut, projected)
            shortcut = projected
        if is_last:
            frames = self._take(middle.ready, rows, columns, block.conv2.outputs)
            y = Window(frames, frames, 0)
        else:
            y = self._window(middle.ready, rows, columns, block.conv2.outputs)
        block.conv2.run(middle.frames, y.new, shortcut)
        return y

    def _take(self, frames: int, rows: int, columns: int, channels: int) -> layers.Frames:
        self._taken += 1
        return self._trunk.workspace.take(self._taken % _RING, frames, rows, columns, channels)

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
            self.kept[self._taken - 1] = Kept(window.frames.tensor[start:].clone(), window.first + start)
        return window


class StreamingTrunk:
    """Push frames in pieces of any length, get feature maps in order.

    A push that raises (out of memory) ends the stream. There are no gradients, and autocast changes nothing.
    """

    def __init__(self, trunk: PreparedTrunk) -> None:
        self._trunk = trunk
        self._kept: dict[int, Kept] = {}

    @property
    def kept_bytes(self) -> int:
        """Memory of the frames kept for the next push."""
        return sum(kept.frames.untyped_storage().nbytes() for kept in self._kept.values())

    def push(self, images: Tensor, last: bool = False) -> Tensor:
        """See :class:`~DualTrackCore.network.session.MapStream`."""
        step = Step(self._trunk, self._kept, last)
        with self._trunk.lock, _plain(images.device):
            try:
                maps = step.run(images)
            except (RuntimeError, MemoryError):
                self._trunk.workspace.clear()  # the next try needs less
                raise
            if last:
                self._trunk.workspace.clear()
        self._kept = step.kept
        return maps


@contextlib.contextmanager
def _plain(device: torch.device) -> Iterator[None]:
    """No gradients and no autocast, but no inference tensors either: only inference mode may write them later."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def choose_backend(trunk: Trunk, device: torch.device, dtype: torch.dtype) -> layers.Backend:
    """Return the compiled kernels where they run such a trunk, else torch."""
    if is_compiled(trunk, device, dtype):
        from DualTrackCore.network.fast.compiled_layers import CompiledBackend

        return CompiledBackend()
    return layers.TorchBackend(device, dtype)


def is_compiled(trunk: Trunk, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether compiled kernels run a trunk: on the CPU, in single precision, if its narrowest stage fills a vector."""
    if device.type != "cpu" or dtype != torch.float32 or not has_compiled_kernels():
        return False
    return min(block.conv1[0].out_channels for block in trunk.blocks) >= _kernels().LANES


def has_compiled_kernels() -> bool:
    """Return whether the CPU runs compiled kernels: not without fused multiply-add, nor if DUALTRACK_ENGINE is torch.

    Raises:
        InputError: DUALTRACK_ENGINE has another value.
        MissingDependencyError: numba cannot be imported.
    """
    engine = os.environ.get(ENGINE_VARIABLE, "")
    if engine not in ("", "torch"):
        raise InputError(f"{ENGINE_VARIABLE} is {engine!r}; it must be 'torch', for plain torch, or not set.")
    return engine != "torch" and _kernels().HAS_FUSED_MULTIPLY_ADD


def prepare_engine(reporter: Reporter | None = None, more: Signatures | None = None) -> float:
    """Compile the kernels of the trunk ahead of their first use, or load them from disk where they are kept already.

    Args:
        reporter: receives `Stage.PREPARING` (kernels) after each kernel that had to be compiled.
        more: further kernels to compile, such as those of the volume.

    Returns:
        Seconds that compiling took; 0.0 where all kernels were kept on disk or compiled before.

    Raises InputError, MissingDependencyError: as :func:`has_compiled_kernels`.
    """
    own = _kernels().SIGNATURES if has_compiled_kernels() else {}
    return compile_kernels({**own, **(more or {})}, reporter)


def _kernels() -> ModuleType:
    return kernel_module("DualTrackCore.network.fast.convolution_kernels")
