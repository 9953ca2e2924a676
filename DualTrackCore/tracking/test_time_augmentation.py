"""Test-time augmentation: the sweep backwards or mirrored, or with another crop, and how its poses change."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.sweep import FrameSource, Sweep
from DualTrackCore.tracking import Estimate
from DualTrackCore.trajectory import accumulate, invert_rigid, matrices_from_parameters, parameters_from_matrices

#: Conjugation with it mirrors x: the effect of a left-right flip of the images on poses.
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
#: Numbers of runs: the sweep as it is; also mirrored; also both of these backwards.
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
    """The frames in reverse order, read on demand, without times and tracking."""
    frames = _ChangedFrames(sweep.frames, backwards=True)
    return replace(sweep, frames=frames, frame_valid=sweep.frame_valid[::-1], timestamps_s=None, tracked=None)


def flipped_sweep(sweep: Sweep) -> Sweep:
    """The frames mirrored left to right, read on demand, without tracking."""
    return replace(sweep, frames=_ChangedFrames(sweep.frames, mirror=True), tracked=None, skew_deg=-sweep.skew_deg)


@dataclass(frozen=True)
class Augmentation:
    """A change of a sweep with a known effect on its motion.

    Attributes:
        name: for reports and provenance.
        apply: from the sweep to the changed one.
        undo: from relative poses [N - 1, 4, 4] of the changed sweep to those of the sweep.
        turns: whether the frames are in reverse order.
    """

    name: str
    apply: Callable[[Sweep], Sweep]
    undo: Callable[[np.ndarray], np.ndarray]
    turns: bool = False

    def undone(self, estimate: Estimate) -> Estimate:
        """The estimate of the sweep from that of the changed one.

        Weights with a direction head give motions as if every sweep ran towards +z. So in reverse order, the motions
        are mirrored and the log-odds change sign.
        """
        motions = parameters_from_matrices(self.undo(matrices_from_parameters(estimate.motions)))
        variance = estimate.variance if estimate.variance is None or not self.turns else estimate.variance[::-1]
        undone = Estimate(motions, variance, estimate.log_odds)
        return undone.mirrored() if self.turns and estimate.log_odds is not None else undone


_OTHERS = (
    Augmentation("mirrored", flipped_sweep, mirrored),
    Augmentation("backwards", reversed_sweep, backwards, turns=True),
    Augmentation(
        "backwards and mirrored",
        lambda sweep: flipped_sweep(reversed_sweep(sweep)),
        lambda relative: backwards(mirrored(relative)),
        turns=True,
    ),
)


def augmentations(count: int) -> tuple[Augmentation, ...]:
    """The views beside the sweep as it is: the first `count` - 1 of mirrored, backwards, both.

    Raises InputError: another number than 1, 2 or 4.
    """
    if count not in AUGMENTATION_COUNTS or isinstance(count, bool):
        raise InputError(f"The test-time augmentation is {count!r}; choose {', '.join(map(str, AUGMENTATION_COUNTS))}.")
    return _OTHERS[: count - 1]


def agreement(motions: np.ndarray, sweep: Sweep) -> tuple[np.ndarray, float]:
    """Select the views of a sweep to average, by the positions of its frames.

    Two views contradict each other if the distance between their frames is larger than the displacement of the frames
    in one of them. Then, if one is right, no motion is a better estimate than the other, and in their mean opposite
    motions cancel. The usual reason is the direction along the sweep, which speckle does not show. Selected is the
    largest group of views without a contradiction if it has more than half of the views; else the largest such group
    with the sweep as it is. Of equal groups, first the one with the sweep as it is, then the closest one is selected.

    Args:
        motions: [V, N - 1, 6], mm and degrees, of the sweep itself; the first from the sweep as it is.
        sweep: gives the corners of the frames for the distances.

    Returns:
        [V] bool, the selected views; and the mean distance over all pairs of views, frames and corners, mm.
    """
    count, (height, width) = len(motions), sweep.frame_size
    pixels = [(0, width - 1, 0, width - 1), (0, 0, height - 1, height - 1), (0, 0, 0, 0), (1, 1, 1, 1)]
    corners_mm = sweep.image_from_pixel @ np.array(pixels)
    placed = [accumulate(matrices_from_parameters(view)) @ corners_mm for view in motions]
    apart = np.array([[_mean_distance(one, other) for other in placed] for one in placed])
    moved = np.array([_mean_distance(one, one[:1]) for one in placed])
    agrees = apart <= np.minimum(moved, moved[:, None])

    def worth(group: tuple[int, ...]) -> tuple[int, bool, float]:
        decides = 0 in group or 2 * len(group) > count
        return len(group) * decides, 0 in group, -apart[np.ix_(group, group)].sum()

    groups = (group for size in range(1, count + 1) for group in itertools.combinations(range(count), size))
    best = max((group for group in groups if agrees[np.ix_(group, group)].all()), key=worth)
    return np.isin(np.arange(count), best), float(apart.sum() / max(count * (count - 1), 1))


def _mean_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance between points [N, 4, P] and others."""
    return float(np.linalg.norm(one - other, axis=1).mean())


def contradiction(left_out: list[str], count: int, apart_mm: float) -> str:
    """The warning that some of `count` views were left out, by their names."""
    return (
        f"The views of the sweep contradict each other ({apart_mm:.1f} mm apart on average): "
        f"{count - len(left_out)} of {count} were averaged and {', '.join(left_out)} left out. The direction of the "
        "motion is uncertain; do not rely on this trajectory without a check."
    )


class _ChangedFrames:
    """A source of frames: those of another source backwards, mirrored, or both."""

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
