"""Poses as a tracker wrote them, with whatever it wrote while it saw nothing, to a trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from DualTrackCore.trajectory import RIGID_TOLERANCE, Trajectory


def trajectory_from_tracker(
    world_from_image: np.ndarray, provenance: Mapping[str, Any] | None = None
) -> tuple[Trajectory, list[str]]:
    """A trajectory in which poses that are no rigid motion are marked invalid, and the sentences that say so.

    Args:
        world_from_image: [N, 4, 4], image (centre, mm) to the tracker's world (mm); may hold anything.
    """
    world = np.array(world_from_image, dtype=np.float64)
    finite = np.isfinite(world).all(axis=(1, 2))
    world[~finite] = np.nan
    valid = finite & rigid(world)
    notes = []
    if not valid.all():
        reasons = f"{int((~finite).sum())} not finite, {int((finite & ~valid).sum())} not rigid"
        notes.append(f"Marked {int((~valid).sum())} of {len(world)} poses invalid ({reasons}).")
    return Trajectory.from_reference(world, valid, provenance), notes


def marked_as_estimate(trajectory: Trajectory | None, model: object) -> tuple[Trajectory | None, list[str]]:
    """The trajectory with the model that a file names as the source of its poses, and the sentence that says so.

    Args:
        trajectory: as read; None for a file without poses.
        model: what the file says; None for poses that were measured.
    """
    if trajectory is None or model is None:
        return trajectory, []
    marked = replace(trajectory, provenance={**trajectory.provenance, "model": str(model)[:200]})
    return marked, [f"The poses were estimated from the images by {marked.estimated_by}, not measured by a tracker."]


def rigid(poses: np.ndarray) -> np.ndarray:
    """[N] bool: which of the matrices [N, 4, 4] are rigid motions to within :data:`RIGID_TOLERANCE`."""
    plausible = np.isfinite(poses).all(axis=(1, 2)) & (np.abs(poses[:, :3, :3]).max(axis=(1, 2), initial=0.0) < 2)
    checked = np.where(plausible[:, None, None], poses, np.eye(4))
    rotation = checked[:, :3, :3]
    error = np.abs(np.swapaxes(rotation, 1, 2) @ rotation - np.eye(3)).max(axis=(1, 2), initial=0.0)
    error = np.maximum(error, np.abs(checked[:, 3] - [0, 0, 0, 1]).max(axis=1, initial=0.0))
    return plausible & (error <= RIGID_TOLERANCE) & (np.linalg.det(rotation) > 0)
