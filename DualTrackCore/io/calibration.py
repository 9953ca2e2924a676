"""Pixel size: the choice between file, calibration and user, and its part in affine maps.

A calibration is an affine map `device_from_pixel` [4, 4]: pixel (column, row, 0, 1) to mm, origin at the centre of the
first pixel. Its first two columns give the pixel size; measured ones are not quite orthogonal. Such a map is split
into a pixel size, a skew and a rigid pose, which is exact on the image plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from DualTrackCore.errors import InputError, doubts, named
from DualTrackCore.sweep import FrameSource, Sweep, validated_spacing

if TYPE_CHECKING:
    from DualTrackCore.io.calibration_files import CalibrationSource

#: The name of a device that a calibration file does not name.
UNNAMED = ""


class AffineSplit(NamedTuple):
    """The parts of `x_from_pixel`: `x_from_image @ sweep.image_from_pixel` equals it on the image plane.

    Attributes:
        spacing_mm: [..., 2] length of the pixel axes, (across columns, down rows).
        skew_deg: [...] deviation of the pixel axes from a right angle, as in `Sweep.skew_deg`.
        x_from_image: [..., 4, 4] rigid, image (centre, mm) to X (mm).
    """

    spacing_mm: np.ndarray
    skew_deg: np.ndarray
    x_from_image: np.ndarray


def split_affine(x_from_pixel: np.ndarray, frame_size: tuple[int, int]) -> AffineSplit:
    """Split affine maps from pixels into pixel size, skew and a rigid pose of the image.

    The image x axis is the first column, normalised; y lies in the plane of both columns, orthogonal to x;
    z = x cross y. The third column of the input, which no pixel of a frame uses, is ignored.

    Args:
        x_from_pixel: [..., 4, 4], pixel (column, row, 0, 1) to X in mm, with two independent first columns.
        frame_size: (H, W) in pixels; the image origin is at ((W - 1) / 2, (H - 1) / 2).
    """
    x_from_pixel = np.asarray(x_from_pixel, dtype=np.float64)
    columns = x_from_pixel[..., :3, :2]
    spacing_mm = np.linalg.norm(columns, axis=-2)
    cosine = (columns[..., 0] * columns[..., 1]).sum(axis=-1) / spacing_mm.prod(axis=-1)
    skew_deg = np.rad2deg(np.arcsin(np.clip(cosine, -1.0, 1.0)))
    return AffineSplit(spacing_mm, skew_deg, image_pose(x_from_pixel, spacing_mm, skew_deg, frame_size))


def image_pose(
    x_from_pixel: np.ndarray,
    spacing_mm: np.ndarray,
    skew_deg: np.ndarray | float,
    frame_size: tuple[int, int],
) -> np.ndarray:
    """Poses of the image for affine maps from pixels, with a given pixel size and skew.

    On the image plane `pose @ sweep.image_from_pixel` equals `x_from_pixel` exactly. So if size and skew differ from
    those of the map, the pose is not rigid.

    Args:
        x_from_pixel: [..., 4, 4], pixel to X in mm.
        spacing_mm: [2] or [..., 2], mm.
        skew_deg: degrees.
        frame_size: (H, W) in pixels.

    Returns:
        [..., 4, 4] x_from_image; its third column is the unit vector along x cross y.
    """
    spacing_mm, skew = np.asarray(spacing_mm, dtype=np.float64), np.deg2rad(np.asarray(skew_deg))[..., None]
    height, width = frame_size
    across, down, origin = np.moveaxis(np.asarray(x_from_pixel, dtype=np.float64)[..., :3, (0, 1, 3)], -1, 0)
    x = across / spacing_mm[..., :1]
    y = (down / spacing_mm[..., 1:] - np.sin(skew) * x) / np.cos(skew)
    z = np.cross(x, y)
    pose = np.zeros(np.shape(x_from_pixel))
    pose[..., :3, 0], pose[..., :3, 1] = x, y
    pose[..., :3, 2] = z / np.linalg.norm(z, axis=-1, keepdims=True)
    pose[..., :3, 3] = origin + across * ((width - 1) / 2) + down * ((height - 1) / 2)
    pose[..., 3, 3] = 1.0
    return pose


def several_devices(name: str, devices: list[str]) -> InputError:
    """The error for a calibration file with several devices."""
    return InputError(
        f"{name} holds calibrations of {' and '.join(devices)}; say which of them carries the transducer: "
        f"{named('probe', devices[0])}."
    )


def validated_calibration(matrix: np.ndarray, source: str) -> np.ndarray:
    """`matrix` itself, a calibration from `source`. Raises InputError: it is no calibration."""
    if matrix.shape != (4, 4):
        raise InputError(f"{source}: the calibration has shape {matrix.shape}; expected a 4x4 matrix.")
    if not np.isfinite(matrix).all():
        raise InputError(f"{source}: the calibration holds numbers that are not finite.")
    if np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-9:
        raise InputError(f"{source}: the last row of the calibration is not 0 0 0 1; give the matrix row by row.")
    spacing_mm = np.linalg.norm(matrix[:3, :2], axis=0)
    if not spacing_mm.all() or np.linalg.norm(np.cross(*(matrix[:3, :2] / spacing_mm).T)) < np.sqrt(0.5):
        raise InputError(f"{source}: the first two columns of the calibration do not span an image plane.")
    try:
        validated_spacing(tuple(map(float, spacing_mm)))
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    return matrix


Spacing = tuple[float, float]

#: Two spacings that differ by more than this fraction contradict each other.
SPACING_TOLERANCE = 0.01


@dataclass(frozen=True)
class PixelSize:
    """The size of the pixels and its source.

    Attributes:
        spacing_mm: across columns and down rows, or None if unknown.
        skew_deg: as in `Sweep.skew_deg`.
        source: "file", "calibration", "user" or "unknown".
        calibration: name of the calibration file, if one was used.
        notes: sentences for the provenance.
    """

    spacing_mm: Spacing | None
    skew_deg: float = 0.0
    source: str = "unknown"
    calibration: str | None = None
    notes: list[str] = field(default_factory=list)

    def sweep(
        self,
        frames: np.ndarray | FrameSource,
        path: Path,
        format_name: str,
        notes: list[str],
        facts: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Sweep:
        """The sweep of frames with pixels of this size.

        Args:
            frames: [N, H, W] uint8.
            path: the file they come from.
            format_name: its format.
            notes: sentences on conversions.
            facts: more entries of the provenance.
            fields: more fields of the sweep: times, validity, tracking.
        """
        tracked = fields.get("tracked")
        provenance = {
            "source": path.name,
            "format": format_name,
            "conversions": [*notes, *self.notes, *(tracked.provenance.get("warnings", ()) if tracked else ())],
            "spacing_source": self.source,
            "calibration": self.calibration,
            **doubts(notes),
            **(facts or {}),
        }
        return Sweep(frames, self.spacing_mm, skew_deg=self.skew_deg, provenance=provenance, **fields)


def choose_pixel_size(
    from_file: Spacing | None, calibration: CalibrationSource | None, from_user: Spacing | None
) -> PixelSize:
    """The pixel size of frames without tracking: that of the calibration, else the user's, else the file's.

    Raises InputError: the calibration cannot be read, or the user's size differs from it by more than 1 %.
    """
    from_user = validated_spacing(from_user)
    if calibration is None:
        if from_user is not None:
            return PixelSize(from_user, source="user", notes=_overruled(from_file, from_user))
        return PixelSize(from_file, source="unknown" if from_file is None else "file")
    from DualTrackCore.io.calibration_files import calibration_name, read_calibration

    # Pixel size and skew do not depend on the image centre, so any frame size is right.
    split = split_affine(read_calibration(calibration), (1, 1))
    spacing = validated_spacing(split.spacing_mm)
    require_agreement(spacing, from_user)
    notes = _overruled(from_file, spacing)
    return PixelSize(spacing, float(split.skew_deg), "calibration", calibration_name(calibration), notes)


def untracked_size(stated: PixelSize | None, from_user: Spacing | None) -> tuple[PixelSize, list[str]]:
    """The pixel size of frames without tracking, with the skew of the file; and notes on replaced sizes."""
    chosen = choose_pixel_size(None if stated is None else stated.spacing_mm, None, from_user)
    return replace(chosen, skew_deg=0.0 if stated is None else stated.skew_deg, notes=[]), chosen.notes


def require_agreement(from_calibration: Spacing, from_user: Spacing | None) -> None:
    """Raises InputError: the user's spacing contradicts the calibration.

    The poses depend on the calibration's scale too, so neither can replace the other.
    """
    from_user = validated_spacing(from_user)
    if from_user is not None and contradicts(from_calibration, from_user):
        raise InputError(
            f"The given pixel spacing {as_text(from_user)} contradicts the calibration's {as_text(from_calibration)} "
            "by more than 1 %; leave out one of the two."
        )


def contradicts(one: Spacing, other: Spacing) -> bool:
    """Whether two spacings differ by more than :data:`SPACING_TOLERANCE` in either direction."""
    return bool((np.abs(np.divide(one, other) - 1) > SPACING_TOLERANCE).any())


def as_text(spacing_mm: Spacing) -> str:
    """A spacing for a sentence."""
    return f"{spacing_mm[0]:.6g} x {spacing_mm[1]:.6g} mm"


def _overruled(from_file: Spacing | None, used: Spacing) -> list[str]:
    if from_file is None or not contradicts(from_file, used):
        return []
    return [f"Used the given pixel spacing {as_text(used)} in place of the file's {as_text(from_file)}."]
