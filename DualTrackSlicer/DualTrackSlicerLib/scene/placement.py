"""Poses of a run for each image of the clip: as transforms of the image node, and as steps, turns and speeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import slicer

from DualTrackCore.errors import InputError
from DualTrackCore.trajectory import Trajectory
from DualTrackSlicerLib.scene.input import SceneSweep
from DualTrackSlicerLib.scene.nodes import to_vtk
from DualTrackSlicerLib.scene.wiring import BROWSER, IMAGES, POSE, POSES, ROLE

if TYPE_CHECKING:
    from DualTrackCore.run.results import RunResult


@dataclass(frozen=True, eq=False)
class FramePoses:
    """A pose for every image of a clip, also where the run gives none.

    Attributes:
        poses: [N, 4, 4] float64 frame0_from_image, mm; where `valid` is false that of the nearest valid frame.
        valid: [N] bool, whether the run gives the pose itself.
    """

    poses: np.ndarray
    valid: np.ndarray


def poses_of_all_frames(trajectory: Trajectory, first_frame: int, count: int) -> FramePoses:
    """The poses of a run spread over the images of its clip.

    Args:
        trajectory: of the frames that the run used.
        first_frame: index of the first of them in the clip.
        count: number of images of the clip.

    Raises:
        InputError: frames beyond the clip, or no valid pose.
    """
    stop = first_frame + len(trajectory)
    if first_frame < 0 or stop > count:
        raise InputError(
            f"The result is about the frames {first_frame} to {stop - 1} and the clip has {count} frames; "
            "it is of another clip."
        )
    valid = np.zeros(count, bool)
    valid[first_frame:stop] = trajectory.valid
    known = np.flatnonzero(valid)
    if not len(known):
        raise InputError("The result has no valid pose; there is nothing to show.")
    frames = np.arange(count)
    after = known[np.minimum(np.searchsorted(known, frames), len(known) - 1)]
    before = known[np.maximum(np.searchsorted(known, frames, side="right") - 1, 0)]
    nearest = np.where(np.abs(frames - before) <= np.abs(after - frames), before, after)
    return FramePoses(trajectory.poses[nearest - first_frame], valid)


def node_motions(clip: SceneSweep, placed: FramePoses) -> np.ndarray:
    """[N, 4, 4] float64: what moves the image node of each frame to where it was, local RAS to local RAS, mm.

    `node_from_image @ poses[i] @ image_from_node[i]`: frame 0 stays where it was loaded.
    """
    return clip.node_from_image @ placed.poses @ clip.image_from_node


def transform_sequence(
    clip: SceneSweep, motions: np.ndarray, name: str, attributes: dict[str, str]
) -> slicer.vtkMRMLSequenceNode:
    """A sequence of linear transforms with the index values of the images, neither in the scene nor in the browser yet.

    Args:
        motions: [N, 4, 4], one for each image.
        name: of the sequence and of its transforms.
        attributes: of the sequence and of its transforms.
    """
    images = clip.image_sequence
    sequence = slicer.vtkMRMLSequenceNode()
    sequence.SetName(name)
    sequence.SetIndexType(images.GetIndexType())
    sequence.SetIndexName(images.GetIndexName())
    sequence.SetIndexUnit(images.GetIndexUnit())
    sequence.SetNumericIndexValueTolerance(images.GetNumericIndexValueTolerance())
    template = slicer.vtkMRMLLinearTransformNode()
    template.SetName(name)
    for key, value in attributes.items():
        sequence.SetAttribute(key, value)
        template.SetAttribute(key, value)
    sequence.SetAttribute(ROLE, POSES)
    template.SetAttribute(ROLE, POSE)
    for number, motion in enumerate(motions):
        template.SetMatrixTransformToParent(to_vtk(motion))
        sequence.SetDataNodeAtValue(template, images.GetNthIndexValue(number))
    _require_same_index(sequence, images)
    sequence.SetNodeReferenceID(IMAGES, images.GetID())
    sequence.SetNodeReferenceID(BROWSER, clip.browser.GetID())
    return sequence


def _require_same_index(sequence: slicer.vtkMRMLSequenceNode, images: slicer.vtkMRMLSequenceNode) -> None:
    """A browser reuses the item before a missing one without a word, so every image must have its own transform."""
    count = images.GetNumberOfDataNodes()
    same = sequence.GetNumberOfDataNodes() == count and all(
        sequence.GetNthIndexValue(number) == images.GetNthIndexValue(number) for number in range(count)
    )
    if not same:
        raise InputError(
            f"The index values of {images.GetName()} lie closer together than its tolerance of "
            f"{images.GetNumericIndexValueTolerance():g}, so frames cannot be told apart; load the clip with the frame "
            "number as index."
        )


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
