"""A volume that grows with the frames that come in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from DualTrackCore.compilation import compile_kernels, kernel_module
from DualTrackCore.errors import InputError
from DualTrackCore.progress import Reporter
from DualTrackCore.reconstruction.area import Fan, PixelSelection, Rectangle, select_pixels
from DualTrackCore.reconstruction.grid import VoxelGrid

INTERPOLATIONS = ("nearest", "linear")
COMPOUNDINGS = ("mean", "maximum", "latest")
#: How far outside the outermost voxel centres rounding may place a pixel that lies on them, voxels.
_EDGE_TOLERANCE = 1e-6
#: Slabs a thread: where other work holds one thread up, the others take the rest of its slabs.
_SLABS_A_THREAD = 2
#: Columns and rows of the raster of pixels that stands for a frame when the grid is cut into slabs.
_RASTER = 24


class VolumeBuilder:
    """Compounds frames as they arrive, and shows the volume at any time.

    However the frames are divided among calls of :meth:`add`, the volume is, to the last bit, that of
    :func:`~DualTrackCore.reconstruction.reconstruct_volume` on the same grid (which uses this class). Not for several
    threads at once.

    Args:
        grid: where the voxels lie; it cannot change later, and pixels outside are left out.
        frame_size: (H, W) of every frame.
        image_from_pixel: [4, 4] float64, as :attr:`Sweep.image_from_pixel`.
        interpolation, compounding, clip, reject_below: as in `reconstruct_volume`.
        fan: the sector of a curvilinear probe, or None.
        reporter: receives `Stage.PREPARING` where the inner loops have to be compiled first.

    Raises:
        InputError: an option is unknown or out of range, or no pixel is selected.
        MissingDependencyError: numba cannot be imported.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        frame_size: tuple[int, int],
        image_from_pixel: np.ndarray,
        *,
        interpolation: Literal["linear", "nearest"] = "linear",
        compounding: Literal["mean", "maximum", "latest"] = "mean",
        clip: tuple[int, int, int, int] | None = None,
        fan: Fan | None = None,
        reject_below: int = 0,
        reporter: Reporter | None = None,
    ) -> None:
        _require_choice("interpolation", interpolation, INTERPOLATIONS)
        _require_choice("compounding", compounding, COMPOUNDINGS)
        threshold = _validated_threshold(reject_below)
        self.grid = grid
        self.frames_used = 0
        self._frame_size, self._image_from_pixel = tuple(frame_size), image_from_pixel
        self._selection = select_pixels(frame_size, clip, fan)
        self._compounder = Compounder(
            grid.shape, self._selection, interpolation == "linear", compounding, threshold, reporter
        )
        self._options = {"interpolation": interpolation, "compounding": compounding, "reject_below": threshold}

    @property
    def settings(self) -> dict[str, Any]:
        """Options and selected pixels as plain values, for reports."""
        box = self._selection.rectangle
        return {
            **self._options,
            "pixel_rectangle": [box.left, box.top, box.right, box.bottom],
            "pixels_a_frame": self._selection.pixels,
        }

    def add(self, frames: np.ndarray, poses: np.ndarray) -> None:
        """Insert frames; returns when they are in.

        Args:
            frames: [n, H, W] uint8, or one frame [H, W].
            poses: [n, 4, 4] float64, frame0_from_image, or one [4, 4]; all finite.

        Raises:
            InputError: the shapes or types do not fit, or a pose is not finite.
        """
        import torch

        frames, poses = np.asarray(frames), np.asarray(poses, dtype=np.float64)
        if frames.ndim == 2 and poses.ndim == 2:
            frames, poses = frames[None], poses[None]
        if frames.shape[1:] != self._frame_size or frames.ndim != 3 or frames.dtype != np.uint8:
            height, width = self._frame_size
            raise InputError(f"Frames are {frames.dtype} {frames.shape}; expected uint8 [n, {height}, {width}].")
        if poses.shape != (len(frames), 4, 4) or not np.isfinite(poses).all():
            raise InputError(f"Poses have shape {poses.shape}; expected ({len(frames)}, 4, 4) finite numbers.")
        if len(frames):
            voxel_from_pixel = self.grid.voxel_from_frame0 @ (poses @ self._image_from_pixel)
            self._compounder.insert(frames, voxel_from_pixel, torch.get_num_threads())
            self.frames_used += len(frames)

    def snapshot(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (grey values uint8, coverage float32), both [nz, ny, nx], of the frames so far; new arrays."""
        volume, coverage = self.finish()
        if self._options["compounding"] == "mean":
            return volume, coverage
        return volume.copy(), coverage.copy()

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Do as :meth:`snapshot`, but the arrays may be those that further frames change: for the last call."""
        import torch

        volume, coverage = self._compounder.finish(torch.get_num_threads())
        return volume.reshape(self.grid.shape), coverage.reshape(self.grid.shape)


class Compounder:
    """What the voxels of a grid have received so far, and the compiled kernels that insert more.

    Args:
        shape: [nz, ny, nx] of the grid.
        selection: pixels that count.
        linear: spread each pixel over eight voxels instead of the nearest one.
        compounding: "mean", "latest" or "maximum".
        reject_below: darker pixels are left out.
        reporter: receives `Stage.PREPARING` where kernels have to be compiled first.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        selection: PixelSelection,
        linear: bool,
        compounding: str,
        reject_below: int,
        reporter: Reporter | None = None,
    ) -> None:
        self._size = shape[::-1]
        self._voxels = shape[0] * shape[1] * shape[2]
        self._rectangle, self._runs = selection.rectangle, selection.runs
        self._linear, self._threshold = linear, reject_below
        self._finish: Callable | None = None
        self._options: tuple[bool, ...] = ()
        interpolation = "linear" if linear else "nearest"
        # Allocated by numpy, which asks for huge pages: first touching a gigabyte in small ones takes seconds.
        if compounding == "mean":
            names = [f"{interpolation}_mean", f"finish_{interpolation}_mean"]
            self._insert, self._finish = compiled_kernels(names, reporter)
            self._sums = (np.zeros(2 * self._voxels, np.float32) if linear else np.zeros(self._voxels, np.int64),)
        else:
            (self._insert,) = compiled_kernels([f"{interpolation}_one"], reporter)
            self._options = (compounding == "maximum",)
            self._sums = (np.zeros(self._voxels, np.uint8), np.zeros(self._voxels, np.float32))

    def insert(self, frames: np.ndarray, voxel_from_pixel: np.ndarray, threads: int) -> None:
        """Insert frames [n, H, W] uint8, placed by [n, 4, 4] float64, on `threads` threads."""
        frames = np.ascontiguousarray(frames).view()
        frames.flags.writeable = False  # the kernels are compiled for arrays that they cannot write
        matrices = np.ascontiguousarray(voxel_from_pixel)
        count = 1 if threads == 1 else _SLABS_A_THREAD * threads

        def fill(slab: tuple[int, int, int]) -> None:
            where = (_slab_box(slab, self._size, self._linear), np.array(slab), np.array(self._size))
            self._insert(frames, matrices, self._runs, *where, self._threshold, *self._options, *self._sums)

        _run_all(fill, cut_grid(matrices, self._rectangle, self._size, count), threads)

    def finish(self, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (grey values [voxels] uint8, coverage [voxels] float32) so far; further frames may change them."""
        if self._finish is None:
            return self._sums
        volume, coverage = np.zeros(self._voxels, np.uint8), np.zeros(self._voxels, np.float32)
        edges = np.linspace(0, self._voxels, _SLABS_A_THREAD * threads + 1).astype(int).tolist()
        _run_all(lambda part: self._finish(*self._sums, volume, coverage, *part), list(pairwise(edges)), threads)
        return volume, coverage


def compiled_kernels(names: Sequence[str], reporter: Reporter | None = None) -> list[Callable]:
    """Return kernels of :mod:`DualTrackCore.reconstruction.kernels`, compiled or loaded now, not at their first call.

    Raises:
        MissingDependencyError: numba cannot be imported.
    """
    module = kernel_module("DualTrackCore.reconstruction.kernels")
    chosen = [getattr(module, name) for name in names]
    compile_kernels({one: module.SIGNATURES[one] for one in chosen}, reporter)
    return chosen


def cut_grid(
    voxel_from_pixel: np.ndarray, rectangle: Rectangle, size: tuple[int, int, int], count: int
) -> list[tuple[int, int, int]]:
    """Cut a grid into at most `count` slabs (axis, first voxel, voxel after the last) that share no voxel.

    The axis is the one along which the rows of a frame follow each other fastest, so that whole rows fall into one
    slab; every slab receives about as many pixels.

    Args:
        voxel_from_pixel: [n, 4, 4] float64, of the frames to come.
        rectangle: their pixels that count.
        size: (nx, ny, nz) of the grid.
        count: at least 1.
    """
    axis = int(np.argmax(np.abs(voxel_from_pixel[:, :3, 1]).mean(axis=0) * (np.asarray(size) >= 2 * count)))
    if count == 1 or size[axis] < 2 * count:
        return [(axis, 0, size[axis])]
    columns = np.linspace(rectangle.left, rectangle.right, _RASTER)
    rows = np.linspace(rectangle.top, rectangle.bottom, _RASTER)
    u, v = (part.ravel() for part in np.meshgrid(columns, rows))
    pixels = np.stack([u, v, np.zeros_like(u), np.ones_like(u)])
    positions = voxel_from_pixel[:, :3] @ pixels
    inside = ((positions >= 0) & (positions <= np.array(size)[:, None] - 1)).all(axis=1)
    along = positions[:, axis][inside]
    if len(along) == 0:
        return [(axis, 0, size[axis])]
    cuts = np.round(np.quantile(along, np.arange(1, count) / count)).astype(int)
    # Two voxels at the end at least: the kernels give the last cell to one slab.
    edges = [0, *sorted({int(cut) for cut in cuts if 0 < cut < size[axis] - 1}), size[axis]]
    return [(axis, first, stop) for first, stop in pairwise(edges)]


def _slab_box(slab: tuple[int, int, int], size: tuple[int, int, int], linear: bool) -> np.ndarray:
    """[3, 2] float64: where the pixels of a slab lie along x, y, z; the first is included, the second is not.

    For the nearest voxel positions count with the shift that makes its index their floor. With `linear`, pixels that
    extend into the slab from the cell before it are included.
    """
    axis, first, stop = slab
    if not linear:
        box = np.array([[0.0, n] for n in size])
        box[axis] = first, stop
        return box
    box = np.array([[-_EDGE_TOLERANCE, np.nextafter(n - 1 + _EDGE_TOLERANCE, np.inf)] for n in size])
    if first > 0:
        box[axis, 0] = first - 1
    if stop < size[axis]:
        box[axis, 1] = stop
    return box


def _run_all(work: Callable, items: list, threads: int) -> None:
    if threads == 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="compound") as pool:
        list(pool.map(work, items))


def _require_choice(what: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"The {what} {value!r} is unknown; choose one of {', '.join(choices)}.")


def _validated_threshold(reject_below: object) -> int:
    if isinstance(reject_below, bool) or reject_below not in range(256):
        raise InputError(f"The rejection threshold {reject_below!r} must be a whole grey value from 0 to 255.")
    return int(reject_below)
