"""Test-time augmentation: the same sweep backwards, mirrored, or cropped elsewhere, and its poses then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.sweep import FrameSource, Sweep
from DualTrackCore.trajectory import invert_rigid

#: Conjugating with it mirrors x: what a left-right flip of the images does to poses.
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
#: Numbers of runs: the sweep as it is; mirrored as well; and both of them backwards as well.
AUGMENTATION_COUNTS = (1, 2, 4)


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


def backwards(relative: np.ndarray) -> np.ndarray:
    """Relative poses [N - 1, 4, 4] of the frames in reverse order."""
    return invert_rigid(relative)[::-1]


def reversed_sweep(sweep: Sweep) -> Sweep:
    """The frames in reverse order, read when they are asked for, without times and tracking."""
    frames = _ChangedFrames(sweep.frames, backwards=True)
    return replace(sweep, frames=frames, frame_valid=sweep.frame_valid[::-1], timestamps_s=None, tracked=None)


def flipped_sweep(sweep: Sweep) -> Sweep:
    """The frames mirrored left to right, read when they are asked for, without tracking."""
    return replace(sweep, frames=_ChangedFrames(sweep.frames, mirror=True), tracked=None, skew_deg=-sweep.skew_deg)


@dataclass(frozen=True)
class Augmentation:
    """A change of a sweep whose motion gives that of the sweep.

    Attributes:
        name: for reports and provenance.
        apply: from the sweep to the one that the network sees.
        undo: from relative poses [N - 1, 4, 4] of the changed sweep to those of the sweep.
    """

    name: str
    apply: Callable[[Sweep], Sweep]
    undo: Callable[[np.ndarray], np.ndarray]


_OTHERS = (
    Augmentation("mirrored", flipped_sweep, mirrored),
    Augmentation("backwards", reversed_sweep, backwards),
    Augmentation(
        "backwards and mirrored",
        lambda sweep: flipped_sweep(reversed_sweep(sweep)),
        lambda relative: backwards(mirrored(relative)),
    ),
)


def augmentations(count: int) -> tuple[Augmentation, ...]:
    """The changed sweeps that are run beside the sweep as it is: the first of mirrored, backwards, both.

    Raises:
        InputError: another number than 1, 2 or 4.
    """
    if count not in AUGMENTATION_COUNTS or isinstance(count, bool):
        raise InputError(f"The test-time augmentation is {count!r}; choose {', '.join(map(str, AUGMENTATION_COUNTS))}.")
    return _OTHERS[: count - 1]


class _ChangedFrames:
    """A source of frames that reads another one backwards or mirrors what it gives."""

    def __init__(self, source: FrameSource, *, backwards: bool = False, mirror: bool = False) -> None:
        self.shape, self.dtype = source.shape, source.dtype
        self._source, self._backwards, self._mirror = source, backwards, mirror

    def __getitem__(self, key: slice) -> np.ndarray:
        start, stop, _ = key.indices(self.shape[0])
        if self._backwards:
            start, stop = self.shape[0] - stop, self.shape[0] - start
        images = np.asarray(self._source[start:stop])
        images = images[::-1] if self._backwards else images
        return images[:, :, ::-1] if self._mirror else images
