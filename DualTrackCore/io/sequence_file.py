"""What the MetaImage and the NRRD form of a sequence metafile have in common, and how it becomes a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.grey import to_grey_uint8
from DualTrackCore.io.axes import Axes, find_axes
from DualTrackCore.io.calibration import read_calibration
from DualTrackCore.io.limits import require_plausible_frame
from DualTrackCore.io.orientation import Orientation, parse_orientation
from DualTrackCore.io.payload import Payload
from DualTrackCore.io.sequence_fields import FrameFields
from DualTrackCore.io.sequence_geometry import place_frames
from DualTrackCore.io.spacing import PixelSize, calibration_name
from DualTrackCore.io.tracked_poses import marked_as_estimate
from DualTrackCore.sweep import Sweep

#: Header fields in which this project keeps what the formats have no place for.
SPACING_FIELD, SKEW_FIELD = "DualTrackSpacingMm", "DualTrackSkewDeg"
ESTIMATED_FIELD = "DualTrackPosesEstimatedBy"
#: Header field of frames from the simulation, and its one value; anything else counts as recorded.
SIMULATED_FIELD, SIMULATED_VALUE = "DualTrackSimulatedFrames", "True"

#: More frames than any recording has: at 100 a second this is almost three hours.
MAX_FRAMES = 1_000_000

_MAX_LINE_BYTES = 64 << 20
_MAX_HEADER_BYTES = 1 << 30


@dataclass(frozen=True)
class SequenceFile:
    """The header of a sequence metafile, sorted out.

    Attributes:
        sizes: entries of each axis, the fastest first.
        kinds: what the header says of each axis, or None.
        axis_spacing: mm from entry to entry of each axis, 1 where the header says nothing.
        header: all fields that are not about single frames.
        index_times_s: times listed along the frame axis, or None.
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
    """The lines of a text header without their ends, as long as the caller asks for more.

    Raises:
        InputError: a line or the whole header is absurdly long.
    """
    total = 0
    while line := stream.readline(_MAX_LINE_BYTES):
        total += len(line)
        if len(line) == _MAX_LINE_BYTES or total > _MAX_HEADER_BYTES:
            raise InputError(f"{source} has no header that ends within {_MAX_HEADER_BYTES >> 20} MiB; it is damaged.")
        yield line.decode("utf-8", errors="replace").rstrip("\r\n")


def whole_numbers(text: str, what: str, source: str) -> tuple[int, ...]:
    """Whole numbers from 0 in a header field, or an :class:`InputError` that names the field."""
    words = text.split()
    if not words or not all(word.isascii() and word.isdigit() and len(word) < 19 for word in words):
        raise InputError(f"{source} says {what} = {text[:60]!r}; expected whole numbers from 0.")
    return tuple(map(int, words))


def sweep_from_sequence(
    sequence: SequenceFile,
    calibration: Path | np.ndarray | None,
    spacing_mm: tuple[float, float] | None,
) -> Sweep:
    """The sweep that a sequence metafile holds.

    Args:
        sequence: the header.
        calibration: what `read_calibration` accepts, or None.
        spacing_mm: pixel size that the user gives, across columns and down rows, or None.

    Raises:
        InputError: pixels that cannot be read, contradicting pixel sizes, poses that do not fit them.
    """
    source = sequence.path.name
    if (sequence.image_type or "").strip().upper().startswith("RF"):
        raise InputError(f"{source} holds radio-frequency data ({sequence.image_type}); only B-mode can be read.")
    axes = find_axes(sequence.sizes, sequence.kinds, source)
    count = 1 if axes.frames is None else sequence.sizes[axes.frames]
    if not 1 <= count <= MAX_FRAMES:
        raise InputError(f"{source} claims {count} frames; 1 to {MAX_FRAMES} can be read.")
    orientation = parse_orientation(sequence.orientation)
    frames, notes = _frames(sequence, axes, count, orientation)
    stated = _stated_size(sequence, axes, orientation, notes)
    matrix = None if calibration is None else read_calibration(calibration)
    placed = place_frames(sequence.fields, frames.shape, matrix, stated, spacing_mm, source)
    tracked, pose_notes = marked_as_estimate(placed.tracked, sequence.header.get(ESTIMATED_FIELD))
    times, time_notes = sequence.fields.times(count)
    if times is None and sequence.index_times_s is not None and len(sequence.index_times_s) == count:
        times = sequence.index_times_s
    return Sweep(
        frames=frames,
        spacing_mm=placed.size.spacing_mm,
        timestamps_s=times,
        frame_valid=sequence.fields.image_ok(count),
        tracked=tracked,
        skew_deg=placed.size.skew_deg,
        provenance={
            **_provenance(sequence, orientation, calibration),
            "conversions": [*notes, *_gaps(sequence.fields, count), *time_notes, *placed.notes, *pose_notes],
            "spacing_source": placed.size.source,
            "tracking": placed.tracking,
            **({"simulated": True} if sequence.header.get(SIMULATED_FIELD) == SIMULATED_VALUE else {}),
        },
    )


def _provenance(
    sequence: SequenceFile, orientation: Orientation, calibration: Path | np.ndarray | None
) -> dict[str, Any]:
    return {
        "source": sequence.path.name,
        "format": sequence.format_name,
        "orientation": orientation.code,
        "calibration": None if calibration is None else calibration_name(calibration),
    }


def _gaps(fields: FrameFields, count: int) -> list[str]:
    missing = fields.frames_without_fields(count) if len(fields) else 0
    return [f"{missing} of {count} frames have no fields; they have images and no poses."] if missing else []


def _frames(sequence: SequenceFile, axes: Axes, count: int, orientation: Orientation) -> tuple[np.ndarray, list[str]]:
    """Frames [N, H, W] uint8 in MF orientation, and what was done to them."""
    width, height = sequence.sizes[axes.across], sequence.sizes[axes.down]
    if width * height <= 1:
        return np.zeros((count, 0, 0), np.uint8), ["The file holds tracking without images."]
    require_plausible_frame(sequence.path, height, width)
    stored = axes.arranged(sequence.payload.read(sequence.sizes[::-1], sequence.dtype))
    grey, notes = to_grey_uint8(stored, colour_axis=None if axes.colour is None else 3)
    turned = orientation.note()
    return orientation.to_mf(grey), notes if turned is None else [*notes, turned]


def _stated_size(sequence: SequenceFile, axes: Axes, orientation: Orientation, notes: list[str]) -> PixelSize | None:
    """The pixel size that the header states, in MF orientation; spacings of 1 stand for "not known"."""
    spacing = _numbers(sequence.header.get(SPACING_FIELD, ""), 2)
    skew = _numbers(sequence.header.get(SKEW_FIELD, "0"), 1) or (0.0,)
    if spacing is None:
        spacing = sequence.axis_spacing[axes.across], sequence.axis_spacing[axes.down]
        if spacing == (1.0, 1.0):
            return None
        spacing = spacing[::-1] if orientation.transposed else spacing
    if not all(0 < value <= 10 for value in spacing) or not abs(skew[0]) < 45:
        notes.append(f"Ignored the pixel spacing {spacing[0]:g} x {spacing[1]:g} mm of the header: it is impossible.")
        return None
    return PixelSize((float(spacing[0]), float(spacing[1])), skew[0])


def _numbers(text: str, count: int) -> tuple[float, ...] | None:
    try:
        values = tuple(map(float, text.split()))
    except ValueError:
        return None
    return values if len(values) == count else None
