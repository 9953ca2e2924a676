"""Convolutions by the compiled kernels, on all the threads that torch uses. Importing this file imports numba.

Winograd's minimal filtering F(m, 3) gives m outputs of a filter g of three taps from m + 2 inputs d with m + 2
multiplications instead of 3 m: y = A^T [(G g) * (B^T d)]. The matrices follow from interpolation at chosen points (Cook
and Toom; Winograd, "Arithmetic Complexity of Computations", 1980; Lavin and Gray, "Fast Algorithms for Convolutional
Neural Networks", arXiv:1509.09308). In two dimensions they act along both: F(4x4, 3x3) needs 36 multiplications instead
of 144; nested with F(4, 3) in time, 216 instead of 1728 for four frames.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from DualTrackCore.compilation import compile_kernels
from DualTrackCore.network.fast.convolution_kernels import (
    LANES,
    PANEL,
    POINTS,
    ROWS,
    SIGNATURES,
    direct_block,
    image_block,
    winograd_block,
)
from DualTrackCore.network.fast.layers import CPU, TILE, Folded, Frames, Layer, large, padded_channels

#: Rows of a matrix product in a block: enough to use every weight often, few enough to stay near the processor.
_ROWS = 72
#: Layers of more channels take frames by two, not by four, in time: their weights would be large.
_MOST_BY_FOUR = 128


class Workers:
    """Threads that share the blocks of a convolution, each with scratch memory of its own."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._threads = 0
        self._scratch: list[Tensor] = []

    def run(self, blocks: int, floats: int, block: Callable[[int, int], None]) -> None:
        """Call `block(index, address of scratch memory)` for every index below `blocks`; `floats` of scratch each."""
        threads = min(torch.get_num_threads(), blocks)
        if threads > self._threads:
            self._pool, self._threads = ThreadPoolExecutor(threads), threads
        if len(self._scratch) < threads or len(self._scratch[0]) < floats:
            size = max([floats, *map(len, self._scratch)])
            self._scratch = []  # before the new memory is taken: it is large
            self._scratch = [large(size) for _ in range(max(threads, self._threads))]
        following = itertools.count()

        def work(thread: int) -> None:
            while (index := next(following)) < blocks:
                block(index, self._scratch[thread].data_ptr())

        others = [self._pool.submit(work, thread) for thread in range(1, threads)]
        work(0)
        for other in others:
            other.result()


class WinogradLayer:
    """3 x 3 convolution of stride 1 between as many channels, F(4x4, 3x3), over three frames (F(4, 3)) or one."""

    stride = 1

    def __init__(self, folded: Folded, workers: Workers) -> None:
        self.outputs, self._workers = folded.weight.shape[0], workers
        in_space, self._group = kernel_transform(4), 0
        if folded.weight.shape[2] == 3:
            self._group = 4 if self.outputs <= _MOST_BY_FOUR else 2
        transform = torch.from_numpy(np.kron(np.kron(in_space, in_space), kernel_transform(self._group)))
        self._weights, self._bias = in_panels(folded.weight, transform), folded.bias.float()
        self._nothing = torch.zeros(LANES)

    def run(self, x: Frames, y: Frames, shortcut: Frames | None = None) -> None:
        """See :class:`Layer`; pixels of the last tiles outside the image are set to 0."""
        frames, channels = len(y), self.outputs
        if not frames:
            return
        across = -(-y.columns // TILE)
        tiles = -(-y.rows // TILE) * across
        group = self._group
        groups = -(-frames // group) if group else frames
        size = block_size(tiles, groups)
        rest = (self._nothing.data_ptr(), 0, 0, 0) if shortcut is None else (*_place(shortcut, 1), 4 * channels)
        places = (_place(x, 0), self._weights.data_ptr(), self._bias.data_ptr(), rest, _place(y, 1))

        def block(index: int, scratch: int) -> None:
            first = index * size
            count = min(size, tiles - first)
            winograd_block(*places, channels, frames, across, first, count, scratch, group)

        if group:
            floats = (36 * (frames + 2) * size + 2 * (group + 2) * (groups * size + ROWS)) * channels
        else:
            floats = 37 * (frames * size + ROWS) * channels
        self._workers.run(-(-tiles // size), floats, block)
        if y.rows % TILE or y.columns % TILE:
            y.clear_overhang()


class DirectLayer:
    """Any other convolution: matrix products over its taps, F(4, 3) in time where it reaches over three frames."""

    def __init__(self, folded: Folded, workers: Workers) -> None:
        self.outputs, self._inputs, frames, self._side, _ = folded.weight.shape
        self.stride, self._group, self._workers = folded.stride, 4 if frames == 3 else 0, workers
        transform = torch.from_numpy(np.kron(np.eye(self._side**2), kernel_transform(self._group)))
        self._weights, self._bias = in_panels(folded.weight, transform), folded.bias.float()
        self._floor = np.float32(0.0 if folded.activate else -np.inf)  # the type that the kernel is compiled for

    def run(self, x: Frames, y: Frames, shortcut: Frames | None = None) -> None:
        """See :class:`Layer`; takes no shortcut."""
        frames, pixels = len(y), y.rows * y.columns
        if shortcut is not None:
            raise ValueError("A direct layer adds no shortcut.")
        if not frames:
            return
        factors, groups = (self._group + 2, -(-frames // self._group)) if self._group else (1, frames)
        size = block_size(pixels, groups)
        inside = 1 - self._side // 2  # a single tap looks at the pixel itself, not at the border
        places = (_place(x, inside), self._weights.data_ptr(), self._bias.data_ptr(), _place(y, 1))
        shape = (self._inputs, self.outputs, frames, self._side, self.stride, self._group, y.columns)

        def block(index: int, scratch: int) -> None:
            first = index * size
            direct_block(*places, shape, first, min(size, pixels - first), scratch, self._floor)

        floats = factors * (groups * size + ROWS) * (self._inputs + self.outputs) + (frames + 1) * size * self.outputs
        self._workers.run(-(-pixels // size), floats, block)


class ImageLayer:
    """The first convolution, of images of one channel: their pixels side by side, in one matrix product."""

    def __init__(self, folded: Folded, workers: Workers) -> None:
        self.outputs, self.stride, self._workers = folded.weight.shape[0], folded.stride, workers
        patches = folded.weight[:, :1].flatten(1)[..., None, None, None]
        self._side = folded.weight.shape[3]
        self._weights, self._bias = in_panels(patches, torch.eye(1, dtype=torch.float64)), folded.bias.float()

    def run(self, images: Tensor, y: Frames) -> None:
        """Images [n, rows, columns] float32 to n frames."""
        frames, pixels, side, edge = len(y), y.rows * y.columns, self._side, self._side // 2
        if not frames:
            return
        padded = F.pad(images, (edge, edge + LANES, edge, edge))  # what whole vectors read behind the last pixel
        frame, row, _ = (4 * stride for stride in padded.stride())
        places = ((padded.data_ptr(), frame, row), self._weights.data_ptr(), self._bias.data_ptr(), _place(y, 1))
        shape = (self.outputs, frames, side, self.stride, y.columns)
        size = block_size(pixels, -(-frames // 8))  # rows are short: eight times as many fit

        def block(index: int, scratch: int) -> None:
            first = index * size
            image_block(*places, shape, first, min(size, pixels - first), scratch)

        floats = (frames * size + ROWS) * (side * side + LANES + self.outputs)
        self._workers.run(-(-pixels // size), floats, block)


def block_size(pieces: int, groups: int) -> int:
    """Tiles or pixels of a block: about as many rows as fit, in equal blocks, an even number of them."""
    wanted = max(1, _ROWS // groups)
    blocks = -(-pieces // wanted)
    if blocks > 1 or groups * pieces >= _ROWS // 2:
        blocks += blocks % 2
    return -(-pieces // blocks)


def in_panels(weight: Tensor, transform: Tensor) -> Tensor:
    """Transformed kernels as the blocks multiply with them.

    Args:
        weight: [outputs, inputs, frames, h, w] float64.
        transform: [values, h * w * frames] float64; values are places in space by factors in time.

    Returns:
        [values, inputs * outputs] float32: PANEL outputs at a time, what remains LANES at a time.
    """
    outputs, inputs = weight.shape[:2]
    result = large(len(transform) * inputs * outputs).view(len(transform), -1)
    start = 0
    while start < outputs:
        wide = PANEL if outputs - start >= PANEL else LANES
        taps = weight[start : start + wide].permute(3, 4, 2, 1, 0).flatten(0, 2).flatten(1)
        result[:, start * inputs : (start + wide) * inputs] = transform @ taps
        start += wide
    return result


def _place(frames: Frames, inside: int) -> tuple[int, int, int]:
    """Address of the pixel `inside` rows and columns in, bytes between frames and rows."""
    tensor = frames.tensor
    frame, row, pixel, _ = (4 * stride for stride in tensor.stride())
    return tensor.data_ptr() + inside * (row + pixel), frame, row


class CompiledBackend:
    """Kernels that numba compiles for this processor, single precision; `lanes` channels fill a vector register."""

    device, dtype, lanes = CPU, torch.float32, LANES

    def __init__(self) -> None:
        compile_kernels(SIGNATURES)
        self._workers = Workers()

    def first(self, folded: Folded) -> ImageLayer:
        """See :class:`Backend`."""
        return ImageLayer(padded_channels(folded, self.lanes), self._workers)

    def layer(self, folded: Folded) -> Layer:
        """See :class:`Backend`."""
        padded = padded_channels(folded, self.lanes)
        outputs, inputs, *kernel = padded.weight.shape
        if kernel[1:] == [3, 3] and folded.stride == 1 and inputs == outputs:
            return WinogradLayer(padded, self._workers)
        return DirectLayer(padded, self._workers)


def kernel_transform(outputs: int) -> np.ndarray:
    """G [outputs + 2, 3] for `transforms(outputs)`, float64: the first rows of F(4, 3)'s; a single 1 for 0 outputs."""
    a, b = POINTS
    points = (a, -a, 0.0, b, -b)
    rows = [np.array([1.0, p, p * p]) / np.prod([p - q for q in points if q != p]) for p in points]
    rows.insert(2, np.array([0.0, 0.0, 1.0]))
    return np.array(rows[: outputs + 2]) if outputs else np.ones((1, 1))
