"""What can be said of each frame of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from DualTrackSlicerLib.scene.input import SceneSweep

if TYPE_CHECKING:
    from DualTrackCore.run.results import RunResult


@dataclass(frozen=True, eq=False)
class FrameQuality:
    """Numbers for each image of a clip; NaN where they are not known.

    Attributes:
        step_mm: [N] way of the image centre since the frame before.
        turn_deg: [N] rotation since the frame before.
        speed: [N] way a second, or a frame where times are unknown.
        speed_unit: "mm/s" or "mm/frame".
    """

    step_mm: np.ndarray
    turn_deg: np.ndarray
    speed: np.ndarray
    speed_unit: str


def frame_quality(clip: SceneSweep, result: RunResult) -> FrameQuality:
    """The quality of every frame of a clip from the trajectory of a run."""
    count, start = len(clip.sweep), result.first_frame
    relative = result.trajectory.relative
    used = slice(start + 1, start + len(result.trajectory))
    step, turn = np.full(count, np.nan), np.full(count, np.nan)
    step[used] = np.linalg.norm(relative[:, :3, 3], axis=1)
    cosine = (np.trace(relative[:, :3, :3], axis1=1, axis2=2) - 1) / 2
    turn[used] = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
    speed, unit = step, "mm/frame"
    if clip.sweep.timestamps_s is not None:
        seconds = np.diff(clip.sweep.timestamps_s, prepend=np.nan)
        speed, unit = np.divide(step, seconds, out=np.full(count, np.nan), where=seconds > 0), "mm/s"
    return FrameQuality(step, turn, speed, unit)
