"""Figures of the path of the image centre: drift, drift rates, and the distance between two paths."""

from __future__ import annotations

import math

import numpy as np

from DualTrackCore.evaluation.definitions import MIN_DISTANCE_MM

#: Points of one path compared with all of the other at once.
_POINTS_A_BLOCK = 256


def drift_metrics(drift_mm: np.ndarray, true_centres_mm: np.ndarray) -> dict[str, float]:
    """Drift, drift rates and lengths over the frames that count, the reference first.

    Args:
        drift_mm: [n] error of the image centre.
        true_centres_mm: [n, 3].

    Returns:
        `final_drift_mm`, `max_drift_mm`, `sum_drift_mm`, `fdr_percent`, `fdr_path_percent`, `adr_percent`,
        `adr_path_percent`, `path_length_mm`, `straight_distance_mm`; a rate without motion is NaN.
    """
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


def hausdorff_mm(one: np.ndarray, other: np.ndarray) -> float:
    """Largest distance of a point of either path [n, 3], [m, 3] from the nearest one of the other, mm."""
    nearest_to_other = np.full(len(other), np.inf)
    largest = 0.0
    for start in range(0, len(one), _POINTS_A_BLOCK):
        distances = np.linalg.norm(one[start : start + _POINTS_A_BLOCK, None] - other, axis=2)
        largest = max(largest, float(distances.min(axis=1).max()))
        np.minimum(nearest_to_other, distances.min(axis=0), out=nearest_to_other)
    return max(largest, float(nearest_to_other.max()))


def _percent(part: np.ndarray, whole: np.ndarray, least: float) -> float:
    """Mean of 100 part / whole where `whole` is above 0 and at least `least`; NaN where it never is."""
    kept = (whole > 0) & (whole >= least)
    return float((100 * part[kept] / whole[kept]).mean()) if kept.any() else math.nan
