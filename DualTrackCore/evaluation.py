"""How far an estimated trajectory lies from a tracked one.

Every figure is of the trajectories as they are: nothing is scaled or fitted first. G_i maps frame i to the
reference frame, L_i maps frame i to frame i - 1; errors are distances between where the estimate and the
truth put a point. The definitions are those of the TUS-REC challenges and of the DualTrack paper (arXiv
2509.09530); pixels are counted from the centre of the top-left one, which is pixel (0, 0).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import (
    Trajectory,
    accumulate,
    invert_rigid,
    matrices_from_parameters,
    parameters_from_matrices,
)

#: Frames nearer than this to the reference, in mm, do not enter the average drift rate, which divides by it.
MIN_DISTANCE_MM = 0.1

_COMPONENTS = ("tx", "ty", "tz", "rx", "ry", "rz")

#: Rows of pixels measured at once; keeps the working set in the processor's cache.
_ROWS_A_BLOCK = 64


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Errors of one trajectory against the tracked one.

    Attributes:
        metrics: figure by name; the name ends in its unit. NaN where the figure is undefined (a drift rate
            without motion, a correlation with a constant).

            - `gpe_mm`, `lpe_mm`: mean over frames and all pixels of the error with G and with L;
            - `gpe_five_point_mm`, `lpe_five_point_mm`: the same over pixels (0, 0), (W, 0), (0, H), (W, H)
              and (W // 2, H // 2);
            - `final_drift_mm`, `max_drift_mm`, `sum_drift_mm`: error of the image centre with G;
            - `fdr_percent`, `fdr_path_percent`: final drift over the straight distance of the true last
              centre from the reference, and over the length of the true path. The two are not comparable;
            - `adr_percent`, `adr_path_percent`: mean over frames of drift over the distance so far, straight
              and along the path, without frames nearer than 0.1 mm;
            - `hausdorff_mm`: symmetric, between the two paths of image centres;
            - `correlation_tx` ... `correlation_rz`: Pearson's r of each component of the relative poses;
            - `path_length_mm`, `straight_distance_mm`: of the true path.
        baselines: the same metrics for `identity` (no motion at all) and for `mean_motion` (the mean true
            relative pose at every step): what an estimate must beat to be worth anything.
        global_error_mm: [N] mean over all pixels with G; NaN where it does not count.
        local_error_mm: [N] mean over all pixels with L of frame i to i - 1; NaN where it does not count.
        drift_mm: [N] error of the image centre with G; NaN where a pose is invalid.
        reference_frame: index of the first frame valid in both; its own error is 0 and does not count.
        frames: number of frames of the sweep.
        frames_used: number of frames valid in both trajectories.
    """

    metrics: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    global_error_mm: np.ndarray
    local_error_mm: np.ndarray
    drift_mm: np.ndarray
    reference_frame: int
    frames: int
    frames_used: int

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON; undefined figures are None."""
        return {
            "frames": self.frames,
            "frames_used": self.frames_used,
            "reference_frame": self.reference_frame,
            "metrics": _plain(self.metrics),
            "baselines": {name: _plain(metrics) for name, metrics in self.baselines.items()},
            "per_frame": {
                "global_error_mm": [_number(value) for value in self.global_error_mm],
                "local_error_mm": [_number(value) for value in self.local_error_mm],
                "drift_mm": [_number(value) for value in self.drift_mm],
            },
        }


def evaluate(
    predicted: Trajectory,
    sweep: Sweep,
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> Evaluation:
    """Compare a trajectory with the tracking of its sweep.

    Both are re-expressed in the first frame that is valid in both. Frames invalid in either do not count.

    Args:
        predicted: as many poses as the sweep has frames.
        sweep: with tracking, images and a known pixel spacing.

    Raises:
        InputError: no tracking, another number of frames, unknown spacing, no images, or fewer than two
            frames that are valid in both.
        Cancelled: `cancelled` returned true.
    """
    if sweep.tracked is None:
        raise InputError("The sweep has no tracking to compare with; choose a tracked sweep.")
    if len(predicted) != len(sweep):
        raise InputError(
            f"The trajectory has {len(predicted)} poses and the sweep {len(sweep)} frames; the numbers must be equal."
        )
    sweep.require_images()
    points = _Points(sweep.image_from_pixel, *sweep.frame_size)
    used = predicted.valid & sweep.tracked.valid
    if used.sum() < 2:
        raise InputError(
            f"Only {int(used.sum())} of {len(sweep)} frames are valid in both trajectories; at least 2 are needed."
        )
    reporter = Reporter(progress, cancelled)
    true = _Poses.of(sweep.tracked.poses, used)
    comparison = _compare(_Poses.of(predicted.poses, used), true, points, reporter, "Measuring errors")
    baselines = {
        name: MappingProxyType(_compare(poses, true, points, reporter, f"Measuring baseline {name}").metrics)
        for name, poses in _baselines(true).items()
    }
    return Evaluation(
        metrics=MappingProxyType(comparison.metrics),
        baselines=MappingProxyType(baselines),
        global_error_mm=comparison.global_error_mm,
        local_error_mm=comparison.local_error_mm,
        drift_mm=comparison.drift_mm,
        reference_frame=true.reference,
        frames=len(sweep),
        frames_used=int(used.sum()),
    )


@dataclass(frozen=True)
class _Poses:
    """Poses in the reference frame, NaN where not `used`, and relative poses, NaN where either end is not."""

    poses: np.ndarray
    relative: np.ndarray
    used: np.ndarray
    reference: int

    @classmethod
    def of(cls, frame0_from_image: np.ndarray, used: np.ndarray) -> _Poses:
        reference = int(np.argmax(used))
        poses = invert_rigid(frame0_from_image[reference]) @ np.where(used[:, None, None], frame0_from_image, np.nan)
        poses[reference] = np.eye(4)
        return cls(poses, invert_rigid(poses[:-1]) @ poses[1:], used, reference)


@dataclass(frozen=True)
class _Comparison:
    metrics: dict[str, float]
    global_error_mm: np.ndarray
    local_error_mm: np.ndarray
    drift_mm: np.ndarray


class _Points:
    """The pixels of a frame at which errors are measured."""

    def __init__(self, image_from_pixel: np.ndarray, height: int, width: int) -> None:
        self._image_from_pixel = image_from_pixel
        self._columns = np.arange(width, dtype=np.float64)
        self._rows = np.arange(height, dtype=np.float64)[:, None]
        corners = [(0, 0), (width, 0), (0, height), (width, height), (width // 2, height // 2)]
        self._five = np.array([(u, v, 0, 1) for u, v in corners], dtype=np.float64).T

    def mean_at_five(self, difference: np.ndarray) -> np.ndarray:
        """[n] mm: mean length over the five points of `difference` [n, 4, 4] applied to them."""
        moved = (difference @ self._image_from_pixel @ self._five)[:, :3]
        return np.linalg.norm(moved, axis=1).mean(axis=1)

    def mean_over_all(self, difference: np.ndarray, reporter: Reporter, stage: str) -> np.ndarray:
        """[n] mm: mean length over all pixels of `difference` [n, 4, 4] applied to them; NaN stays NaN.

        The difference of two affine maps takes pixel (u, v) to a u + b v + c. The length does not change
        when that is turned so that a lies along the first axis and b in the plane of the first two, which
        leaves one square root of two terms a pixel, and no cancellation near zero.
        """
        maps = (difference @ self._image_from_pixel)[:, :3][:, :, [0, 1, 3]]
        means = np.full(len(maps), np.nan)
        counted = np.flatnonzero(np.isfinite(maps).all(axis=(1, 2)))
        for done, i in enumerate(counted):
            if done % 16 == 0:
                reporter.report(stage, done, len(counted))
            means[i] = self._mean_length(np.linalg.qr(maps[i], mode="r"))
        reporter.report(stage, len(counted), len(counted))
        return means

    def _mean_length(self, turned: np.ndarray) -> float:
        """Mean length of `turned` @ (u, v, 1) over all pixels; `turned` is upper triangular [3, 3]."""
        first = turned[0, 0] * self._columns
        offset = turned[0, 1] * self._rows + turned[0, 2]
        rest = (turned[1, 1] * self._rows + turned[1, 2]) ** 2 + turned[2, 2] ** 2
        buffer = np.empty((min(_ROWS_A_BLOCK, len(offset)), len(first)))
        total = 0.0
        for start in range(0, len(offset), _ROWS_A_BLOCK):
            block = slice(start, start + _ROWS_A_BLOCK)
            length = buffer[: len(offset[block])]
            np.add(first, offset[block], out=length)
            np.multiply(length, length, out=length)
            np.add(length, rest[block], out=length)
            np.sqrt(length, out=length)
            total += float(length.sum())
        return total / (len(offset) * len(first))


def _compare(predicted: _Poses, true: _Poses, points: _Points, reporter: Reporter, stage: str) -> _Comparison:
    in_reference = predicted.poses - true.poses
    in_reference[true.reference] = np.nan
    between_frames = predicted.relative - true.relative
    unknown = [np.nan]
    global_error = points.mean_over_all(in_reference, reporter, stage)
    local_error = np.concatenate([unknown, points.mean_over_all(between_frames, reporter, stage)])
    drift = np.linalg.norm(predicted.poses[:, :3, 3] - true.poses[:, :3, 3], axis=1)
    metrics = {
        "gpe_mm": _mean(global_error),
        "lpe_mm": _mean(local_error),
        "gpe_five_point_mm": _mean(points.mean_at_five(in_reference)),
        "lpe_five_point_mm": _mean(points.mean_at_five(between_frames)),
        **_drift_metrics(drift[true.used], true.poses[true.used, :3, 3]),
        "hausdorff_mm": _hausdorff(predicted.poses[true.used, :3, 3], true.poses[true.used, :3, 3]),
        **_correlations(predicted.relative, true.relative),
    }
    return _Comparison(metrics, global_error, local_error, drift)


def _baselines(true: _Poses) -> dict[str, _Poses]:
    steps = true.relative[np.isfinite(true.relative).all(axis=(1, 2))]
    count = len(true.poses)
    baselines = {"identity": np.tile(np.eye(4), (count, 1, 1))}
    if len(steps):
        mean_step = matrices_from_parameters(parameters_from_matrices(steps).mean(axis=0))
        baselines["mean_motion"] = accumulate(np.tile(mean_step, (count - 1, 1, 1)))
    return {name: _Poses.of(poses, true.used) for name, poses in baselines.items()}


def _drift_metrics(drift_mm: np.ndarray, true_centres_mm: np.ndarray) -> dict[str, float]:
    """Metrics of the image centre over the used frames, the reference first: drift [n], centres [n, 3]."""
    straight = np.linalg.norm(true_centres_mm - true_centres_mm[0], axis=1)
    path = np.concatenate([[0.0], np.linalg.norm(np.diff(true_centres_mm, axis=0), axis=1).cumsum()])
    return {
        "final_drift_mm": float(drift_mm[-1]),
        "max_drift_mm": float(drift_mm.max()),
        "sum_drift_mm": float(drift_mm.sum()),
        "fdr_percent": _percent(drift_mm[-1:], straight[-1:], 0.0),
        "fdr_path_percent": _percent(drift_mm[-1:], path[-1:], 0.0),
        "adr_percent": _percent(drift_mm, straight, MIN_DISTANCE_MM),
        "adr_path_percent": _percent(drift_mm, path, MIN_DISTANCE_MM),
        "path_length_mm": float(path[-1]),
        "straight_distance_mm": float(straight[-1]),
    }


def _percent(part: np.ndarray, whole: np.ndarray, least: float) -> float:
    """Mean of 100 part / whole where `whole` is above 0 and at least `least`; NaN where it never is."""
    kept = (whole > 0) & (whole >= least)
    return float((100 * part[kept] / whole[kept]).mean()) if kept.any() else math.nan


def _hausdorff(one: np.ndarray, other: np.ndarray) -> float:
    """Largest distance of a point of either path [n, 3] from the nearest of the other; point by point."""
    nearest_to_other = np.full(len(other), np.inf)
    largest = 0.0
    for point in one:
        distances = np.linalg.norm(other - point, axis=1)
        largest = max(largest, float(distances.min()))
        np.minimum(nearest_to_other, distances, out=nearest_to_other)
    return max(largest, float(nearest_to_other.max()))


def _correlations(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Pearson's r of the six components of relative poses [n, 4, 4]; NaN where one of them does not vary."""
    known = np.isfinite(true).all(axis=(1, 2))
    columns = [parameters_from_matrices(relative[known]).T for relative in (predicted, true)]
    return {f"correlation_{name}": _pearson(*pair) for name, *pair in zip(_COMPONENTS, *columns, strict=True)}


def _pearson(one: np.ndarray, other: np.ndarray) -> float:
    if len(one) < 2:
        return math.nan
    deviations = [values - values.mean() for values in (one, other)]
    norms = [np.linalg.norm(deviation) for deviation in deviations]
    # A component that is constant up to rounding has no direction to correlate with.
    if any(norm <= 1e-9 * math.sqrt(len(one)) for norm in norms):
        return math.nan
    return float(np.clip(deviations[0] @ deviations[1] / (norms[0] * norms[1]), -1, 1))


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in metrics.items()}
