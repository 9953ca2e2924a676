"""Which way along the sweep a path runs: what can be asked for, what is said of it, and the path turned over.

Speckle tells how far a frame lies from the one before, not on which side of it. A sweep that runs the other way is the
mirror image at the image plane: tz, rx and ry of every motion change sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.trajectory import Trajectory

#: What can be asked for: as the direction head of the weights says, as the motions are without it, or mirrored.
Direction = Literal["auto", "as-found", "other-way"]
#: What is said of the direction, in the provenance of a trajectory as `direction`; the last where weights have no head.
SURE, UNSURE, TOLD, AS_WEIGHTS_SAY = "sure", "unsure", "told by the user", "as the weights say"
#: [4, 4] mirror at the image plane.
IMAGE_MIRROR = np.diag([1.0, 1.0, -1.0, 1.0])
#: [6] what that mirror does to the parameters of a motion.
OTHER_WAY_SIGNS = np.array([1.0, 1.0, -1.0, -1.0, -1.0, 1.0])
for _constant in (IMAGE_MIRROR, OTHER_WAY_SIGNS):
    _constant.flags.writeable = False


def turned_over(trajectory: Trajectory) -> Trajectory:
    """The path of the same sweep running the other way: mirrored at the image plane of frame0, which stays.

    Its provenance says that the user told the direction, and in `turned_over` what was said before; turning it over
    again gives the first trajectory back, bit for bit.

    Raises:
        InputError: the poses are measured or simulated, so nothing about them is to be told.
    """
    if trajectory.origin.is_truth:
        raise InputError(
            f"The poses are {trajectory.origin_text} and cannot be turned over; only estimated ones can run the other "
            "way. Leave direction (--direction) out."
        )
    said = dict(trajectory.provenance)
    if said.get("direction_log_odds") is not None:
        said["direction_log_odds"] = -said["direction_log_odds"]
    if "turned_over" in said:
        former = {"direction": said.pop("turned_over")}
    else:
        former = {"turned_over": said.get("direction"), "direction": TOLD}
    said |= former | {"direction_mirrored": not said.get("direction_mirrored", False)}
    if said["direction"] is None:
        del said["direction"], said["direction_mirrored"]
    return replace(trajectory, poses=mirrored_poses(trajectory.poses), provenance=said)


def mirrored_poses(poses: np.ndarray) -> np.ndarray:
    """Poses [..., 4, 4] in frame0, or from frame to frame, of the same sweep running the other way; exact."""
    signs = np.diag(IMAGE_MIRROR)
    return poses * np.outer(signs, signs)


def direction_of(provenance: Mapping[str, Any]) -> Direction:
    """What a run is asked for so that it gives the direction that a trajectory of this provenance has."""
    if provenance.get("direction") != TOLD:
        return "auto"
    return "other-way" if provenance.get("direction_mirrored") else "as-found"


def direction_warnings(provenance: Mapping[str, Any]) -> list[str]:
    """A sentence for the user where the direction of the trajectory is unsure."""
    if provenance.get("direction") != UNSURE:
        return []
    return [
        "It is unsure which way along the sweep the probe moved. If the volume is a mirror image, turn it over: run "
        "with the direction other-way, or press “Runs the other way” in Slicer."
    ]
