"""The pixels of a DICOM clip: unpacked frame by frame and converted to a range of grey (PS3.3 C.7.6.3, C.11.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.errors import DualTrackError, InputError, reason_of
from DualTrackCore.io.dicom_codecs import RGB, YBR, unpacker
from DualTrackCore.io.dicom_file import BoundedFile, numbers
from DualTrackCore.io.dicom_region import Region
from DualTrackCore.memory import naming_memory

if TYPE_CHECKING:
    from pydicom import Dataset

#: Supported values of PhotometricInterpretation.
_PIXEL_KINDS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "PALETTE COLOR")

#: The label of the colour space is wrong if the other one makes the first frame this many times closer to grey.
_MUCH_GREYER = 4

_COLOURS = ("Red", "Green", "Blue")

_Stored = Iterator[tuple[np.ndarray, str | None]]

#: From stored values to values in the declared range.
_Values = Callable[[np.ndarray], np.ndarray]


def require_pixels(path: Path, file: BoundedFile, dataset: Dataset, count: int) -> list[str]:
    """Notes about surplus pixels and wrong labels; corrects the label YBR_FULL_422 of pixels without subsampling.

    Raises InputError: an unsupported kind of pixels, or fewer of them than announced.
    """
    from pydicom.uid import UncompressedTransferSyntaxes

    kind, syntax = dataset.get("PhotometricInterpretation"), dataset.file_meta.get("TransferSyntaxUID")
    if kind not in _PIXEL_KINDS:
        raise InputError(f"{path.name} has pixels of the kind {kind}, which are neither grey nor colour.")
    if not syntax:
        raise InputError(f"{path.name} does not say how its pixels are encoded (no transfer syntax).")
    if syntax not in UncompressedTransferSyntaxes:
        return []
    area_bits = int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated)
    element = dataset.get_item("PixelData", keep_deferred=True)
    held, whole = min(element.length, file.size - element.value_tell), count * area_bits * channels(dataset) // 8
    if kind == "YBR_FULL_422" and held in (whole, whole + 1):
        dataset.PhotometricInterpretation = YBR
        return ["The colours are labelled YBR_FULL_422 and not subsampled; took them as they are."]
    frame_bits = area_bits * (2 if kind == "YBR_FULL_422" else channels(dataset))
    need = (count * frame_bits + 7) // 8
    if held < need:
        raise InputError(
            f"{path.name} needs {need} bytes of pixels for {count} frames and holds {held}; "
            "it is cut short: copy it again."
        )
    return _left_out(count, (held - need) * 8 // frame_bits)


def channels(dataset: Dataset) -> int:
    """Values per pixel."""
    return int(dataset.get("SamplesPerPixel") or 1)


def valued_frames(
    path: Path, file: BoundedFile, dataset: Dataset, region: Region, count: int, notes: list[str]
) -> Iterator[np.ndarray]:
    """Each frame of the region, [H, W] or [H, W, 3] RGB, with values in the range of :func:`declared_range`.

    Raises:
        InputError: damaged pixels, fewer frames than announced.
        MissingDependencyError: a compression that needs the extra `dicom`.
    """
    values, _ = _declared(dataset, notes)
    done = 0
    for image in _coloured(_unpacked(path, file, dataset, count, notes), dataset, notes):
        yield values(region.crop(image[None])[0])
        done += 1
    if done != count:
        raise InputError(f"{path.name} announces {count} frames and holds {done}; it is cut short: copy it again.")


def declared_range(dataset: Dataset) -> tuple[float, float] | None:
    """The values of black and white that the file declares; None if it declares none."""
    return _declared(dataset, [])[1]


def _left_out(count: int, more: int) -> list[str]:
    return [f"The file announces {count} frames and holds {count + more}; left out the last {more}."] if more else []


def _unpacked(path: Path, file: BoundedFile, dataset: Dataset, count: int, notes: list[str]) -> _Stored:
    """Each stored frame, [H, W] or [H, W, channels], and its colour space if the frame states it."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels import get_decoder
    from pydicom.pixels.utils import as_pixel_options
    from pydicom.uid import UncompressedTransferSyntaxes

    syntax = dataset.file_meta.TransferSyntaxUID
    element = dataset.get_item("PixelData", keep_deferred=True)
    options = as_pixel_options(dataset, number_of_frames=count)
    file.seek(element.value_tell)
    try:
        with naming_memory(f"Unpacking {path.name}"):
            if syntax in UncompressedTransferSyntaxes:
                decoder = get_decoder(syntax)
                options |= {"pixel_keyword": "PixelData", "pixel_vr": element.VR}
                for index in range(count):  # one by one: the decoder's iterator has wrong offsets for YBR_FULL_422
                    yield decoder.as_array(file, index=index, raw=True, **options)[0], None
                return
            unpack = unpacker(path, dataset)
            offsets = options.pop("extended_offsets", None)
            more = 0
            for index, frame in enumerate(generate_frames(file, number_of_frames=count, extended_offsets=offsets)):
                more += index >= count
                if index < count:
                    yield unpack(frame)
            notes += _left_out(count, more)
    except DualTrackError:
        raise
    except Exception as error:  # decoders raise many types
        raise InputError(
            f"The pixels of {path.name} cannot be unpacked, they are damaged ({reason_of(error)})."
        ) from error


def _coloured(images: _Stored, dataset: Dataset, notes: list[str]) -> Iterator[np.ndarray]:
    """Frames with colour as RGB; if the first frame contradicts the label of the colour space, the label is ignored."""
    from pydicom.pixels.processing import convert_color_space

    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        table = _palette(dataset)
        first = int(dataset.RedPaletteColorLookupTableDescriptor[1])
        yield from (table[np.clip(image.astype(np.int64) - first, 0, len(table) - 1)] for image, _ in images)
        return
    label = YBR if dataset.PhotometricInterpretation.startswith(YBR) else RGB
    kind = None
    for image, stated in images:
        if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
            if kind is None:
                kind = stated or _colour_kind(image, label)
                if kind != label:
                    notes.append(f"The colours are labelled {label} and coded as {kind}; took them as they are coded.")
            image = convert_color_space(image, YBR, RGB) if kind == YBR else image
        yield image


def _colour_kind(image: np.ndarray, label: str) -> str:
    """The colour space of three channels. Ultrasound is mostly grey, and far from grey in the wrong space."""
    one, two, three = (image[..., channel].astype(np.int16) for channel in range(3))
    from_grey = {
        RGB: np.abs(two - one).mean() + np.abs(three - one).mean(),
        YBR: np.abs(two - 128).mean() + np.abs(three - 128).mean(),
    }
    other = RGB if label == YBR else YBR
    return other if from_grey[other] * _MUCH_GREYER < from_grey[label] else label


def _palette(dataset: Dataset) -> np.ndarray:
    """[entries, 3] uint8. The size of the table gives the bits of an entry, as the descriptor is often wrong."""
    from pydicom.pixels import apply_color_lut

    entries, first, bits = (int(value) for value in dataset.RedPaletteColorLookupTableDescriptor)
    entries = entries or 1 << 16
    if f"{_COLOURS[0]}PaletteColorLookupTableData" in dataset:
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        data = [dataset.get(f"{colour}PaletteColorLookupTableData") or b"" for colour in _COLOURS]
        wide = len(data[0]) >= 2 * entries or (len(data[0]) < entries and bits == 16)
        columns = [np.frombuffer(part[: len(part) // 2 * 2], f"{order}u2" if wide else np.uint8) for part in data]
        table = np.stack([column[:entries] for column in columns], -1).astype(np.int64)
    else:
        table = apply_color_lut(np.arange(first, first + entries), dataset)[:, :3].astype(np.int64)
    if not len(table):
        raise InputError("the palette is empty")
    # Entries of 8 or 12 bits may be stored in 16; entries of 16 bits use the full range.
    most = int(table.max())
    return (table >> (0 if most < 256 else 4 if most < 4096 else 8)).astype(np.uint8)


def _declared(dataset: Dataset, notes: list[str]) -> tuple[_Values, tuple[float, float] | None]:
    """The map from stored values to a declared range of grey, and that range; None if the file declares none.

    First a look-up table or window of interest, then the number of stored bits; pixels of 8 bits do not change.
    """
    from pydicom.pixels import apply_modality_lut, apply_voi

    allocated = int(dataset.BitsAllocated)
    if allocated <= 8 or dataset.PhotometricInterpretation == "PALETTE COLOR":
        return _as_stored, None
    if dataset.PhotometricInterpretation.startswith("MONOCHROME"):
        if dataset.get("VOILUTSequence"):
            entry_bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
            notes.append("Applied the look-up table of grey values that the file declares.")
            return lambda x: apply_voi(apply_modality_lut(x, dataset), dataset), (0, 2**entry_bits - 1)
        window = _window(dataset, notes)
        if window is not None:
            notes.append(f"Applied the window that the file declares, centre {window[0]:g} and width {window[1]:g}.")
            return _windowed(dataset, *window), (0.0, 1.0)
    bits = int(dataset.get("BitsStored") or allocated)
    if not 8 <= bits < allocated:
        return _as_stored, None
    low = -(2 ** (bits - 1)) if dataset.get("PixelRepresentation") == 1 else 0
    return _as_stored, (low, low + 2**bits - 1)


def _as_stored(values: np.ndarray) -> np.ndarray:
    return values


def _window(dataset: Dataset, notes: list[str]) -> tuple[float, float] | None:
    """Centre and width of the first window; None without a valid one."""
    pair = [numbers(dataset, name, notes) for name in ("WindowCenter", "WindowWidth")]
    if not all(pair):
        return None
    centre, width = (values[0] for values in pair)
    least = 1 if dataset.get("VOILUTFunction", "LINEAR") == "LINEAR" else 0
    return (centre, width) if least < width else None


def _windowed(dataset: Dataset, centre: float, width: float) -> _Values:
    """The window function from values to 0 (black) to 1 (white), PS3.3 C.11.2.1.2 and C.11.2.1.3."""
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
