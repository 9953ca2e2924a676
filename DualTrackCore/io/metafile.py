"""Sequence metafiles in MetaImage form: .igs.mha, .seq.mha, .mha, and .mhd with its pixels in a second file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.io.payload import ZLIB, Payload
from DualTrackCore.io.sequence_fields import FrameFields
from DualTrackCore.io.sequence_file import SequenceFile, header_lines, sweep_from_sequence, whole_numbers
from DualTrackCore.sweep import Sweep

FORMAT = "Sequence metafile (MetaImage)"

_FIRST_FIELD = re.compile(rb"\s*(?:[A-Za-z]+[ \t]*=[^\n]*\n\s*){0,20}?ObjectType[ \t]*=[ \t]*Image\s")

_ELEMENT_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
    # Written by trackers for recordings without images; there are no pixels to interpret.
    "MET_OTHER": "u1",
}


def recognises(path: Path, head: bytes) -> bool:
    """Whether the first bytes are a MetaImage header."""
    return _FIRST_FIELD.match(head) is not None


def read(path: Path, *, calibration: Path | np.ndarray | None, spacing_mm: tuple[float, float] | None) -> Sweep:
    """The sweep in a MetaImage sequence metafile.

    Raises:
        InputError: the file is damaged, or holds something else than frames.
    """
    return sweep_from_sequence(read_header(path), calibration, spacing_mm)


def read_header(path: Path) -> SequenceFile:
    """The header of a MetaImage file, in any order of its fields; of repeated fields the last counts."""
    header, fields, offset = _parse(path)
    name = path.name
    sizes = whole_numbers(header.get("DimSize", ""), "DimSize", name)
    kinds = tuple(header["Kinds"].split()) if "Kinds" in header else None
    spacing = _axis_spacing(header.get("ElementSpacing", header.get("ElementSize", "")), len(sizes))
    channels = whole_numbers(header.get("ElementNumberOfChannels", "1"), "ElementNumberOfChannels", name)[0]
    if channels != 1:
        kinds = ("vector", *(kinds or ("domain",) * len(sizes)))
        sizes, spacing = (channels, *sizes), (1.0, *spacing)
    dtype = _element_type(header, name)
    return SequenceFile(
        path=path,
        format_name=FORMAT,
        sizes=sizes,
        kinds=kinds,
        dtype=dtype,
        payload=_payload(path, header, offset, sizes, dtype),
        axis_spacing=spacing,
        fields=fields,
        header=header,
        orientation=header.get("UltrasoundImageOrientation"),
        image_type=header.get("UltrasoundImageType"),
    )


def _parse(path: Path) -> tuple[dict[str, str], FrameFields, int]:
    """Header fields, per-frame fields, and the byte after the header."""
    header: dict[str, str] = {}
    fields = FrameFields()
    with path.open("rb") as stream:
        for number, line in enumerate(header_lines(stream, path.name), start=1):
            if not line.strip():
                continue
            key, equals, text = (part.strip() for part in line.partition("="))
            if not equals:
                raise InputError(f"{path.name}, line {number} of the header is not of the form name = value.")
            if not fields.add(key, text):
                header[key] = text
            if key == "ElementDataFile":
                return header, fields, stream.tell()
    raise InputError(f"{path.name} ends within its header, before ElementDataFile; copy the file again.")


def _element_type(header: dict[str, str], name: str) -> np.dtype:
    element = header.get("ElementType", "")
    if element not in _ELEMENT_TYPES:
        raise InputError(f"{name} has pixels of type {element!r}; known are {', '.join(_ELEMENT_TYPES)}.")
    if not _is_true(header.get("BinaryData", "True")):
        raise InputError(f"{name} holds its pixels as text; save it as binary data.")
    big_endian = _is_true(header.get("BinaryDataByteOrderMSB", header.get("ElementByteOrderMSB", "False")))
    return np.dtype((">" if big_endian else "<") + _ELEMENT_TYPES[element])


def _payload(path: Path, header: dict[str, str], offset: int, sizes: tuple[int, ...], dtype: np.dtype) -> Payload:
    compressed = _is_true(header.get("CompressedData", "False"))
    data_file = header["ElementDataFile"]
    if data_file.upper() != "LOCAL":
        path, offset = beside(path, data_file), 0
        skipped = header.get("HeaderSize", "0")
        if skipped == "-1" and not compressed:
            wanted = dtype.itemsize * int(np.prod(np.array(sizes, dtype=object)))
            offset = max(path.stat().st_size - wanted, 0)
        elif skipped != "-1":
            offset = whole_numbers(skipped, "HeaderSize", path.name)[0]
    if not compressed:
        return Payload(path, offset)
    length = None
    if "CompressedDataSize" in header:
        length = whole_numbers(header["CompressedDataSize"], "CompressedDataSize", path.name)[0]
    return Payload(path, offset, length, ZLIB)


def beside(path: Path, data_file: str) -> Path:
    """The pixel file that the header `path` names; it must lie in the same folder or below.

    Raises:
        InputError: it lies elsewhere, does not exist or is no file.
    """
    relative = Path(data_file)
    if not data_file or relative.is_absolute() or ".." in relative.parts or "%" in data_file:
        raise InputError(
            f"{path.name} names the pixel file {data_file[:80]!r}; it must be one file in the same folder."
        )
    try:
        found = (path.parent / relative).is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        raise InputError(f"{path.name} names the pixel file {data_file[:80]!r}, which does not exist beside it.")
    return path.parent / relative


def _axis_spacing(text: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(map(float, text.split()))
    except ValueError:
        values = ()
    return values if len(values) == count else (1.0,) * count


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "t", "yes")
