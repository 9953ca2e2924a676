"""From stored pictures of a video to those that players show: square pixels, turned and mirrored."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import numpy as np

from DualTrackCore.errors import Doubt

#: Names of the operations (axes swapped, then columns reversed, rows reversed).
_TURNS = {
    (False, False, False): "",
    (False, True, False): "Mirrored left to right",
    (False, False, True): "Mirrored top to bottom",
    (False, True, True): "Turned by 180 degrees",
    (True, True, False): "Turned by 90 degrees clockwise",
    (True, False, True): "Turned by 90 degrees counter-clockwise",
    (True, False, False): "Turned by 90 degrees clockwise and mirrored left to right",
    (True, True, True): "Turned by 90 degrees counter-clockwise and mirrored left to right",
}

#: Tolerance of quarter turns in a display matrix, and of the sides of a square pixel, as a part.
_TOLERANCE = 0.01
#: Smallest and largest plausible ratio of the width of a pixel to its height.
_PLAUSIBLE_ASPECT = (Fraction(1, 4), Fraction(4))


class Display:
    """The conversion from stored to shown pictures of a stream.

    Args:
        matrix: the display matrix, nine 32-bit integers of FFmpeg; None without one.
        aspect: width of a stored pixel divided by its height; None if unknown.
        size: (H, W) of the stored pictures.
        spacing_mm: the user's (across columns, down rows) of the shown pixels, or None. If its ratio is about that of
            `aspect`, it belongs to the stored pixels, and these do not change.

    Attributes:
        size: (H, W) of the shown pictures.
        notes: sentences for the user.
    """

    def __init__(
        self,
        matrix: bytes | None,
        aspect: Fraction | None,
        size: tuple[int, int],
        spacing_mm: tuple[float, float] | None,
    ) -> None:
        self.notes: list[str] = []
        self._turn = self._quarter_turn(matrix)
        if _TURNS[self._turn]:
            self.notes.append(f"{_TURNS[self._turn]}, as the file tells players.")
        self._stretched = self._square(aspect or Fraction(1), size, spacing_mm)
        height, width = self._stretched or size
        self.size = (width, height) if self._turn[0] else (height, width)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """The shown picture from a stored one, [H, W] or [H, W, 3] uint8."""
        if self._stretched is not None:
            from PIL import Image

            height, width = self._stretched
            picture = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
        swapped, columns, rows = self._turn
        picture = picture.swapaxes(0, 1) if swapped else picture
        return np.ascontiguousarray(picture[:: -1 if rows else 1, :: -1 if columns else 1])

    def _quarter_turn(self, matrix: bytes | None) -> tuple[bool, bool, bool]:
        """The key of :data:`_TURNS` for x' = a x + c y, y' = b x + d y."""
        a, b, _, c, d, *_ = struct.unpack("=9i", matrix) if matrix else (1, 0, 0, 0, 1)
        straight, crossed = max(abs(a), abs(d)), max(abs(b), abs(c))
        if min(straight, crossed) > _TOLERANCE * max(straight, crossed):
            angle = math.degrees(math.atan2(b, a))
            self.notes.append(
                Doubt(f"The file tells players to turn the frames by {angle:.3g} degrees; only quarter turns are done.")
            )
            return False, False, False
        return (True, c < 0, b < 0) if crossed > straight else (False, a < 0, d < 0)

    def _square(
        self, aspect: Fraction, size: tuple[int, int], spacing_mm: tuple[float, float] | None
    ) -> tuple[int, int] | None:
        """(H, W) of the stored picture with square pixels, no side smaller; None if it does not change."""
        if abs(aspect - 1) <= _TOLERANCE:
            return None
        text = f"{aspect.numerator}:{aspect.denominator}"
        if not _PLAUSIBLE_ASPECT[0] <= aspect <= _PLAUSIBLE_ASPECT[1]:
            self.notes.append(Doubt(f"The file says that its pixels are {text}, which cannot be; took them as square."))
            return None
        if spacing_mm is not None:
            given = math.log(spacing_mm[0] / spacing_mm[1])
            stored = math.log(1 / aspect if self._turn[0] else aspect)
            if abs(given - stored) < abs(given):
                self.notes.append(
                    f"The pixels are not square ({text}), and neither is the given pixel size: they stay as stored."
                )
                return None
        (height, width), factor = size, float(aspect)
        shown = (height, round(width * factor)) if factor > 1 else (round(height / factor), width)
        self.notes.append(
            f"The pixels are not square ({text}): stretched {width} x {height} to {shown[1]} x {shown[0]} pixels, as "
            "players do. A pixel size must be that of the stretched pixels, or two numbers for the stored ones."
        )
        return shown
