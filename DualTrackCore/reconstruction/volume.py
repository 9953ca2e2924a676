"""Poses and frames to a volume."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from DualTrackCore.errors import InputError, OutputError
from DualTrackCore.files import replacing
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter
from DualTrackCore.reconstruction.detect import resolved_area
from DualTrackCore.reconstruction.grid import VoxelGrid
from DualTrackCore.reconstruction.holes import HoleFilling, fill_holes, validated_hole_filling
from DualTrackCore.reconstruction.mask import Fan, PixelSelection, select_pixels
from DualTrackCore.reconstruction.placement import usable_frames
from DualTrackCore.reconstruction.plan import plan_grid
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

if TYPE_CHECKING:
    import SimpleITK

    from DualTrackCore.reconstruction.insertion import Block

INTERPOLATIONS = ("nearest", "linear")
COMPOUNDINGS = ("mean", "maximum", "latest")
#: File formats that keep origin, spacing and direction.
VOLUME_SUFFIXES = (".nrrd", ".mha", ".mhd", ".nii.gz", ".nii")
#: Frames read at once.
WINDOW_FRAMES = 8


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A volume compounded from a sweep.

    Attributes:
        volume: [nz, ny, nx] uint8 grey values; 0 where nothing was seen and nothing was filled.
        coverage: [nz, ny, nx] float32, how much was seen: the number of pixels that fell into a voxel (nearest) or the
            sum of their weights (linear). 0 is unseen, also where a hole was filled; a dark voxel that was seen has a
            coverage above 0.
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
        """Part of the voxels that pixels reached, 0 to 1; filled voxels do not count."""
        return float(np.count_nonzero(self.coverage)) / self.grid.voxels

    @property
    def filled_fraction(self) -> float:
        """Part of the voxels whose value comes from hole filling, 0 to 1."""
        return float(np.count_nonzero(self.filled)) / self.grid.voxels

    def to_sitk(self, what: Literal["volume", "coverage", "filled"] = "volume") -> SimpleITK.Image:
        """The volume (8 bit), the coverage (float32) or the filled flags (8 bit, 0 or 1) as a SimpleITK image.

        Origin, spacing and direction are those of the grid, in mm in its frame. ITK calls its physical axes left,
        posterior, superior; a sweep does not know the patient, and x, y, z of frame0 (or reference) are written
        there as they are. 3D Slicer, which shows right, anterior, superior, negates x and y when it loads the file.
        """
        import SimpleITK as sitk

        if what not in ("volume", "coverage", "filled"):
            raise InputError(f"There is no {what!r} to export; choose 'volume', 'coverage' or 'filled'.")
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
    number of threads.

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
        progress: told after each frame.
        cancelled: asked before each frame.

    Raises:
        InputError: an option is unknown, nothing can be placed, or no pixel reaches the grid.
        Cancelled: the caller asked to stop.
    """
    _require_choice("interpolation", interpolation, INTERPOLATIONS)
    _require_choice("compounding", compounding, COMPOUNDINGS)
    fillings = validated_hole_filling(hole_filling)
    threshold = _validated_threshold(reject_below)
    usable = usable_frames(sweep, trajectory)
    clip, fan = resolved_area(sweep, clip, fan)
    selection = select_pixels(sweep.frame_size, clip, fan)
    grid = plan_grid(sweep, trajectory, clip=clip, fan=fan) if grid is None else grid
    reporter = Reporter(progress, cancelled)
    volume, coverage = _compound(
        sweep, trajectory, grid, selection, usable, (interpolation, compounding, threshold), reporter
    )
    if not coverage.any():
        raise InputError(
            f"No pixel of the {len(usable)} usable frames reached the volume of {grid.describe()[:-1]}; "
            "choose another region, clip rectangle or rejection threshold."
        )
    filled = np.zeros(grid.shape, bool)
    if fillings:
        volume, filled = fill_holes(volume, coverage > 0, fillings, reporter)
    settings = {
        "interpolation": interpolation,
        "compounding": compounding,
        "pixel_rectangle": [getattr(selection.rectangle, side) for side in ("left", "top", "right", "bottom")],
        "pixels_a_frame": selection.pixels,
        "reject_below": threshold,
        "hole_filling": [vars(filling) for filling in fillings],
        "grid": grid.describe(),
        "sweep": dict(sweep.provenance),
        "trajectory": dict(trajectory.provenance),
    }
    return Reconstruction(volume, coverage, filled, grid, len(usable), len(sweep) - len(usable), settings)


def _compound(
    sweep: Sweep,
    trajectory: Trajectory,
    grid: VoxelGrid,
    selection: PixelSelection,
    usable: np.ndarray,
    how: tuple[str, str, int],
    reporter: Reporter,
) -> tuple[np.ndarray, np.ndarray]:
    """(volume uint8, coverage float32), both [nz, ny, nx]."""
    import torch

    from DualTrackCore.reconstruction.accumulators import accumulator_for
    from DualTrackCore.reconstruction.compound import frame_blocks, insert_blocks

    interpolation, compounding, threshold = how
    frame0_from_pixel = trajectory.poses[usable] @ sweep.image_from_pixel
    voxel_from_pixel = dict(zip(usable.tolist(), grid.voxel_from_frame0 @ frame0_from_pixel, strict=True))

    def blocks() -> Iterator[Block]:
        for start, frames in sweep.windows(WINDOW_FRAMES):
            for number, frame in enumerate(frames, start):
                reporter.report("reconstructing", number, len(sweep))
                if number in voxel_from_pixel:
                    yield from frame_blocks(frame, number, selection, voxel_from_pixel[number], grid.shape)

    linear = interpolation == "linear"
    accumulator = accumulator_for(compounding, linear, grid.voxels)
    insert_blocks(blocks(), accumulator, grid.shape, linear, threshold, torch.get_num_threads())
    reporter.report("reconstructing", len(sweep), len(sweep))
    volume, coverage = accumulator.finish()
    return volume.reshape(grid.shape), coverage.reshape(grid.shape)


def _require_choice(what: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"The {what} {value!r} is unknown; choose one of {', '.join(choices)}.")


def _validated_threshold(reject_below: object) -> int:
    if isinstance(reject_below, bool) or reject_below not in range(256):
        raise InputError(f"The rejection threshold {reject_below!r} must be a whole grey value from 0 to 255.")
    return int(reject_below)
