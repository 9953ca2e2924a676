"""Which axis of a stored array is time, which are the image and which is colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from DualTrackCore.errors import InputError

_FRAME_KINDS = frozenset({"list", "time"})
_COLOUR_KINDS = frozenset({"vector", "rgb-color", "rgba-color", "3-color", "4-color", "3-vector", "4-vector"})


@dataclass(frozen=True)
class Axes:
    """Positions of the axes in a header, which lists the fastest first.

    Attributes:
        across: from column to column.
        down: from row to row.
        frames: from frame to frame; None for a single frame.
        colour: channels; None for grey.
        empty: an axis of one entry that carries nothing, or None.
    """

    across: int
    down: int
    frames: int | None = None
    colour: int | None = None
    empty: int | None = None

    def arranged(self, array: np.ndarray) -> np.ndarray:
        """`array` (slowest axis first, as the header read backwards) as a view [N, H, W] or [N, H, W, channels]."""
        axes = array.transpose()
        kept = [axis for axis in (self.frames, self.down, self.across, self.colour) if axis is not None]
        if self.empty is not None:
            axes = axes[tuple(0 if i == self.empty else slice(None) for i in range(axes.ndim))]
            kept = [axis - (axis > self.empty) for axis in kept]
        ordered = axes.transpose(kept)
        return ordered if self.frames is not None else ordered[None]


def find_axes(sizes: tuple[int, ...], kinds: tuple[str, ...] | None, source: str) -> Axes:
    """Sort out the axes of a header.

    Without kinds the slowest axis is the frames. Three image axes and no frame axis are a stack of slices, which is
    read as frames.

    Args:
        sizes: entries of each axis, the fastest first.
        kinds: what the header says of each axis ("domain", "list", "vector"...), or None.
        source: the name of the file, for messages.

    Raises:
        InputError: no arrangement of frames; volumes over time.
    """
    kinds = _default_kinds(sizes) if kinds is None or len(kinds) != len(sizes) else tuple(map(str.lower, kinds))
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


def _default_kinds(sizes: tuple[int, ...]) -> tuple[str, ...]:
    if len(sizes) == 4 and sizes[0] in (3, 4) and sizes[2] != 1:
        return ("vector", "domain", "domain", "list")
    return ("domain",) * (len(sizes) - 1) + (("list",) if len(sizes) > 2 else ("domain",))
