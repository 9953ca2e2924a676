"""Which frames an item takes, how its images are changed, and its poses re-expressed to match.

Everything random is a function of (seed, epoch, item), so that an interrupted run draws again what it would have drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from DualTrackCore.trajectory import invert_rigid, parameters_from_matrices

#: Conjugating with it mirrors x: what a left-right flip of the images does to poses.
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


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


def mirrored(relative: np.ndarray) -> np.ndarray:
    """Relative poses [..., 4, 4] as seen in images mirrored left to right about their centre."""
    return MIRROR @ relative @ MIRROR


def shifted(relative: np.ndarray, shift: tuple[int, int], spacing_mm: tuple[float, float]) -> np.ndarray:
    """Relative poses [..., 4, 4] about an origin that lies `shift` (rows, columns) pixels from the old one."""
    if shift == (0, 0):
        return relative
    image_from_crop = np.eye(4)
    image_from_crop[:2, 3] = shift[1] * spacing_mm[0], shift[0] * spacing_mm[1]
    return invert_rigid(image_from_crop) @ relative @ image_from_crop


def thinned(count: int, fraction: float, random: np.random.Generator) -> np.ndarray:
    """Indices of `count` frames without a random `fraction` of them; at least two stay."""
    dropped = min(round(count * fraction), max(count - 2, 0))
    return np.sort(random.permutation(count)[dropped:])
