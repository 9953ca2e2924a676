"""Decorrelation curves fitted on tracked sweeps, and the motion of the probe from the correlation of patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.research.speckle.patches import LAGS, PatchGrid, SweepLikeness
from DualTrackCore.trajectory import Trajectory, invert_rigid

#: Weak knowledge of steps, 1/variance: 2 mm, and rotations of 1 degree; keeps empty pairs solvable.
_PRIOR = np.diag([1 / 2.0**2, 1 / np.deg2rad(1.0) ** 2, 1 / np.deg2rad(1.0) ** 2])
#: Rounds of conjugate gradients; the systems are banded and well conditioned.
_ROUNDS = 60


def fit_planes(grid: PatchGrid, distance_mm: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Planes through distances of the patches, all taken to lie on one side.

    Args:
        grid: of the patches.
        distance_mm: [..., patches], read where `weight` is above 0.
        weight: [..., patches] inverse variances, 1/mm^2.

    Returns:
        Planes [..., 3] as tz (mm), rx, ry (radians), with distance tz + rx y - ry x; and what is known of them, inverse
        covariances [..., 3, 3], 0 where no patch says anything.
    """
    design = np.stack([np.ones_like(grid.x_mm), grid.y_mm, -grid.x_mm], axis=1)
    normal = np.einsum("...p,pi,pj->...ij", weight, design, design)
    right = np.einsum("...p,pi->...i", weight * np.where(weight > 0, distance_mm, 0), design)
    return np.linalg.solve(normal + _PRIOR, right[..., None])[..., 0], normal


def cumulative_fit(measured: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Steps whose sums over one frame, two frames, ... fit what was measured over them, by weighted least squares.

    Args:
        measured: [steps, lags, c]; entry (i, k) is the sum of steps i to i + k.
        weight: [steps, lags, c, c] inverse covariances; 0 where nothing was measured.

    Returns:
        [steps, c].
    """
    lags = measured.shape[1]

    def forward(steps: np.ndarray) -> np.ndarray:
        total = np.concatenate([np.zeros((1, steps.shape[1])), steps.cumsum(axis=0), np.zeros((lags, steps.shape[1]))])
        return np.stack([total[k + 1 : k + 1 + len(steps)] - total[: len(steps)] for k in range(lags)], axis=1)

    def adjoint(values: np.ndarray) -> np.ndarray:
        result = np.zeros((len(values), values.shape[2]))
        for k in range(lags):
            for offset in range(k + 1):
                result[offset:] += values[: len(values) - offset, k]
        return result

    def weighted(values: np.ndarray) -> np.ndarray:
        return np.einsum("nkij,nkj->nki", weight, values)

    diagonal = np.einsum("nkii->nki", weight)
    scale = 1 / (adjoint(diagonal) + 1e-12)
    steps = np.zeros((len(measured), measured.shape[2]))
    residual = adjoint(weighted(measured))
    direction = turned = scale * residual
    size = (residual * turned).sum()
    for _ in range(_ROUNDS):
        if size <= 1e-18:
            break
        pushed = adjoint(weighted(forward(direction)))
        length = size / (direction * pushed).sum()
        steps, residual = steps + length * direction, residual - length * pushed
        turned = scale * residual
        before, size = size, (residual * turned).sum()
        direction = turned + size / before * direction
    return steps


#: Likeness between which the Gaussian tells the width of the beam.
_TELLING = (0.15, 0.9)
#: Entries of the table of distance against likeness, and how strongly few sweeps are drawn to the mean profile.
_BINS, _RIDGE = 24, 0.05


@dataclass(frozen=True)
class DecorrelationCurves:
    """Distance from likeness.

    The likeness of speckle falls as exp(-d^2 / (2 sigma^2)) with the distance d, where sigma is the beam's width at
    that depth. Probes differ, so sigma is not the same in every sweep: how much faster likeness falls at one depth than
    at another can be seen without tracking, and sigma follows from that by a linear fit over the calibration sweeps.

    Attributes:
        depth_mm: [rows] depths of the rows of patches of the calibration sweeps.
        log_sigma: [rows] mean over calibration sweeps of the logarithm of sigma in mm.
        mean_profile: [rows] mean of what :func:`profile` gives.
        slope: [rows, rows] change of `log_sigma` with the profile.
        likeness: [bins] rising; places of the table.
        distance: [bins] mean distance over sigma at that likeness.
        spread: [bins] standard deviation of the same.
    """

    depth_mm: np.ndarray
    log_sigma: np.ndarray
    mean_profile: np.ndarray
    slope: np.ndarray
    likeness: np.ndarray
    distance: np.ndarray
    spread: np.ndarray

    @classmethod
    def fitted(cls, sweeps: Sequence[tuple[SweepLikeness, Trajectory]]) -> DecorrelationCurves:
        """Curves from sweeps of one frame size with their tracking.

        Raises:
            InputError: no sweep shows speckle at distances that tell the width of the beam.
        """
        widths, profiles, samples = [], [], []
        for seen, tracked in sweeps:
            distance = true_distances(seen.grid, tracked)
            log_sigma = _log_sigma(seen, distance)
            if np.isfinite(log_sigma).any():
                widths.append(log_sigma)
                profiles.append(profile(seen))
                sigma = np.repeat(np.exp(log_sigma), seen.grid.columns)
                samples.append(np.stack([seen.likeness.ravel(), (distance / sigma).ravel()]))
        if not widths:
            raise InputError(
                "The calibration sweeps show no speckle that tells how fast it changes; give other sweeps."
            )
        log_sigma, seen_profile = np.array(widths), np.array(profiles)
        mean = np.nanmean(log_sigma, axis=0)
        mean = np.where(np.isfinite(mean), mean, np.nanmean(mean))
        log_sigma = np.where(np.isfinite(log_sigma), log_sigma, mean)
        mean_profile = seen_profile.mean(axis=0)
        x, y = seen_profile - mean_profile, log_sigma - mean
        slope = np.linalg.solve(x.T @ x + _RIDGE * len(x) * np.eye(x.shape[1]), x.T @ y).T
        values = np.concatenate(samples, axis=1)
        table = _table(*values[:, np.isfinite(values).all(axis=0)])
        return cls(sweeps[0][0].grid.depth_mm, mean, mean_profile, slope, *table)

    def distances(self, seen: SweepLikeness) -> tuple[np.ndarray, np.ndarray]:
        """Distances [N - 1, LAGS, patches] in mm, without sign, and their weights (1/mm^2; 0 where unknown)."""
        grid = seen.grid
        own = np.interp(self.depth_mm, grid.depth_mm, profile(seen))
        log_sigma = self.log_sigma + self.slope @ (own - self.mean_profile)
        sigma = np.repeat(np.exp(np.interp(grid.depth_mm, self.depth_mm, log_sigma)), grid.columns)
        known = np.isfinite(seen.likeness)
        likeness = np.where(known, seen.likeness, 0)
        distance = np.interp(likeness, self.likeness, self.distance) * sigma
        spread = np.interp(likeness, self.likeness, self.spread) * sigma
        return distance, np.where(known, 1 / spread**2, 0)


def true_distances(grid: PatchGrid, tracked: Trajectory) -> np.ndarray:
    """[N - 1, LAGS, patches] elevational distance of frame i + lag from the patches of frame i, mm; NaN if unknown."""
    poses = np.where(tracked.valid[:, None, None], tracked.poses, np.nan)
    centres = np.stack([grid.x_mm, grid.y_mm, np.zeros_like(grid.x_mm), np.ones_like(grid.x_mm)])
    distance = np.full((len(poses) - 1, LAGS, len(grid.x_mm)), np.nan)
    for lag in range(1, min(LAGS, len(poses) - 1) + 1):
        other_from_one = invert_rigid(poses[lag:]) @ poses[:-lag]
        distance[: len(poses) - lag, lag - 1] = np.abs((other_from_one @ centres)[:, 2])
    return distance


def profile(seen: SweepLikeness) -> np.ndarray:
    """[rows] how much more slowly likeness falls at one depth than on the average: a logarithm, of mean 0.

    With equal distances at all depths it is the logarithm of sigma less its mean.
    """
    grid = seen.grid
    by_row = seen.likeness.reshape(-1, grid.rows, grid.columns)
    count = np.isfinite(by_row).sum(axis=2)
    mean = np.where(count >= 2, np.nansum(by_row, axis=2) / np.maximum(count, 1), np.nan)
    telling = (np.nan_to_num(mean, nan=-1) > _TELLING[0]) & (np.nan_to_num(mean, nan=2) < _TELLING[1])
    slowness = np.where(telling, -0.5 * np.log(-2 * np.log(np.clip(mean, *_TELLING))), np.nan)
    chosen = slowness[telling.sum(axis=1) >= 2]
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


def _log_sigma(seen: SweepLikeness, distance_mm: np.ndarray) -> np.ndarray:
    """[rows] logarithm of the width that explains the likeness at known distances; NaN in rows that show too little."""
    grid = seen.grid
    rows = np.tile(np.arange(grid.rows).repeat(grid.columns), (*seen.likeness.shape[:2], 1))
    with np.errstate(invalid="ignore"):
        telling = (seen.likeness > _TELLING[0]) & (seen.likeness < _TELLING[1]) & (distance_mm > 0.05)
    width = np.log(distance_mm[telling] / np.sqrt(-2 * np.log(seen.likeness[telling])))
    own = rows[telling]
    return np.array([np.median(width[own == r]) if (own == r).sum() >= 30 else np.nan for r in range(grid.rows)])


def _table(likeness: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and spread of the distance over sigma in bins of the likeness of equal count; the mean falls throughout."""
    kept = distance < 4
    order = np.argsort(likeness[kept])
    parts = [(likeness[kept][p], distance[kept][p]) for p in np.array_split(order, min(_BINS, len(order)))]
    places = np.array([near.mean() for near, _ in parts])
    mean = _falling(np.array([d.mean() for _, d in parts]))
    spread = np.array([max(d.std(), 0.02) for _, d in parts])
    return places, mean, spread


def _falling(values: np.ndarray) -> np.ndarray:
    """The falling sequence nearest to the values in least squares: neighbours that rise are averaged."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([float(value), 1])
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            last = blocks.pop()
            total = blocks[-1][1] + last[1]
            blocks[-1] = [(blocks[-1][0] * blocks[-1][1] + last[0] * last[1]) / total, total]
    return np.concatenate([np.full(int(count), value) for value, count in blocks])


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
