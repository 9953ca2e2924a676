"""How each component of the motion follows the truth: Pearson's r; a network that only learned the mean has none."""

from __future__ import annotations

import math

import numpy as np

from DualTrackCore.evaluation.definitions import COMPONENTS
from DualTrackCore.trajectory import parameters_from_matrices


def correlations(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Pearson's r of the six components of relative poses.

    Args:
        predicted, true: [n, 4, 4]; steps that are not finite in `true` do not count.

    Returns:
        `correlation_tx` ... `correlation_rz`; NaN where either side does not vary.
    """
    known = np.isfinite(true).all(axis=(1, 2))
    columns = [parameters_from_matrices(relative[known]).T for relative in (predicted, true)]
    return {f"correlation_{name}": _pearson(*pair) for name, *pair in zip(COMPONENTS, *columns, strict=True)}


def _pearson(one: np.ndarray, other: np.ndarray) -> float:
    if len(one) < 2:
        return math.nan
    deviations = [values - values.mean() for values in (one, other)]
    norms = [np.linalg.norm(deviation) for deviation in deviations]
    # A component that is constant up to rounding has no direction to correlate with.
    if any(norm <= 1e-9 * math.sqrt(len(one)) for norm in norms):
        return math.nan
    return float(np.clip(deviations[0] @ deviations[1] / (norms[0] * norms[1]), -1, 1))
