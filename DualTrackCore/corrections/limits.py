"""Motions that are held within what a probe can have done."""

from __future__ import annotations

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.spatial.transform import Rotation

from DualTrackCore.corrections.knowledge import Limits
from DualTrackCore.trajectory import matrices_from_parameters, parameters_from_matrices

#: What limits are called, for people.
BACK, STEP, TURN, STOP = "moved back", "longer step", "larger turn", "stood still"
#: By how much a limit is passed before it counts: rounding, and what a solution leaves.
_SLACK = 1e-2


def never_back(motions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Motions [n - 1, 6] without ways back along the image normal, and [n - 1] bool of those that went back.

    The places along the normal become the nearest ones (least squares) in rising order, so that what a step back took
    is taken from its neighbours, and jitter does not make the path longer.
    """
    along = np.concatenate([[0.0], np.cumsum(motions[:, 2])])
    way = -1.0 if along[-1] < 0 else 1.0
    back = motions[:, 2] * way < 0
    found = motions.copy()
    if back.any():
        found[:, 2] = way * np.diff(isotonic_regression(way * along).x)
    return found, back


def beyond(motions: np.ndarray, limits: Limits) -> dict[str, np.ndarray]:
    """[n - 1] bool, by what limit: motions [n - 1, 6] that pass it."""
    found = {}
    if limits.monotone:
        way = -1.0 if motions[:, 2].sum() < 0 else 1.0
        found[BACK] = motions[:, 2] * way < -_SLACK
    if limits.most_step_mm is not None:
        found[STEP] = np.linalg.norm(motions[:, :3], axis=1) > limits.most_step_mm * (1 + _SLACK)
    if limits.most_turn_deg is not None:
        found[TURN] = np.rad2deg(_turns(motions).magnitude()) > limits.most_turn_deg * (1 + _SLACK)
    return found


def cut(motions: np.ndarray, limits: Limits) -> np.ndarray:
    """Motions [n - 1, 6] cut to the limits: shorter in the same direction, turned less about the same axis."""
    found = motions.copy()
    if limits.monotone:
        way = -1.0 if motions[:, 2].sum() < 0 else 1.0
        found[:, 2] = way * np.maximum(way * found[:, 2], 0)
    if limits.most_step_mm is not None:
        lengths = np.linalg.norm(found[:, :3], axis=1, keepdims=True)
        found[:, :3] *= np.minimum(1, limits.most_step_mm / np.maximum(lengths, 1e-12))
    if limits.most_turn_deg is not None:
        turns = _turns(found)
        part = np.minimum(1, np.deg2rad(limits.most_turn_deg) / np.maximum(turns.magnitude(), 1e-12))
        matrices = np.tile(np.eye(4), (len(found), 1, 1))
        matrices[:, :3, :3] = Rotation.from_rotvec(turns.as_rotvec() * part[:, None]).as_matrix()
        found[:, 3:] = parameters_from_matrices(matrices)[:, 3:]
    return found


def _turns(motions: np.ndarray) -> Rotation:
    return Rotation.from_matrix(matrices_from_parameters(motions)[:, :3, :3])
