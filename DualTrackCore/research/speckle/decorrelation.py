"""Decorrelation curves fitted on tracked sweeps, and the motion of the probe from the correlation of patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import isotonic_regression
from scipy.sparse.linalg import spsolve

from DualTrackCore.errors import InputError
from DualTrackCore.research.speckle.patches import LAGS, PatchGrid, SweepCorrelation
from DualTrackCore.trajectory import Trajectory, invert_rigid

#: Weak prior of steps, 1/variance: 2 mm, and rotations of 1 degree; keeps empty pairs solvable.
_PRIOR = np.diag([1 / 2.0**2, 1 / np.deg2rad(1.0) ** 2, 1 / np.deg2rad(1.0) ** 2])


def fit_planes(grid: PatchGrid, distance_mm: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit planes to the distances of the patches, all assumed to lie on one side.

    Args:
        grid: of the patches.
        distance_mm: [..., patches], used where `weight` is above 0.
        weight: [..., patches] inverse variances, 1/mm^2.

    Returns:
        Planes [..., 3] as tz (mm), rx, ry (radians), with distance tz + rx y - ry x; and their inverse covariances
        [..., 3, 3], 0 where no patch is usable.
    """
    design = np.stack([np.ones_like(grid.x_mm), grid.y_mm, -grid.x_mm], axis=1)
    normal = np.einsum("...p,pi,pj->...ij", weight, design, design)
    right = np.einsum("...p,pi->...i", weight * np.where(weight > 0, distance_mm, 0), design)
    return np.linalg.solve(normal + _PRIOR, right[..., None])[..., 0], normal


def cumulative_fit(measured: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fit steps to measured sums over one frame, two frames, ..., by weighted least squares.

    Args:
        measured: [steps, lags, c]; entry (i, k) is the sum of steps i to i + k.
        weight: [steps, lags, c, c] inverse covariances; 0 where nothing was measured.

    Returns:
        [steps, c].
    """
    count, lags, parts = measured.shape
    normal, right = sparse.csr_array((count * parts, count * parts)), np.zeros(count * parts)
    for lag in range(lags):
        offsets = range(min(lag + 1, count))
        sums = sparse.kron(sparse.diags([1.0] * len(offsets), offsets, (count, count)), sparse.eye(parts), format="csr")
        weights = sparse.bsr_array((weight[:, lag], np.arange(count), np.arange(count + 1)))
        normal += sums.T @ weights @ sums
        right += sums.T @ (weights @ measured[:, lag].ravel())
    return spsolve((normal + 1e-12 * sparse.eye(count * parts)).tocsc(), right).reshape(count, parts)


#: Range of correlation in which the Gaussian determines the width of the beam.
_INFORMATIVE = (0.15, 0.9)
#: Entries of the table of distance against correlation, and the ridge penalty towards the mean profile.
_BINS, _RIDGE = 24, 0.05


@dataclass(frozen=True)
class DecorrelationCurves:
    """Distance from correlation.

    The correlation of speckle falls as exp(-d^2 / (2 sigma^2)) with the distance d, where sigma is the width of the
    beam at that depth. Sigma differs between probes: how much faster correlation falls at one depth than at another can
    be measured without tracking, and a linear fit over the calibration sweeps gives sigma from that.

    Attributes:
        depth_mm: [rows] depths of the rows of patches of the calibration sweeps.
        log_sigma: [rows] mean over calibration sweeps of the logarithm of sigma in mm.
        mean_profile: [rows] mean of what :func:`profile` gives.
        slope: [rows, rows] change of `log_sigma` with the profile.
        correlation: [bins] rising; places of the table.
        distance: [bins] mean distance over sigma at that correlation.
        spread: [bins] standard deviation of the same.
    """

    depth_mm: np.ndarray
    log_sigma: np.ndarray
    mean_profile: np.ndarray
    slope: np.ndarray
    correlation: np.ndarray
    distance: np.ndarray
    spread: np.ndarray

    @classmethod
    def fitted(cls, sweeps: Sequence[tuple[SweepCorrelation, Trajectory]]) -> DecorrelationCurves:
        """Curves from sweeps of one frame size with their tracking.

        Raises InputError: no sweep shows speckle at distances that determine the width of the beam.
        """
        widths, profiles, samples = [], [], []
        for measured, tracked in sweeps:
            distance = true_distances(measured.grid, tracked)
            log_sigma = _log_sigma(measured, distance)
            if np.isfinite(log_sigma).any():
                widths.append(log_sigma)
                profiles.append(profile(measured))
                sigma = np.repeat(np.exp(log_sigma), measured.grid.columns)
                samples.append(np.stack([measured.correlation.ravel(), (distance / sigma).ravel()]))
        if not widths:
            raise InputError(
                "The calibration sweeps show no speckle from which decorrelation can be measured; give other sweeps."
            )
        log_sigma, all_profiles = np.array(widths), np.array(profiles)
        mean = np.nanmean(log_sigma, axis=0)
        mean = np.where(np.isfinite(mean), mean, np.nanmean(mean))
        log_sigma = np.where(np.isfinite(log_sigma), log_sigma, mean)
        mean_profile = all_profiles.mean(axis=0)
        x, y = all_profiles - mean_profile, log_sigma - mean
        slope = np.linalg.solve(x.T @ x + _RIDGE * len(x) * np.eye(x.shape[1]), x.T @ y).T
        values = np.concatenate(samples, axis=1)
        table = _table(*values[:, np.isfinite(values).all(axis=0)])
        return cls(sweeps[0][0].grid.depth_mm, mean, mean_profile, slope, *table)

    def distances(self, measured: SweepCorrelation) -> tuple[np.ndarray, np.ndarray]:
        """Distances [N - 1, LAGS, patches] in mm, without sign, and their weights (1/mm^2; 0 where unknown)."""
        grid = measured.grid
        own = np.interp(self.depth_mm, grid.depth_mm, profile(measured))
        log_sigma = self.log_sigma + self.slope @ (own - self.mean_profile)
        sigma = np.repeat(np.exp(np.interp(grid.depth_mm, self.depth_mm, log_sigma)), grid.columns)
        has_speckle = np.isfinite(measured.correlation)
        correlation = np.where(has_speckle, measured.correlation, 0)
        distance = np.interp(correlation, self.correlation, self.distance) * sigma
        spread = np.interp(correlation, self.correlation, self.spread) * sigma
        return distance, np.where(has_speckle, 1 / spread**2, 0)


def true_distances(grid: PatchGrid, tracked: Trajectory) -> np.ndarray:
    """[N - 1, LAGS, patches] elevational distance of frame i + lag from the patches of frame i, mm; NaN if unknown."""
    poses = np.where(tracked.valid[:, None, None], tracked.poses, np.nan)
    centres = np.stack([grid.x_mm, grid.y_mm, np.zeros_like(grid.x_mm), np.ones_like(grid.x_mm)])
    distance = np.full((len(poses) - 1, LAGS, len(grid.x_mm)), np.nan)
    for lag in range(1, min(LAGS, len(poses) - 1) + 1):
        other_from_one = invert_rigid(poses[lag:]) @ poses[:-lag]
        distance[: len(poses) - lag, lag - 1] = np.abs((other_from_one @ centres)[:, 2])
    return distance


def profile(measured: SweepCorrelation) -> np.ndarray:
    """[rows] how much more slowly correlation falls at one depth than on the average: a logarithm, of mean 0.

    With equal distances at all depths it is the logarithm of sigma less its mean.
    """
    grid = measured.grid
    by_row = measured.correlation.reshape(-1, grid.rows, grid.columns)
    count = np.isfinite(by_row).sum(axis=2)
    mean = np.where(count >= 2, np.nansum(by_row, axis=2) / np.maximum(count, 1), np.nan)
    informative = (np.nan_to_num(mean, nan=-1) > _INFORMATIVE[0]) & (np.nan_to_num(mean, nan=2) < _INFORMATIVE[1])
    slowness = np.where(informative, -0.5 * np.log(-2 * np.log(np.clip(mean, *_INFORMATIVE))), np.nan)
    chosen = slowness[informative.sum(axis=1) >= 2]
    if not len(chosen):
        return np.zeros(grid.rows)
    # Row effects of a table with gaps: what a pair adds (its distance) is taken off by turns.
    rows = np.zeros(grid.rows)
    for _ in range(20):
        pair = np.nanmean(chosen - rows, axis=1, keepdims=True)
        values = chosen - pair
        rows = np.array([np.nanmedian(v) if np.isfinite(v).any() else 0.0 for v in values.T])
        rows -= rows.mean()
    return rows


def _log_sigma(measured: SweepCorrelation, distance_mm: np.ndarray) -> np.ndarray:
    """[rows] logarithm of the beam width from the correlation at known distances; NaN in rows with too few patches."""
    grid = measured.grid
    low, high = _INFORMATIVE
    with np.errstate(invalid="ignore"):
        informative = (measured.correlation > low) & (measured.correlation < high) & (distance_mm > 0.05)
    width = np.log(distance_mm[informative] / np.sqrt(-2 * np.log(measured.correlation[informative])))
    row = np.nonzero(informative)[2] // grid.columns
    return np.array([np.median(width[row == r]) if (row == r).sum() >= 30 else np.nan for r in range(grid.rows)])


def _table(correlation: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and spread of the distance over sigma in bins of equal count by correlation; the mean never rises."""
    kept = distance < 4
    order = np.argsort(correlation[kept])
    parts = [(correlation[kept][p], distance[kept][p]) for p in np.array_split(order, min(_BINS, len(order)))]
    places = np.array([near.mean() for near, _ in parts])
    mean = isotonic_regression([d.mean() for _, d in parts], increasing=False).x
    spread = np.array([max(d.std(), 0.02) for _, d in parts])
    return places, mean, spread


#: Standard errors of in-plane matching over one lag, mm and degrees; they weight the pairs.
_IN_PLANE_ERROR = np.array([0.02, 0.02, 0.03])
#: Pairs more than one frame apart count where the correlation is at least this: below, it hardly changes with distance.
_LEAST_MEAN_CORRELATION = 0.5


def in_plane_steps(measured: SweepCorrelation) -> np.ndarray:
    """[N - 1, 3] tx, ty (mm) and rz (degrees) that agree best with all lags."""
    weight = measured.in_plane_weight[..., None, None] * np.diag(1 / _IN_PLANE_ERROR**2)
    # A weak weight fills frames without speckle from their neighbours.
    weight[:, 0] += 1e-3 * np.eye(3)
    return cumulative_fit(measured.in_plane, weight)


def elevational_steps(curves: DecorrelationCurves, measured: SweepCorrelation) -> np.ndarray:
    """[N - 1, 3] tz (mm) and rx, ry (degrees) with all patches on one side, as measured."""
    distance, weight = curves.distances(measured)
    has_speckle = np.isfinite(measured.correlation)
    total = np.where(has_speckle, measured.correlation, 0).sum(axis=2)
    informative = total / np.maximum(has_speckle.sum(axis=2), 1) > _LEAST_MEAN_CORRELATION
    informative[:, 0] = True
    planes, normal = fit_planes(measured.grid, distance, weight * informative[..., None])
    normal[:, 0] += 1e-6 * np.eye(3)
    steps = cumulative_fit(planes, normal)
    steps[:, 1:] = np.rad2deg(steps[:, 1:])
    return steps


def elevational_direction(tracked: Trajectory) -> float:
    """Sign of the elevational motion of a whole sweep: 1 or -1."""
    return -1.0 if np.nansum(tracked.relative[:, 2, 3]) < 0 else 1.0
