"""Sweep to trajectory: preprocessing, the streaming engine and live tracking. Here: the estimate of the network for a
sweep of any length, and its direction.

Weights with a direction head give the motions of a sweep as if it ran towards +z of the image frame, and the log-odds
that it does. A sweep that runs the other way is mirrored (:mod:`~DualTrackCore.path_error`). A sweep longer than the
position table is processed in overlapping windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import Tensor

from DualTrackCore import lazy_exports
from DualTrackCore.errors import InputError
from DualTrackCore.path_error import AS_WEIGHTS_SAY, OTHER_WAY_SIGNS, SURE, TOLD, UNSURE, Direction
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.trajectory import Trajectory
from DualTrackCore.uncertainty import AS_STATED, grown_errors

if TYPE_CHECKING:
    from DualTrackCore.network.model import ModelCard
    from DualTrackCore.network.session import InferenceSession
    from DualTrackCore.tracking.engine import TrackingWarning as TrackingWarning
    from DualTrackCore.tracking.engine import estimate_trajectory as estimate_trajectory
    from DualTrackCore.tracking.live import LiveTracker as LiveTracker
    from DualTrackCore.tracking.live import ProvisionalPose as ProvisionalPose

__getattr__, __dir__, __all__ = lazy_exports(
    __name__, {"engine": ["TrackingWarning", "estimate_trajectory"], "live": ["LiveTracker", "ProvisionalPose"]}
)


@dataclass(frozen=True, eq=False)
class Estimate:
    """Motions of a sweep of N frames, with their variance and direction.

    Attributes:
        motions: [N - 1, 6] float64, mm and degrees, frame i + 1 in frame i.
        variance: [N - 1, 6] float64 of each component, mm^2 and degrees^2; None for weights without that head.
        log_odds: that the sweep runs as the motions do (natural logarithm); None for weights without that head.
    """

    motions: np.ndarray
    variance: np.ndarray | None = None
    log_odds: float | None = None

    @classmethod
    def mean(cls, estimates: Sequence[Estimate]) -> Estimate:
        """The mean of several estimates of one sweep; their errors are fully correlated, so variances stay."""
        first = estimates[0]
        return cls(
            np.mean([one.motions for one in estimates], axis=0),
            None if first.variance is None else np.mean([one.variance for one in estimates], axis=0),
            None if first.log_odds is None else float(np.mean([one.log_odds for one in estimates])),
        )

    def mirrored(self) -> Estimate:
        """The same sweep running the other way."""
        log_odds = None if self.log_odds is None else -self.log_odds
        return replace(self, motions=self.motions * OTHER_WAY_SIGNS, log_odds=log_odds)


def require_direction(direction: Direction) -> Direction:
    """The direction itself. Raises InputError: it is not a valid choice."""
    if direction not in get_args(Direction):
        raise InputError(f"The direction is {direction!r}; choose {', '.join(get_args(Direction))}.")
    return direction


def directed(estimate: Estimate, direction: Direction, card: ModelCard, provenance: Mapping[str, Any]) -> Trajectory:
    """The trajectory of an estimate, frame0_from_image in mm, in the direction of the setting.

    Args:
        estimate: of the network.
        direction: "auto" mirrors the estimate if its log-odds are below zero, "other-way" always. The direction head is
            ignored on a recorded sweep if the weights saw simulated sweeps only: it knows how simulated limbs taper.
        card: of the model: from where the direction is sure, and how the errors grow.
        provenance: of the trajectory.

    Returns:
        A trajectory with these additions to the provenance: `direction` (:data:`~DualTrackCore.path_error.SURE` or
        another of these); `direction_mirrored`, whether the estimate was mirrored; and `direction_log_odds` that the
        sweep runs as the trajectory does, None for weights without that head.

    Raises InputError: not a valid direction.
    """
    by_user = require_direction(direction) != "auto"
    uses_head = not (provenance.get("model_simulated_only") and provenance.get("guess"))
    mirrored = direction == "other-way" if by_user else uses_head and (estimate.log_odds or 0) < 0
    if mirrored:
        estimate = estimate.mirrored()
    if by_user or estimate.log_odds is None:
        certainty = TOLD if by_user else AS_WEIGHTS_SAY
    else:
        sure_from = card.direction_sure_logit
        certainty = SURE if uses_head and sure_from is not None and estimate.log_odds >= sure_from else UNSURE
    facts = {"direction": certainty, "direction_mirrored": mirrored, "direction_log_odds": estimate.log_odds}
    sigma = None
    if estimate.variance is not None:
        powers = card.step_error_powers or AS_STATED[0], card.step_error_growth or AS_STATED[1]
        sigma = grown_errors(np.sqrt(estimate.variance), estimate.motions, powers)
    return Trajectory.from_parameters(estimate.motions, {**provenance, **facts}, sigma=sigma)


def window_starts(frames: int, positions: int, every: int) -> list[int]:
    """First frames of windows of at most `positions` frames that cover the sweep.

    Windows start on frames of the global encoder (multiples of `every`), so its features are computed only once.
    Neighbours overlap by at least a quarter of their length.
    """
    if frames <= positions:
        return [0]
    last = -(-(frames - positions) // every) * every
    stride = max(positions * 3 // 4 // every, 1) * every
    steps = -(-last // stride)
    return sorted({round(last * step / steps / every) * every for step in range(steps + 1)})


def estimate_in_windows(
    session: InferenceSession, local_features: Tensor, global_features: Tensor, reporter: Reporter
) -> Estimate:
    """The estimate of the whole network for a sweep of any length.

    Motions and variances are averaged where windows overlap (:func:`motions_in_windows`). The log-odds of the direction
    are the mean of those of the windows, weighted by their number of motions. They are not added up, because windows
    share frames and anatomy. If they disagree, the mean is near zero, which is unsure.

    Args:
        session: of the network.
        local_features: class tokens [N, C] of all frames.
        global_features: pooled features [K, F] of every `global_every`-th frame of the network.
        reporter: as for :func:`motions_in_windows`.
    """
    network, frames, logit_of = session.network, len(local_features), {}
    every = network.global_every

    def columns(start: int, stop: int) -> Tensor:
        output = session.poses(local_features[start:stop], global_features[start // every : -(-stop // every)])
        if output.direction_logit is not None:
            logit_of[start, stop] = float(output.direction_logit)
        parts = [output.motions] if output.log_variance is None else [output.motions, output.log_variance.exp()]
        return torch.cat(parts, dim=-1)[0]

    averaged = motions_in_windows(frames, network.positions, every, columns, reporter).numpy()
    weights = [stop - start - 1 for start, stop in logit_of]
    logit = sum(w * x for w, x in zip(weights, logit_of.values(), strict=True)) / sum(weights) if logit_of else None
    return Estimate(averaged[:, :6], averaged[:, 6:] if averaged.shape[1] > 6 else None, logit)


def motions_in_windows(
    frames: int, positions: int, every: int, motions: Callable[[int, int], Tensor], reporter: Reporter
) -> Tensor:
    """Motions of a sweep of any length (and their variances) from those of windows.

    In an overlap, both windows are averaged with weights that fall linearly towards each window's end, where there is
    context on one side only. Averaging six parameters is exact enough: steps turn by far less than a degree.

    Args:
        frames: of the sweep.
        positions, every: see :func:`window_starts`.
        motions: [n - 1, 6 or more] of the n frames from the first given up to the second.
        reporter: receives `Stage.ATTENTION` (windows).

    Returns:
        [frames - 1, 6 or more] float64, on the CPU.
    """
    starts = window_starts(frames, positions, every)
    for done, start in enumerate(starts):
        reporter.report(Stage.ATTENTION, done, len(starts))
        stop = min(start + positions, frames)
        part = motions(start, stop).cpu().double()  # to the CPU first: Apple's GPUs have no float64
        index = torch.arange(1, len(part) + 1, dtype=torch.float64)[:, None]
        ramp = torch.minimum(index, len(part) + 1 - index) if len(starts) > 1 else torch.ones_like(index)
        if not done:
            total, weight = part.new_zeros(frames - 1, part.shape[1]), part.new_zeros(frames - 1, 1)
        total[start : stop - 1] += part * ramp
        weight[start : stop - 1] += ramp
    reporter.report(Stage.ATTENTION, len(starts), len(starts))
    return total / weight
