"""Reconstruction of a volume from frames and poses, and the builder that takes frames as they arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage
from DualTrackCore.reconstruction.area import Fan, Rectangle, resolved_area, select_pixels
from DualTrackCore.reconstruction.grid import Reconstruction, VoxelGrid
from DualTrackCore.reconstruction.holes import HoleFilling, compiled_kernels, fill_holes, validated_hole_filling
from DualTrackCore.reconstruction.plan import plan_grid, usable_frames
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

INTERPOLATIONS = ("nearest", "linear")
COMPOUNDINGS = ("mean", "maximum", "latest")
#: How far outside the outermost voxel centres rounding may place a pixel that lies on them, voxels.
_EDGE_TOLERANCE = 1e-6
#: Slabs a thread: where other work holds one thread up, the others take the rest of its slabs.
_SLABS_A_THREAD = 2
#: Columns and rows of the raster of pixels that stands for a frame when the grid is cut into slabs.
_RASTER = 24
#: Frames read at once.
WINDOW_FRAMES = 8


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
        choices = {"interpolation": (interpolation, INTERPOLATIONS), "compounding": (compounding, COMPOUNDINGS)}
        for what, (value, names) in choices.items():
            if value not in names:
                raise InputError(f"The {what} {value!r} is unknown; choose one of {', '.join(names)}.")
        if isinstance(reject_below, bool) or reject_below not in range(256):
            raise InputError(f"The rejection threshold {reject_below!r} must be a whole grey value from 0 to 255.")
        self.grid = grid
        self.frames_used = 0
        self._frame_size, self._image_from_pixel = tuple(frame_size), image_from_pixel
        self._selection = select_pixels(frame_size, clip, fan)
        self._runs = self._selection.runs
        self._options = {"interpolation": interpolation, "compounding": compounding, "reject_below": int(reject_below)}
        self._linear = interpolation == "linear"
        self._finish: Callable | None = None
        # Allocated by numpy, which asks for huge pages: first touching a gigabyte in small ones takes seconds.
        if compounding == "mean":
            names = [f"{interpolation}_mean", f"finish_{interpolation}_mean"]
            self._insert, self._finish = compiled_kernels(names, reporter)
            self._sums = (np.zeros(2 * grid.voxels, np.float32) if self._linear else np.zeros(grid.voxels, np.int64),)
        else:
            (self._insert,) = compiled_kernels([f"{interpolation}_one"], reporter)
            self._sums = (np.zeros(grid.voxels, np.uint8), np.zeros(grid.voxels, np.float32))

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
        frames, poses = np.asarray(frames), np.asarray(poses, dtype=np.float64)
        if frames.ndim == 2 and poses.ndim == 2:
            frames, poses = frames[None], poses[None]
        if frames.shape[1:] != self._frame_size or frames.ndim != 3 or frames.dtype != np.uint8:
            height, width = self._frame_size
            raise InputError(f"Frames are {frames.dtype} {frames.shape}; expected uint8 [n, {height}, {width}].")
        if poses.shape != (len(frames), 4, 4) or not np.isfinite(poses).all():
            raise InputError(f"Poses have shape {poses.shape}; expected ({len(frames)}, 4, 4) finite numbers.")
        if len(frames):
            self._insert_placed(frames, self.grid.voxel_from_frame0 @ (poses @ self._image_from_pixel))
            self.frames_used += len(frames)

    def _insert_placed(self, frames: np.ndarray, voxel_from_pixel: np.ndarray) -> None:
        """Insert frames [n, H, W] uint8, placed by [n, 4, 4] float64, each thread into slabs of its own."""
        frames = np.ascontiguousarray(frames).view()
        frames.flags.writeable = False  # the kernels are compiled for arrays that they cannot write
        matrices, size = np.ascontiguousarray(voxel_from_pixel), self.grid.size
        threshold = self._options["reject_below"]
        brightest = () if self._finish else (self._options["compounding"] == "maximum",)

        def fill(slab: tuple[int, int, int]) -> None:
            where = (_slab_box(slab, size, self._linear), np.array(slab), np.array(size))
            self._insert(frames, matrices, self._runs, *where, threshold, *brightest, *self._sums)

        _in_parts(fill, lambda count: cut_grid(matrices, self._selection.rectangle, size, count))

    def snapshot(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (grey values uint8, coverage float32), both [nz, ny, nx], of the frames so far; new arrays."""
        volume, coverage = self.finish()
        return (volume, coverage) if self._finish else (volume.copy(), coverage.copy())

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Do as :meth:`snapshot`, but the arrays may be those that further frames change: for the last call."""
        results = self._sums
        if self._finish is not None:
            results = (np.zeros(self.grid.voxels, np.uint8), np.zeros(self.grid.voxels, np.float32))
            _in_parts(
                lambda part: self._finish(*self._sums, *results, *part),
                lambda count: pairwise(np.linspace(0, self.grid.voxels, count + 1).astype(int).tolist()),
            )
        volume, coverage = results
        return volume.reshape(self.grid.shape), coverage.reshape(self.grid.shape)


def cut_grid(
    voxel_from_pixel: np.ndarray, rectangle: Rectangle, size: tuple[int, int, int], count: int
) -> list[tuple[int, int, int]]:
    """Cut a grid into at most `count` slabs (axis, first voxel, voxel after the last) that share no voxel.

    The axis is the one along which the rows of a frame follow each other fastest, so that whole rows fall into one
    slab; every slab receives about as many pixels. `voxel_from_pixel` [n, 4, 4] places the frames to come, `rectangle`
    holds their pixels that count, and `size` is (nx, ny, nz) of the grid.
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
    if linear:
        box = np.array([[-_EDGE_TOLERANCE, np.nextafter(n - 1 + _EDGE_TOLERANCE, np.inf)] for n in size])
    else:
        box = np.array([[0.0, n] for n in size])
    if first > 0:
        box[axis, 0] = first - 1 if linear else first
    if stop < size[axis]:
        box[axis, 1] = stop
    return box


def _in_parts(work: Callable[[tuple], None], cut: Callable[[int], Iterable[tuple]]) -> None:
    """Do the work for each of the parts that it is cut into, on the threads that torch would use."""
    import torch

    threads = torch.get_num_threads()
    if threads == 1:
        for part in cut(1):
            work(part)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="compound") as pool:
        list(pool.map(work, cut(_SLABS_A_THREAD * threads)))


def reconstruct_volume(
    sweep: Sweep,
    trajectory: Trajectory,
    grid: VoxelGrid | None = None,
    *,
    interpolation: Literal["linear", "nearest"] = "linear",
    compounding: Literal["mean", "maximum", "latest"] = "mean",
    clip: tuple[int, int, int, int] | None = None,
    fan: Fan | Literal["auto"] | None = None,
    reject_below: int = 0,
    hole_filling: str | HoleFilling | Sequence[HoleFilling] = "none",
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> Reconstruction:
    """Compound the frames of a sweep into a volume.

    Positions are computed in float64 with the full affine calibration. Memory is that of the volume
    (:attr:`VoxelGrid.bytes_needed`), whatever the length of the sweep. The result does not depend on the number of
    threads. The first call on a machine compiles the inner loops, which takes some seconds.

    Args:
        sweep, trajectory, clip, fan: as in :func:`plan_grid`; pixels outside of `clip` and `fan` are left out.
        grid: from :func:`plan_grid`; None plans one with automatic spacing.
        interpolation: "nearest" adds a pixel to the voxel whose centre is closest; "linear" spreads it over the eight
            around it, and leaves out pixels that have fewer than eight.
        compounding: where pixels meet: their (weighted) mean, the brightest, or the last in the order of frames, rows
            and columns. With "linear", the last two count only voxels with a weight of at least 1/8.
        reject_below: pixels darker than this grey value are left out.
        hole_filling: of voxels that nothing reached: "none", a method, a :class:`HoleFilling`, or several to try in
            turn.
        progress: receives `Stage.PREPARING` (kernels) where the inner loops have to be compiled, then
            `Stage.RECONSTRUCTING` (frames) and `Stage.FILLING_HOLES` (slices).
        cancelled: called before each frame.

    Raises:
        InputError: an option is unknown, nothing can be placed, or no pixel reaches the grid.
        Cancelled: the caller asked to stop.
    """
    fillings = validated_hole_filling(hole_filling)
    usable = usable_frames(sweep, trajectory)
    clip, fan = resolved_area(sweep, clip, fan)
    area = {"clip": clip, "fan": fan}
    grid = plan_grid(sweep, trajectory, **area) if grid is None else grid
    reporter = Reporter(progress, cancelled)
    how = {"interpolation": interpolation, "compounding": compounding, "reject_below": reject_below}
    builder = VolumeBuilder(grid, sweep.frame_size, sweep.image_from_pixel, **how, **area, reporter=reporter)
    _insert_all(builder, sweep, trajectory.poses, usable, reporter)
    volume, coverage = builder.finish()
    if not coverage.any():
        raise InputError(
            f"No pixel of the {len(usable)} usable frames reached the volume of {grid.size} voxels of "
            f"{grid.spacing_mm} mm from {grid.origin_mm.round(1).tolist()} mm in {grid.frame}; "
            "choose another region, clip rectangle or rejection threshold."
        )
    filled = np.zeros(grid.shape, bool)
    if fillings:
        volume, filled = fill_holes(volume, coverage > 0, fillings, reporter)
    settings = {
        **builder.settings,
        "hole_filling": [vars(filling) for filling in fillings],
        "grid": grid.describe(),
        "sweep": dict(sweep.provenance),
        "trajectory": dict(trajectory.provenance),
        "poses_origin": trajectory.origin.value,
        "poses_text": trajectory.origin_text,
    }
    return Reconstruction(volume, coverage, filled, grid, len(usable), len(sweep) - len(usable), settings)


def _insert_all(
    builder: VolumeBuilder, sweep: Sweep, poses: np.ndarray, usable: np.ndarray, reporter: Reporter
) -> None:
    """Insert the usable frames, while this thread reads the next ones."""
    is_usable = np.isin(np.arange(len(sweep)), usable)
    with ThreadPoolExecutor(1, thread_name_prefix="insert") as inserter:
        pending: Future | None = None
        for start, frames in sweep.windows(WINDOW_FRAMES):
            for number in range(start, start + len(frames)):
                reporter.report(Stage.RECONSTRUCTING, number, len(sweep))
            kept = is_usable[start : start + len(frames)]
            if pending is not None:
                pending.result()
            # Where all frames are kept, the window itself is used without a copy.
            chosen = frames if kept.all() else frames[kept]
            pending = inserter.submit(builder.add, chosen, poses[start : start + len(frames)][kept])
        pending.result()
    reporter.report(Stage.RECONSTRUCTING, len(sweep), len(sweep))
