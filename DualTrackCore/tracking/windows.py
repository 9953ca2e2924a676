"""Sweeps longer than the network's position table: overlapping windows, stitched by averaging where they overlap."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from DualTrackCore.network.dualtrack import DualTrack


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


def poses_in_windows(
    network: DualTrack, local_features: Tensor, global_features: Tensor, report: Callable[[int, int], None]
) -> Tensor:
    """Relative poses of a sweep of any length, by the whole network.

    Args:
        network: in evaluation mode.
        local_features: class tokens [N, C] of all frames.
        global_features: pooled features [K, F] of every `network.global_every`-th frame.
        report: called with (windows done, windows).

    Returns:
        [N - 1, 6] float64, mm and degrees.
    """
    every = network.global_every

    def poses(start: int, stop: int) -> Tensor:
        return network.poses_from_features(
            local_features[None, start:stop], global_features[None, start // every : -(-stop // every)]
        )[0]

    return motions_in_windows(len(local_features), network.positions, every, poses, report)


def motions_in_windows(
    frames: int,
    positions: int,
    every: int,
    motions: Callable[[int, int], Tensor],
    report: Callable[[int, int], None],
) -> Tensor:
    """Motions of a sweep of any length from those of windows.

    In an overlap, the relative poses of the two windows are averaged with weights that fall linearly towards each
    window's end, where it sees context on one side only. Averaging six-parameter motions is exact enough because single
    steps are far below a degree apart.

    Args:
        frames: of the sweep.
        positions, every: see :func:`window_starts`.
        motions: [n - 1, 6] of the n frames from the first given up to the second.
        report: called with (windows done, windows).

    Returns:
        [frames - 1, 6] float64.
    """
    starts = window_starts(frames, positions, every)
    total = torch.zeros(frames - 1, 6, dtype=torch.float64)
    weight = torch.zeros(frames - 1, 1, dtype=torch.float64)
    for done, start in enumerate(starts):
        report(done, len(starts))
        stop = min(start + positions, frames)
        part = motions(start, stop).cpu().double()  # the processor first: Apple's GPUs have no float64
        index = torch.arange(1, len(part) + 1, dtype=torch.float64)[:, None]
        ramp = torch.minimum(index, len(part) + 1 - index) if len(starts) > 1 else torch.ones_like(index)
        total[start : stop - 1] += part * ramp
        weight[start : stop - 1] += ramp
    report(len(starts), len(starts))
    return total / weight
