"""The two trajectories brought into one frame of reference, frames that do not count marked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from DualTrackCore.trajectory import accumulate, invert_rigid, matrices_from_parameters, parameters_from_matrices


@dataclass(frozen=True, eq=False)
class ReferencedPoses:
    """Poses in the frame of the first frame that counts.

    Attributes:
        poses: [N, 4, 4] reference_from_image, mm; NaN where not `used`.
        relative: [N - 1, 4, 4], entry i maps frame i + 1 to frame i; NaN where either is not used.
        used: [N] bool.
        reference: index of the first used frame.
    """

    poses: np.ndarray
    relative: np.ndarray
    used: np.ndarray
    reference: int

    @classmethod
    def of(cls, frame0_from_image: np.ndarray, used: np.ndarray) -> ReferencedPoses:
        """From poses [N, 4, 4] in any one frame of reference; at least one frame is used."""
        reference = int(np.argmax(used))
        poses = invert_rigid(frame0_from_image[reference]) @ np.where(used[:, None, None], frame0_from_image, np.nan)
        poses[reference] = np.eye(4)
        return cls(poses, invert_rigid(poses[:-1]) @ poses[1:], used, reference)

    @property
    def centres_mm(self) -> np.ndarray:
        """[N, 3] image centres in the reference frame, mm."""
        return self.poses[:, :3, 3]


def baseline_poses(true: ReferencedPoses) -> dict[str, ReferencedPoses]:
    """Estimates that need no images: `identity`, no motion at all; `mean_motion`, the mean true step repeated.

    The latter is missing where no two neighbouring frames are used.
    """
    steps = true.relative[np.isfinite(true.relative).all(axis=(1, 2))]
    count = len(true.poses)
    baselines = {"identity": np.tile(np.eye(4), (count, 1, 1))}
    if len(steps):
        mean_step = matrices_from_parameters(parameters_from_matrices(steps).mean(axis=0))
        baselines["mean_motion"] = accumulate(np.tile(mean_step, (count - 1, 1, 1)))
    return {name: ReferencedPoses.of(poses, true.used) for name, poses in baselines.items()}
