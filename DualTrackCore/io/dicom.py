"""Ultrasound clips in DICOM: multi-frame or single-frame images with region calibration.

Tags and codes are those of DICOM PS3.3, US Region Calibration (C.8.5.5), Cine (C.7.6.5) and Image Pixel modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.grey import grey_clip
from DualTrackCore.io.calibration import choose_pixel_size
from DualTrackCore.io.sequence_parts import require_plausible_clip
from DualTrackCore.sweep import Sweep, validated_spacing

if TYPE_CHECKING:
    from pydicom import Dataset

FORMAT = "DICOM"

_PREAMBLE_BYTES = 128

_DEFLATED = "1.2.840.10008.1.2.1.99"
_DIRECTORY = "1.2.840.10008.1.3.10"

#: Codes of the US Region Calibration module.
_REGION_2D, _REGION_TISSUE, _UNIT_CM = 1, 1, 3

#: Grey and colour, as PhotometricInterpretation names them.
_PIXEL_KINDS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "PALETTE COLOR")


def recognises(path: Path, head: bytes) -> bool:
    """Whether the file has the DICOM prefix behind its preamble."""
    return head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM"


def read(path: Path, *, calibration: Path | np.ndarray | None, spacing_mm: tuple[float, float] | None) -> Sweep:
    """The sweep of one DICOM file: the largest 2D tissue region, as 8-bit grey, without tracking.

    Raises:
        InputError: a damaged file, one without pixels, or pixels in an encoding that cannot be unpacked here.
    """
    dataset = _dataset(path)
    try:
        _require_readable(path, dataset)
        region, notes = _tissue_region(dataset)
        frames, pixel_notes = _grey_frames(path, dataset, region)
        timestamps, time_notes = _timestamps(dataset, len(frames))
        in_file = _spacing(dataset, region)
    except InputError:
        raise
    except Exception as error:  # a damaged element can raise anything when its value is first looked at
        raise InputError(f"{path.name} holds DICOM values that cannot be read ({_reason(error)}).") from error
    size = choose_pixel_size(in_file, calibration, spacing_mm)
    return size.sweep(frames, path, FORMAT, [*notes, *pixel_notes, *time_notes], timestamps_s=timestamps)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _dataset(path: Path) -> Dataset:
    from pydicom import dcmread
    from pydicom.filereader import read_file_meta_info

    try:
        if read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
            raise InputError(f"{path.name} is deflated as a whole, which is not read; store it without deflation.")
        return dcmread(path)
    except InputError:
        raise
    except Exception as error:  # pydicom raises what its parser stumbles over
        raise InputError(f"{path.name} cannot be read as DICOM, it is damaged ({_reason(error)}).") from error


def _require_readable(path: Path, dataset: Dataset) -> None:
    """Refuse files without pixels, with absurd sizes, cut short, or in an encoding nobody here can unpack."""
    from pydicom.pixels import get_decoder

    if dataset.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
        raise InputError(f"{path.name} is a DICOM directory; open one of the clips that it lists.")
    missing = [name for name in ("Rows", "Columns", "BitsAllocated", "PixelData") if dataset.get(name) is None]
    if missing:
        raise InputError(f"{path.name} is DICOM without {' and '.join(missing)}; choose an image or a clip.")
    count = _frame_count(dataset)
    require_plausible_clip(path, count, int(dataset.Rows), int(dataset.Columns))
    kind = dataset.get("PhotometricInterpretation")
    if kind not in _PIXEL_KINDS:
        raise InputError(f"{path.name} has pixels of the kind {kind}, which are neither grey nor colour.")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise InputError(f"{path.name} does not say how its pixels are encoded (no transfer syntax).")
    if not syntax.is_compressed:
        samples = 2 if kind == "YBR_FULL_422" else int(dataset.get("SamplesPerPixel", 1))
        need = count * int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated) // 8
        if len(dataset.PixelData) < need:
            raise InputError(
                f"{path.name} needs {need} bytes of pixels for {count} frames and holds {len(dataset.PixelData)}; "
                "it is cut short: copy it again."
            )
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise InputError(
            f"{path.name} is compressed as {syntax.name}, which cannot be unpacked here; store it uncompressed, "
            "or install a decoder such as pylibjpeg."
        )


def _frame_count(dataset: Dataset) -> int:
    count = dataset.get("NumberOfFrames")
    return 1 if count is None else int(count)


def _tissue_region(dataset: Dataset) -> tuple[Dataset | None, list[str]]:
    """The largest 2D tissue region of the image, and how many other regions were left out."""
    regions = list(dataset.get("SequenceOfUltrasoundRegions") or [])
    tissue_2d = {"RegionSpatialFormat": _REGION_2D, "RegionDataType": _REGION_TISSUE}
    tissue = [region for region in regions if all(region.get(name) == code for name, code in tissue_2d.items())]
    largest = max(tissue, key=lambda region: _area(dataset, region), default=None)
    if largest is None or _area(dataset, largest) == 0:
        return None, ["Found no 2D tissue region among the ultrasound regions."] if regions else []
    return largest, [f"Left out {len(regions) - 1} other ultrasound regions."] if len(regions) > 1 else []


def _bounds(dataset: Dataset, region: Dataset) -> tuple[int, int, int, int]:
    """First column, first row, last column, last row of a region inside the image."""
    return (
        max(int(region.RegionLocationMinX0), 0),
        max(int(region.RegionLocationMinY0), 0),
        min(int(region.RegionLocationMaxX1), int(dataset.Columns) - 1),
        min(int(region.RegionLocationMaxY1), int(dataset.Rows) - 1),
    )


def _area(dataset: Dataset, region: Dataset) -> int:
    left, top, right, bottom = _bounds(dataset, region)
    return max(right - left + 1, 0) * max(bottom - top + 1, 0)


def _grey_frames(path: Path, dataset: Dataset, region: Dataset | None) -> tuple[np.ndarray, list[str]]:
    """[N, H, W] uint8 of the region, and what was done to the pixels."""
    rows, columns, notes = slice(None), slice(None), []
    if region is not None and _area(dataset, region) < int(dataset.Rows) * int(dataset.Columns):
        left, top, right, bottom = _bounds(dataset, region)
        rows, columns = slice(top, bottom + 1), slice(left, right + 1)
        notes.append(f"Cropped to the 2D tissue region: columns {left} to {right}, rows {top} to {bottom}.")
    frames, conversions = grey_clip(frame[rows, columns] for frame in _decoded(path, dataset))
    if len(frames) != _frame_count(dataset):
        raise InputError(
            f"{path.name} announces {_frame_count(dataset)} frames and holds {len(frames)}; it is cut short: "
            "copy it again."
        )
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        frames = np.subtract(255, frames, dtype=np.uint8)
        conversions.append("Inverted the grey values (MONOCHROME1).")
    return frames, notes + conversions


def _decoded(path: Path, dataset: Dataset) -> Iterator[np.ndarray]:
    """Each frame, [H, W] or [H, W, 3] with colour as RGB; 16-bit palettes come as 8 bits."""
    from pydicom.pixels import apply_color_lut, iter_pixels

    palette = dataset.PhotometricInterpretation == "PALETTE COLOR"
    try:
        for frame in iter_pixels(dataset):
            if palette:
                frame = apply_color_lut(frame, dataset)
                # The entries of a 16-bit palette span the full range, whichever of them occur.
                frame = (frame >> 8).astype(np.uint8) if frame.dtype == np.uint16 else frame
            yield frame
    except Exception as error:  # decoders raise what their libraries raise
        raise InputError(
            f"The pixels of {path.name} cannot be unpacked, they are damaged ({_reason(error)})."
        ) from error


def _spacing(dataset: Dataset, region: Dataset | None) -> tuple[float, float] | None:
    """Spacing across columns and down rows in mm, from the region, else from the image; None where unknown."""
    if (
        region is not None
        and region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == _UNIT_CM
    ):
        deltas = [abs(float(region.get(name) or 0)) * 10 for name in ("PhysicalDeltaX", "PhysicalDeltaY")]
        if all(deltas):
            return validated_spacing(deltas)
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        values = dataset.get(name)
        if values is not None and len(values) == 2 and all(float(value) > 0 for value in values):
            return validated_spacing([float(values[1]), float(values[0])])
    return None


def _timestamps(dataset: Dataset, count: int) -> tuple[np.ndarray | None, list[str]]:
    """[N] seconds from the first frame; None where no rate is given."""
    increments = dataset.get("FrameTimeVector")
    if increments is not None and count > 1:
        increments = np.atleast_1d(np.asarray(increments, dtype=np.float64))
        if len(increments) == count:
            return np.cumsum(increments) / 1000 - increments[0] / 1000, []
        return None, [f"Ignored the frame times: {len(increments)} for {count} frames."]
    step_s = float(dataset.get("FrameTime") or 0) / 1000
    for name in ("CineRate", "RecommendedDisplayFrameRate"):
        rate = float(dataset.get(name) or 0)
        step_s = step_s if step_s > 0 or rate <= 0 else 1 / rate
    return (np.arange(count) * step_s, []) if step_s > 0 and count > 1 else (None, [])
