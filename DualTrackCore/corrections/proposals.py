"""Where a probe may have come back, by the pictures."""

from __future__ import annotations

import numpy as np

from DualTrackCore.corrections.knowledge import SamePlace
from DualTrackCore.repeats import small_pictures, speckle_correlation
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

#: Frames that are compared with each other, at most; in between every second, third, ... is left out.
_COMPARED = 1024
#: Correlation of two pictures at one place; how much less alike the pictures between them are; frames between them.
_ALIKE, _LESS, _APART = 0.5, 0.25, 20
#: Of two frames nearer than this to those of a better pair no second proposal is made; proposals, and pairs that are
#: looked at, at most.
_NEAR, _MOST, _LOOKED_AT = 10, 8, 20000
#: Digits of correlations that are compared.
_DIGITS = 4


def propose_loops(sweep: Sweep, trajectory: Trajectory) -> list[tuple[SamePlace, float]]:
    """Pairs of far frames whose pictures are alike, while those between them are not, the most alike first.

    Only a proposal: tissue may look the same at different places. Nothing is applied; look at both frames first.

    Args:
        sweep: the frames.
        trajectory: their path; frames without a pose are left out, and so are frames between which it stands still.

    Returns:
        Each pair and the correlation of its pictures' detail, 0 to 1.
    """
    if not sweep.has_images or len(sweep) < 2 * _APART:
        return []
    step = -(-len(sweep) // _COMPARED)
    frames = np.arange(0, len(sweep), step)
    pictures = np.concatenate([found for _, found in small_pictures(sweep.chosen(frames) if step > 1 else sweep)])
    alike = speckle_correlation(pictures)
    usable = trajectory.valid[frames] & sweep.frame_valid[frames]
    alike[~usable], alike[:, ~usable] = -1, -1
    lengths = np.nan_to_num(trajectory.lengths_mm[frames])
    found: list[tuple[SamePlace, float]] = []
    apart = max(2, _APART // step)
    far = np.triu(alike, apart).round(_DIGITS)  # rounding must not decide which of equal pairs comes first
    pairs = np.argwhere(far >= _ALIKE)
    pairs = pairs[np.argsort(-far[tuple(pairs.T)], kind="stable")[:_LOOKED_AT]]
    near = max(1, _NEAR // step)
    for first, last in pairs:
        if len(found) == _MOST:
            break
        likely = float(alike[first, last])
        between = slice(first + (last - first) // 4, last - (last - first) // 4 + 1)
        strangers = np.maximum(alike[first, between], alike[last, between]).min()
        around = far[max(first - near, 0) : first + near + 1, max(last - near, 0) : last + near + 1]
        pair = int(frames[first]), int(frames[last])
        known = any(np.abs(np.subtract(place.frames, pair)).max() <= _NEAR for place, _ in found)
        best = far[first, last] == around.max()  # no flank of a better pair
        if best and likely - strangers >= _LESS and lengths[last] > lengths[first] and not known:
            found.append((SamePlace(pair), likely))
    return found
