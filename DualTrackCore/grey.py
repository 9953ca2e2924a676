"""Colour and deep-grey frames to the 8-bit grey that a sweep holds."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from DualTrackCore.errors import InputError

#: Luma weights of ITU-R BT.601 in thousandths; whole numbers make the rounding exact.
_LUMA_THOUSANDTHS = (299, 587, 114)

#: Frames are converted in pieces of about this many values, so that the wide intermediate stays small.
_VALUES_A_PIECE = 1 << 24


def to_grey_uint8(frames: np.ndarray, *, colour_axis: int | None) -> tuple[np.ndarray, list[str]]:
    """Grey frames of 8 bits, and the sentences that say what was converted.

    Colour becomes 0.299 R + 0.587 G + 0.114 B, rounded; an alpha channel is dropped. Other than uint8 is
    scaled linearly so that the smallest value becomes 0 and the largest 255, over all frames together.

    Args:
        frames: [N, H, W], or with one more axis of 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha)
            entries; booleans, integers or floats.
        colour_axis: which axis that is; None where there is none.

    Returns:
        [N, H, W] uint8 (`frames` itself where nothing had to be done), and the notes.

    Raises:
        InputError: another number of axes or channels, no frames, values that are not real finite numbers.
    """
    frames = np.asarray(frames)
    notes: list[str] = []
    if frames.dtype.kind not in "biuf":
        raise InputError(f"The pixels are {frames.dtype}; grey or colour frames must hold whole or real numbers.")
    if frames.ndim != (3 if colour_axis is None else 4):
        raise InputError(f"The frames have shape {frames.shape}; expected frames, rows, columns and perhaps colour.")
    if 0 in frames.shape:
        raise InputError(f"The frames have shape {frames.shape}; there are no pixels in them.")
    if frames.dtype.kind == "f" and not all(np.isfinite(frames[piece]).all() for piece in _pieces(frames)):
        raise InputError("The frames hold pixels that are not finite numbers; replace them before loading.")
    if colour_axis is not None:
        frames, notes = _without_colour(np.moveaxis(frames, colour_axis, -1))
    if frames.dtype == np.uint8:
        return frames, notes
    low, high = float(frames.min()), float(frames.max())
    scaled = np.zeros(frames.shape, np.uint8)
    if high > low:
        for piece in _pieces(frames):
            unit = (frames[piece].astype(np.float64) - low) / (high - low)
            scaled[piece] = np.rint(unit * 255).astype(np.uint8)
    return scaled, [*notes, f"Scaled pixel values {low:g} to {high:g} linearly to 0 to 255 (8 bits)."]


def grey_clip(images: Iterable[np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Images [H, W] or [H, W, channels] of one size and one depth, taken one by one, as :func:`to_grey_uint8` does.

    Images of 8 bits become grey at once, so that no clip in colour is ever held; deeper ones are scaled together.

    Returns:
        [N, H, W] uint8, N = 0 without images, and the notes, each once.
    """
    # One growing buffer: a list of frames would have to be copied into the clip at the end.
    pixels, count, size = bytearray(), 0, (0, 0)
    deep: list[np.ndarray] = []
    notes: list[str] = []
    for image in images:
        if image.dtype != np.uint8:
            deep.append(image)
            continue
        grey, new_notes = to_grey_uint8(image[None], colour_axis=3 if image.ndim == 3 else None)
        notes += [note for note in new_notes if note not in notes]
        pixels += np.ascontiguousarray(grey).data
        count, size = count + 1, grey.shape[1:]
    if deep:
        return to_grey_uint8(np.stack(deep), colour_axis=3 if deep[0].ndim == 3 else None)
    return np.ndarray((count, *size), np.uint8, pixels), notes


def _pieces(frames: np.ndarray) -> list[slice]:
    step = max(1, _VALUES_A_PIECE // max(1, frames[0].size))
    return [slice(start, start + step) for start in range(0, len(frames), step)]


def _without_colour(frames: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Luma of [N, H, W, channels] in the dtype of `frames` (float64 where that is wider than a byte)."""
    channels = frames.shape[-1]
    if channels not in (1, 2, 3, 4):
        raise InputError(f"The frames have {channels} channels; 1 to 4 can be read as grey or colour.")
    notes = ["Dropped the alpha channel."] if channels in (2, 4) else []
    if channels <= 2:
        return np.ascontiguousarray(frames[..., 0]), notes
    notes.insert(0, "Converted colour to grey (0.299 R + 0.587 G + 0.114 B).")
    exact = frames.dtype == np.uint8
    grey = np.empty(frames.shape[:-1], np.uint8 if exact else np.float64)
    wide = np.uint32 if exact else np.float64
    for piece in _pieces(frames):
        total = sum(w * frames[piece, ..., c].astype(wide) for c, w in enumerate(_LUMA_THOUSANDTHS))
        grey[piece] = (total + 500) // 1000 if exact else total / 1000
    return grey, notes
