"""Orientation of frames in sequence metafiles, and the way from there to the one that a sweep has.

The first letter of a code tells where +x points, the second where +y does: M towards the marked side of the probe and U
away from it, F far from the probe (deeper) and N near. A third letter only tells the handedness of a stack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_ENUMERATION_PREFIX = "US_IMG_ORIENT_"


@dataclass(frozen=True)
class Orientation:
    """How stored frames lie, and what turns them into MF: first transpose, then flip.

    Attributes:
        code: as the file says it, in capitals; "XX" where the file does not say it.
    """

    code: str
    transposed: bool = False
    rows_reversed: bool = False
    columns_reversed: bool = False
    known: bool = True

    @property
    def is_mf(self) -> bool:
        """Whether frames can stay as they are."""
        return not (self.transposed or self.rows_reversed or self.columns_reversed)

    def to_mf(self, frames: np.ndarray) -> np.ndarray:
        """Frames [N, rows, columns, ...] as a view in MF orientation."""
        if self.transposed:
            frames = np.swapaxes(frames, 1, 2)
        return frames[:, :: -1 if self.rows_reversed else 1, :: -1 if self.columns_reversed else 1]

    def note(self) -> str | None:
        """The sentence for the report, or None where there is nothing to say."""
        if not self.known:
            return f"The orientation of the frames is unknown ({self.code}); they are taken as they are."
        return None if self.is_mf else f"Turned frames from orientation {self.code} to MF."


def parse_orientation(text: str | None) -> Orientation:
    """Orientation of a code such as MF, MFA or UN; unknown for anything else."""
    code = (text or "XX").strip().upper().removeprefix(_ENUMERATION_PREFIX)
    axes = code[:2]
    if len(code) > 3 or (len(code) == 3 and code[2] not in "AD"):
        return Orientation(code, known=False)
    transposed = len(axes) == 2 and axes[0] in "FN"
    across, down = (axes[1], axes[0]) if transposed else (axes[:1], axes[1:])
    if across not in ("M", "U") or down not in ("F", "N"):
        return Orientation(code or "XX", known=False)
    return Orientation(code, transposed, rows_reversed=down == "N", columns_reversed=across == "U")
