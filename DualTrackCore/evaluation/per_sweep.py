"""All figures of one estimated trajectory against the tracking of its sweep.

The trajectories are compared as they are: nothing is scaled or fitted first. Pixels are counted from the centre
of the top-left one, which is pixel (0, 0). Definitions: :mod:`DualTrackCore.evaluation.definitions`.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.evaluation import definitions
from DualTrackCore.evaluation.all_pixels import PixelGrid
from DualTrackCore.evaluation.definitions import ReferencedPoses
from DualTrackCore.files import plain_values
from DualTrackCore.landmarks import Landmarks
from DualTrackCore.progress import CancelledCallback, Progress, ProgressCallback, Reporter
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Errors of one trajectory against the tracked one.

    Attributes:
        metrics: figure by name, all names of :data:`~DualTrackCore.evaluation.METRICS`, which has the definitions; a
            name ends in its unit. NaN where the figure is undefined (a drift rate without motion, a correlation with a
            constant, an error on landmarks without landmarks).
        baselines: the same metrics for `identity` (no motion at all) and for `mean_motion` (the mean true
            relative pose at every step); an estimate that is not better than these is useless.
        global_error_mm: [N] mean over all pixels with G; NaN where it does not count.
        local_error_mm: [N] mean over all pixels with L of frame i to i - 1; NaN where it does not count.
        drift_mm: [N] error of the image centre with G; NaN where a pose is invalid.
        reference_frame: index of the first frame valid in both; its own error is 0 and does not count.
        frames: number of frames of the sweep.
        frames_used: number of frames valid in both trajectories.
        landmarks_used: number of landmarks in frames that count.
    """

    metrics: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    global_error_mm: np.ndarray
    local_error_mm: np.ndarray
    drift_mm: np.ndarray
    reference_frame: int
    frames: int
    frames_used: int
    landmarks_used: int

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; undefined figures are None."""
        names = ("frames", "frames_used", "landmarks_used", "reference_frame", "metrics", "baselines")
        values = {name: getattr(self, name) for name in names}
        values["per_frame"] = {name: getattr(self, name) for name in ("global_error_mm", "local_error_mm", "drift_mm")}
        return plain_values(values)


def evaluate(
    predicted: Trajectory,
    sweep: Sweep,
    *,
    landmarks: Landmarks | None = None,
    tus_rec_pixels: bool = False,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> Evaluation:
    """Compare a trajectory with the tracking of its sweep.

    Both are re-expressed in the first frame that is valid in both. Frames invalid in either do not count, nor do
    landmarks in them; their poses are not read. A relative pose counts where both its frames do. The time does not
    depend on the size of the frames: see :mod:`DualTrackCore.evaluation.all_pixels`.

    Args:
        predicted: as many poses as the sweep has frames.
        sweep: with tracking, images and a known pixel spacing.
        landmarks: of this sweep, for GLE, LLE and the TUS-REC score.
        tus_rec_pixels: count the pixels from 1 for GPE, LPE, GLE, LLE and scores, as the challenge's code does.
        progress: receives `Stage.MEASURING` (frames); the detail is the name of a baseline.
        cancelled: asked between blocks of frames.

    Raises:
        InputError: no tracking, poses that are no truth (of unknown origin, or estimated), another number of frames,
            unknown spacing, no images, landmarks that are not in the sweep, or fewer than two frames that are valid in
            both.
        Cancelled: `cancelled` returned true.
    """
    return Reporter(progress, cancelled).finished(evaluate_in_pieces(predicted, sweep, landmarks, tus_rec_pixels))


def evaluate_in_pieces(
    predicted: Trajectory, sweep: Sweep, landmarks: Landmarks | None = None, tus_rec_pixels: bool = False
) -> Generator[Progress, None, Evaluation]:
    """:func:`evaluate`, a block of frames at each step; yields the progress."""
    used = _require_comparable(predicted, sweep, landmarks)
    true = ReferencedPoses.of(sweep.require_truth().poses, used)
    places = definitions.image_from_pixel(sweep, tus_rec_pixels)
    comparer = _Comparer(sweep, places, true, landmarks)
    estimates, compared = {"": ReferencedPoses.of(predicted.poses, used), **definitions.baseline_poses(true)}, {}
    for name, poses in estimates.items():
        compared[name] = yield from comparer.compare(poses, name)
    no_motion, _ = compared["identity"]
    metrics = {}
    for name, (figures, _) in compared.items():
        figures = {**figures, **definitions.scores(figures, no_motion)}
        metrics[name] = MappingProxyType({figure: figures[figure] for figure in definitions.METRICS})
    return Evaluation(
        metrics=metrics.pop(""),
        baselines=MappingProxyType(metrics),
        reference_frame=true.reference,
        frames=len(sweep),
        frames_used=int(used.sum()),
        **compared[""][1],
    )


def _require_comparable(predicted: Trajectory, sweep: Sweep, landmarks: Landmarks | None) -> np.ndarray:
    """[N] bool: frames valid in both."""
    truth = sweep.require_truth()
    if len(predicted) != len(sweep):
        raise InputError(
            f"The trajectory has {len(predicted)} poses and the sweep {len(sweep)} frames; the numbers must be equal."
        )
    sweep.require_images()
    sweep.require_spacing()
    if landmarks is not None:
        landmarks.require_inside(len(sweep), sweep.frame_size)
    used = predicted.valid & truth.valid
    if used.sum() < 2:
        raise InputError(
            f"Only {int(used.sum())} of {len(sweep)} frames are valid in both trajectories; at least 2 are needed."
        )
    return used


class _Comparer:
    """Measures estimates of one sweep against its truth."""

    def __init__(self, sweep: Sweep, places: np.ndarray, true: ReferencedPoses, landmarks: Landmarks | None) -> None:
        self._image_from_pixel, self._true, self._landmarks = places, true, landmarks
        self._pixels = PixelGrid(places, sweep.frame_size)
        self._five_points_mm = definitions.five_points_mm(sweep.image_from_pixel, sweep.frame_size)

    def compare(
        self, predicted: ReferencedPoses, detail: str
    ) -> Generator[Progress, None, tuple[dict[str, float], dict[str, Any]]]:
        """All figures but the scores, and the errors of each frame as fields of the :class:`Evaluation`."""
        true = self._true
        # The reference frame has no error by definition, so it does not count.
        true_poses = true.poses.copy()
        true_poses[true.reference] = np.nan
        differences = np.concatenate([predicted.poses - true_poses, predicted.relative - true.relative])
        errors = yield from self._pixels.mean_length(differences, detail)
        global_error, local_error = np.split(errors, [len(true_poses)])
        drift = np.linalg.norm(predicted.centres_mm - true.centres_mm, axis=1)
        gle, lle, landmarks_used = self._landmark_errors(predicted, true_poses)
        metrics = {
            "gpe_mm": _mean(global_error),
            "lpe_mm": _mean(local_error),
            "gpe_five_point_mm": _mean(definitions.mean_point_error(predicted.poses, true_poses, self._five_points_mm)),
            "lpe_five_point_mm": _mean(
                definitions.mean_point_error(predicted.relative, true.relative, self._five_points_mm)
            ),
            "gle_mm": gle,
            "lle_mm": lle,
            **definitions.drift_metrics(drift[true.used], true.centres_mm[true.used]),
            "hausdorff_mm": definitions.hausdorff_mm(predicted.centres_mm[true.used], true.centres_mm[true.used]),
            **definitions.correlations(predicted.relative, true.relative),
        }
        local_error = np.concatenate([[np.nan], local_error])
        return metrics, {
            "global_error_mm": global_error,
            "local_error_mm": local_error,
            "drift_mm": drift,
            "landmarks_used": landmarks_used,
        }

    def _landmark_errors(self, predicted: ReferencedPoses, true_poses: np.ndarray) -> tuple[float, float, int]:
        """GLE, LLE, and the number of landmarks in frames that count."""
        if self._landmarks is None:
            return math.nan, math.nan, 0
        no_pose = np.full((1, 4, 4), np.nan)
        relative = (np.concatenate([no_pose, poses.relative]) for poses in (predicted, self._true))
        global_errors = definitions.landmark_errors(
            predicted.poses, true_poses, self._landmarks, self._image_from_pixel
        )
        local_errors = definitions.landmark_errors(*relative, self._landmarks, self._image_from_pixel)
        return _mean(global_errors), _mean(local_errors), int(np.isfinite(global_errors).sum())


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan
