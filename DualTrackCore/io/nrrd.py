"""Sequence metafiles in NRRD form: .igs.nrrd, .seq.nrrd, .nrrd, and .nhdr with its pixels in a second file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.io.metafile import SequenceFile, beside, header_lines, sweep_from_sequence, whole_numbers
from DualTrackCore.io.sequence_parts import GZIP, FrameFields, Payload, numbers
from DualTrackCore.settings import short_text
from DualTrackCore.sweep import Sweep

if TYPE_CHECKING:
    from DualTrackCore.io.calibration_files import CalibrationSource

FORMAT = "Sequence metafile (NRRD)"

_TYPES = {
    "i1": ("int8", "signed char", "int8_t"),
    "u1": ("uint8", "unsigned char", "uchar", "uint8_t"),
    "i2": ("int16", "short", "short int", "signed short", "signed short int", "int16_t"),
    "u2": ("uint16", "unsigned short", "ushort", "unsigned short int", "uint16_t"),
    "i4": ("int32", "int", "signed int", "int32_t"),
    "u4": ("uint32", "unsigned int", "uint", "uint32_t"),
    "i8": ("int64", "long long", "long long int", "signed long long", "longlong", "int64_t"),
    "u8": ("uint64", "unsigned long long", "unsigned long long int", "ulonglong", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names}

#: Units of times along an axis, in seconds.
_TIME_UNITS = {"s": 1.0, "ms": 1e-3}


def recognises(path: Path, head: bytes) -> bool:
    """Whether the first bytes are those of NRRD."""
    return re.match(rb"NRRD000[1-9]\s", head) is not None


def read(path: Path, *, calibration: CalibrationSource | None, spacing_mm: tuple[float, float] | None) -> Sweep:
    """The sweep in an NRRD file: frames along a list axis, with or without an empty third image axis.

    The last of repeated header fields counts.

    Raises InputError: the file is damaged, or does not hold frames.
    """
    header, keys, fields, offset = _parse(path)
    name = path.name
    sizes = whole_numbers(header.get("sizes", ""), "sizes", name)
    if header.get("dimension", str(len(sizes))) != str(len(sizes)):
        raise InputError(f"{name} has dimension {header['dimension']:.20} and {len(sizes)} sizes; it is damaged.")
    kinds = tuple(header["kinds"].split()) if "kinds" in header else None
    frame_axis = next((i for i, kind in enumerate(kinds or ()) if kind in ("list", "time")), len(sizes) - 1)
    sequence = SequenceFile(
        path=path,
        format_name=FORMAT,
        sizes=sizes,
        kinds=kinds,
        dtype=_dtype(header, name),
        payload=_payload(path, header, offset),
        axis_spacing=_axis_spacing(header, len(sizes)),
        fields=fields,
        header=keys,
        orientation=keys.get("ultrasound image orientation"),
        image_type=keys.get("ultrasound image type"),
        index_times_s=_index_times(header, keys, frame_axis),
    )
    return sweep_from_sequence(sequence, calibration, spacing_mm)


def _parse(path: Path) -> tuple[dict[str, str], dict[str, str], FrameFields, int]:
    """Fields of the format, keys of the application, per-frame fields, and the byte after the header."""
    header: dict[str, str] = {}
    keys: dict[str, str] = {}
    fields = FrameFields()
    with path.open("rb") as stream:
        lines = header_lines(stream, path.name)
        next(lines, None)
        for number, line in enumerate(lines, start=2):
            if not line:
                return header, keys, fields, stream.tell()
            if line.startswith("#"):
                continue
            # A value may contain either separator, so the first one in the line decides.
            is_key = ":=" in line and ": " not in line[: line.index(":=")]
            key, separator, text = line.partition(":=" if is_key else ":")
            if not separator:
                raise InputError(f"{path.name}, line {number} of the header is not of the form name: value.")
            if not is_key:
                header[key.strip().lower()] = text.strip()
            elif not fields.add(key.strip(), text):
                keys[key.strip()] = text.strip()
    if "data file" in header or "datafile" in header:
        return header, keys, fields, 0
    raise InputError(f"{path.name} ends within its header, before the empty line; copy the file again.")


def _dtype(header: dict[str, str], name: str) -> np.dtype:
    kind = " ".join(header.get("type", "").lower().split())
    if kind not in _DTYPES:
        supported = "whole and real numbers of 8 to 64 bits can be read"
        raise InputError(f"{name} has pixels of type {short_text(kind)}; {supported}.")
    endian = header.get("endian", "little").lower()
    if endian not in ("little", "big"):
        raise InputError(f"{name} says endian: {short_text(endian)}; it must be little or big.")
    return np.dtype((">" if endian == "big" else "<") + _DTYPES[kind])


def _payload(path: Path, header: dict[str, str], offset: int) -> Payload:
    encoding = header.get("encoding", "").lower()
    if encoding not in ("raw", "gz", "gzip"):
        raise InputError(f"{path.name} has pixels in encoding {short_text(encoding)}; raw and gzip can be read.")
    data_file = header.get("data file", header.get("datafile"))
    if header.get("line skip", header.get("lineskip", "0")) != "0":
        raise InputError(f"{path.name} asks to skip lines before the pixels, which is not supported.")
    skipped = whole_numbers(header.get("byte skip", header.get("byteskip", "0")), "byte skip", path.name)[0]
    if data_file is not None:
        path, offset = beside(path, data_file), 0
    if encoding == "raw":
        return Payload(path, offset + skipped)
    if skipped:
        raise InputError(f"{path.name} asks to skip bytes of compressed pixels, which is not supported.")
    return Payload(path, offset, None, GZIP)


def _axis_spacing(header: dict[str, str], count: int) -> tuple[float, ...]:
    """Length of the direction vector of each axis, or its spacing; 1 without both."""
    values = numbers(header.get("spacings", ""), count)
    if "space directions" in header:
        words = re.findall(r"none|\([^)]*\)", header["space directions"])
        vectors = [(1.0,) if word == "none" else numbers(word[1:-1].replace(",", " ")) for word in words]
        values = tuple(float(np.linalg.norm(vector)) for vector in vectors if vector)
    return values if values and len(values) == count else (1.0,) * count


def _index_times(header: dict[str, str], keys: dict[str, str], axis: int) -> np.ndarray | None:
    """[N] times of the frame axis from Slicer, s; None if the index is not a time."""
    units = re.findall(r'"([^"]*)"', header.get("units", ""))
    unit = units[axis] if axis < len(units) else ""
    # Slicer does not count the first axis of colours.
    listed = keys.get(f"axis {axis} index values", keys.get(f"axis {axis - 1} index values", ""))
    values = numbers(listed)
    if not values or unit not in _TIME_UNITS or not np.isfinite(values).all():
        return None
    return np.array(values) * _TIME_UNITS[unit]
