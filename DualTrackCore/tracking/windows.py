"""The transformers over sweeps of any length: overlapping windows, and what they find put together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from DualTrackCore.network.dualtrack import DualTrack
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.tracking.estimate import Estimate


def window_starts(frames: int, positions: int, every: int) -> list[int]:
    """First frames of windows of at most `positions` frames that cover the sweep.

    Windows start on frames that the global encoder sees (multiples of `every`), so that its features are computed once,
    and overlap by at least a quarter of their length.
    """
    if frames <= positions:
        return [0]
    last = -(-(frames - positions) // every) * every
    stride = max(positions * 3 // 4 // every, 1) * every
    steps = -(-last // stride)
    return sorted({round(last * step / steps / every) * every for step in range(steps + 1)})


def estimate_in_windows(
    network: DualTrack, local_features: Tensor, global_features: Tensor, reporter: Reporter
) -> Estimate:
    """What the whole network finds in a sweep of any length: the head that it is trained for.

    Motions and variances are averaged where windows overlap (:func:`motions_in_windows`). The log-odds of the direction
    are the mean of those of the windows, weighted by their motions: as windows share frames and what is seen in them,
    they are one witness heard several times, and adding them up would make a long sweep sure of anything. Where they
    disagree, the mean is near zero, which is unsure.

    Args:
        network: in evaluation mode.
        local_features: class tokens [N, C] of all frames.
        global_features: pooled features [K, F] of every `network.global_every`-th frame.
        reporter: as for :func:`motions_in_windows`.
    """
    every, frames, logit_of = network.global_every, len(local_features), {}

    def columns(start: int, stop: int) -> Tensor:
        found = network.output_from_features(
            local_features[None, start:stop], global_features[None, start // every : -(-stop // every)]
        )
        if found.direction_logit is not None:
            logit_of[start, stop] = float(found.direction_logit)
        parts = [found.motions] if found.log_variance is None else [found.motions, found.log_variance.exp()]
        return torch.cat(parts, dim=-1)[0]

    averaged = motions_in_windows(frames, network.positions, every, columns, reporter).numpy()
    weights = [stop - start - 1 for start, stop in logit_of]
    logit = sum(w * x for w, x in zip(weights, logit_of.values(), strict=True)) / sum(weights) if logit_of else None
    return Estimate(averaged[:, :6], averaged[:, 6:] if averaged.shape[1] > 6 else None, logit)


def motions_in_windows(
    frames: int, positions: int, every: int, motions: Callable[[int, int], Tensor], reporter: Reporter
) -> Tensor:
    """Motions of a sweep of any length, and what else there is of each step, from those of windows.

    In an overlap, the relative poses of the two windows are averaged with weights that fall linearly towards each
    window's end, where it sees context on one side only. Averaging six-parameter motions is exact enough because single
    steps are far below a degree apart.

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
        part = motions(start, stop).cpu().double()  # the processor first: Apple's GPUs have no float64
        index = torch.arange(1, len(part) + 1, dtype=torch.float64)[:, None]
        ramp = torch.minimum(index, len(part) + 1 - index) if len(starts) > 1 else torch.ones_like(index)
        if not done:
            total, weight = part.new_zeros(frames - 1, part.shape[1]), part.new_zeros(frames - 1, 1)
        total[start : stop - 1] += part * ramp
        weight[start : stop - 1] += ramp
    reporter.report(Stage.ATTENTION, len(starts), len(starts))
    return total / weight
