"""Motion from frame to frame from the pairs of a sweep, the lags against each other."""

from __future__ import annotations

import numpy as np

from DualTrackCore.research.speckle.curves import DecorrelationCurves
from DualTrackCore.research.speckle.elevation import cumulative_fit, fit_planes
from DualTrackCore.research.speckle.likeness import SweepLikeness
from DualTrackCore.trajectory import Trajectory

#: What one pair is worth against another: in-plane matching of a lag is off by about this, mm and degrees.
_IN_PLANE_ERROR = np.array([0.02, 0.02, 0.03])
#: Pairs more than one frame apart count where the likeness is at least this: below, it hardly changes with distance.
_LEAST_MEAN_LIKENESS = 0.5


def in_plane_steps(seen: SweepLikeness) -> np.ndarray:
    """[N - 1, 3] tx, ty (mm) and rz (degrees) that agree best with all lags."""
    weight = seen.in_plane_weight[..., None, None] * np.diag(1 / _IN_PLANE_ERROR**2)
    # A frame that shows nothing is bridged by what its neighbours do.
    weight[:, 0] += 1e-3 * np.eye(3)
    return cumulative_fit(seen.in_plane, weight)


def elevational_steps(curves: DecorrelationCurves, seen: SweepLikeness) -> np.ndarray:
    """[N - 1, 3] tz (mm) and rx, ry (degrees) with all patches on one side, as measured."""
    distance, weight = curves.distances(seen)
    known = np.isfinite(seen.likeness)
    mean = np.where(known, seen.likeness, 0).sum(axis=2) / np.maximum(known.sum(axis=2), 1)
    telling = mean > _LEAST_MEAN_LIKENESS
    telling[:, 0] = True
    planes, normal = fit_planes(seen.grid, distance, weight * telling[..., None])
    normal[:, 0] += 1e-6 * np.eye(3)
    steps = cumulative_fit(planes, normal)
    steps[:, 1:] = np.rad2deg(steps[:, 1:])
    return steps


def elevational_direction(tracked: Trajectory) -> float:
    """Sign of the elevational motion of a whole sweep: 1 or -1."""
    return -1.0 if np.nansum(tracked.relative[:, 2, 3]) < 0 else 1.0
