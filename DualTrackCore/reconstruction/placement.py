"""Where the pixels of a sweep lie: the frames that can be placed, and the corners they span."""

from __future__ import annotations

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction.mask import Rectangle
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory


def usable_frames(sweep: Sweep, trajectory: Trajectory) -> np.ndarray:
    """Indices of the frames that have both an image and a pose.

    Raises:
        InputError: no images, unknown spacing, numbers of frames and poses differ, or no usable frame.
    """
    sweep.require_images()
    sweep.require_spacing()
    if len(sweep) != len(trajectory):
        raise InputError(
            f"The sweep has {len(sweep)} frames and the trajectory {len(trajectory)} poses; the numbers must be equal."
        )
    usable = np.flatnonzero(trajectory.valid & sweep.frame_valid)
    if len(usable) == 0:
        raise InputError(
            f"None of the {len(sweep)} frames has both a valid image and a valid pose, so there is nothing to place; "
            "use a sweep with tracking, or estimate the trajectory."
        )
    return usable


def corner_points_mm(sweep: Sweep, trajectory: Trajectory, frames: np.ndarray, rectangle: Rectangle) -> np.ndarray:
    """[len(frames), 4, 3] float64: centres of the rectangle's corner pixels of these frames, mm in frame0."""
    frame0_from_pixel = trajectory.poses[frames] @ sweep.image_from_pixel
    return (frame0_from_pixel @ rectangle.corners.T).swapaxes(1, 2)[..., :3]


def median_step_mm(corners_mm: np.ndarray) -> float:
    """Median distance that the corners [n, 4, 3] move from one frame to the next, mm; 0 for a single frame."""
    if len(corners_mm) < 2:
        return 0.0
    return float(np.median(np.linalg.norm(np.diff(corners_mm, axis=0), axis=2).mean(axis=1)))
