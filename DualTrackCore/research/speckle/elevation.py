"""From distances of patches off a plane to elevational motion and tilt, over the pairs of a sweep."""

from __future__ import annotations

import numpy as np

from DualTrackCore.research.speckle.patches import PatchGrid

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
