"""Sequence metafiles: the common part of MetaImage and NRRD, and the MetaImage form.

MetaImage files are .igs.mha, .seq.mha, .mha, and .mhd with its pixels in a second file.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.io.calibration import PixelSize, untracked_size
from DualTrackCore.io.sequence_parts import (
    NO_TRANSFORMS,
    SCANNER_FIELDS,
    ZLIB,
    Axes,
    FrameFields,
    Orientation,
    Payload,
    find_axes,
    numbers,
    parse_orientation,
    require_plausible_clip,
    scanner_facts,
)
from DualTrackCore.pixels import Converted, WindowSource
from DualTrackCore.settings import short_text
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import RAS_FROM_LPS, PoseOrigin, Trajectory

if TYPE_CHECKING:
    from DualTrackCore.io.calibration_files import CalibrationSource

#: Header field with the version of this project's files. Version 1 had no such field, LPS numbers in transforms without
#: a tracker's reference, and the spacing both in the header and in the transforms.
VERSION_FIELD, FORMAT_VERSION = "DualTrackFormatVersion", 2
#: Header fields of this project for values that the formats do not have.
SPACING_FIELD, SKEW_FIELD = "DualTrackSpacingMm", "DualTrackSkewDeg"
#: Header field of frames from the simulation, and its only value; anything else counts as recorded.
SIMULATED_FIELD, SIMULATED_VALUE = "DualTrackSimulatedFrames", "True"

#: First part of the fields on the origin of poses (:mod:`~DualTrackCore.io.pose_marks`).
_MARK = "DualTrackPoses"
#: Largest number of frames; at 100 Hz this is almost three hours.
MAX_FRAMES = 1_000_000

_MAX_LINE_BYTES = 64 << 20
_MAX_HEADER_BYTES = 1 << 30


@dataclass(frozen=True)
class SequenceFile:
    """The parsed header of a sequence metafile.

    Attributes:
        sizes: entries of each axis, the fastest first.
        kinds: the kind of each axis in the header, or None.
        axis_spacing: mm between entries of each axis, 1 if not stated.
        header: all fields that are not per-frame fields.
        index_times_s: [N] times listed along the frame axis, or None.
    """

    path: Path
    format_name: str
    sizes: tuple[int, ...]
    kinds: tuple[str, ...] | None
    dtype: np.dtype
    payload: Payload
    axis_spacing: tuple[float, ...]
    fields: FrameFields
    header: dict[str, str] = field(default_factory=dict)
    orientation: str | None = None
    image_type: str | None = None
    index_times_s: np.ndarray | None = None


def header_lines(stream: BinaryIO, source: str) -> Iterator[str]:
    """The lines of a text header without line ends, read on demand.

    Raises InputError: a line or the whole header is implausibly long.
    """
    total = 0
    while line := stream.readline(_MAX_LINE_BYTES):
        total += len(line)
        if len(line) == _MAX_LINE_BYTES or total > _MAX_HEADER_BYTES:
            raise InputError(f"{source} has no header that ends within {_MAX_HEADER_BYTES >> 20} MiB; it is damaged.")
        yield line.decode("utf-8", errors="replace").rstrip("\r\n")


def whole_numbers(text: str, what: str, source: str) -> tuple[int, ...]:
    """The whole numbers, 0 or more, of the header field `what`. Raises InputError: anything else."""
    words = text.split()
    if not words or not all(word.isascii() and word.isdigit() and len(word) < 19 for word in words):
        raise InputError(f"{source} says {what} = {text[:60]!r}; expected whole numbers from 0.")
    return tuple(map(int, words))


def sweep_from_sequence(
    sequence: SequenceFile, calibration: CalibrationSource | None, spacing_mm: tuple[float, float] | None
) -> Sweep:
    """The sweep of a sequence metafile; calibration and spacing (across columns, down rows, mm) are the user's.

    Raises InputError: unreadable pixels, contradicting pixel sizes, poses that do not fit them.
    """
    path, fields = sequence.path, sequence.fields
    if (sequence.image_type or "").strip().upper().startswith("RF"):
        raise InputError(f"{path.name} holds radio-frequency data ({sequence.image_type}); only B-mode can be read.")
    axes = find_axes(sequence.sizes, sequence.kinds, path.name)
    count = 1 if axes.frames is None else sequence.sizes[axes.frames]
    if count == 0 and (names := [f"{a}To{b}" for a, b in fields.transforms(0)]):
        raise InputError(
            f"{path.name} holds transforms ({', '.join(names)}) and no pictures; choose the sequence of pictures that "
            "was recorded with them."
        )
    if not 1 <= count <= MAX_FRAMES:
        raise InputError(f"{path.name} claims {count} frames; 1 to {MAX_FRAMES} can be read.")
    orientation = parse_orientation(sequence.orientation)
    frames, notes = _frames(sequence, axes, count, orientation)
    stated = _stated_size(sequence, axes, orientation, notes)
    size, tracked, tracking, place_notes = _placed(sequence, frames.shape, calibration, stated, spacing_mm)
    facts = {}
    if calibration is not None:
        from DualTrackCore.io.calibration_files import calibration_name

        facts["calibration"] = calibration_name(calibration)
    is_simulated = sequence.header.get(SIMULATED_FIELD) == SIMULATED_VALUE
    unmarked = PoseOrigin.SIMULATED if is_simulated else PoseOrigin.MEASURED
    tracked = _in_ras(tracked, sequence.header, path.name)
    pose_notes = []
    if tracked is not None or _MARK in " ".join(sequence.header):
        from DualTrackCore.io.pose_marks import marked_by

        tracked, pose_notes, path_facts = marked_by(sequence.header, tracked, fields, count, unmarked)
        facts |= path_facts
    if tracked is not None and not tracked.origin.is_truth:
        tracking = f"Not tracked: the poses are {tracked.origin_text}."
    times, time_notes = fields.times(count)
    facts["rate_field"] = None if times is None else "Timestamp"
    if times is None and sequence.index_times_s is not None and len(sequence.index_times_s) == count:
        times, facts["rate_field"] = sequence.index_times_s, "times of the frame axis"
    facts |= {"orientation": orientation.code, "tracking": tracking}
    facts |= scanner_facts({name: sequence.header.get(field_name) for name, field_name in SCANNER_FIELDS.items()})
    if is_simulated:
        facts["simulated"] = True
    # NRRD files name the status of the image `Status`.
    valid = fields.ok("ImageStatus", count) & fields.ok("Status", count)
    notes = [*notes, *fields.gaps(count), *time_notes, *place_notes, *pose_notes]
    fields = {"timestamps_s": times, "frame_valid": valid, "tracked": tracked}
    pixels = os.path.abspath(sequence.payload.path)
    return size.sweep(frames, path, sequence.format_name, notes, facts, files=(pixels,), **fields)


def _placed(
    sequence: SequenceFile,
    shape: tuple[int, int, int],
    calibration: CalibrationSource | None,
    stated: PixelSize | None,
    spacing_mm: tuple[float, float] | None,
) -> tuple[PixelSize, Trajectory | None, str, list[str]]:
    """What :func:`~DualTrackCore.io.tracked_poses.place_frames` gives; a file without tracking does not need it."""
    devices = {}
    if calibration is not None:
        from DualTrackCore.io.calibration_files import read_devices

        devices = read_devices(calibration)
    if not devices and not sequence.fields.transforms(0):
        size, notes = untracked_size(stated, spacing_mm)
        return size, None, NO_TRANSFORMS, notes
    from DualTrackCore.io.tracked_poses import place_frames

    return place_frames(sequence.fields, shape, devices, stated, spacing_mm, sequence.path.name)


def _in_ras(tracked: Trajectory | None, header: dict[str, str], name: str) -> Trajectory | None:
    """Poses with the reference in RAS numbers; in files of version 1 without a tracker it was frame0 itself (LPS).

    Raises InputError: a file of a later version.
    """
    version = header.get(VERSION_FIELD, "1")
    if version not in ("1", str(FORMAT_VERSION)):
        raise InputError(
            f"{name} is of version {version[:20]} of DualTrack's format; this program reads up to {FORMAT_VERSION}. "
            "Update DualTrack, or write the file again with this one."
        )
    is_old = VERSION_FIELD not in header and SPACING_FIELD in header
    if is_old and tracked is not None and np.allclose(tracked.reference_from_frame0, np.eye(4), rtol=0, atol=1e-9):
        return replace(tracked, reference_from_frame0=RAS_FROM_LPS)
    return tracked


def _frames(
    sequence: SequenceFile, axes: Axes, count: int, orientation: Orientation
) -> tuple[np.ndarray | WindowSource, list[str]]:
    """Frames [N, H, W] uint8 in MF orientation, and notes on conversions."""
    width, height = sequence.sizes[axes.across], sequence.sizes[axes.down]
    if width * height <= 1:
        return np.zeros((count, 0, 0), np.uint8), ["The file holds tracking without images."]
    channels = 1 if axes.colour is None else sequence.sizes[axes.colour]
    require_plausible_clip(sequence.path, count, height, width, channels * sequence.dtype.itemsize)
    in_windows = axes.frames == len(sequence.sizes) - 1  # frame after frame in the file
    stored = _converted(sequence.payload.read(sequence.sizes[::-1], sequence.dtype, in_windows), axes.arranged)
    grey, notes = stored, []
    if stored.dtype != np.uint8 or axes.colour is not None:
        from DualTrackCore.grey import grey_frames

        grey, notes = grey_frames(stored, has_colour=axes.colour is not None)
    turned = _converted(grey, orientation.to_mf) if orientation.is_turned else grey
    return turned, notes + orientation.notes


def _converted(
    pixels: np.ndarray | WindowSource, convert: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray | WindowSource:
    return convert(pixels) if isinstance(pixels, np.ndarray) else Converted(pixels, convert)


def _stated_size(sequence: SequenceFile, axes: Axes, orientation: Orientation, notes: list[str]) -> PixelSize | None:
    """The pixel size in the header, in MF orientation; spacings of 1 mean "not known"."""
    spacing = numbers(sequence.header.get(SPACING_FIELD, ""), 2)
    (skew_deg,) = numbers(sequence.header.get(SKEW_FIELD, "0"), 1) or (0.0,)
    if spacing is None:
        spacing = sequence.axis_spacing[axes.across], sequence.axis_spacing[axes.down]
        if spacing == (1.0, 1.0):
            return None
        spacing = spacing[::-1] if orientation.transposed else spacing
    if not all(0 < value <= 10 for value in spacing) or not abs(skew_deg) < 45:
        notes.append(f"Ignored the pixel spacing {spacing[0]:g} x {spacing[1]:g} mm of the header: it is impossible.")
        return None
    return PixelSize((float(spacing[0]), float(spacing[1])), skew_deg)


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
    # In recordings of tracking without images, so without pixels.
    "MET_OTHER": "u1",
}


def recognises(path: Path, head: bytes) -> bool:
    """Whether the first bytes are a MetaImage header."""
    return _FIRST_FIELD.match(head) is not None


def read(path: Path, *, calibration: CalibrationSource | None, spacing_mm: tuple[float, float] | None) -> Sweep:
    """The sweep in a MetaImage file; header fields may have any order, and the last of repeated ones counts.

    Raises InputError: the file is damaged, or does not hold frames.
    """
    header, fields, offset = _parse(path)
    name = path.name
    sizes = whole_numbers(header.get("DimSize", ""), "DimSize", name)
    kinds = tuple(header["Kinds"].split()) if "Kinds" in header else None
    spacing = numbers(header.get("ElementSpacing", header.get("ElementSize", "")), len(sizes)) or (1.0,) * len(sizes)
    channels = whole_numbers(header.get("ElementNumberOfChannels", "1"), "ElementNumberOfChannels", name)[0]
    if channels != 1:
        kinds = ("vector", *(kinds or ("domain",) * len(sizes)))
        sizes, spacing = (channels, *sizes), (1.0, *spacing)
    dtype = _element_type(header, name)
    sequence = SequenceFile(
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
    return sweep_from_sequence(sequence, calibration, spacing_mm)


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
        raise InputError(f"{name} has pixels of type {short_text(element)}; known are {', '.join(_ELEMENT_TYPES)}.")
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
            offset = max(path.stat().st_size - math.prod(sizes) * dtype.itemsize, 0)
        elif skipped != "-1":
            offset = whole_numbers(skipped, "HeaderSize", path.name)[0]
    if not compressed:
        return Payload(path, offset)
    length = None
    if "CompressedDataSize" in header:
        length = whole_numbers(header["CompressedDataSize"], "CompressedDataSize", path.name)[0]
    return Payload(path, offset, length, ZLIB)


def beside(path: Path, data_file: str) -> Path:
    """The pixel file of the header `path`; it must be in the same folder or below.

    Raises InputError: it is elsewhere (also through a link), does not exist, or is no file.
    """
    if "%" in data_file or data_file.upper().startswith("LIST"):
        raise InputError(
            f"{path.name} keeps its frames in many files, which is not read; open it in Slicer or ImageJ, and save it "
            "as one .mha or .nrrd file."
        )
    relative, named = Path(data_file), f"{path.name} names the pixel file {data_file[:80]!r}"
    if not data_file or relative.is_absolute() or ".." in relative.parts:
        raise InputError(f"{named}; it must be one file in the same folder.")
    try:
        target = (path.parent / relative).resolve()
        exists, is_inside = target.is_file(), path.parent.resolve() in target.parents
    except (OSError, ValueError, RuntimeError):  # an impossible file name, or links in a circle
        exists, is_inside = False, True
    if not is_inside:
        raise InputError(f"{named}, a link that leads out of its folder; copy the pixels beside the header.")
    if not exists:
        raise InputError(f"{named}, which does not exist beside it.")
    return path.parent / relative


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "t", "yes")
