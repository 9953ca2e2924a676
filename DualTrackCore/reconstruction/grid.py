"""The voxel grid of a volume (place, spacing, memory), and a volume with its coverage on its grid."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from DualTrackCore.errors import InputError, OutputError
from DualTrackCore.files import replacing
from DualTrackCore.memory import format_bytes

if TYPE_CHECKING:
    import SimpleITK

#: File formats that keep origin, spacing and direction.
VOLUME_SUFFIXES = (".nrrd", ".mha", ".nii.gz", ".nii")
#: Peak of the arrays of a reconstruction, bytes a voxel: 8 accumulator + 4 coverage + 1 grey value + 1 filled flag.
BYTES_A_VOXEL = 14
#: Largest departure of the axes from orthonormality: six-digit matrices from files pass.
AXES_TOLERANCE = 1e-5
#: Part of the available memory that a volume may take.
DEFAULT_FRACTION = 0.5


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """A regular grid of voxels.

    The grid lies in frame0, or in the tracker's reference world where `reference_from_frame0` is given. "mm" in the
    names below means millimetres in that frame; a voxel index is (i, j, k) along the three axes
    and an array of the grid has the shape [nz, ny, nx].

    Attributes:
        origin_mm: [3] float64, centre of voxel (0, 0, 0), mm in the frame of the grid.
        spacing_mm: distance of neighbouring voxel centres along the three axes, mm.
        size: (nx, ny, nz) voxels.
        axes: [3, 3] float64, columns are the directions of the grid axes; orthonormal and right-handed.
        reference_from_frame0: [4, 4] float64 for a grid in the reference world, None for a grid in frame0.
        note: what planning had to change, a sentence for the user, or empty.
    """

    origin_mm: np.ndarray
    spacing_mm: tuple[float, float, float]
    size: tuple[int, int, int]
    axes: np.ndarray | None = None
    reference_from_frame0: np.ndarray | None = None
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin_mm", _finite_array(self.origin_mm, (3,), "grid origin"))
        object.__setattr__(self, "spacing_mm", validated_voxel_spacing(self.spacing_mm))
        size = np.asarray(self.size)
        if size.shape != (3,) or not np.issubdtype(size.dtype, np.integer) or (size < 1).any():
            raise InputError(f"The grid size {self.size!r} is not three whole numbers of at least 1.")
        object.__setattr__(self, "size", tuple(size.tolist()))
        axes = _finite_array(np.eye(3) if self.axes is None else self.axes, (3, 3), "matrix of grid axes")
        error = np.abs(axes.T @ axes - np.eye(3)).max()
        if error > AXES_TOLERANCE or np.linalg.det(axes) < 0:
            raise InputError(
                f"The grid axes are not a rotation (they depart by {error:.3g}, the limit is {AXES_TOLERANCE}, "
                "and a mirrored set is refused too)."
            )
        object.__setattr__(self, "axes", axes)
        if self.reference_from_frame0 is not None:
            matrix = _finite_array(self.reference_from_frame0, (4, 4), "reference_from_frame0")
            object.__setattr__(self, "reference_from_frame0", matrix)

    @property
    def frame(self) -> str:
        """Name of the frame of reference that the grid lies in: "frame0" or "reference"."""
        return "frame0" if self.reference_from_frame0 is None else "reference"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(nz, ny, nx), the shape of an array of this grid."""
        return self.size[2], self.size[1], self.size[0]

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return self.size[0] * self.size[1] * self.size[2]

    @property
    def bytes_needed(self) -> int:
        """Peak memory of the arrays of a reconstruction, bytes; frames that are being inserted add some megabytes."""
        return self.voxels * BYTES_A_VOXEL

    @property
    def mm_from_voxel(self) -> np.ndarray:
        """[4, 4] float64: voxel index (i, j, k, 1) to mm in the frame of the grid."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.axes * np.asarray(self.spacing_mm)
        matrix[:3, 3] = self.origin_mm
        return matrix

    @property
    def voxel_from_mm(self) -> np.ndarray:
        """[4, 4] float64: mm in the frame of the grid to (fractional) voxel index."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.linalg.inv(self.axes) / np.asarray(self.spacing_mm)[:, None]
        matrix[:3, 3] = -matrix[:3, :3] @ self.origin_mm
        return matrix

    @property
    def frame0_from_voxel(self) -> np.ndarray:
        """[4, 4] float64: voxel index to frame0 mm, whichever frame the grid lies in."""
        if self.reference_from_frame0 is None:
            return self.mm_from_voxel
        return np.linalg.inv(self.reference_from_frame0) @ self.mm_from_voxel

    @property
    def voxel_from_frame0(self) -> np.ndarray:
        """[4, 4] float64: frame0 mm to (fractional) voxel index, whichever frame the grid lies in."""
        if self.reference_from_frame0 is None:
            return self.voxel_from_mm
        return self.voxel_from_mm @ self.reference_from_frame0

    def describe(self) -> str:
        """Return one sentence with size, spacing, extent, memory, and what planning changed."""
        size = " x ".join(map(str, self.size))
        spacing = " x ".join(f"{value:.3g}" for value in self.spacing_mm)
        extent = " x ".join(f"{n * value:.3g}" for n, value in zip(self.size, self.spacing_mm, strict=True))
        note = f"; {self.note}" if self.note else ""
        return (
            f"{size} voxels of {spacing} mm ({extent} mm) in {self.frame}, "
            f"about {format_bytes(self.bytes_needed)} of memory{note}."
        )


def validated_voxel_spacing(spacing_mm: object) -> tuple[float, float, float]:
    """Return a voxel spacing as three floats; one number stands for cubic voxels.

    Raises:
        InputError: not one or three finite numbers above 0.
    """
    try:
        values = np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), (3,))
    except (TypeError, ValueError):
        raise InputError(f"The voxel spacing {spacing_mm!r} is not one or three numbers in mm.") from None
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise InputError(f"The voxel spacing {spacing_mm!r} is out of range; it must be finite and above 0 mm.")
    return float(values[0]), float(values[1]), float(values[2])


def _finite_array(values: object, shape: tuple[int, ...], what: str) -> np.ndarray:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"The {what} is not an array of numbers.") from None
    if array.shape != shape or not np.isfinite(array).all():
        raise InputError(f"The {what} has shape {array.shape}; expected {shape} finite numbers.")
    array.flags.writeable = False
    return array


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
        unchanged. 3D Slicer uses right, anterior, superior, and negates x and y when it loads the file. The meta data
        say where the poses are from (:data:`~DualTrackCore.io.pose_origin.FIELDS`); .nrrd and .mha keep them.
        """
        import SimpleITK as sitk

        from DualTrackCore.io.pose_origin import header_marks_of

        if what not in ("volume", "coverage", "filled"):
            raise InputError(f"{what!r} is not part of a reconstruction; choose 'volume', 'coverage' or 'filled'.")
        array = getattr(self, what)
        image = sitk.GetImageFromArray(array.astype(np.uint8) if what == "filled" else array)
        image.SetOrigin([float(value) for value in self.grid.origin_mm])
        image.SetSpacing(self.grid.spacing_mm)
        image.SetDirection([float(value) for value in self.grid.axes.ravel()])
        source, origin = self.provenance.get("trajectory", {}), self.provenance.get("poses_origin", "unknown")
        for name, text in header_marks_of(source, origin).items():
            image.SetMetaData(name, text)
        return image

    def write(self, path: str | os.PathLike, what: Literal["volume", "coverage", "filled"] = "volume") -> Path:
        """Write the volume, the coverage or the filled flags, compressed; see :meth:`to_sitk` for the coordinates.

        Raises:
            InputError: the suffix is not one of .nrrd, .mha, .nii.gz, .nii.
            OutputError: the file cannot be written, or reads back as another image.
        """
        import SimpleITK as sitk

        path = Path(path)
        if not path.name.lower().endswith(VOLUME_SUFFIXES):
            raise InputError(f"{path.name} is not a volume file; choose one of {', '.join(VOLUME_SUFFIXES)}.")
        image = self.to_sitk(what)
        with replacing(path) as temporary:
            temporary.touch()  # says why, where a file cannot even be made
            try:
                with _quiet_libraries():
                    sitk.WriteImage(image, str(temporary), useCompression=True)
                    # ITK does not report every write that failed.
                    written = sitk.ReadImage(str(temporary))
                whole = np.array_equal(sitk.GetArrayViewFromImage(written), sitk.GetArrayViewFromImage(image))
            except RuntimeError:
                whole = False
            if not whole:
                raise OutputError(
                    f"Cannot write {path}: the disk takes no more; choose another folder or free some space."
                )
        return path


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep the lines of libraries in C, such as that for NIfTI, off stderr."""
    try:
        kept = os.dup(2)
    except OSError:  # a program without a terminal
        yield
        return
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
