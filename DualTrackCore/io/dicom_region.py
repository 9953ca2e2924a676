"""The region of the B-mode picture in a DICOM ultrasound image, and the size of its pixels.

Codes are those of DICOM PS3.3, US Region Calibration (C.8.5.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.io.dicom_file import number, numbers
from DualTrackCore.sweep import validated_spacing

if TYPE_CHECKING:
    from pydicom import Dataset

#: Values of RegionSpatialFormat: none, 2D, and traces over time, which are not read.
_NO_FORMAT, _FLAT = 0, 1
_TRACES = {2: "M-mode", 3: "spectral", 4: "wave form"}

#: Values of RegionDataType in words; colour flow is an overlay on a B-mode picture.
_TISSUE = 1
_DATA = {_TISSUE: "tissue", 2: "colour flow"}

#: Value of PhysicalUnitsXDirection and PhysicalUnitsYDirection for cm.
_CM = 3

_LIMITS = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")


@dataclass(frozen=True)
class Region:
    """The region of the picture in an image.

    Attributes:
        bounds: first column, first row, last column, last row; None for the whole image.
        spacing_mm: (across columns, down rows); None if the file does not state it.
        notes: sentences for the user.
    """

    bounds: tuple[int, int, int, int] | None
    spacing_mm: tuple[float, float] | None
    notes: list[str]

    def crop(self, images: np.ndarray) -> np.ndarray:
        """Images [n, H, W] or [n, H, W, channels] cropped to the region."""
        if self.bounds is None:
            return images
        left, top, right, bottom = self.bounds
        return images[:, top : bottom + 1, left : right + 1]

    def scaled(self, across: float, down: float) -> Region:
        """The region in an image scaled by these factors in width and height."""
        factors = np.array([across, down])
        bounds = None
        if self.bounds is not None:
            start, stop = np.array(self.bounds[:2]) * factors, (np.array(self.bounds[2:]) + 1) * factors - 1
            bounds = tuple(np.rint([*start, *stop]).astype(int).tolist())
        spacing = None if self.spacing_mm is None else tuple((np.array(self.spacing_mm) / factors).tolist())
        return Region(bounds, spacing, self.notes)


def choose_region(name: str, dataset: Dataset) -> Region:
    """The region of a 2D picture: one of tissue before others, a calibrated one before others, then the largest.

    A region is 2D by its spatial format, or if it has none, by units of length on both axes.

    Args:
        name: of the file, for messages.
        dataset: with Rows and Columns.

    Raises InputError: all regions are traces over time.
    """
    regions = list(dataset.get("SequenceOfUltrasoundRegions") or [])
    flat = [region for region in regions if _is_flat(region)]
    traces = [_TRACES[region.get("RegionSpatialFormat")] for region in regions if _is_trace(region)]
    if traces and not flat:
        raise InputError(
            f"{name} shows no B-mode picture, only {' and '.join(dict.fromkeys(traces))} regions, so it is no sweep "
            "of B-mode frames; choose a 2D clip."
        )
    notes: list[str] = []
    placed = [(region, bounds) for region in flat if (bounds := _bounds(dataset, region, notes)) is not None]
    chosen, bounds = max(placed, key=lambda item: (_rank(item[0]), _area(item[1])), default=(None, None))
    if chosen is None:
        if regions and not flat:
            notes.append("Found no 2D region among the ultrasound regions; took the whole image.")
        sizes = {_calibrated(region, notes) for region in flat}
        size = sizes.pop() if len(sizes) == 1 else None
        return Region(None, size or _image_spacing(dataset, notes), notes)
    notes += _choice_notes(dataset, chosen, bounds, [item for item in placed if item[0] is not chosen], len(regions))
    size = _calibrated(chosen, notes)
    if size is None:
        notes.append("The region does not say the size of its pixels in cm.")
    return Region(bounds, size or _image_spacing(dataset, notes), notes)


def _choice_notes(
    dataset: Dataset,
    chosen: Dataset,
    bounds: tuple[int, ...],
    others: list[tuple[Dataset, tuple[int, ...]]],
    count: int,
) -> list[str]:
    """Sentences on the chosen region and the others."""
    whole = bounds == (0, 0, int(dataset.Columns) - 1, int(dataset.Rows) - 1)
    kind = f"the 2D {_named(chosen)}region"
    notes = [f"Took {kind}, which is the whole image." if whole else f"Cropped to {kind}: {_place(bounds)}."]
    notes += [f"Left out another 2D {_named(region)}region: {_place(place)}." for region, place in others]
    if left := count - len(others) - 1:
        notes.append(f"Left out {left} other ultrasound region{'s' * (left > 1)}.")
    return notes


def _named(region: Dataset) -> str:
    data = _DATA.get(region.get("RegionDataType"))
    return "" if data is None else f"{data} "


def _place(bounds: tuple[int, ...]) -> str:
    return f"columns {bounds[0]} to {bounds[2]}, rows {bounds[1]} to {bounds[3]}"


def _is_trace(region: Dataset) -> bool:
    return region.get("RegionSpatialFormat") in _TRACES


def _is_flat(region: Dataset) -> bool:
    space = region.get("RegionSpatialFormat") or _NO_FORMAT
    return space == _FLAT or (space == _NO_FORMAT and _is_in_cm(region))


def _is_in_cm(region: Dataset) -> bool:
    return region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == _CM


def _rank(region: Dataset) -> tuple[bool, bool]:
    return region.get("RegionDataType") == _TISSUE, _is_in_cm(region)


def _bounds(dataset: Dataset, region: Dataset, notes: list[str]) -> tuple[int, int, int, int] | None:
    """First column, first row, last column, last row inside the image; None if empty or not stated."""
    limits = [number(region, name, notes) for name in _LIMITS]
    missing = [name for name, limit in zip(_LIMITS, limits, strict=True) if limit is None]
    if missing:
        notes.append(f"A 2D {_named(region)}region lacks {' and '.join(missing)}; it does not crop the image.")
        return None
    left, top = (max(int(limit), 0) for limit in limits[:2])
    right, bottom = (
        min(int(limit), int(size) - 1) for limit, size in zip(limits[2:], (dataset.Columns, dataset.Rows), strict=True)
    )
    if right < left or bottom < top:
        notes.append(f"A 2D {_named(region)}region lies outside of the image; it does not crop it.")
        return None
    return left, top, right, bottom


def _area(bounds: tuple[int, ...]) -> int:
    left, top, right, bottom = bounds
    return (right - left + 1) * (bottom - top + 1)


def _calibrated(region: Dataset, notes: list[str]) -> tuple[float, float] | None:
    """Spacing (across columns, down rows) in mm from the region's own calibration, or None."""
    if not _is_in_cm(region):
        return None
    deltas = [abs(number(region, name, notes) or 0) * 10 for name in ("PhysicalDeltaX", "PhysicalDeltaY")]
    return _checked(deltas, "PhysicalDeltaX and PhysicalDeltaY", notes) if all(deltas) else None


def _image_spacing(dataset: Dataset, notes: list[str]) -> tuple[float, float] | None:
    """Spacing (across columns, down rows) in mm of the whole image, or of all frames of an enhanced object; or None."""
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]
    measures = (shared.get("PixelMeasuresSequence") or [{}])[0]
    for place, name in ((dataset, "PixelSpacing"), (dataset, "ImagerPixelSpacing"), (measures, "PixelSpacing")):
        values = numbers(place, name, notes)
        if len(values) == 2 and min(values) > 0:
            return _checked(values[::-1], name, notes)
    return None


def _checked(sizes: list[float], name: str, notes: list[str]) -> tuple[float, float] | None:
    try:
        return validated_spacing(sizes)
    except InputError:
        notes.append(f"{name} give pixels of {sizes[0]:g} x {sizes[1]:g} mm, which cannot be; the size is unknown.")
        return None
