"""Landmarks: places in the frames of a sweep at which the error of a trajectory is measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from DualTrackCore.errors import InputError


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Places in the frames of one sweep; immutable.

    Attributes:
        frames: [L] int64, index of the frame of each landmark, counted from 0.
        pixels: [L, 2] float64, (column, row) in that frame, counted from the centre of its top-left pixel, (0, 0).

    Raises:
        InputError: arrays of other shapes, frames that are no whole numbers of at least 0, or pixels that are not
            finite.
    """

    frames: np.ndarray
    pixels: np.ndarray

    def __post_init__(self) -> None:
        try:
            frames = np.array(self.frames, dtype=np.float64)
            pixels = np.array(self.pixels, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError("Landmarks must be numbers: frames [n] and pixels [n, 2].") from None
        if frames.ndim != 1 or pixels.shape != (len(frames), 2):
            raise InputError(
                f"Landmarks have frames {frames.shape} and pixels {pixels.shape}; expected the shapes [n] and [n, 2]."
            )
        bad = np.flatnonzero(~((frames >= 0) & (frames == np.floor(frames)) & (frames < 2**53)))
        if len(bad):
            raise InputError(
                f"Landmark {bad[0]} lies in frame {frames[bad[0]]:g}; frames are whole numbers from 0: "
                "mend or remove that row."
            )
        bad = np.flatnonzero(~np.isfinite(pixels).all(axis=1))
        if len(bad):
            raise InputError(f"The pixel of landmark {bad[0]} is not finite; mend or remove that row.")
        for name, array in (("frames", frames.astype(np.int64)), ("pixels", pixels)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.frames)

    @classmethod
    def from_tus_rec(cls, rows: np.ndarray) -> Landmarks:
        """From the rows [n, 3] of a TUS-REC landmark file: frame from 0, then column and row of the pixel from 1.

        Raises InputError: another shape, or values as in the constructor.
        """
        rows = np.asarray(rows)
        if rows.ndim != 2 or rows.shape[1] != 3:
            raise InputError(f"TUS-REC landmarks have shape {rows.shape}; expected [n, 3]: frame, column, row.")
        return cls(rows[:, 0], rows[:, 1:].astype(np.float64) - 1)

    def require_inside(self, frames: int, frame_size: tuple[int, int]) -> None:
        """Refuse landmarks that are not in a sweep of so many frames of (rows, columns) pixels.

        Raises InputError: a frame beyond the last, or a pixel more than one pixel outside the image, where a place that
        was set at its very edge may still lie.
        """
        beyond = np.flatnonzero(self.frames >= frames)
        if len(beyond):
            raise InputError(
                f"Landmark {beyond[0]} lies in frame {self.frames[beyond[0]]} and the sweep has the frames 0 to "
                f"{frames - 1}; give the landmarks of this sweep."
            )
        outside = np.flatnonzero((self.pixels < -1).any(axis=1) | (self.pixels > frame_size[::-1]).any(axis=1))
        if len(outside):
            column, row = self.pixels[outside[0]]
            raise InputError(
                f"Landmark {outside[0]} lies at column {column:g}, row {row:g}, outside the image of {frame_size[1]} x "
                f"{frame_size[0]} pixels; give the landmarks of this sweep."
            )
