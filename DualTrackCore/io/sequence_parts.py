"""The parts of a sequence metafile: text fields of each frame, axes and orientation of the pixels, and the pixel block.

Pixels are read in windows, from the file itself or, if compressed, from a temporary one. Implausible sizes, as of
damaged or hostile files, are refused before memory is allocated.

The first letter of an orientation code is the direction of +x, the second that of +y: M towards the marked side of the
probe, U away from it, F away from the probe (deeper), N towards it. A third letter is the handedness of a stack.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from DualTrackCore.errors import InputError, reason_of
from DualTrackCore.memory import require_memory
from DualTrackCore.pixels import FilePixels, Spool, WindowSource

#: Largest frame, in pixels: 8192 x 8192.
MAX_FRAME_PIXELS = 1 << 26
#: Largest clip, in bytes of 8-bit grey: an hour of 1000 x 1000 pixels at 100 Hz.
MAX_CLIP_BYTES = 360 << 30
#: Copies of a frame in memory while it is unpacked and converted to grey (stored, floating point, grey).
_COPIES_OF_FRAME = 4


def require_plausible_frame(path: Path, height: int, width: int) -> None:
    """Raises InputError: frames have no pixels, or more than :data:`MAX_FRAME_PIXELS`."""
    if height < 1 or width < 1:
        raise InputError(f"{path.name} has frames of {width} x {height} pixels; there is nothing to read.")
    if height * width > MAX_FRAME_PIXELS:
        raise InputError(
            f"{path.name} claims frames of {width} x {height} pixels; the limit is {MAX_FRAME_PIXELS} pixels "
            "a frame, so the file is damaged or holds no ultrasound clip."
        )


def require_plausible_clip(path: Path, count: int, height: int, width: int, pixel_bytes: int = 1) -> None:
    """Check the size of a clip before it is read.

    Args:
        path: the file, for the message.
        count, height, width: of the frames.
        pixel_bytes: bytes of a stored pixel, all channels together; 0 skips the check of memory.

    Raises:
        InputError: no frames, or a size beyond the limits.
        OutOfMemoryError: too little memory for a frame; clips of any length are read in windows.
    """
    if count < 1:
        raise InputError(f"{path.name} has no frames.")
    require_plausible_frame(path, height, width)
    if count * height * width > MAX_CLIP_BYTES:
        raise InputError(
            f"{path.name} claims {count} frames of {width} x {height} pixels, "
            f"{count * height * width / 2**30:.1f} GiB; the limit is {MAX_CLIP_BYTES >> 30} GiB: "
            "the file is damaged, or cut the clip into shorter ones."
        )
    if pixel_bytes:
        needed = height * width * pixel_bytes * _COPIES_OF_FRAME
        require_memory(needed, f"A frame of {path.name} ({width} x {height} pixels)")


def numbers(text: str, count: int | None = None) -> tuple[float, ...] | None:
    """The numbers in a field (exactly `count`, if given); None if it holds anything else."""
    try:
        values = tuple(map(float, text.split()))
    except ValueError:
        return None
    return values if count in (None, len(values)) else None


#: Header fields on the scanner of a sequence; names of the numbers as in PLUS.
SCANNER_FIELDS = {
    **{"device": "DeviceName", "transducer": "TransducerName"},
    **{"frequency_mhz": "FrequencyMhz", "depth_mm": "DepthMm"},
}


def scanner_facts(values: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """Facts on the scanner for a provenance, under "scanner", from values by the names of :data:`SCANNER_FIELDS`.

    Empty without facts. Texts become one line, and implausible numbers are left out.
    """
    facts: dict[str, Any] = {}
    for name in SCANNER_FIELDS:
        stated = values.get(name)
        text = " ".join(str("" if stated is None else stated).split())[:100]
        value = numbers(text, 1) if name.endswith(("mhz", "mm")) else text
        if value and (value == text or 0 < value[0] <= 1000):
            facts[name] = text if value == text else value[0]
    return {"scanner": facts} if facts else {}


_KEY = re.compile(r"Seq_Frame([0-9]{1,9})_(\S+)")
_TRANSFORM = re.compile(r"(\S+?)To([A-Z]\S*)Transform")


class TransformTrack(NamedTuple):
    """One transform over all frames: `matrices` [N, 4, 4], NaN where not `valid` [N]."""

    matrices: np.ndarray
    valid: np.ndarray


#: The sentence for a file without transforms.
NO_TRANSFORMS = "Not tracked: the file holds no transforms."


class FrameFields:
    """The fields `Seq_FrameNNNN_Name = text` of a file, by name and frame; frames may lack any of them."""

    def __init__(self) -> None:
        self._texts: dict[str, dict[int, str]] = defaultdict(dict)

    def add(self, key: str, text: str) -> bool:
        """Store `text` if `key` is a per-frame field; returns whether it is."""
        match = _KEY.fullmatch(key)
        if match is not None:
            self._texts[match[2]][int(match[1])] = text.strip()
        return match is not None

    def gaps(self, count: int) -> list[str]:
        """A sentence if some of the first `count` frames have no fields at all."""
        missing = count - len({i for texts in self._texts.values() for i in texts if i < count})
        if not missing or not self._texts:
            return []
        return [f"{missing} of {count} frames have no fields; they have images and no poses."]

    def _numbers(self, name: str, count: int, size: int) -> np.ndarray:
        """[count, size] float64, NaN if the field is missing or does not hold `size` numbers."""
        values = np.full((count, size), np.nan)
        for index, text in self._texts.get(name, {}).items():
            if index < count:
                values[index] = numbers(text, size) or np.nan
        return values

    def table(self, name: str, count: int, width: int) -> np.ndarray | None:
        """[count, width] numbers in a field of the frames, NaN where missing; None without the field."""
        return self._numbers(name, count, width) if name in self._texts else None

    def ok(self, name: str, count: int) -> np.ndarray:
        """[count] bool: false if the status field `name` of a frame is anything but OK."""
        valid = np.ones(count, bool)
        for index, text in self._texts.get(name, {}).items():
            if index < count:
                valid[index] = text.upper() == "OK"
        return valid

    def transforms(self, count: int) -> dict[tuple[str, str], TransformTrack]:
        """All transforms by (from, to); p_to = matrix @ p_from.

        A frame is invalid if its status is anything but OK, or if the 16 numbers are missing or not finite.
        """
        tracks = {}
        for name in self._texts:
            match = _TRANSFORM.fullmatch(name)
            if match is not None:
                matrices = self._numbers(name, count, 16).reshape(count, 4, 4)
                valid = np.isfinite(matrices).all(axis=(1, 2)) & self.ok(f"{name}Status", count)
                matrices[~valid] = np.nan
                tracks[match[1], match[2]] = TransformTrack(matrices, valid)
        return tracks

    def times(self, count: int) -> tuple[np.ndarray | None, list[str]]:
        """Times of the frames in s, [count] float64, or None if most are unknown; and sentences for the user."""
        for name in ("Timestamp", "UnfilteredTimestamp"):
            times = self._numbers(name, count, 1)[:, 0]
            timed = np.flatnonzero(np.isfinite(times))
            if len(timed) == count:
                return times, []
            if len(timed) >= 2 and 2 * len(timed) > count:
                # Linear interpolation; beyond the ends, steps of the median.
                frames = np.arange(count)
                step = float(np.median(np.diff(times[timed]) / np.diff(timed)))
                beyond = np.minimum(frames - timed[0], 0) + np.maximum(frames - timed[-1], 0)
                times = np.interp(frames, timed, times[timed]) + step * beyond
                return times, [f"Filled in the times of {count - len(timed)} of {count} frames from their neighbours."]
        return None, []


_FRAME_KINDS = frozenset({"list", "time"})
_COLOUR_KINDS = frozenset({"vector", "rgb-color", "rgba-color", "3-color", "4-color", "3-vector", "4-vector"})


@dataclass(frozen=True)
class Axes:
    """Positions of the axes in a header, which lists the fastest first.

    Attributes:
        across: columns.
        down: rows.
        frames: frames; None for a single frame.
        colour: channels; None for grey.
        empty: an axis of one entry without a meaning, or None.
    """

    across: int
    down: int
    frames: int | None = None
    colour: int | None = None
    empty: int | None = None

    def arranged(self, array: np.ndarray) -> np.ndarray:
        """A view [N, H, W] or [N, H, W, channels] of `array`, whose axes are in reverse order of the header."""
        order = (self.empty, self.frames, self.down, self.across, self.colour)
        ordered = array.transpose().transpose([axis for axis in order if axis is not None])
        if self.empty is not None:
            ordered = ordered[0]
        return ordered if self.frames is not None else ordered[None]


def find_axes(sizes: tuple[int, ...], kinds: tuple[str, ...] | None, source: str) -> Axes:
    """Identify the axes of a header.

    Without kinds the slowest axis is that of the frames. Three image axes are a stack of slices, read as frames.

    Args:
        sizes: entries of each axis, the fastest first.
        kinds: kind of each axis in the header ("domain", "list", "vector"...), or None.
        source: the name of the file, for messages.

    Raises InputError: not a stack of 2D frames, such as volumes over time.
    """
    if kinds is None or len(kinds) != len(sizes):
        kinds = ("domain",) * (len(sizes) - 1) + ("list" if len(sizes) > 2 else "domain",)
        if len(sizes) == 4 and sizes[0] in (3, 4) and sizes[2] != 1:
            kinds = ("vector", "domain", "domain", "list")
    kinds = tuple(map(str.lower, kinds))
    frames = [i for i, kind in enumerate(kinds) if kind in _FRAME_KINDS]
    colour = [i for i, kind in enumerate(kinds) if kind in _COLOUR_KINDS]
    image = [i for i in range(len(sizes)) if i not in frames and i not in colour]
    empty = None
    if not frames and len(image) == 3:
        frames = [image.pop()]
    elif len(image) == 3 and sizes[image[2]] == 1:
        empty = image.pop()
    if len(image) != 2 or len(frames) > 1 or len(colour) > 1:
        described = ", ".join(f"{size} {kind}" for size, kind in zip(sizes, kinds, strict=True))
        raise InputError(
            f"{source} has the axes {described}; only frames of two image axes can be read (columns, rows, frames)."
        )
    return Axes(image[0], image[1], *(axis[0] if axis else None for axis in (frames, colour)), empty)


@dataclass(frozen=True)
class Orientation:
    """Orientation of stored frames, and the operations to MF: first transpose, then flip.

    Attributes:
        code: of the file, in capitals; "XX" if it states none.
    """

    code: str
    transposed: bool = False
    rows_reversed: bool = False
    columns_reversed: bool = False
    known: bool = True

    @property
    def is_turned(self) -> bool:
        """Whether frames must be turned."""
        return self.transposed or self.rows_reversed or self.columns_reversed

    @property
    def notes(self) -> list[str]:
        """Sentences for the user."""
        if not self.known:
            return [f"The orientation of the pictures is not stated ({self.code}); they are taken as they are."]
        return [f"Turned the pictures from {self.code} to MF, the probe at the top."] if self.is_turned else []

    def to_mf(self, frames: np.ndarray) -> np.ndarray:
        """A view of frames [N, rows, columns] in MF orientation."""
        if self.transposed:
            frames = np.swapaxes(frames, 1, 2)
        return frames[:, :: -1 if self.rows_reversed else 1, :: -1 if self.columns_reversed else 1]


def parse_orientation(text: str | None) -> Orientation:
    """Orientation of a code such as MF, MFA or UN; unknown for anything else."""
    code = (text or "XX").strip().upper().removeprefix("US_IMG_ORIENT_")
    match = re.fullmatch(r"([MU][FN]|[FN][MU])[AD]?", code)
    if match is None:
        return Orientation(code or "XX", known=False)
    axes = match[1]
    return Orientation(code, axes[0] in "FN", rows_reversed="N" in axes, columns_reversed="U" in axes)


#: Largest expansion of deflate, and some bytes more for short files; larger claims are false.
_MAX_RATIO = 1032
_RATIO_SLACK_BYTES = 4096
_COMPRESSED_PIECE_BYTES = 1 << 20
_PLAIN_PIECE_BYTES = 1 << 24
#: Values of `wbits` of zlib.decompressobj for the two containers.
ZLIB, GZIP = 15, 31


@dataclass(frozen=True)
class Payload:
    """Place of the pixels in a file.

    Attributes:
        path: the file of the pixels, perhaps not that of the header.
        offset: their first byte.
        length: their number of bytes; None: up to the end of the file.
        compression: None, :data:`ZLIB` or :data:`GZIP`.
        skipped: bytes before the pixels in the decompressed data.
    """

    path: Path
    offset: int = 0
    length: int | None = None
    compression: int | None = None
    skipped: int = 0

    def read(self, shape: tuple[int, ...], dtype: np.dtype, in_windows: bool) -> np.ndarray | WindowSource:
        """The pixels of `shape`, slowest axis first.

        The claimed size is compared with the bytes of the file before memory is allocated.

        Args:
            shape, dtype: of the stored pixels.
            in_windows: whether to return a source of windows along the first axis; else a whole array.

        Raises:
            InputError: fewer or more bytes than claimed, a damaged stream, an impossible claim.
            OutOfMemoryError: too little memory.
            OutputError: no room for the temporary file of decompressed pixels.
        """
        wanted = math.prod(shape) * dtype.itemsize
        available = max(self.path.stat().st_size - self.offset, 0)
        length = available if self.length is None else self.length
        if length > available:
            raise InputError(
                f"{self.path.name} is cut short: its header announces {length} bytes of compressed pixels and "
                f"{available} are there; copy the file again."
            )
        if self.compression is not None:
            pixels = self._decompressed(wanted, length).finished(shape, dtype)
        elif wanted > length:
            raise InputError(
                f"{self.path.name} is cut short or its header is wrong: {wanted} bytes of pixels are announced and "
                f"{length} are there; copy the file again."
            )
        else:
            pixels = FilePixels(self.path, self.offset, shape, dtype)
        return pixels if in_windows else np.asarray(pixels)

    def _decompressed(self, wanted: int, length: int) -> Spool:
        if wanted > length * _MAX_RATIO + _RATIO_SLACK_BYTES:
            raise InputError(
                f"{self.path.name} claims {wanted} bytes of pixels in {length} compressed ones; at most "
                f"{_MAX_RATIO} times as many are possible, so the file is damaged."
            )
        spool = Spool(self.path.name)
        spool.require_room(wanted)
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                self._inflate(stream, length, wanted, spool)
        except zlib.error as error:
            reason = reason_of(error)
            raise InputError(f"{self.path.name} has damaged compressed pixels ({reason}); copy it again.") from None
        return spool

    def _inflate(self, stream: BinaryIO, length: int, wanted: int, spool: Spool) -> None:
        """Write exactly `wanted` bytes of the stream to the spool. Raises InputError: the stream has fewer or more."""
        engine, filled = zlib.decompressobj(self.compression), -self.skipped
        while not engine.eof:
            packed = engine.unconsumed_tail
            if not packed:
                packed = stream.read(min(_COMPRESSED_PIECE_BYTES, length))
                length -= len(packed)
            # Reads at most one byte more than announced: a longer stream is refused without expanding it.
            piece = engine.decompress(packed, min(wanted - filled + 1, _PLAIN_PIECE_BYTES))
            pixels = piece[max(-filled, 0) :]
            filled += len(piece)
            if filled > wanted:
                raise InputError(f"{self.path.name} has more pixels than the {wanted} bytes that its header announces.")
            spool.write(pixels)
            if not piece and not packed:
                break
        if filled < wanted or not engine.eof:
            raise InputError(
                f"{self.path.name} is cut short: {max(filled, 0)} of {wanted} bytes of pixels could be decompressed; "
                "copy the file again."
            )
