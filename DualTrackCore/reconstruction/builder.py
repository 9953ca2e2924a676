"""A volume from frames and poses, the builder that takes frames as they arrive, and the volume with its coverage."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from DualTrackCore.compilation import compiled_kernels, in_parts
from DualTrackCore.errors import InputError
from DualTrackCore.path_error import IMAGE_MIRROR, with_trust
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage, finished
from DualTrackCore.reconstruction import Fan, PlacedFrames, resolved_area, seen_text, select_pixels, slabs
from DualTrackCore.reconstruction.grid import VoxelGrid, cut_grid, plan_grid, slab_box, usable_frames
from DualTrackCore.reconstruction.holes import HoleFilling, fill_holes, validated_hole_filling
from DualTrackCore.summaries import Summarised
from DualTrackCore.sweep import FrameSource, Sweep
from DualTrackCore.trajectory import Trajectory

if TYPE_CHECKING:
    import SimpleITK
    import torch

    from DualTrackCore.reconstruction.sources import Sources

INTERPOLATIONS = ("nearest", "linear")
COMPOUNDINGS = ("mean", "maximum", "latest")
#: The module of the inner loops.
_KERNELS = "DualTrackCore.reconstruction.kernels"
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
        self._selection, self._fan = select_pixels(frame_size, clip, fan), fan
        self._runs = self._selection.runs
        self._options = {"interpolation": interpolation, "compounding": compounding, "reject_below": int(reject_below)}
        self._linear = interpolation == "linear"
        self._finish: Callable | None = None
        # Allocated by numpy, which asks for huge pages: first touching a gigabyte in small ones takes seconds.
        if compounding == "mean":
            names = [f"{interpolation}_mean", f"finish_{interpolation}_mean"]
            self._insert, self._finish = compiled_kernels(_KERNELS, names, reporter)
            self._sums = (np.zeros(2 * grid.voxels, np.float32) if self._linear else np.zeros(grid.voxels, np.int64),)
        else:
            (self._insert,) = compiled_kernels(_KERNELS, [f"{interpolation}_one"], reporter)
            self._sums = (np.zeros(grid.voxels, np.uint8), np.zeros(grid.voxels, np.float32))

    @property
    def settings(self) -> dict[str, Any]:
        """Options and selected pixels as plain values, for reports."""
        box = self._selection.rectangle
        return {
            **self._options,
            "pixel_rectangle": [box.left, box.top, box.right, box.bottom],
            "pixels_a_frame": self._selection.pixels,
            "fan": None if self._fan is None else asdict(self._fan),
        }

    def add(self, frames: np.ndarray, poses: np.ndarray) -> None:
        """Insert frames; returns when they are in.

        Args:
            frames: [n, H, W] uint8, or one frame [H, W].
            poses: [n, 4, 4] float64, frame0_from_image, or one [4, 4]; all finite.

        Raises InputError: the shapes or types do not fit, or a pose is not finite.
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
            where = (slab_box(slab, size, self._linear), np.array(slab), np.array(size))
            self._insert(frames, matrices, self._runs, *where, threshold, *brightest, *self._sums)

        in_parts(fill, lambda count: cut_grid(matrices, self._selection.rectangle, size, count))

    def snapshot(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (grey values uint8, coverage float32), both [nz, ny, nx], of the frames so far; new arrays."""
        volume, coverage = self.finish()
        return (volume, coverage) if self._finish else (volume.copy(), coverage.copy())

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Do as :meth:`snapshot`, but the arrays may be those that further frames change: for the last call."""
        results = self._sums
        if self._finish is not None:
            results = (np.zeros(self.grid.voxels, np.uint8), np.zeros(self.grid.voxels, np.float32))
            in_parts(
                lambda part: self._finish(*self._sums, *results, *part),
                lambda count: pairwise(np.linspace(0, self.grid.voxels, count + 1).astype(int).tolist()),
            )
        volume, coverage = results
        return volume.reshape(self.grid.shape), coverage.reshape(self.grid.shape)


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruction(Summarised):
    """A volume compounded from a sweep.

    Attributes:
        volume: [nz, ny, nx] uint8 grey values; 0 where nothing was seen and nothing was filled.
        coverage: [nz, ny, nx] float32, number of pixels that fell into a voxel (nearest) or sum of their weights
            (linear). 0 is unseen, also where a hole was filled; a dark voxel that was seen has a coverage above 0.
        filled: [nz, ny, nx] bool, the voxels whose grey value comes from hole filling.
        grid: where the voxels lie.
        frames_used: frames that were inserted.
        frames_skipped: frames left out because their image or pose is invalid.
        provenance: settings and sources: plain values, written into reports.
        placed: the frames and where they lie; None for a volume that does not know them.
    """

    volume: np.ndarray
    coverage: np.ndarray
    filled: np.ndarray
    grid: VoxelGrid
    frames_used: int
    frames_skipped: int
    provenance: Mapping[str, Any] = field(default_factory=dict)
    placed: PlacedFrames | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("volume", np.uint8), ("coverage", np.float32), ("filled", np.bool_)):
            array = getattr(self, name)
            if array.shape != self.grid.shape or array.dtype != dtype:
                raise InputError(
                    f"The {name} is {array.dtype} {array.shape}; expected {np.dtype(dtype)} {self.grid.shape}."
                )
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def _summary(self) -> dict[str, str]:
        voxels, grey = self.grid.describe(memory=False), f"grey {self.volume.min()} to {self.volume.max()}"
        seen = f"{self.frames_used} frames; {seen_text(self.covered_fraction, self.filled_fraction)}"
        return {"voxels": voxels, "grey values": grey, "frames": seen}

    def _thumbnail(self) -> np.ndarray:
        return self.volume[:, self.volume.shape[1] // 2]  # in the middle of the depth, from above

    @property
    def covered_fraction(self) -> float:
        """Part of the voxels that pixels reached, 0 to 1, without filled ones."""
        return float(np.count_nonzero(self.coverage)) / self.grid.voxels

    @property
    def filled_fraction(self) -> float:
        """Part of the voxels whose value comes from hole filling, 0 to 1."""
        return float(np.count_nonzero(self.filled)) / self.grid.voxels

    def turned_over(self, trajectory: Trajectory) -> Reconstruction:
        """The volume of the same sweep running the other way, of that trajectory: mirrored at frame0's image plane."""
        return finished(self.turn_over_in_pieces(trajectory))

    def turn_over_in_pieces(self, trajectory: Trajectory) -> Generator[None, None, Reconstruction]:
        """:meth:`turned_over`, some slices at each step."""
        arrays = {name: np.empty_like(getattr(self, name)) for name in ("volume", "coverage", "filled")}
        for name, array in arrays.items():
            backwards = getattr(self, name)[::-1]
            for part in slabs(array):
                array[part] = backwards[part]
                yield
        provenance = {**self.provenance, "trajectory": dict(trajectory.provenance)}
        placed = self.placed
        if placed is not None:
            placed = placed._replace(frame0_from_pixel=IMAGE_MIRROR @ placed.frame0_from_pixel)
        return replace(self, grid=self.grid.turned_over(), provenance=provenance, placed=placed, **arrays)

    def sources(self, point_mm: object, frames: FrameSource | None = None) -> Sources:
        """The frames that made the voxel in which a point lies.

        Args:
            point_mm: [3] x, y, z in frame0, mm.
            frames: of the sweep; needed where grey values decided: `compounding="maximum"`, or `reject_below`.

        Raises:
            InputError: the point lies outside of the volume, the volume does not know its frames (one that was read
                from a file), or the frames are needed.
        """
        from DualTrackCore.reconstruction.sources import find_sources

        return find_sources(self.grid, self.require_placed(), self.provenance, point_mm, frames)

    def point_of(self, frame: int, pixel: tuple[float, float]) -> np.ndarray:
        """[3] x, y, z in frame0, mm, of a pixel (column, row) in a frame, by its number in the sweep.

        Raises InputError: the frame is none of those that the volume was made from.
        """
        placed = self.require_placed()
        place = np.flatnonzero(placed.numbers == frame)
        if not len(place):
            raise InputError(f"The volume was made without frame {frame}; choose one of those that have a place in it.")
        return (placed.frame0_from_pixel[place[0]] @ [*pixel, 0, 1])[:3]

    def require_placed(self) -> PlacedFrames:
        """The frames that the volume was made from. Raises InputError: it does not know them."""
        if self.placed is None:
            raise InputError("This volume does not know which frames it was made from; reconstruct it again.")
        return self.placed

    def to_sitk(self, what: Literal["volume", "coverage", "filled"] = "volume") -> SimpleITK.Image:
        """Return the volume (8 bit), the coverage (float32) or the filled flags (8 bit, 0 or 1) as a SimpleITK image.

        Origin, spacing and direction are those of the grid, mm, on ITK's physical axes left, posterior, superior: x, y,
        z of frame0 are written unchanged, and the numbers of a tracker's reference, which are RAS, with x and y
        negated. So the volume lies in Slicer where the frames of the sweep's file lie. The meta data say where the
        poses are from (:data:`~DualTrackCore.io.pose_marks.FIELDS`); .nrrd and .mha keep them, .nii a part.
        """
        from DualTrackCore.reconstruction.volume_files import image_of

        if what not in ("volume", "coverage", "filled"):
            raise InputError(f"{what!r} is not part of a reconstruction; choose 'volume', 'coverage' or 'filled'.")
        array = getattr(self, what)
        return image_of(array.astype(np.uint8) if what == "filled" else array, self)

    def write(self, path: str | os.PathLike, what: Literal["volume", "coverage", "filled"] = "volume") -> Path:
        """Write the volume, the coverage (in steps) or the filled flags, compressed; see :meth:`to_sitk`.

        Raises:
            InputError: the suffix is not one of .nrrd, .mha, .nii.gz, .nii.
            OutputError: the file cannot be written, or reads back as another image.
        """
        from DualTrackCore.reconstruction.volume_files import in_steps, write_image

        stored = replace(self, coverage=in_steps(self.coverage)) if what == "coverage" else self
        return write_image(lambda: stored.to_sitk(what), Path(path), self)


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
    hole_filling: str | HoleFilling | Sequence[HoleFilling] = "stick",
    device: str | torch.device = "auto",
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> Reconstruction:
    """Compound the frames of a sweep into a volume.

    Positions are computed in float64 with the full affine calibration. Memory is that of the volume
    (:attr:`VoxelGrid.bytes_needed`), whatever the length of the sweep. The result does not depend on the number of
    threads. The first call on a machine compiles the inner loops, which takes some seconds. The defaults are those of a
    run, which leaves repeated frames out as well.

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
        device: of torch where frames are compounded by the mean: "cpu", a CUDA card, whose sums differ from those of
            the CPU by rounding, or "auto", a card where torch is loaded and has one. For all else the CPU computes, and
            where a card's memory is too small.
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
    make = _builder_on(device if compounding == "mean" else "cpu")
    builder = make(grid, sweep.frame_size, sweep.image_from_pixel, **how, **area, reporter=reporter)
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
        "trajectory": dict(with_trust(trajectory).provenance),
        "poses_origin": trajectory.origin.value,
        "poses_text": trajectory.origin_text,
    }
    runs = select_pixels(sweep.frame_size, clip, fan).runs
    placed = PlacedFrames(usable, trajectory.poses[usable] @ sweep.image_from_pixel, runs)
    return Reconstruction(volume, coverage, filled, grid, len(usable), len(sweep) - len(usable), settings, placed)


def _builder_on(device: str | torch.device) -> Callable[..., VolumeBuilder]:
    if device == "auto":
        torch = sys.modules.get("torch")  # loading it takes longer than most volumes
        device = "cuda" if torch is not None and torch.cuda.is_available() else "cpu"
    if not str(device).startswith("cuda"):
        return VolumeBuilder
    from DualTrackCore.reconstruction.card import CardBuilder

    return partial(CardBuilder, device)


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
