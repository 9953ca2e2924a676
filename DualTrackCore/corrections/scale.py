"""The factor of the motion that gives a path its known length, and how sure a factor makes the motion."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from DualTrackCore.corrections.knowledge import Scale
from DualTrackCore.corrections.solver import Distance
from DualTrackCore.errors import InputError
from DualTrackCore.trajectory import accumulate, matrices_from_parameters

#: Components of a motion that are scaled: what speckle says of the way across the image, or all ways and no turns.
COMPONENTS: dict[Scale, list[int]] = {"elevational": [2, 3, 4], "all": [0, 1, 2]}
#: Factors that are accepted, and those that pass without a warning.
LEAST, MOST = 0.2, 5.0
LEAST_PLAIN, MOST_PLAIN = 0.5, 2.0
#: Factors at which a distance of two frames, which may have several, is looked at.
_TRIED = np.geomspace(LEAST, MOST, 65)


def scaled(values: np.ndarray, factor: float, scale: Scale, fixed: np.ndarray) -> np.ndarray:
    """Motions, or their errors, [n - 1, 6] times a factor; those that are fixed [n - 1] stay."""
    found = values.copy()
    found[np.ix_(~fixed, COMPONENTS[scale])] *= factor
    return found


def with_spread(
    motions: np.ndarray, sigma: np.ndarray, correlation: np.ndarray, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of motions that were scaled by a factor which is known up to its spread.

    Of the way across the images (tz) the error of the factor is all that motions have in common. A factor that was
    found by lengths says nothing of turns: their common error (rx, ry) grows by it. What is each motion's own stays;
    where nobody measured how much that is, it is all of it.

    Args:
        motions, sigma: [n - 1, 6] mm and degrees, scaled; an error of 0 stays.
        correlation: [6] share of the variance that all motions have in common; 1 where nobody measured it.
        spread: standard deviation of the logarithm of the factor.

    Returns:
        sigma [n - 1, 6] and the share [n - 1, 6].
    """
    share = np.tile(correlation, (len(sigma), 1))
    share[:, 2] = np.where(share[:, 2] < 1, share[:, 2], 0)
    own, common = (1 - share) * sigma**2, share * sigma**2
    common[:, 2] = 0
    scaled_ones = COMPONENTS["elevational"]
    common[:, scaled_ones] += (spread * motions[:, scaled_ones]) ** 2 * (sigma[:, scaled_ones] > 0)
    total = own + common
    return np.sqrt(total), common / np.where(total > 0, total, 1)


def factor_for(known: Distance, motions: np.ndarray, scale: Scale, fixed: np.ndarray) -> float:
    """The factor, to rounding, at which the motions [n - 1, 6] (mm, degrees) have the known length.

    Of several the one that changes least. Not by division: the part of the motion that is not scaled stays.

    Raises InputError: no factor between the limits does.
    """

    def excess(factor: float) -> float:
        found = scaled(motions, factor, scale, fixed)
        if known.ends is None:
            return float(np.linalg.norm(found[:, :3], axis=1).sum()) - known.length_mm
        first, last = sorted(known.ends)
        ways = accumulate(matrices_from_parameters(found[first:last]))
        return float(np.linalg.norm(ways[-1, :3, 3])) - known.length_mm

    tried = _TRIED[[0, -1]] if known.ends is None else _TRIED
    values = np.array([excess(factor) for factor in tried])
    found = [
        brentq(excess, tried[at], tried[at + 1], xtol=1e-15, rtol=1e-14)
        for at in np.flatnonzero(np.sign(values[:-1]) != np.sign(values[1:]))
    ]
    if not found:
        least, most = (known.length_mm + value for value in (values.min(), values.max()))
        what = "The path" if known.ends is None else "The way between the two frames"
        raise InputError(
            f"{what} is {excess(1.0) + known.length_mm:.1f} mm long, and scaled by {LEAST:g} to {MOST:g} it is "
            f"{least:.1f} to {most:.1f} mm, not the known {known.length_mm:g} mm; check the number and its unit, or "
            "track the sweep again."
        )
    return float(min(found, key=lambda factor: abs(np.log(factor))))
