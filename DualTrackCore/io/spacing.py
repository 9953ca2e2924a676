"""Which pixel spacing counts when a file, a calibration and the user may each name one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.io.calibration import read_calibration, split_affine
from DualTrackCore.sweep import validated_spacing

Spacing = tuple[float, float]

#: Two spacings that differ by more than this fraction contradict each other.
SPACING_TOLERANCE = 0.01


@dataclass(frozen=True)
class PixelSize:
    """The size of the pixels and where it is known from.

    Attributes:
        spacing_mm: across columns and down rows, or None where unknown.
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

    def provenance(self, path: Path, format_name: str, conversions: list[str]) -> dict[str, object]:
        """What a reader says of its sweep: the file, its format, what was converted, where the pixel size is from."""
        return {
            "source": path.name,
            "format": format_name,
            "conversions": conversions,
            "spacing_source": self.source,
            "calibration": self.calibration,
        }


def choose_pixel_size(
    from_file: Spacing | None, calibration: Path | np.ndarray | None, from_user: Spacing | None
) -> PixelSize:
    """The pixel size of frames that come without tracking: the calibration's, else the user's, else the file's.

    Raises:
        InputError: the calibration cannot be read, or the user contradicts it by more than 1 %.
    """
    if calibration is None:
        spacing, source, notes = choose_spacing(from_file, from_user)
        return PixelSize(spacing, source=source, notes=notes)
    # The first columns of the map do not depend on where the image centre lies, so any frame size will do.
    split = split_affine(read_calibration(calibration), (1, 1))
    spacing = validated_spacing(split.spacing_mm)
    require_agreement(spacing, from_user)
    notes = _overruled(from_file, spacing)
    return PixelSize(spacing, float(split.skew_deg), "calibration", calibration_name(calibration), notes)


def choose_spacing(from_file: Spacing | None, from_user: Spacing | None) -> tuple[Spacing | None, str, list[str]]:
    """The spacing to use, in mm across columns and down rows, where it comes from, and what to tell the reader.

    The user's word counts before the file's. The source is "user", "file" or "unknown".
    """
    from_user = validated_spacing(from_user)
    if from_user is not None:
        return from_user, "user", _overruled(from_file, from_user)
    return from_file, "unknown" if from_file is None else "file", []


def require_agreement(from_calibration: Spacing, from_user: Spacing | None) -> None:
    """Raise :class:`InputError` if the user gives a spacing that a calibration contradicts.

    The poses depend on the calibration's scale too, so neither can win alone.
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


def calibration_name(calibration: Path | np.ndarray) -> str:
    """What to call a calibration in the provenance."""
    return "a given matrix" if isinstance(calibration, np.ndarray) else Path(calibration).name


def _overruled(from_file: Spacing | None, used: Spacing) -> list[str]:
    if from_file is None or not contradicts(from_file, used):
        return []
    return [f"Used the given pixel spacing {as_text(used)} in place of the file's {as_text(from_file)}."]
