"""From the errors of single motions to the errors of positions and of the path: first order, in closed form.

The six parameters of a motion have standard deviations `sigma` (mm and degrees). Part of the error is common to all
motions of a sweep, such as an error of scale: it grows with the number of steps, not with its root. Its share of the
variance was measured for each component (`correlation`, 0 to 1). Speckle does not show the sign of elevational motion,
so the common part of tz, rx and ry changes sign with the direction of the sweep.

An error of one motion moves all later frames as one rigid body. As a small motion in frame0 it is a *twist*: a moment
(mm) and a turn (radians); a frame at p moves by moment + turn x p, the lever arm of errors of rotation. Twists add up,
and so do their covariances.

How large errors are differs from sweep to sweep more than a model can say beforehand. So the errors of one sweep are
`sigma` times a factor that they share, which makes them follow Student's distribution together: its degrees of freedom
were measured for the model (:data:`STEP_ERROR_FREEDOM`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from DualTrackCore.errors import InputError

#: Key of a provenance: degrees of freedom, over 2, of Student's distribution of the errors, as measured for the model.
#: Where it is missing errors are normal.
STEP_ERROR_FREEDOM = "step_error_freedom"
#: [2, 6] powers for :func:`grown_errors` that leave errors as they are stated.
AS_STATED = (1.0,) * 6, (0.0,) * 6
#: Shorter steps are none, and shorter mean steps count as this one (mm).
_STILL_MM, _SHORTEST_MM = 1e-6, 0.01
#: Components (tz, rx, ry) that change sign if the sweep runs the other way.
_TURNED_OVER = [2, 3, 4]
#: Steps on either side whose sum gives the direction of the sweep, so that jitter does not change it.
_WAY_STEPS = 8


def freedom_in(provenance: Mapping[str, Any]) -> float | None:
    """The :data:`STEP_ERROR_FREEDOM` of a provenance."""
    said = provenance.get(STEP_ERROR_FREEDOM)
    return None if said is None else float(said)


def times_holding(share: float, freedom: float | None = None) -> float:
    """Standard deviations on either side that hold `share` (0 to 1) of the errors.

    Args:
        share: such as .95.
        freedom: degrees of freedom, over 2; None for normal errors.
    """
    if freedom is None:
        return NormalDist().inv_cdf((1 + share) / 2)
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + share) / 2) * np.sqrt((freedom - 2) / freedom))


def mean_step_mm(motions: np.ndarray) -> float:
    """Mean step of motions [n, 6] (mm); those of pictures that were shown again are 0 and do not count."""
    steps = np.linalg.norm(motions[:, :3], axis=1)
    moved = steps[steps > _STILL_MM]
    return max(float(moved.mean()), _SHORTEST_MM) if len(moved) else _SHORTEST_MM


def grown_errors(sigma: np.ndarray, motions: np.ndarray, powers: Sequence[Sequence[float]]) -> np.ndarray:
    """Standard deviations as powers of those that a network states and of the mean step of the sweep.

    A network that was trained on likelihood alone says too much of how its errors differ from sweep to sweep, and too
    little of how they grow with the step; both were measured for the model.

    Args:
        sigma: [N - 1, 6], mm and degrees.
        motions: [N - 1, 6], mm and degrees.
        powers: [2, 6] of sigma and of the mean step (mm).
    """
    by_step = mean_step_mm(motions) ** np.asarray(powers[1], dtype=np.float64)
    return np.asarray(sigma, dtype=np.float64) ** powers[0] * by_step


def error_twists(poses: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """The twist of all later frames for an error of one standard deviation of each component of each motion.

    Args:
        poses: [N, 4, 4], frame0_from_image, mm; NaN where not known.
        sigma: [N - 1, 6], mm and degrees.

    Returns:
        [N - 1, 6 components, 6]: moment (mm) and turn (radians) in frame0.
    """
    turned, centres = poses[:-1, :3, :3], poses[1:, :3, 3]
    axes = np.swapaxes(turned, 1, 2) * sigma[:, :3, None]
    turns = turned @ turning_axes(np.swapaxes(turned, 1, 2) @ poses[1:, :3, :3]) * np.deg2rad(sigma[:, None, 3:])
    turns = np.swapaxes(turns, 1, 2)
    moments = np.cross(centres[:, None], turns)  # about the centre of the frame that the motion leads to
    twists = [np.concatenate([axes, np.zeros_like(axes)], 2), np.concatenate([moments, turns], 2)]
    return np.concatenate(twists, axis=1)


def position_covariances(poses: np.ndarray, sigma: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """Covariance of the position of each frame's centre in frame0.

    Args:
        poses, sigma: as for :func:`error_twists`.
        correlation: [6], 0 to 1, the share of the variance that all motions have in common.

    Returns:
        [N, 3, 3] mm squared; NaN after the first motion whose error is not known.
    """
    moved = np.concatenate([np.broadcast_to(np.eye(3), (len(poses), 3, 3)), -cross_matrices(poses[:, :3, 3])], axis=2)
    return moved @ twist_covariances(poses, sigma, correlation) @ np.swapaxes(moved, 1, 2)


def twist_covariances(poses: np.ndarray, sigma: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """[N, 6, 6] covariance of the twist that moves each frame; arguments and NaN as above."""
    twists = error_twists(poses, sigma)
    own = np.cumsum(np.einsum("c,nci,ncj->nij", 1 - correlation, twists, twists), axis=0)
    common = np.cumsum(twists * common_signs(poses)[:, :, None], axis=0)
    covariance = np.zeros((len(poses), 6, 6))
    covariance[1:] = own + np.einsum("c,nci,ncj->nij", correlation, common, common)
    return covariance


def length_errors(poses: np.ndarray, sigma: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """[N] standard deviation (mm) of the length of the path up to each frame; arguments and NaN as above."""
    relative = np.swapaxes(poses[:-1, :3, :3], 1, 2) @ np.diff(poses[:, :3, 3], axis=0)[:, :, None]
    length = np.linalg.norm(relative[:, :, 0], axis=1, keepdims=True)
    along = relative[:, :, 0] / np.where(length > 0, length, 1) * sigma[:, :3]
    own = np.cumsum(along**2, axis=0) @ (1 - correlation[:3])
    common = np.cumsum(along * common_signs(poses)[:, :3], axis=0) ** 2 @ correlation[:3]
    return np.concatenate([[0.0], np.sqrt(own + common)])


def sigma_between(poses: np.ndarray, sigma: np.ndarray, correlation: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Standard deviations of the motions from each of some frames to the next of them.

    Args:
        poses, sigma, correlation: of the whole trajectory.
        frames: [M] indices in any order.

    Returns:
        [M - 1, 6] mm and degrees; 0 from a frame to itself, NaN where an error on the way is not known.
    """
    between = np.zeros((max(len(frames) - 1, 0), 6))
    single = np.diff(frames) == 1
    between[single] = sigma[frames[:-1][single]]
    for row, start, stop in _other_steps(frames):
        between[row] = _sigma_of_several(poses, sigma, correlation, start, stop)
    return between


def _other_steps(frames: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Row, first and last frame of the motions over several steps or backwards."""
    for row in np.flatnonzero(~np.isin(np.diff(frames), (0, 1))):
        yield int(row), int(frames[row]), int(frames[row + 1])


def _sigma_of_several(
    poses: np.ndarray, sigma: np.ndarray, correlation: np.ndarray, start: int, stop: int
) -> np.ndarray:
    """[6] standard deviations of the motion from frame `start` to frame `stop`, forwards or backwards."""
    first, after = min(start, stop), max(start, stop)
    # In the frame where the motion starts: short lever arms, and the axes of the motion.
    back = np.eye(4)
    back[:3, :3], back[:3, 3] = poses[start, :3, :3].T, -poses[start, :3, :3].T @ poses[start, :3, 3]
    local = back @ poses[first : after + 1]
    if not np.isfinite(local).all():
        return np.full(6, np.nan)
    twists = error_twists(local, sigma[first:after])
    common = (twists * common_signs(poses)[first:after, :, None]).sum(axis=0)
    motion = back @ poses[stop]
    moved = np.concatenate([np.eye(3), -cross_matrices(motion[:3, 3])], axis=1)
    turned = np.concatenate([np.zeros((3, 3)), np.rad2deg(np.linalg.inv(turning_axes(motion[:3, :3])))], axis=1)
    parameters = np.concatenate([moved, turned])
    own = np.einsum("c,ncp->p", 1 - correlation, (twists @ parameters.T) ** 2)
    return np.sqrt(own + correlation @ (common @ parameters.T) ** 2)


def turning_axes(rotation: np.ndarray) -> np.ndarray:
    """[..., 3, 3]: columns are the axes about which a change of each angle (x, y, z) turns.

    For R = Rz Ry Rx these are R ex, Rz ey and ez.
    """
    about_x = rotation[..., :, 0]
    about_z = np.broadcast_to([0.0, 0.0, 1.0], about_x.shape)
    about_y = np.cross(about_z, about_x)
    about_y = about_y / np.linalg.norm(about_y, axis=-1, keepdims=True)
    return np.stack([about_x, about_y, about_z], axis=-1)


def common_signs(poses: np.ndarray) -> np.ndarray:
    """[N - 1, 6] of 1 and -1: sign of the common part of the error in each motion."""
    along = np.einsum("ni,ni->n", poses[:-1, :3, 2], np.diff(poses[:, :3, 3], axis=0))
    total = np.concatenate([[0.0], np.cumsum(np.nan_to_num(along))])
    steps = np.arange(len(along))
    near = total[np.minimum(steps + _WAY_STEPS + 1, len(along))] - total[np.maximum(steps - _WAY_STEPS, 0)]
    signs = np.ones((len(along), 6))
    signs[:, _TURNED_OVER] = np.where(near < 0, -1.0, 1.0)[:, None]
    return signs


def cross_matrices(vectors: np.ndarray) -> np.ndarray:
    """[..., 3, 3] of vectors v [..., 3]: the matrix that gives v x w when multiplied by w."""
    return np.cross(vectors[..., None, :], -np.eye(3))


def validated_sigma(sigma: object, frames: int) -> np.ndarray:
    """A copy of the standard deviations [frames - 1, 6] of the motions of a trajectory.

    Raises InputError: another shape, or values that are no standard deviations.
    """
    try:
        sigma = np.array(sigma, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("The errors of the motions must be an array of numbers, [frames - 1, 6].") from None
    expected = (max(frames - 1, 0), 6)
    if sigma.shape != expected:
        raise InputError(f"{frames} poses came with errors of the motions {sigma.shape}; expected {expected}.")
    bad = np.flatnonzero(~(((sigma >= 0) & np.isfinite(sigma)).all(axis=1) | np.isnan(sigma).all(axis=1)))
    if len(bad):
        raise InputError(
            f"The error of the motion from frame {bad[0]} to frame {bad[0] + 1} is {sigma[bad[0]].tolist()}; standard "
            "deviations are finite and not negative, or all of them are not known (NaN)."
        )
    return sigma


def validated_covariance(covariance: object, frames: int) -> np.ndarray:
    """A copy of `Trajectory.path_covariance` [frames, 7]. Raises InputError: another shape, or no variances."""
    covariance = np.array(covariance, dtype=np.float64)
    if covariance.shape != (frames, 7):
        raise InputError(f"{frames} poses came with covariances {covariance.shape}; expected {(frames, 7)}.")
    bad = np.flatnonzero((covariance[:, [0, 1, 4, 6]] < 0).any(axis=1) | np.isinf(covariance).any(axis=1))
    if len(bad):
        raise InputError(
            f"The covariance of frame {bad[0]} is {covariance[bad[0]].tolist()}; variances are finite and not negative."
        )
    return covariance
