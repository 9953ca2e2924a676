"""A network that finds the true motion of any view of a sweep whose frames show their numbers."""

from itertools import pairwise

import numpy as np

from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import Estimate
from DualTrackCore.trajectory import Trajectory, parameters_from_matrices

SIZE, FRAMES, SPACING = (96, 128), 9, (0.3, 0.25)


def numbered_sweep() -> Sweep:
    """Frames that show their number in the left half, so that a view of them can be told."""
    frames = np.zeros((FRAMES, *SIZE), np.uint8)
    frames[:, :, : SIZE[1] // 2] = 10 + np.arange(FRAMES)[:, None, None]
    return Sweep(frames, SPACING)


def random_poses(seed=0, scale=1.0) -> np.ndarray:
    motions = np.random.default_rng(seed).normal([0, 0, 0.5, 0, 0, 0], scale, (FRAMES - 1, 6))
    return Trajectory.from_parameters(motions).poses


def all_knowing(poses: np.ndarray, error_mm=None):
    """A network that finds the true motion of whatever it is shown, along z by `error_mm[variant]` too much.

    The poses of a view follow from where its pixels lie: what takes its coordinates to those of the frame is applied
    before the pose of that frame, and taken off again after it.
    """
    error_mm = error_mm or {}

    def run(sweep, model, head, *, global_frames, reporter, crop_shift=(0, 0), **options):
        reporter.report("network", 0, len(sweep))
        frames = sweep.window(0, len(sweep))
        left, right = frames[:, 0, 0], frames[:, 0, -1]
        flipped = bool((left < right).all())
        numbers = np.maximum(left, right).astype(int) - 10
        # From image coordinates of the view to those of the frame; a mirror turns x round on both sides.
        image_from_view = np.diag([-1.0 if flipped else 1.0, 1, 1, 1])
        image_from_view[:2, 3] = crop_shift[1] * SPACING[0], crop_shift[0] * SPACING[1]
        placed = [np.linalg.inv(image_from_view) @ poses[number] @ image_from_view for number in numbers]
        changes = {"reverse": numbers[0] > numbers[-1], "flip": flipped, "crop": any(crop_shift)}
        name = "+".join(change for change, made in changes.items() if made) or "own"
        relative = np.array([np.linalg.inv(a) @ b for a, b in pairwise(placed)])
        extra = np.eye(4)
        extra[2, 3] = error_mm.get(name, 0.0)
        motions = parameters_from_matrices(relative @ extra)
        return Estimate(motions), {"device": "cpu", "precision": "fp32", "warnings": []}

    return run
