"""Compounding by the compiled kernels: the fast way, which needs the extra `fast`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from DualTrackCore.reconstruction import kernels
from DualTrackCore.reconstruction.mask import PixelSelection
from DualTrackCore.reconstruction.slabs import cut_grid, pixel_runs, slab_box

#: Slabs a thread: one that is held up by other work leaves the rest of its slabs to the others.
SLABS_A_THREAD = 2


class CompiledCompounding:
    """What the voxels of a grid have received so far, and the kernels that put more in.

    Args:
        shape: [nz, ny, nx] of the grid.
        selection: pixels that count.
        linear: spread each pixel over eight voxels instead of the nearest one.
        compounding: "mean", "latest" or "maximum".
        reject_below: darker pixels are left out.

    Raises:
        OSError: the compiled kernels cannot be kept, as on a full disk.
    """

    def __init__(
        self, shape: tuple[int, int, int], selection: PixelSelection, linear: bool, compounding: str, reject_below: int
    ) -> None:
        self._size = shape[::-1]
        self._voxels = shape[0] * shape[1] * shape[2]
        self._selection, self._linear, self._threshold = selection, linear, reject_below
        self._runs = pixel_runs(selection)
        self._kept: tuple[np.ndarray, ...]
        self._finish: Callable | None = None
        # Allocated by numpy, which asks for huge pages: first touching a gigabyte in small ones takes seconds.
        if compounding != "mean":
            self._insert = kernels.prepare(kernels.linear_one if linear else kernels.nearest_one)
            self._options = (compounding == "maximum",)
            self._kept = (np.zeros(self._voxels, np.uint8), np.zeros(self._voxels, np.float32))
            return
        self._options = ()
        self._insert = kernels.prepare(kernels.linear_mean if linear else kernels.nearest_mean)
        self._finish = kernels.prepare(kernels.finish_linear_mean if linear else kernels.finish_nearest_mean)
        self._kept = (np.zeros(2 * self._voxels, np.float32) if linear else np.zeros(self._voxels, np.int64),)

    def insert(self, frames: np.ndarray, voxel_from_pixel: np.ndarray, threads: int) -> None:
        """Put frames [n, H, W] uint8, placed by [n, 4, 4] float64, in, on `threads` threads."""
        frames = np.ascontiguousarray(frames).view()
        frames.flags.writeable = False  # the kernels are compiled for arrays that they cannot write
        matrices = np.ascontiguousarray(voxel_from_pixel)
        slabs = cut_grid(
            matrices, self._selection.rectangle, self._size, 1 if threads == 1 else SLABS_A_THREAD * threads
        )

        def fill(slab: tuple[int, int, int]) -> None:
            box = slab_box(slab, self._size, self._linear)
            where = (box, np.array(slab), np.array(self._size))
            self._insert(frames, matrices, self._runs, *where, self._threshold, *self._options, *self._kept)

        _run_all(fill, slabs, threads)

    def finish(self, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """(grey values [voxels] uint8, coverage [voxels] float32) so far; what comes later may change them."""
        if self._finish is None:
            return self._kept
        volume, coverage = np.zeros(self._voxels, np.uint8), np.zeros(self._voxels, np.float32)
        edges = np.linspace(0, self._voxels, SLABS_A_THREAD * threads + 1).astype(int).tolist()
        parts = list(pairwise(edges))
        _run_all(lambda part: self._finish(*self._kept, volume, coverage, *part), parts, threads)
        return volume, coverage


def _run_all(work: Callable, items: list, threads: int) -> None:
    if threads == 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="compound") as pool:
        list(pool.map(work, items))
