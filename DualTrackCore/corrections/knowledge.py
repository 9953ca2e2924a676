"""What a user may know of a path: each kind a frozen dataclass, checked when it is made.

Frames are indices into the trajectory. Lengths are in mm, angles in degrees; accuracies are standard deviations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.settings import check_settings, setting

#: Which part of the motion a known length scales: across the image (tz, rx, ry), or all positions.
Scale = Literal["elevational", "all"]
_MM = {"unit": "mm", "above": 0, "at_most": 1000}
_DEGREES = {"unit": "degrees", "above": 0, "at_most": 180}


@dataclass(frozen=True)
class KnownLength:
    """The length of the path of the image centre, or with `frames` the distance between the centres of two frames."""

    length_mm: float = setting(help="the known length", unit="mm", above=0, at_most=10000)
    frames: tuple[int, int] | None = setting(None, help="the two frames that lie so far apart", at_least=0)
    scale: Scale = setting("elevational", help="what is scaled")
    accuracy_mm: float = setting(1.0, help="how well the length is known", **_MM)

    def __post_init__(self) -> None:
        check_settings(self, "Of the known length")
        if self.frames is not None and self.frames[0] == self.frames[1]:
            raise InputError(f"The known distance is from frame {self.frames[0]} to itself; name two frames.")


@dataclass(frozen=True)
class KnownScale:
    """The factor of the elevational motion that a scanner profile says (:mod:`~DualTrackCore.corrections.profile`)."""

    profile: str = setting(help="its name")
    factor: float = setting(help="what the elevational motion is multiplied by", at_least=0.2, at_most=5)
    spread: float = setting(help="standard deviation of the logarithm of the factor", above=0, at_most=1)

    def __post_init__(self) -> None:
        check_settings(self, "Of the scanner profile")


@dataclass(frozen=True, eq=False)
class SamePoint:
    """One anatomical point, marked in several frames.

    Attributes:
        name: of the point, for messages.
        frames: [m] two or more different frames.
        points_mm: [m, 2] image coordinates (x, y) in them, origin at the image centre, mm.
        accuracy_mm: of one mark.
    """

    name: str
    frames: tuple[int, ...]
    points_mm: np.ndarray
    accuracy_mm: float = setting(1.0, help="how well a mark is set", **_MM)

    def __post_init__(self) -> None:
        points, frames = np.array(self.points_mm, dtype=np.float64), tuple(map(int, self.frames))
        if len(set(frames)) < max(len(frames), 2):
            raise InputError(f"The point {self.name!r} is not marked in two or more different frames; mark it again.")
        if points.shape != (len(frames), 2) or not np.isfinite(points).all():
            raise InputError(f"The marks of the point {self.name!r} are not two finite numbers for each frame.")
        points.flags.writeable = False
        object.__setattr__(self, "points_mm", points)
        object.__setattr__(self, "frames", frames)
        check_settings(self, f"Of the point {self.name!r}")


@dataclass(frozen=True)
class SamePlace:
    """Two frames at the same place: the probe came back."""

    frames: tuple[int, int] = setting(help="the two frames", at_least=0)
    accuracy_mm: float = setting(2.0, help="how near they lie", **_MM)
    accuracy_deg: float = setting(3.0, help="how alike they are turned", **_DEGREES)

    def __post_init__(self) -> None:
        check_settings(self, "Of a place that was seen twice")
        if self.frames[0] == self.frames[1]:
            raise InputError(f"Frame {self.frames[0]} is at its own place; name two different frames.")


@dataclass(frozen=True)
class Limits:
    """How the probe can have moved.

    Attributes:
        monotone: never back along the image normal.
        most_step_mm, most_turn_deg: from one frame to the next.
        stops: (first, last) frames between which the probe stood still.
    """

    monotone: bool = setting(False, help="the probe never moved back")
    most_step_mm: float | None = setting(None, help="longest step", **_MM)
    most_turn_deg: float | None = setting(None, help="largest turn", **_DEGREES)
    stops: tuple[tuple[int, int], ...] = setting((), help="first and last frames of each stop", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self, "Of the limits of the motion")
        for first, last in self.stops:
            if last <= first:
                raise InputError(f"The probe cannot stand still from frame {first} to frame {last}; give first,last.")


@dataclass(frozen=True, eq=False)
class KnownPoses:
    """Poses of some frames from elsewhere, such as an IMU or a tracker, in a world of their own.

    Attributes:
        name: what they are from, for messages.
        frames: [m] different frames.
        poses: [m, 4, 4] world_from_image, rigid; where the world lies in frame0 is found from them.
        accuracy_mm: of the positions; None where they say nothing.
        accuracy_deg: of the orientations; None where they say nothing.
    """

    name: str
    frames: np.ndarray
    poses: np.ndarray
    accuracy_mm: float | None = setting(None, help="how well positions are known", **_MM)
    accuracy_deg: float | None = setting(None, help="how well orientations are known", **_DEGREES)

    def __post_init__(self) -> None:
        frames, poses = np.array(self.frames, dtype=np.int64), np.array(self.poses, dtype=np.float64)
        if poses.shape != (len(frames), 4, 4) or not np.isfinite(poses).all():
            raise InputError(f"The {self.name} are not one finite 4x4 matrix for each of {len(frames)} frames.")
        if len(frames) < 2 or len(np.unique(frames)) < len(frames):
            raise InputError(f"The {self.name} say nothing of the path: two or more different frames are needed.")
        if self.accuracy_mm is None and self.accuracy_deg is None:
            raise InputError(f"It is not said how well the {self.name} are known; give an accuracy.")
        object.__setattr__(self, "frames", frames)
        object.__setattr__(self, "poses", poses)
        check_settings(self, f"Of the {self.name}")


Knowledge = KnownLength | KnownScale | SamePoint | SamePlace | Limits | KnownPoses
