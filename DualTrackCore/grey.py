"""Colour frames and frames of more than 8 bits to the 8-bit grey of a sweep: one rule for all formats.

8-bit values never change. For others, the range of values that becomes 0 to 255 is the first of these:

1. what the file declares (a window, a number of stored bits, the bit depth of a video);
2. whole numbers: the first of 0 to 255, -128 to 127, 0 to 65535, ... up to the range of their type that holds all but
   one in a thousand pixels. So an 8-bit clip stored in 16 bits keeps its greys, with or without hot pixels;
3. other real numbers: smallest to largest value, with a warning, as this range differs between clips.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from dataclasses import dataclass

import numpy as np

from DualTrackCore.errors import Doubt, InputError
from DualTrackCore.pixels import Converted, Spool, WindowSource
from DualTrackCore.progress import finished

#: Luma weights of ITU-R BT.601 in thousandths; whole numbers make the rounding exact.
_LUMA_THOUSANDTHS = (299, 587, 114)
#: Frames are converted in pieces of about this many values: intermediate arrays of wider types stay small.
_VALUES_A_PIECE = 1 << 18
#: One pixel in this many may lie outside the range.
_ONE_IN = 1000
#: Values sampled from each piece for quantiles, and about the most of all.
_SAMPLED, _MOST_SAMPLED = 4096, 1 << 20
#: Frames are dark if nearly all pixels lie in this part of the range.
_DARK_PART = 1 / 16
_BYTE = (0, 255)


@dataclass(frozen=True)
class Conversion:
    """How stored pixels [n, H, W] or [n, H, W, channels] become grey [n, H, W] uint8.

    Attributes:
        has_colour: whether there is an axis of channels.
        scale: values that become 0 and 255; values beyond are clipped. None for values of 8 bits.
        inverted: whether the largest value is black.
    """

    has_colour: bool
    scale: tuple[float, float] | None
    inverted: bool = False

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Grey frames; `pixels` itself if nothing changes."""
        grey = _luma(pixels) if self.has_colour else pixels
        if self.scale is not None:
            scaled = np.zeros(grey.shape, np.uint8)
            for piece in _pieces(grey):
                scaled[piece] = self._scaled(grey[piece])
            grey = scaled
        return np.subtract(255, grey, dtype=np.uint8) if self.inverted else grey

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        low, high = self.scale
        if high <= low:
            return np.zeros(values.shape, np.uint8)
        unit = (values.astype(np.float64) - low) / (high - low)
        return np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)


def to_grey_uint8(
    frames: np.ndarray,
    *,
    colour_axis: int | None,
    declared: tuple[float, float] | None = None,
    inverted: bool = False,
) -> tuple[np.ndarray, list[str]]:
    """Grey frames of 8 bits, and sentences on what was converted.

    Colour becomes 0.299 R + 0.587 G + 0.114 B, rounded; an alpha channel is dropped. Types other than uint8 are scaled
    linearly by the rule of this module.

    Args:
        frames: [N, H, W], or with one more axis of 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha)
            entries; booleans, integers or floats.
        colour_axis: the axis of channels; None if there is none.
        declared: values that become 0 and 255, if the source declares them; ignored for uint8.
        inverted: whether the largest value is black.

    Returns:
        [N, H, W] uint8 (`frames` itself if nothing changes), and the notes; a note of type
        :class:`~DualTrackCore.errors.Doubt` belongs to the warnings of a result.

    Raises InputError: another number of axes or channels, no frames, values that are not finite real numbers.
    """
    frames = np.asarray(frames)
    _require_pixels(frames.shape, frames.dtype, 3 if colour_axis is None else 4)
    if colour_axis is not None:
        frames = np.moveaxis(frames, colour_axis, -1)
    pieces = (frames[piece] for piece in _pieces(frames))
    conversion, notes = finished(_conversion(pieces, frames, colour_axis is not None, declared, inverted))
    return conversion(frames), notes


def grey_frames(
    pixels: np.ndarray | WindowSource, *, has_colour: bool, inverted: bool = False
) -> tuple[np.ndarray | WindowSource, list[str]]:
    """:func:`to_grey_uint8` of pixels with the channels last; pixels of a file stay there and are converted on demand.

    Pixels of more than 8 bits are read once now, to find their range.
    """
    if isinstance(pixels, np.ndarray):
        return to_grey_uint8(pixels, colour_axis=pixels.ndim - 1 if has_colour else None, inverted=inverted)
    conversion, notes = finished(conversion_in_pieces(pixels, has_colour=has_colour, inverted=inverted))
    return Converted(pixels, conversion), notes


def conversion_in_pieces(
    pixels: WindowSource, *, has_colour: bool, inverted: bool = False
) -> Generator[int, None, tuple[Conversion, list[str]]]:
    """How :func:`grey_frames` converts pixels, and the notes; yields the frames read so far, a window at each step."""
    _require_pixels(pixels.shape, pixels.dtype, 4 if has_colour else 3)
    return (yield from _conversion(pixels.windows(), pixels, has_colour, None, inverted))


def grey_clip(
    images: Iterable[np.ndarray],
    *,
    source: str = "the clip",
    expected: int = 0,
    declared: tuple[float, float] | None = None,
    inverted: bool = False,
) -> tuple[np.ndarray | WindowSource, list[str]]:
    """:func:`to_grey_uint8` of images [H, W] or [H, W, channels] of one size and depth, taken one by one.

    Images of 8 bits, or with a declared range, become grey at once, so no clip in colour is held in memory; others are
    scaled together. A short clip stays in memory, a long one in a temporary file
    (:class:`~DualTrackCore.pixels.Spool`).

    Args:
        images: one after the other.
        source: where they come from, for messages.
        expected: how many will come, to report missing disk space early; 0 if unknown.
        declared, inverted: as for :func:`to_grey_uint8`.

    Returns:
        [N, H, W] uint8 (N = 0 without images), as an array or a source of windows; and the notes, each once.

    Raises:
        InputError: images of different sizes or depths.
        OutputError: no room for the temporary file.
    """
    spool, count, kind = Spool(source), 0, None
    notes: list[str] = []
    for image in images:
        if image.dtype == np.uint8 or declared is not None:
            axis = 3 if image.ndim == 3 else None
            grey, new = to_grey_uint8(image[None], colour_axis=axis, declared=declared, inverted=inverted)
            notes += [note for note in new if note not in notes]
            image = grey[0]
        if kind is None:
            kind = image.shape, image.dtype
            spool.require_room(expected * image.nbytes)
        if (image.shape, image.dtype) != kind:
            raise InputError(
                f"Frame {count} of {source} is {image.dtype} {image.shape} and the first {kind[1]} {kind[0]}."
            )
        spool.write(image)
        count += 1
    if kind is None:
        return np.zeros((0, 0, 0), np.uint8), notes
    pixels = spool.finished((count, *kind[0]), kind[1])
    if kind[1] == np.uint8:
        return pixels, notes
    return grey_frames(pixels, has_colour=len(kind[0]) == 3, inverted=inverted)


def _require_pixels(shape: tuple[int, ...], dtype: np.dtype, axes: int) -> None:
    if dtype.kind not in "biuf":
        raise InputError(f"The pixels are {dtype}; grey or colour frames must hold whole or real numbers.")
    if len(shape) != axes:
        raise InputError(f"The frames have shape {shape}; expected frames, rows, columns and perhaps colour.")
    if 0 in shape:
        raise InputError(f"The frames have shape {shape}; there are no pixels in them.")


def _conversion(
    pieces: Iterable[np.ndarray],
    pixels: np.ndarray | WindowSource,
    has_colour: bool,
    declared: tuple[float, float] | None,
    inverted: bool,
) -> Generator[int, None, tuple[Conversion, list[str]]]:
    """The conversion of pixels with the channels last, and the notes; `pieces` are all pixels, looked at one a step."""
    notes = _colour_notes(pixels.shape[-1]) if has_colour else []
    dtype = pixels.dtype
    if dtype == np.uint8:
        return Conversion(has_colour, None, inverted), notes
    if dtype.kind == "b":
        return Conversion(has_colour, (0, 1), inverted), [*notes, _scaled_note((0, 1), "false and true")]
    survey, done = _Survey(dtype), 0
    if declared is None or dtype.kind == "f":  # real numbers may not be finite
        for piece in pieces:
            survey.add(_luma(piece) if has_colour else piece)
            done += len(piece)
            yield done
    if declared is not None:
        note = _scaled_note(declared, "the range that is declared")
        return Conversion(has_colour, declared, inverted), [*notes, note]
    scale, new = survey.scale()
    return Conversion(has_colour, scale, inverted), notes + new


def _scaled_note(scale: tuple[float, float], why: str) -> str:
    return f"Scaled pixel values {scale[0]:g} to {scale[1]:g}, {why}, linearly to 0 to 255 (8 bits)."


class _Survey:
    """Range and quantiles of all pixels of a clip, gathered piece by piece."""

    def __init__(self, dtype: np.dtype) -> None:
        self._dtype = dtype
        self._ranges = [_BYTE] if dtype.kind == "f" else _whole_ranges(np.iinfo(dtype))
        self._outside = np.zeros(len(self._ranges), np.int64)
        self._count, self._whole = 0, True
        self._low, self._high = math.inf, -math.inf
        self._sample: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError("The frames hold pixels that are not finite numbers; replace them before loading.")
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._count += values.size
        if self._dtype.kind == "f":
            self._whole = self._whole and bool((values == np.rint(values)).all())
        for index, (least, most) in enumerate(self._ranges):
            if low < least or high > most:
                self._outside[index] += np.count_nonzero((values < least) | (values > most))
        self._sample.append(values.reshape(-1)[:: values.size // _SAMPLED | 1].copy())

    def scale(self) -> tuple[tuple[float, float] | None, list[str]]:
        """Values that become 0 and 255, and the notes."""
        fitting = [i for i, outside in enumerate(self._outside) if outside <= self._count // _ONE_IN]
        sample = np.concatenate(self._sample)
        quantiles = np.quantile(sample[:: len(sample) // _MOST_SAMPLED | 1], (1 / _ONE_IN, 1 - 1 / _ONE_IN))
        if self._dtype.kind == "f" and not (fitting and self._whole and self._high > 1):
            return self._stretched(*map(float, quantiles))
        scale = self._ranges[fitting[0]]
        beyond = int(self._outside[fitting[0]])
        lost = [f"{beyond} of {self._count} pixels lie beyond that and became black or white."] if beyond else []
        if scale == _BYTE:
            return scale, [
                f"The pixels are {self._dtype.name} and hold 8 bits (0 to 255); took them as they are.",
                *lost,
            ]
        notes = [_scaled_note(scale, f"a range of {self._dtype.name}"), *lost]
        if quantiles[1] < scale[0] + (scale[1] - scale[0]) * _DARK_PART:
            notes.append(
                Doubt(
                    f"Nearly all pixels lie below {quantiles[1]:g} of {scale[1]:g}, so the frames are dark: if they "
                    f"hold fewer bits than {self._dtype.name} has, store them as 8 bits."
                )
            )
        return scale, notes

    def _stretched(self, few_below: float, few_above: float) -> tuple[tuple[float, float], list[str]]:
        scale = self._low, self._high
        if 0 < 2 * (few_above - few_below) < scale[1] - scale[0]:
            scale = few_below, few_above  # a few pixels lie far from the others, such as hot pixels or masks
        why = f"all that {self._dtype.name} pixels show of their range"
        remedy = "Greys of clips that were stretched one by one are not alike; store them as 8 bits to avoid it."
        return scale, [Doubt(f"{_scaled_note(scale, why)} {remedy}")]


def _whole_ranges(limits: np.iinfo) -> list[tuple[int, int]]:
    """Possible ranges of whole numbers of a type, narrow ones first; the last is the whole range of the type."""
    ranges = []
    for bits in (8, 16, 32, 64):
        for low, high in ((0, 2**bits - 1), (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)):
            fitted = max(low, int(limits.min)), min(high, int(limits.max))
            if fitted not in ranges:
                ranges.append(fitted)
            if fitted == (limits.min, limits.max):
                return ranges
    return ranges


def _pieces(frames: np.ndarray) -> list[slice]:
    step = max(1, _VALUES_A_PIECE // max(1, frames[0].size)) if len(frames) else 1
    return [slice(start, start + step) for start in range(0, len(frames), step)]


def _colour_notes(channels: int) -> list[str]:
    if channels not in (1, 2, 3, 4):
        raise InputError(f"The frames have {channels} channels; 1 to 4 can be read as grey or colour.")
    notes = ["Converted colour to grey (0.299 R + 0.587 G + 0.114 B)."] if channels > 2 else []
    return [*notes, "Dropped the alpha channel."] if channels in (2, 4) else notes


def _luma(frames: np.ndarray) -> np.ndarray:
    """Luma of [N, H, W, channels]: uint8 for uint8, else float64 (one or two channels: the first, as it is)."""
    if frames.shape[-1] <= 2:
        return np.ascontiguousarray(frames[..., 0])
    exact = frames.dtype == np.uint8
    grey = np.empty(frames.shape[:-1], np.uint8 if exact else np.float64)
    wide = np.uint32 if exact else np.float64
    for piece in _pieces(frames):
        total = sum(w * frames[piece, ..., c].astype(wide) for c, w in enumerate(_LUMA_THOUSANDTHS))
        grey[piece] = (total + 500) // 1000 if exact else total / 1000
    return grey
