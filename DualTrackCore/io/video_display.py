"""How players show the pictures that a video stores: with square pixels, turned and mirrored as the file says."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import numpy as np

from DualTrackCore.errors import Doubt

#: What a picture becomes whose axes are (swapped, then columns reversed, rows reversed).
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

#: Part of a display matrix that may be off a quarter turn, and of a pixel's sides that may differ in a square.
_TOLERANCE = 0.01
#: Widths of a pixel to its height beyond which nobody meant them.
_PLAUSIBLE_ASPECT = (Fraction(1, 4), Fraction(4))


class Display:
    """What a player does to the stored pictures of a stream before it shows them.

    Args:
        matrix: the display matrix, nine whole numbers of 32 bits as FFmpeg keeps them; None where there is none.
        aspect: width to height of a stored pixel; None where unknown.
        size: (H, W) of the stored pictures.
        spacing_mm: (across columns, down rows) that the user gives for the shown pixels, or None. Where it is about as
            far from square as `aspect`, it belongs to the stored pixels, and these stay.

    Attributes:
        size: (H, W) of the pictures as they are shown.
        notes: sentences that say what was done.
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
        """The shown picture of a stored one, [H, W] or [H, W, 3] uint8."""
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
        """(H, W) of the stored picture with square pixels, no side smaller; None where it stays as it is."""
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
