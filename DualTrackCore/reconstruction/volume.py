"""Reconstruction of a volume from frames and poses."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from DualTrackCore.errors import InputError, OutputError
from DualTrackCore.files import replacing
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage
from DualTrackCore.reconstruction.area import Fan, resolved_area
from DualTrackCore.reconstruction.builder import VolumeBuilder
from DualTrackCore.reconstruction.grid import VoxelGrid
from DualTrackCore.reconstruction.holes import HoleFilling, fill_holes, validated_hole_filling
from DualTrackCore.reconstruction.plan import plan_grid, usable_frames
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

if TYPE_CHECKING:
    import SimpleITK

#: File formats that keep origin, spacing and direction.
VOLUME_SUFFIXES = (".nrrd", ".mha", ".mhd", ".nii.gz", ".nii")
#: Frames read at once.
WINDOW_FRAMES = 8


@dataclass(frozen=True, eq=False)
class Reconstruction:
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
    """

    volume: np.ndarray
    coverage: np.ndarray
    filled: np.ndarray
    grid: VoxelGrid
    frames_used: int
    frames_skipped: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, dtype in (("volume", np.uint8), ("coverage", np.float32), ("filled", np.bool_)):
            array = getattr(self, name)
            if array.shape != self.grid.shape or array.dtype != dtype:
                raise InputError(
                    f"The {name} is {array.dtype} {array.shape}; expected {np.dtype(dtype)} {self.grid.shape}."
                )
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    @property
    def covered_fraction(self) -> float:
        """Part of the voxels that pixels reached, 0 to 1, without filled ones."""
        return float(np.count_nonzero(self.coverage)) / self.grid.voxels

    @property
    def filled_fraction(self) -> float:
        """Part of the voxels whose value comes from hole filling, 0 to 1."""
        return float(np.count_nonzero(self.filled)) / self.grid.voxels

    def to_sitk(self, what: Literal["volume", "coverage", "filled"] = "volume") -> SimpleITK.Image:
        """Return the volume (8 bit), the coverage (float32) or the filled flags (8 bit, 0 or 1) as a SimpleITK image.

        Origin, spacing and direction are those of the grid, in mm in its frame. ITK's physical axes are left,
        posterior, superior; the place of the patient is unknown, so x, y, z of frame0 (or reference) are written there
        unchanged. 3D Slicer uses right, anterior, superior, and negates x and y when it loads the file.
        """
        import SimpleITK as sitk

        if what not in ("volume", "coverage", "filled"):
            raise InputError(f"{what!r} is not part of a reconstruction; choose 'volume', 'coverage' or 'filled'.")
        array = getattr(self, what)
        image = sitk.GetImageFromArray(array.astype(np.uint8) if what == "filled" else array)
        image.SetOrigin([float(value) for value in self.grid.origin_mm])
        image.SetSpacing(self.grid.spacing_mm)
        image.SetDirection([float(value) for value in self.grid.axes.ravel()])
        return image

    def write(self, path: str | os.PathLike, what: Literal["volume", "coverage", "filled"] = "volume") -> Path:
        """Write the volume, the coverage or the filled flags, compressed; see :meth:`to_sitk` for the coordinates.

        Raises:
            InputError: the suffix is not one of .nrrd, .mha, .nii.gz, .nii.
            OutputError: the file cannot be written.
        """
        import SimpleITK as sitk

        path = Path(path)
        if not path.name.lower().endswith(VOLUME_SUFFIXES):
            raise InputError(f"{path.name} is not a volume file; choose one of {', '.join(VOLUME_SUFFIXES)}.")
        image = self.to_sitk(what)
        with replacing(path) as temporary:
            try:
                sitk.WriteImage(image, str(temporary), useCompression=True)
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[-1]
                raise OutputError(f"Cannot write {path}: {reason}") from error
        return path


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

    Positions are computed in float64 with the full affine calibration. Frames are read a few at a time; memory is that
    of the volume (:attr:`VoxelGrid.bytes_needed`), whatever the length of the sweep. The result does not depend on the
    number of threads. The first call on a machine compiles the inner loops, which takes some seconds.
    :class:`VolumeBuilder` does the same for frames that come one after the other.

    Args:
        sweep: frames with known spacing.
        trajectory: one pose a frame.
        grid: from :func:`plan_grid`; None plans one with automatic spacing.
        interpolation: "nearest" adds a pixel to the voxel whose centre is closest; "linear" spreads it over the eight
            around it, and leaves out pixels that have fewer than eight.
        compounding: where pixels meet: their (weighted) mean, the brightest, or the last in the order of frames, rows
            and columns. With "linear", the last two count only voxels with a weight of at least 1/8.
        clip: (x, y, width, height) in pixels; what lies outside is left out. None is the whole frame.
        fan: the sector of a curvilinear probe, or "auto" to find the image area from the frames.
        reject_below: pixels darker than this grey value are left out.
        hole_filling: "none", a method, a :class:`HoleFilling`, or several of them to try in turn. Only voxels that
            nothing reached are filled.
        progress: receives `Stage.RECONSTRUCTING` (frames), `Stage.FILLING_HOLES` (slices), and before them
            `Stage.PREPARING` (kernels) where the inner loops have to be compiled.
        cancelled: called before each frame.

    Raises:
        InputError: an option is unknown, nothing can be placed, or no pixel reaches the grid.
        Cancelled: the caller asked to stop.
    """
    fillings = validated_hole_filling(hole_filling)
    usable = usable_frames(sweep, trajectory)
    clip, fan = resolved_area(sweep, clip, fan)
    grid = plan_grid(sweep, trajectory, clip=clip, fan=fan) if grid is None else grid
    reporter = Reporter(progress, cancelled)
    builder = VolumeBuilder(
        grid,
        sweep.frame_size,
        sweep.image_from_pixel,
        interpolation=interpolation,
        compounding=compounding,
        clip=clip,
        fan=fan,
        reject_below=reject_below,
        reporter=reporter,
    )
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
    }
    return Reconstruction(volume, coverage, filled, grid, len(usable), len(sweep) - len(usable), settings)


def _insert_all(
    builder: VolumeBuilder, sweep: Sweep, poses: np.ndarray, usable: np.ndarray, reporter: Reporter
) -> None:
    """Insert the usable frames, while this thread reads the next ones."""
    is_usable = np.zeros(len(sweep), bool)
    is_usable[usable] = True
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
