"""Streaming the pixels of a sweep into an accumulator, block by block: the way that needs torch alone.

A block is some rows of one frame. Worker threads place the pixels of a block and work out their weights side by side;
they add blocks to the accumulator one at a time and in the order of the sweep. Sums of floating-point numbers depend on
that order, so the result is the same at any number of threads. Blocks are small enough that torch does not split their
operations further.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from DualTrackCore.reconstruction.accumulators import Accumulator, accumulator_for
from DualTrackCore.reconstruction.insertion import EDGE_TOLERANCE, Block, place_linear, place_nearest
from DualTrackCore.reconstruction.mask import PixelSelection

#: Pixels of a block: fits the cache, and is the size up to which torch runs an operation on one thread.
BLOCK_PIXELS = 32768


def frame_blocks(
    frame: np.ndarray, number: int, selection: PixelSelection, voxel_from_pixel: np.ndarray, shape: tuple[int, int, int]
) -> Iterator[Block]:
    """The selected pixels of a frame [H, W] in blocks of rows; none where the frame misses a grid of [nz, ny, nx]."""
    box = selection.rectangle
    corners = box.corners @ voxel_from_pixel[:3].T
    last = np.array(shape[::-1]) - 1
    if (corners.max(axis=0) < -1).any() or (corners.min(axis=0) > last + 1).any():
        return
    # Pixels are placed by sums in another order, so one on the grid's border may come out on either side of it.
    inside = bool((corners >= EDGE_TOLERANCE).all() and (corners <= last - EDGE_TOLERANCE).all())
    width = box.right - box.left + 1
    rows = max(1, BLOCK_PIXELS // width)
    for top in range(box.top, box.bottom + 1, rows):
        stop = min(top + rows, box.bottom + 1)
        keep = None if selection.keep is None else selection.keep[top - box.top : stop - box.top]
        key = number * frame.size + (top - box.top) * width
        values = frame[top:stop, box.left : box.right + 1]
        yield Block(values, keep, top, box.left, voxel_from_pixel, key, inside)


def insert_blocks(
    blocks: Iterable[Block],
    accumulator: Accumulator,
    shape: tuple[int, int, int],
    linear: bool,
    reject_below: int,
    threads: int,
) -> None:
    """Put the blocks into the accumulator of a grid of [nz, ny, nx] on `threads` threads.

    Args:
        blocks: read on the calling thread, a few ahead of the work.
        accumulator: receives them in their order.
        linear: spread each pixel over eight voxels instead of the nearest one.
        reject_below: darker pixels are left out.
        threads: at least 1.
    """
    place = place_linear if linear else place_nearest

    def insert(block: Block, previous: Future | None) -> None:
        contribution = accumulator.prepare(place(block, shape, reject_below))
        if previous is not None:
            # Started before this one, so waiting for it cannot block for ever.
            previous.result()
        accumulator.add(contribution)

    waiting: deque[Future] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="compound")
    try:
        for block in blocks:
            waiting.append(pool.submit(insert, block, waiting[-1] if waiting else None))
            if len(waiting) > 3 * threads:
                waiting.popleft().result()
        while waiting:
            waiting.popleft().result()
    finally:
        for future in reversed(waiting):
            future.cancel()
        pool.shutdown(wait=True)


class BlockCompounding:
    """What the voxels of a grid have received so far, in an accumulator.

    Args:
        shape: [nz, ny, nx] of the grid.
        selection: pixels that count.
        linear: spread each pixel over eight voxels instead of the nearest one.
        compounding: "mean", "latest" or "maximum".
        reject_below: darker pixels are left out.
    """

    def __init__(
        self, shape: tuple[int, int, int], selection: PixelSelection, linear: bool, compounding: str, reject_below: int
    ) -> None:
        self._shape, self._selection, self._linear, self._threshold = shape, selection, linear, reject_below
        self._accumulator = accumulator_for(compounding, linear, shape[0] * shape[1] * shape[2])
        self._frames = 0

    def insert(self, frames: np.ndarray, voxel_from_pixel: np.ndarray, threads: int) -> None:
        """Put frames [n, H, W] uint8, placed by [n, 4, 4] float64, in, on `threads` threads."""
        blocks = (
            block
            for number, (frame, matrix) in enumerate(zip(frames, voxel_from_pixel, strict=True), self._frames)
            for block in frame_blocks(frame, number, self._selection, matrix, self._shape)
        )
        insert_blocks(blocks, self._accumulator, self._shape, self._linear, self._threshold, threads)
        self._frames += len(frames)

    def finish(self, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """(grey values [voxels] uint8, coverage [voxels] float32) so far; what comes later may change them."""
        return self._accumulator.finish()
