"""Paths that drift as a network's do: simulated motions, and estimates of them that err as they say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from DualTrackCore.trajectory import STEP_ERROR_CORRELATION, Trajectory

#: Shares of the variance that all motions have in common, as they were measured for a small network.
CORRELATION = np.array([0.48, 0.37, 0.84, 0.39, 0.68, 0.5])
SIGMA = np.array([0.01, 0.01, 0.08, 0.04, 0.04, 0.04])
MODEL = {"model": "toy", "model_trained": True, STEP_ERROR_CORRELATION: CORRELATION.tolist()}


#: Of a path that drifts mainly in the plane of its images, which does not cancel where the probe comes back.
IN_PLANE = np.array([0.06, 0.06, 0.01, 0.02, 0.02, 0.06])


def motions(frames: int = 120, step_mm: float = 0.4, way: str = "on") -> np.ndarray:
    """[frames - 1, 6] of a sweep along z that sways and turns; it goes "on", or "back" after half of the frames."""
    time = np.linspace(0, 1, frames - 1)
    found = np.zeros((frames - 1, 6))
    found[:, 2] = step_mm
    found[:, 0], found[:, 4] = 0.05 * np.sin(7 * time), 0.1 * np.sin(4 * time)
    found[:, 3] = 0.08 * np.cos(5 * time)
    if way == "back":
        found[-(len(found) // 2) :] = -found[: len(found) // 2][::-1]
    return found


def pair(seed: int, frames: int = 120, sigma: np.ndarray = SIGMA, **options) -> tuple[Trajectory, Trajectory]:
    """The true path and an estimate that states its errors."""
    rng, true = np.random.default_rng(seed), motions(frames, **options)
    signs = np.ones_like(true)
    signs[:, 2:5] = np.where(true[:, 2:3] < 0, -1, 1)
    own = np.sqrt(1 - CORRELATION) * rng.normal(size=true.shape)
    found = true + sigma * (own + np.sqrt(CORRELATION) * signs * rng.normal(size=6))
    truth = Trajectory.from_parameters(true, origin="simulated")
    return truth, Trajectory.from_parameters(found, MODEL, sigma=np.tile(sigma, (len(true), 1)))


def pairs(count: int, **options) -> Iterator[tuple[Trajectory, Trajectory]]:
    """Several of them."""
    return (pair(seed, **options) for seed in range(count))


def gpe_mm(trajectory: Trajectory, truth: Trajectory) -> float:
    """Mean distance of the corners of images of 40 x 50 mm, over all frames."""
    corners = np.array([[x, y, 0, 1] for x in (-20, 20) for y in (-25, 25)]).T
    return float(np.linalg.norm(((trajectory.poses - truth.poses) @ corners)[:, :3], axis=1).mean())


def mark(truth: Trajectory, frames: tuple[int, int], point_mm: tuple[float, float], noise_mm: float = 0.0, seed=0):
    """[2, 2] image coordinates in two frames of what lies at a point of the first; as it is seen in the second."""
    one, other = truth.poses[list(frames)]
    seen = np.linalg.inv(other) @ one @ [*point_mm, 0, 1]
    return np.array([point_mm, seen[:2]]) + np.random.default_rng(seed).normal(0, noise_mm, (2, 2))
