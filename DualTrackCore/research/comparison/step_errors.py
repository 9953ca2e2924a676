"""Whether a model is as sure as it should be: its stated errors of motions held against the true ones of many sweeps.

    found = calibrate(estimates, truths)              # factors, correlation and tails; all go with the model
    checked = check([found.apply(estimate) for estimate in others], their_truths)
    print(checked.step_length, checked.path_length, checked.rank_correlation)

Calibrate on sweeps that the training did not see, and check on others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import brentq
from scipy.stats import spearmanr
from scipy.stats import t as student

from DualTrackCore.errors import InputError
from DualTrackCore.path_error import path_error
from DualTrackCore.trajectory import STEP_ERROR_CORRELATION, Trajectory, invert_rigid
from DualTrackCore.uncertainty import (
    AS_STATED,
    STEP_ERROR_FREEDOM,
    common_signs,
    freedom_in,
    grown_errors,
    length_errors,
    mean_step_mm,
    times_holding,
)

#: Shares of the intervals that are calibrated and checked.
SHARES = (0.68, 0.95)
#: Fewest and most degrees of freedom: below, a standard deviation says nothing; above, errors are all but normal.
_FEWEST, _MOST = 2.5, 50.0
#: Natural logarithm of the largest factor of the odds of a correlation.
_WIDEST_ODDS = 7.0
#: Fewest sweeps that tell how errors grow, and least power of the stated ones.
_FEWEST_SWEEPS, _LEAST_POWER = 30, 0.1


@dataclass(frozen=True, eq=False)
class StepErrorCalibration:
    """What makes the errors that a model states the right ones.

    Attributes:
        factors: [6] by which the stated standard deviations, to their powers, are to be multiplied.
        correlation: [6], 0 to 1, the share of the variance that all motions of a sweep have in common: for the model's
            card (`step_error_correlation`).
        freedom: degrees of freedom of the errors, for the card (`step_error_freedom`); None for normal ones.
        powers: [2, 6] of the stated standard deviations and of the mean step (mm), for the card (`step_error_powers`).
    """

    factors: np.ndarray
    correlation: np.ndarray
    freedom: float | None = None
    powers: np.ndarray = field(default_factory=lambda: np.array(AS_STATED))

    def apply(self, trajectory: Trajectory) -> Trajectory:
        """An estimate of the same model with calibrated errors and their correlation."""
        said = {**trajectory.provenance, STEP_ERROR_CORRELATION: self.correlation.tolist()}
        said |= {STEP_ERROR_FREEDOM: self.freedom}
        return replace(_grown(trajectory, self.powers, self.factors), provenance=said)


@dataclass(frozen=True, eq=False)
class ErrorCheck:
    """How stated errors hold.

    Attributes:
        step_length, path_length: for each share in :data:`SHARES`, which part of the true lengths lies in the interval
            that is to hold that share. Steps count alike, whatever the sweep.
        rank_correlation: Spearman's, of stated and true error of a sweep: the root mean square over the frames of the
            distance of the image centre from where it is, both from the first frame on. NaN for fewer than 3 sweeps.
        sweeps, steps: how many were compared.
    """

    step_length: Mapping[float, float]
    path_length: Mapping[float, float]
    rank_correlation: float
    sweeps: int
    steps: int


def calibrate(estimates: Sequence[Trajectory], truths: Sequence[Trajectory]) -> StepErrorCalibration:
    """Factors, powers, correlation and degrees of freedom from many sweeps.

    The powers are those that best give the logarithm of the root mean square error of each component of a sweep, by
    least squares; fewer than 30 sweeps leave the errors as they are stated. The degrees of freedom are those of the
    errors of the step lengths, by maximum likelihood. The factor of a component is the geometric mean of those that
    make its intervals of 68 and of 95 % hold their share; those of tx, ty and tz are scaled together so that the
    intervals of the step length do. The correlation is the one with which the squared sums of the errors over a sweep
    are on average as large as they are, for tx, ty and tz with odds that are scaled together so that the intervals of
    the path length hold their shares; a mean error that differs from zero counts as common. It is a figure for sweeps
    of such a length.

    Args:
        estimates: with `sigma`.
        truths: poses of the same frames; motions beside invalid poses do not count.

    Raises InputError: no estimate, one without errors, or another number of frames than its truth.
    """
    powers = _powers(list(_compared(estimates, truths)))
    estimates = [_grown(estimate, powers) for estimate in estimates]
    pairs = list(_compared(estimates, truths))
    residuals, sigma = (np.concatenate([pair[name] for pair in pairs]) for name in ("residuals", "sigma"))
    freedom = _freedom(*_all_step_lengths(pairs, np.ones(6)))
    factors = np.array([_factor(residuals[:, c], sigma[:, c], freedom) for c in range(6)])
    factors[:3] *= _factor(*_all_step_lengths(pairs, factors), freedom)
    found = StepErrorCalibration(factors, _correlation(pairs, factors), freedom, powers)
    return replace(found, correlation=_holding_lengths(found, estimates, truths))


def check(estimates: Sequence[Trajectory], truths: Sequence[Trajectory]) -> ErrorCheck:
    """How the errors that estimates of one model state hold; arguments and errors as for :func:`calibrate`."""
    pairs = list(_compared(estimates, truths))
    wrong, stated = _all_step_lengths(pairs, np.ones(6))
    paths = np.array([_path_lengths(one, other) for one, other in zip(estimates, truths, strict=True)])
    far = np.array([_centre_errors(one, other) for one, other in zip(estimates, truths, strict=True)])
    rank = float(spearmanr(*far.T).statistic) if len(far) > 2 else float("nan")
    freedom = freedom_in(estimates[0].provenance)
    return ErrorCheck(_held(wrong, stated, freedom), _held(*paths.T, freedom), rank, len(pairs), len(wrong))


def _compared(estimates: Sequence[Trajectory], truths: Sequence[Trajectory]) -> Iterator[dict[str, np.ndarray]]:
    """For each sweep "residuals", "sigma", "signs" and "motions" [n, 6] of the motions that count."""
    if not len(estimates) or len(estimates) != len(truths):
        raise InputError(f"{len(estimates)} estimates came with {len(truths)} truths; give one truth for each of them.")
    for number, (estimate, truth) in enumerate(zip(estimates, truths, strict=True)):
        if estimate.sigma is None:
            raise InputError(f"Estimate {number} does not say how sure it is; run a model that does.")
        if len(estimate) != len(truth):
            raise InputError(f"Estimate {number} has {len(estimate)} poses and its truth {len(truth)}.")
        residuals = estimate.parameters - truth.parameters
        counts = np.isfinite(residuals).all(axis=1) & np.isfinite(estimate.sigma).all(axis=1)
        values = {"residuals": residuals, "sigma": estimate.sigma, "signs": common_signs(estimate.poses)}
        yield {name: array[counts] for name, array in (values | {"motions": estimate.parameters}).items()}


def _grown(trajectory: Trajectory, powers: np.ndarray, factors: np.ndarray = 1.0) -> Trajectory:
    """A trajectory with its stated errors to their powers, times factors."""
    return replace(trajectory, sigma=grown_errors(trajectory.sigma, trajectory.parameters, powers) * factors)


def _powers(pairs: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """[2, 6] of :class:`StepErrorCalibration`."""
    found = np.array(AS_STATED)
    if len(pairs) < _FEWEST_SWEEPS:
        return found
    log_step = np.log([mean_step_mm(pair["motions"]) for pair in pairs])
    for component in range(6):
        counts = [pair["sigma"][:, component] > 0 for pair in pairs]
        stated = np.array([np.log(p["sigma"][c, component]).mean() for p, c in zip(pairs, counts, strict=True)])
        squares = [np.square(p["residuals"][c, component]).mean() for p, c in zip(pairs, counts, strict=True)]
        true = 0.5 * np.log(np.maximum(squares, 1e-12))
        by = np.stack([np.ones(len(pairs)), stated, log_step], axis=1)
        # As stated where the sweeps do not tell.
        pulled, ends = np.diag([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0])
        _, *powers = np.linalg.solve(by.T @ by + pulled, by.T @ true + pulled @ ends)
        found[:, component] = np.maximum(powers[0], _LEAST_POWER), powers[1]
    return found


def _freedom(wrong: np.ndarray, sigma: np.ndarray) -> float | None:
    """Degrees of freedom of errors with these standard deviations, up to one factor for all; None if they are many."""
    ratio = (wrong / np.maximum(sigma, np.finfo(float).tiny))[sigma > 0]
    if not ratio.any():
        return None
    freedom = student.fit(ratio / np.median(np.abs(ratio[ratio != 0])), floc=0)[0]
    return None if freedom > _MOST else max(float(freedom), _FEWEST)


def _factor(wrong: np.ndarray, sigma: np.ndarray, freedom: float | None) -> float:
    """What makes intervals of these standard deviations hold their shares of the errors."""
    ratio = np.abs(wrong) / np.maximum(sigma, np.finfo(float).tiny)
    wanted = [np.quantile(ratio, share) / times_holding(share, freedom) for share in SHARES]
    return float(np.sqrt(np.prod(wanted)))


def _all_step_lengths(pairs: Sequence[Mapping[str, np.ndarray]], factors: np.ndarray) -> list[np.ndarray]:
    """:func:`_step_lengths` of all sweeps, one after the other."""
    return [np.concatenate(parts) for parts in zip(*(_step_lengths(pair, factors) for pair in pairs), strict=True)]


def _step_lengths(pair: Mapping[str, np.ndarray], factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n] errors of the step lengths and their standard deviations."""
    steps, true = (values[:, :3] for values in (pair["motions"], pair["motions"] - pair["residuals"]))
    length = np.linalg.norm(steps, axis=1)
    along = steps / np.where(length > 0, length, 1)[:, None]
    return length - np.linalg.norm(true, axis=1), np.linalg.norm(along * pair["sigma"][:, :3] * factors[:3], axis=1)


def _correlation(pairs: Sequence[Mapping[str, np.ndarray]], factors: np.ndarray) -> np.ndarray:
    shares = []
    for pair in pairs:
        sigma = pair["sigma"] * factors
        own, all_common = (sigma**2).sum(axis=0), sigma.sum(axis=0) ** 2
        found = (pair["residuals"] * pair["signs"]).sum(axis=0) ** 2
        if len(sigma) > 1:
            shares.append((found - own) / np.maximum(all_common - own, np.finfo(float).tiny))
    return np.clip(np.mean(shares, axis=0), 0, 1) if shares else np.ones(6)


def _holding_lengths(
    found: StepErrorCalibration, estimates: Sequence[Trajectory], truths: Sequence[Trajectory]
) -> np.ndarray:
    """[6] the correlation, with the odds of tx, ty and tz scaled so that intervals of the path length hold."""
    sweeps = [_both_valid(*pair) for pair in zip(estimates, truths, strict=True)]
    wrong = np.array([estimate.path_length_mm - truth.path_length_mm for estimate, truth in sweeps])

    def scaled(log_odds: float) -> np.ndarray:
        odds = np.exp(log_odds) * found.correlation[:3]
        return np.concatenate([odds / (1 - found.correlation[:3] + odds), found.correlation[3:]])

    def too_narrow(log_odds: float) -> float:
        said = (length_errors(e.poses, e.sigma * found.factors, scaled(log_odds))[-1] for e, _ in sweeps)
        return np.log(max(_factor(wrong, np.array([*said]), found.freedom), np.finfo(float).tiny))

    ends = -_WIDEST_ODDS, _WIDEST_ODDS
    at_ends = [too_narrow(end) for end in ends]
    if at_ends[0] <= 0 or at_ends[1] >= 0:
        return scaled(ends[0] if at_ends[0] <= 0 else ends[1])
    return scaled(brentq(too_narrow, *ends, xtol=1e-3))


def _both_valid(estimate: Trajectory, truth: Trajectory) -> tuple[Trajectory, Trajectory]:
    """Both over the frames that are valid in both."""
    both = np.flatnonzero(estimate.valid & truth.valid)
    return estimate.chosen(both), truth.chosen(both)


def _path_lengths(estimate: Trajectory, truth: Trajectory) -> tuple[float, float]:
    """Error of the length of the path over the frames valid in both, and its standard deviation."""
    estimate, truth = _both_valid(estimate, truth)
    return estimate.path_length_mm - truth.path_length_mm, path_error(estimate).end_length_mm


def _centre_errors(estimate: Trajectory, truth: Trajectory) -> tuple[float, float]:
    """Stated and true root mean square distance of the image centres over the frames valid in both."""
    estimate, truth = _both_valid(estimate, truth)
    moved = estimate.poses[0] @ invert_rigid(truth.poses[0]) @ truth.poses
    stated = np.einsum("nii->n", path_error(estimate).covariance_mm2)
    true = ((moved - estimate.poses)[:, :3, 3] ** 2).sum(axis=1)
    return float(np.sqrt(stated.mean())), float(np.sqrt(true.mean()))


def _held(wrong: np.ndarray, sigma: np.ndarray, freedom: float | None) -> dict[float, float]:
    known = np.isfinite(sigma)
    return {s: float((np.abs(wrong) <= times_holding(s, freedom) * sigma)[known].mean()) for s in SHARES}
