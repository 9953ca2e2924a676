"""Ultrasound clips in DICOM: multi-frame or single-frame images with region calibration.

Tags and codes are those of DICOM PS3.3, US Region Calibration (C.8.5.5), Cine (C.7.6.5), Image Pixel and VOI LUT
(C.11.2) modules.

Pixels stay in the file; frames are decoded once, one by one, and :func:`~DualTrackCore.grey.grey_clip` keeps their
grey: decoders go forwards, and each frame is counted and checked before any work begins.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.errors import DualTrackError, InputError, reason_of
from DualTrackCore.grey import grey_clip
from DualTrackCore.io.calibration import choose_pixel_size
from DualTrackCore.io.sequence_parts import require_plausible_clip
from DualTrackCore.memory import naming_memory
from DualTrackCore.pixels import WindowSource
from DualTrackCore.sweep import Sweep, validated_spacing

if TYPE_CHECKING:
    from pydicom import Dataset

    from DualTrackCore.io.calibration_files import CalibrationSource

FORMAT = "DICOM"

_PREAMBLE_BYTES = 128

_DEFLATED = "1.2.840.10008.1.2.1.99"
_DIRECTORY = "1.2.840.10008.1.3.10"

#: Codes of the US Region Calibration module.
_REGION_2D, _REGION_TISSUE, _UNIT_CM = 1, 1, 3

#: Elements above this size stay in the file until they are asked for.
_DEFERRED_BYTES = 1 << 20

#: Grey and colour, as PhotometricInterpretation names them.
_PIXEL_KINDS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "PALETTE COLOR")


def recognises(path: Path, head: bytes) -> bool:
    """Whether the file has the DICOM prefix behind its preamble."""
    return head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM"


def read(path: Path, *, calibration: CalibrationSource | None, spacing_mm: tuple[float, float] | None) -> Sweep:
    """The sweep of one DICOM file: the largest 2D tissue region, as 8-bit grey, without tracking.

    Raises:
        InputError: a damaged file, one without pixels, or pixels in an encoding that cannot be unpacked here.
    """
    dataset = _dataset(path)
    try:
        with naming_memory(f"Reading {path.name}"):
            _require_readable(path, dataset)
            region, notes = _tissue_region(dataset)
            frames, pixel_notes = _grey_frames(path, dataset, region)
            timestamps, time_notes = _timestamps(dataset, len(frames))
            in_file = _spacing(dataset, region)
    except DualTrackError:
        raise
    except Exception as error:  # a damaged element can raise anything when its value is first looked at
        raise InputError(f"{path.name} holds DICOM values that cannot be read ({reason_of(error)}).") from error
    size = choose_pixel_size(in_file, calibration, spacing_mm)
    return size.sweep(frames, path, FORMAT, [*notes, *pixel_notes, *time_notes], timestamps_s=timestamps)


class _BoundedFile(io.BufferedReader):
    """A DICOM file of which no element is read that claims more than the file holds: nothing is allocated for it."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(str(path)))
        self._name, self._size = path.name, path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes.

        Raises:
            InputError: far fewer are left.
        """
        left = max(self._size - self.tell(), 0)
        if size is not None and size > left + _DEFERRED_BYTES:
            raise InputError(
                f"{self._name} announces {size} bytes where {left} are left; it is cut short: copy it again."
            )
        return super().read(size)


def _dataset(path: Path) -> Dataset:
    """Everything but large elements, such as the pixels, which stay in the file."""
    from pydicom import dcmread
    from pydicom.filereader import read_dataset, read_preamble

    try:
        with naming_memory(f"Reading {path.name}"), _BoundedFile(path) as file:
            read_preamble(file, False)
            about_file = read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
            if about_file.get("TransferSyntaxUID") == _DEFLATED:
                raise InputError(f"{path.name} is deflated as a whole, which is not read; store it without deflation.")
            file.seek(0)
            return dcmread(file, defer_size=_DEFERRED_BYTES)
    except DualTrackError:
        raise
    except Exception as error:  # pydicom raises what its parser stumbles over
        raise InputError(f"{path.name} cannot be read as DICOM, it is damaged ({reason_of(error)}).") from error


def _require_readable(path: Path, dataset: Dataset) -> None:
    """Refuse files without pixels, with absurd sizes, cut short, or in an encoding nobody here can unpack."""
    from pydicom.pixels import get_decoder

    if dataset.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
        raise InputError(f"{path.name} is a DICOM directory; open one of the clips that it lists.")
    missing = [name for name in ("Rows", "Columns", "BitsAllocated") if dataset.get(name) is None]
    missing += [] if "PixelData" in dataset else ["PixelData"]
    if missing:
        raise InputError(f"{path.name} is DICOM without {' and '.join(missing)}; choose an image or a clip.")
    count, channels = _frame_count(dataset), int(dataset.get("SamplesPerPixel") or 1)
    pixel_bytes = channels * max(int(dataset.BitsAllocated) // 8, 1)
    require_plausible_clip(path, count, int(dataset.Rows), int(dataset.Columns), pixel_bytes)
    kind = dataset.get("PhotometricInterpretation")
    if kind not in _PIXEL_KINDS:
        raise InputError(f"{path.name} has pixels of the kind {kind}, which are neither grey nor colour.")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise InputError(f"{path.name} does not say how its pixels are encoded (no transfer syntax).")
    if not syntax.is_compressed:
        samples = 2 if kind == "YBR_FULL_422" else channels
        need = count * int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated) // 8
        element = dataset.get_item("PixelData", keep_deferred=True)
        held = min(element.length, path.stat().st_size - element.value_tell)
        if held < need:
            raise InputError(
                f"{path.name} needs {need} bytes of pixels for {count} frames and holds {held}; "
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


def _grey_frames(path: Path, dataset: Dataset, region: Dataset | None) -> tuple[np.ndarray | WindowSource, list[str]]:
    """[N, H, W] uint8 of the region, and what was done to the pixels."""
    rows, columns, notes = slice(None), slice(None), []
    if region is not None and _area(dataset, region) < int(dataset.Rows) * int(dataset.Columns):
        left, top, right, bottom = _bounds(dataset, region)
        rows, columns = slice(top, bottom + 1), slice(left, right + 1)
        notes.append(f"Cropped to the 2D tissue region: columns {left} to {right}, rows {top} to {bottom}.")
    values, declared, value_notes = _declared_values(dataset)
    frames, conversions = grey_clip(
        (values(frame[rows, columns]) for frame in _decoded(path, dataset)),
        source=path.name,
        expected=_frame_count(dataset),
        declared=declared,
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
    )
    if len(frames) != _frame_count(dataset):
        raise InputError(
            f"{path.name} announces {_frame_count(dataset)} frames and holds {len(frames)}; it is cut short: "
            "copy it again."
        )
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        conversions = [*conversions, "Inverted the grey values (MONOCHROME1)."]
    return frames, [*notes, *value_notes, *conversions]


#: What turns stored values into those that a range is declared for.
_Values = Callable[[np.ndarray], np.ndarray]


def _declared_values(dataset: Dataset) -> tuple[_Values, tuple[float, float] | None, list[str]]:
    """Values that the file declares a range of grey for, that range (None where it declares none), and notes.

    A look-up table or window of interest first, then the number of stored bits; pixels of 8 bits stay as they are.
    """
    from pydicom.pixels import apply_modality_lut, apply_voi

    allocated = int(dataset.BitsAllocated)
    if allocated <= 8 or dataset.PhotometricInterpretation == "PALETTE COLOR":
        return _as_stored, None, []
    if dataset.PhotometricInterpretation.startswith("MONOCHROME"):
        if dataset.get("VOILUTSequence"):
            entry_bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
            notes = ["Applied the look-up table of grey values that the file declares."]
            return lambda x: apply_voi(apply_modality_lut(x, dataset), dataset), (0, 2**entry_bits - 1), notes
        window = _window(dataset)
        if window is not None:
            notes = [f"Applied the window that the file declares, centre {window[0]:g} and width {window[1]:g}."]
            return _windowed(dataset, *window), (0.0, 1.0), notes
    bits = int(dataset.get("BitsStored") or allocated)
    if not 8 <= bits < allocated:
        return _as_stored, None, []
    low = -(2 ** (bits - 1)) if dataset.get("PixelRepresentation") == 1 else 0
    return _as_stored, (low, low + 2**bits - 1), []


def _as_stored(values: np.ndarray) -> np.ndarray:
    return values


def _window(dataset: Dataset) -> tuple[float, float] | None:
    """Centre and width of the first window; None where there is none that can be applied."""
    pair = [np.atleast_1d(dataset.get(name) or []) for name in ("WindowCenter", "WindowWidth")]
    if not all(map(len, pair)):
        return None
    centre, width = (float(values[0]) for values in pair)
    least = 1 if dataset.get("VOILUTFunction", "LINEAR") == "LINEAR" else 0
    return (centre, width) if np.isfinite(centre) and least < width < np.inf else None


def _windowed(dataset: Dataset, centre: float, width: float) -> _Values:
    """Values to 0 (black) and 1 (white) by the functions of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    from pydicom.pixels import apply_modality_lut

    function = dataset.get("VOILUTFunction", "LINEAR")

    def apply(values: np.ndarray) -> np.ndarray:
        x = np.asarray(apply_modality_lut(values, dataset), np.float64)
        if function == "SIGMOID":
            return 1 / (1 + np.exp(np.clip(-4 * (x - centre) / width, -700, 700)))
        if function == "LINEAR_EXACT":
            return (x - centre) / width + 0.5
        return (x - (centre - 0.5)) / (width - 1) + 0.5

    return apply


def _decoded(path: Path, dataset: Dataset) -> Iterator[np.ndarray]:
    """Each frame, [H, W] or [H, W, 3] with colour as RGB; 16-bit palettes come as 8 bits."""
    from pydicom.pixels import apply_color_lut, iter_pixels

    palette = dataset.PhotometricInterpretation == "PALETTE COLOR"
    try:
        with naming_memory(f"Unpacking {path.name}"), _BoundedFile(path) as file:
            for frame in iter_pixels(file):
                if palette:
                    frame = apply_color_lut(frame, dataset)
                    # The entries of a 16-bit palette span the full range, whichever of them occur.
                    frame = (frame >> 8).astype(np.uint8) if frame.dtype == np.uint16 else frame
                yield frame
    except DualTrackError:
        raise
    except Exception as error:  # decoders raise what their libraries raise
        raise InputError(
            f"The pixels of {path.name} cannot be unpacked, they are damaged ({reason_of(error)})."
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
