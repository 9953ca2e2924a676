"""Sizes beyond which a file is taken for damaged or hostile, checked before anything is allocated."""

from __future__ import annotations

from pathlib import Path

from DualTrackCore.errors import InputError

#: Largest frame that is read, in pixels: 8192 x 8192, far beyond any ultrasound image.
MAX_FRAME_PIXELS = 1 << 26

#: Largest clip that is read into memory, in bytes of 8-bit grey.
MAX_CLIP_BYTES = 16 << 30


def require_plausible_frame(path: Path, height: int, width: int) -> None:
    """Raise :class:`InputError` for frames without pixels or with absurdly many."""
    if height < 1 or width < 1:
        raise InputError(f"{path.name} has frames of {width} x {height} pixels; there is nothing to read.")
    if height * width > MAX_FRAME_PIXELS:
        raise InputError(
            f"{path.name} claims frames of {width} x {height} pixels; the limit is {MAX_FRAME_PIXELS} pixels "
            "a frame, so the file is damaged or holds no ultrasound clip."
        )


def require_plausible_clip(path: Path, count: int, height: int, width: int) -> None:
    """Raise :class:`InputError` for no frames, for absurd ones, or for a clip too large for memory."""
    if count < 1:
        raise InputError(f"{path.name} has no frames.")
    require_plausible_frame(path, height, width)
    if count * height * width > MAX_CLIP_BYTES:
        raise InputError(
            f"{path.name} claims {count} frames of {width} x {height} pixels, "
            f"{count * height * width / 2**30:.1f} GiB; the limit is {MAX_CLIP_BYTES >> 30} GiB: "
            "cut the clip into shorter ones."
        )
