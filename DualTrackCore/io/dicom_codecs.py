"""Compressed frames of DICOM clips.

Used are those decoders of pydicom that raise an error for damaged data: pydicom's own for RLE, Pillow for JPEG and JPEG
2000, OpenJPEG for high-throughput JPEG 2000, CharLS for JPEG-LS. PyAV decodes lossless JPEG, because for damaged frames
the plugins GDCM and libjpeg end the process or never return. The size in a frame's header is compared with that of the
file before unpacking, so that a frame cannot take more memory than expected.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DualTrackCore.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from pydicom import Dataset

_JPEG = "1.2.840.10008.1.2.4."
#: Ends of transfer syntaxes, by decoder; those of lossy JPEG include the retired ones.
_LOSSY_JPEG = ("50", "51", "52", "53", "54", "55", "56")
_LOSSLESS_JPEG, _JPEG_LS, _JPEG_2000, _HIGH_THROUGHPUT = ("57", "70"), ("80", "81"), ("90", "91"), ("201", "202", "203")
_RLE = "1.2.840.10008.1.2.5"

#: Encapsulated video; each syntax also exists for fragments (.1).
_VIDEO = tuple(str(number) for number in range(100, 109))

#: Begin of a frame's header: a marker, the length, then bits per sample, rows and columns; and the end of a frame.
_SOF_LOSSLESS, _SOF_LS, _END = b"\xff\xc3", b"\xff\xf7", b"\xff\xd9"

_RGB_IDS = ([82, 71, 66], [114, 103, 98])

RGB, YBR = "RGB", "YBR_FULL"

#: From a stored frame to [H, W] or [H, W, channels], and the colour space of three channels if the frame states it.
Unpack = Callable[[bytes], tuple[np.ndarray, str | None]]


def is_video(syntax: str) -> bool:
    """Whether the pixels are one video stream."""
    return syntax.startswith(_JPEG) and syntax.removeprefix(_JPEG).removesuffix(".1") in _VIDEO


def unpacker(path: Path, dataset: Dataset) -> Unpack:
    """The function that unpacks the frames of a file.

    Raises:
        InputError: an unsupported compression.
        MissingDependencyError: a compression that needs the extra `dicom`.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    short = syntax.removeprefix(_JPEG)
    if syntax == _RLE:
        return lambda frame: (_by_pydicom(dataset, frame, "pydicom"), None)
    if short in _LOSSY_JPEG:
        return lambda frame: _lossy(path, dataset, frame)
    if short in _LOSSLESS_JPEG:
        _require(path, syntax.name, "av")
        return lambda frame: (_lossless(path, dataset, frame), None)
    if short in _JPEG_LS:
        _require(path, syntax.name, "jpeg_ls")
        return lambda frame: (_near_lossless(path, dataset, frame), None)
    if short in _JPEG_2000:
        return lambda frame: (_wavelets(path, dataset, frame), None)
    if short in _HIGH_THROUGHPUT:
        _require(path, syntax.name, "pylibjpeg", "openjpeg")
        return lambda frame: (_high_throughput(path, dataset, frame), None)
    raise InputError(
        f"{path.name} is compressed as {syntax.name}, which cannot be unpacked here; store it uncompressed."
    )


def _require(path: Path, compression: str, *modules: str) -> None:
    try:
        for module in modules:
            import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{path.name} is compressed as {compression}, which needs the extra dicom; install it with: "
            'pip install "dualtrack[dicom]"'
        ) from error


def _require_size(path: Path, dataset: Dataset, width: int, height: int) -> None:
    if (width, height) != (int(dataset.Columns), int(dataset.Rows)):
        raise InputError(
            f"{path.name} announces frames of {dataset.Columns} x {dataset.Rows} pixels and holds one of "
            f"{width} x {height}; it is damaged: copy it again."
        )


def _by_pydicom(dataset: Dataset, frame: bytes, plugin: str, **changes: Any) -> np.ndarray:
    """One frame decoded by a plugin of pydicom; its colour space does not change."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder
    from pydicom.pixels.utils import as_pixel_options

    options = as_pixel_options(dataset, number_of_frames=1, **changes)
    options.pop("extended_offsets", None)
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    data = encapsulate([frame], has_bot=False)
    return decoder.as_array(data, index=0, raw=True, validate=False, decoding_plugin=plugin, **options)[0]


def _lossy(path: Path, dataset: Dataset, frame: bytes) -> tuple[np.ndarray, str | None]:
    """JPEG of 8 bits; its colour space follows from the Adobe mark, JFIF, the names of components, or subsampling."""
    from PIL import Image

    if _precision(frame) == 12:
        raise InputError(f"{path.name} is JPEG of 12 bits with losses, which is not read; store it uncompressed.")
    image = Image.open(io.BytesIO(frame), formats=["JPEG"])
    _require_size(path, dataset, *image.size)
    if image.mode != "RGB":
        return np.array(image), None
    mark, names = image.info.get("adobe_transform"), [layer[0] for layer in image.layer]
    if mark == 0 or (mark is None and "jfif" not in image.info and names in _RGB_IDS):
        return np.array(image), RGB
    image.draft("YCbCr", image.size)
    is_ybr = mark is not None or "jfif" in image.info or len({layer[1:3] for layer in image.layer}) > 1
    return np.array(image), YBR if is_ybr else None


def _lossless(path: Path, dataset: Dataset, frame: bytes) -> np.ndarray:
    """Lossless JPEG of up to 16 bits with any predictor (process 14)."""
    import av

    bits, width, height = _header(frame, _SOF_LOSSLESS)
    _require_size(path, dataset, width, height)
    codec = av.CodecContext.create("mjpeg", "r")
    codec.options = {"err_detect": "explode"}
    pictures = codec.decode(av.Packet(frame)) + codec.decode(None)
    kind = pictures[0].format.name
    if len(pictures) != 1 or kind not in ("gray", "gray16le", "bgr24"):
        raise ValueError(f"{len(pictures)} pictures of the kind {kind} in a frame")
    if kind == "gray16le":  # the library scales the values to 16 bits
        values = pictures[0].to_ndarray() >> (16 - bits)
        return values.view(np.int16) if dataset.get("PixelRepresentation") == 1 else values
    return pictures[0].to_ndarray(format="gray" if kind == "gray" else "rgb24")


def _near_lossless(path: Path, dataset: Dataset, frame: bytes) -> np.ndarray:
    """JPEG-LS, lossless or near-lossless."""
    _, width, height = _header(frame, _SOF_LS)
    _require_size(path, dataset, width, height)
    if not frame.rstrip(b"\0").endswith(_END):
        raise ValueError("a frame has no end")  # the library would search for it without end
    return _by_pydicom(dataset, frame, "pyjpegls")


def _wavelets(path: Path, dataset: Dataset, frame: bytes) -> np.ndarray:
    """JPEG 2000. Its decoders give colours pixel by pixel, so the planar configuration of the file is ignored."""
    from PIL import Image

    _require_size(path, dataset, *Image.open(io.BytesIO(frame), formats=["JPEG2000"]).size)
    colour_is_deep = int(dataset.BitsAllocated) > 8 and int(dataset.get("SamplesPerPixel") or 1) > 1
    if colour_is_deep:
        _require(path, "JPEG 2000 in colour of more than 8 bits", "pylibjpeg", "openjpeg")
    return _by_pydicom(dataset, frame, "pylibjpeg" if colour_is_deep else "pillow", planar_configuration=0)


def _high_throughput(path: Path, dataset: Dataset, frame: bytes) -> np.ndarray:
    """High-throughput JPEG 2000."""
    from openjpeg import get_parameters

    facts = get_parameters(frame)
    _require_size(path, dataset, facts["columns"], facts["rows"])
    return _by_pydicom(dataset, frame, "pylibjpeg", planar_configuration=0)


def _header(frame: bytes, marker: bytes) -> tuple[int, int, int]:
    """Bits per sample, columns and rows from the header of a frame."""
    at = frame.find(marker)
    if at < 0 or len(frame) < at + 9:
        raise ValueError("a frame has no header")
    return frame[at + 4], int.from_bytes(frame[at + 7 : at + 9], "big"), int.from_bytes(frame[at + 5 : at + 7], "big")


def _precision(frame: bytes) -> int:
    """Bits per sample of sequential JPEG; 8 for another kind of header."""
    return next((frame[at + 4] for at in (frame.find(b"\xff\xc1"),) if 0 <= at < len(frame) - 4), 8)
