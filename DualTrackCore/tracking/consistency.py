"""How far estimates of the same sweep agree that ought to: consistency, not accuracy.

The network is run again on the sweep backwards, mirrored, and with the local crop elsewhere; each run, its poses
brought back, ought to give the same motion. Speckle gives a second opinion on the step off the plane, from how fast it
changes.
Where estimates disagree, they cannot all be right; where they agree, they may still be wrong together, so a small
figure promises nothing. Frames that stand out are those to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from DualTrackCore.errors import InputError
from DualTrackCore.evaluation.points import five_points_mm, mean_point_error
from DualTrackCore.network.model import Model
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking.device import Precision
from DualTrackCore.tracking.engine import estimate_trajectory, run_whole
from DualTrackCore.tracking.preprocessing import Preprocessor
from DualTrackCore.tracking.speckle.curves import DecorrelationCurves
from DualTrackCore.tracking.speckle.likeness import sweep_likeness
from DualTrackCore.tracking.speckle.steps import elevational_steps
from DualTrackCore.tracking.views import backwards, flipped_sweep, mirrored, reversed_sweep, shifted
from DualTrackCore.trajectory import Trajectory, accumulate, matrices_from_parameters

#: What an estimate is compared with; each but the last is one more run of the network.
VARIANTS = ("reverse", "flip", "crop", "decorrelation")
#: To be shown beside the figure wherever it is shown.
NOTE = (
    "Consistency, not accuracy: how far estimates of the same sweep agree (mm at five points of the frame). Estimates "
    "that agree may be wrong together."
)


@dataclass(frozen=True, eq=False)
class Consistency:
    """Disagreement of the estimates of one sweep, mm; 0 is full agreement.

    Attributes:
        per_frame: [N] disagreement about the motion from the frame before: root mean square over the parts; NaN for the
            first frame.
        parts: [N] each, by variant. "reverse", "flip", "crop": mean over five points of the frame of the distance
            between where the relative poses of the estimate and of that run put them. "decorrelation": difference of
            the lengths of the elevational steps of the image centre, by the estimate and by how much speckle changed,
            which is scaled to fit the estimate over the whole sweep; a wrong sign or scale of all frames cannot show.
        path_mm: mean over frames of the five-point distance between the poses of the estimate and of the runs of the
            network, each accumulated from the first frame, root mean square over the runs; NaN without such runs.
        left_out: by variant that could not be had, the sentence why.
    """

    per_frame: np.ndarray
    parts: Mapping[str, np.ndarray]
    path_mm: float
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def sweep_mm(self) -> float:
        """Mean of `per_frame` over the sweep; NaN without any part."""
        known = self.per_frame[np.isfinite(self.per_frame)]
        return float(known.mean()) if len(known) else float("nan")

    def summary(self) -> dict[str, Any]:
        """What is said of the sweep, as plain values; figures that are unknown are None."""
        means = {name: _number(np.nanmean(values)) for name, values in self.parts.items()}
        return {
            "note": NOTE,
            "mean_mm": _number(self.sweep_mm),
            "path_mm": _number(self.path_mm),
            "parts_mean_mm": means,
            "left_out": dict(self.left_out),
        }


def consistency(
    sweep: Sweep,
    model: Model,
    *,
    trajectory: Trajectory | None = None,
    variants: Iterable[str] = VARIANTS,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
    chunk_frames: int | str = "auto",
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> Consistency:
    """How far estimates of a sweep's motion agree.

    Takes up to three more runs of the network and one of speckle matching, one after another, each in the bounded
    memory of :func:`~DualTrackCore.tracking.estimate_trajectory`.

    Args:
        sweep, model, device, precision, chunk_frames: as in `estimate_trajectory`.
        trajectory: what that gave for this sweep and model; run anew where None.
        variants: of :data:`VARIANTS`. Those that this sweep cannot have, because its frames are no larger than the crop
            or show too little speckle, are left out and named in the result.
        progress: told of stages that start with "consistency, ".
        cancelled: asked between pieces of work.

    Raises:
        InputError: an unknown variant, a trajectory of another length or with invalid poses, or as in
            `estimate_trajectory`.
        OutOfMemoryError, Cancelled: as there.
    """
    chosen = tuple(dict.fromkeys(variants))
    if unknown := [name for name in chosen if name not in VARIANTS]:
        raise InputError(f"There is no variant {', '.join(map(str, unknown))}; choose of {', '.join(VARIANTS)}.")
    reporter = Reporter(progress, cancelled)
    options = {"device": device, "precision": precision, "chunk_frames": chunk_frames}
    if trajectory is None:
        trajectory = estimate_trajectory(
            sweep, model, progress=_named(reporter, "estimate"), cancelled=cancelled, **options
        )
    if len(trajectory) != len(sweep) or not trajectory.valid.all():
        raise InputError(
            f"The trajectory has {int(trajectory.valid.sum())} valid poses for {len(sweep)} frames; consistency needs "
            "the estimate of every frame."
        )
    checks, left_out = _Checks(sweep, model, trajectory, reporter, options), {}
    for name in chosen:
        reason = checks.add(name)
        if reason is not None:
            left_out[name] = reason
    return checks.result(left_out)


def with_consistency(trajectory: Trajectory, found: Consistency) -> Trajectory:
    """The trajectory with the figures in its provenance, plain values.

    "consistency" is `per_frame` as a list, None for the first frame; "consistency_summary" is
    :meth:`Consistency.summary`.
    """
    if len(found.per_frame) != len(trajectory):
        raise InputError(
            f"The consistency of {len(found.per_frame)} frames came with {len(trajectory)} poses; they must be equal."
        )
    per_frame = [_number(value) for value in found.per_frame]
    told = {"consistency": per_frame, "consistency_summary": found.summary()}
    return replace(trajectory, provenance={**trajectory.provenance, **told})


class _Checks:
    """Compares one estimate with others of the same sweep."""

    def __init__(self, sweep: Sweep, model: Model, trajectory: Trajectory, reporter: Reporter, options: dict) -> None:
        self._sweep, self._model, self._trajectory = sweep, model, trajectory
        self._reporter, self._options = reporter, options
        self._relative = trajectory.relative
        self._points_mm = five_points_mm(sweep.image_from_pixel, sweep.frame_size)
        self._parts: dict[str, np.ndarray] = {}
        self._paths: list[np.ndarray] = []

    def add(self, name: str) -> str | None:
        """Compare with one variant; a sentence where it cannot be had."""
        if name == "decorrelation":
            return self._add_decorrelation()
        other = {"reverse": self._reverse, "flip": self._flip, "crop": self._crop}[name]()
        if other is None:
            crop = self._model.network.crop_size
            return f"At the model's spacing the frames leave its {crop} x {crop} crop no room to move."
        self._parts[name] = mean_point_error(other, self._relative, self._points_mm)
        self._paths.append(mean_point_error(accumulate(other)[1:], accumulate(self._relative)[1:], self._points_mm))
        return None

    def result(self, left_out: Mapping[str, str]) -> Consistency:
        unknown = [np.nan]
        parts = {name: np.concatenate([unknown, values]) for name, values in self._parts.items()}
        per_frame = _root_mean_square(list(self._parts.values()), len(self._relative))
        path = _root_mean_square(self._paths, len(self._relative)).mean()
        return Consistency(
            np.concatenate([unknown, per_frame]), MappingProxyType(parts), float(path), MappingProxyType(dict(left_out))
        )

    def _run(self, sweep: Sweep, stage: str, crop_shift: tuple[int, int] = (0, 0)) -> np.ndarray:
        """Relative poses [N - 1, 4, 4] that the network gives."""
        reporter = Reporter(_named(self._reporter, stage), self._cancelled)
        parameters, _ = run_whole(sweep, self._model, crop_shift=crop_shift, reporter=reporter, **self._options)
        return matrices_from_parameters(parameters)

    def _reverse(self) -> np.ndarray:
        return backwards(self._run(reversed_sweep(self._sweep), "reversed"))

    def _flip(self) -> np.ndarray:
        return mirrored(self._run(flipped_sweep(self._sweep), "mirrored"))

    def _crop(self) -> np.ndarray | None:
        shift = crop_shift(self._sweep, self._model)
        if shift == (0, 0):
            return None
        moved = self._run(self._sweep, "crop elsewhere", shift)
        return shifted(moved, (-shift[0], -shift[1]), self._model.card.spacing_mm)

    def _add_decorrelation(self) -> str | None:
        reporter = Reporter(_named(self._reporter, "decorrelation"), self._cancelled)
        try:
            seen = sweep_likeness(self._sweep, reporter)
        except InputError as error:
            return str(error)
        try:
            curves = DecorrelationCurves.fitted([(seen, self._trajectory)])
        except InputError:
            return "The speckle does not change with the estimated steps in a way that could check them."
        # Neither the width of the beam nor the sign can be known from the images: the lengths are compared, after one
        # factor for the whole sweep.
        steps, own = elevational_steps(curves, seen)[:, 0], np.abs(self._relative[:, 2, 3])
        scale = (steps @ own) / max(steps @ steps, 1e-12)
        self._parts["decorrelation"] = np.abs(scale * steps - own)
        return None

    def _cancelled(self) -> bool:
        """Never asks to stop by itself: the reporter raises when the caller wants it."""
        self._reporter.check()
        return False


def crop_shift(sweep: Sweep, model: Model) -> tuple[int, int]:
    """How far the crop is moved, (rows, columns) in pixels at the model's spacing: half its size, if there is room.

    (0, 0) where the frames are no larger than the crop.
    """
    network = model.network
    preprocessor = Preprocessor(
        sweep.frame_size,
        sweep.require_spacing(),
        model.card.spacing_mm,
        network.crop_size,
        network.global_size,
    )
    (_, down), (_, across) = preprocessor.shift_limits
    most = network.crop_size // 2
    return max(0, min(down, most)), max(0, min(across, most))


def _root_mean_square(parts: list[np.ndarray], count: int) -> np.ndarray:
    """[count] over the parts; NaN without any."""
    if not parts:
        return np.full(count, np.nan)
    return np.sqrt(np.mean(np.square(parts), axis=0))


def _named(reporter: Reporter, what: str) -> Callable:
    return lambda report: reporter.report(f"consistency, {what}: {report.stage}", report.done, report.total)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
