"""Which frames an item takes, how its images are changed, and its poses re-expressed to match.

Everything random is a function of (seed, epoch, item), so that an interrupted run draws again what it would have drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from DualTrackCore.tracking.test_time_augmentation import mirrored, shifted
from DualTrackCore.trajectory import invert_rigid, parameters_from_matrices


@dataclass(frozen=True)
class Draw:
    """One item of a sweep.

    Attributes:
        frames: [n] indices into the sweep, in the order in which the network sees them.
        positions: [n] index of each of them in the sequence it is taken from (the sweep, the reversed sweep).
        flipped: whether the images are mirrored left to right.
        shift: (rows, columns) that the local crop lies off its central place, pixels at the model's spacing, after
            the flip.
        variant: which stored class tokens belong to it, or None.
    """

    frames: np.ndarray
    positions: np.ndarray
    flipped: bool = False
    shift: tuple[int, int] = (0, 0)
    variant: int | None = None


def item_random(seed: int, epoch: int, item: int) -> np.random.Generator:
    """The random numbers of one item in one epoch."""
    return np.random.default_rng([seed, epoch, item])


def targets(poses: np.ndarray, valid: np.ndarray, draw: Draw, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Relative motions that the network must find in the drawn images.

    Args:
        poses: [N, 4, 4] of the sweep, frame0_from_image, mm.
        valid: [N] bool.
        draw: the item; n frames.
        spacing_mm: the model's (columns, rows).

    Returns:
        [n - 1, 6] float64, mm and degrees, of frame i + 1 in frame i of the item, in the coordinates of the flipped
        and shifted images; NaN where a pose is not valid.
    """
    chosen = np.where(valid[:, None, None], poses, np.nan)[draw.frames]
    relative = invert_rigid(chosen[:-1]) @ chosen[1:]
    if draw.flipped:
        relative = mirrored(relative)
    return parameters_from_matrices(shifted(relative, draw.shift, spacing_mm))


def thinned(count: int, fraction: float, random: np.random.Generator) -> np.ndarray:
    """Indices of `count` frames without a random `fraction` of them; at least two stay."""
    dropped = min(round(count * fraction), max(count - 2, 0))
    return np.sort(random.permutation(count)[dropped:])
