"""The result of a run as nodes of the scene: made, found again, replaced and removed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import slicer

from DualTrackCore.errors import InputError
from DualTrackCore.trajectory import invert_rigid
from DualTrackSlicerLib.scene import paths
from DualTrackSlicerLib.scene.display import renderVolume
from DualTrackSlicerLib.scene.input import SceneSweep
from DualTrackSlicerLib.scene.nodes import mark, provenance_attributes, remove_empty_folders
from DualTrackSlicerLib.scene.placement import (
    FramePoses,
    FrameQuality,
    frame_quality,
    node_motions,
    poses_of_all_frames,
    transform_sequence,
)
from DualTrackSlicerLib.scene.result_nodes import RUN, ResultNodes, file_result, nodes_of
from DualTrackSlicerLib.scene.tables import add_error_table, add_plots, add_pose_table
from DualTrackSlicerLib.scene.undo import attendants, make_undoable, save_state
from DualTrackSlicerLib.scene.volumes import add_volumes
from DualTrackSlicerLib.scene.wiring import (
    IMAGES,
    connect,
    disconnect,
    is_result_sequence,
    sequences_of,
)

if TYPE_CHECKING:
    from DualTrackCore.run.results import RunResult


def showResults(scene: slicer.vtkMRMLScene, sceneSweep: SceneSweep, result: RunResult) -> ResultNodes:
    """Put a result into the scene: one step of undo; an earlier result of the same clip goes.

    Afterwards the image moves through the scene as its browser is stepped. Nothing is changed where the result does
    not fit the clip.

    Raises:
        InputError: the result is of another clip, has no valid pose, or the clip has left the scene.
    """
    images = sceneSweep.image_sequence
    if images.GetScene() is not scene or sceneSweep.browser.GetScene() is not scene:
        raise InputError(f"The clip {images.GetName()} is no longer in the scene; its result cannot be shown there.")
    if images.GetNumberOfDataNodes() != len(sceneSweep.sweep):
        raise InputError(
            f"The clip {images.GetName()} has {images.GetNumberOfDataNodes()} frames now and had "
            f"{len(sceneSweep.sweep)} when the run began; run it again."
        )
    placed = poses_of_all_frames(result.trajectory, result.first_frame, len(sceneSweep.sweep))
    attributes = {RUN: uuid4().hex, **provenance_attributes(result)}
    name = images.GetName()
    transforms = transform_sequence(sceneSweep, node_motions(sceneSweep, placed), f"{name} poses", attributes)
    save_state(scene)
    previous = previousResults(sceneSweep.browser, images)
    if previous is not None:
        _remove(previous)
    scene.AddNode(transforms)
    proxy = connect(transforms)
    made = _add_all(scene, sceneSweep, result, placed, transforms, proxy)
    _finish(made, attributes)
    return previousResults(sceneSweep.browser, images)


def _add_all(
    scene: slicer.vtkMRMLScene,
    clip: SceneSweep,
    result: RunResult,
    placed: FramePoses,
    transforms: slicer.vtkMRMLSequenceNode,
    proxy: slicer.vtkMRMLTransformNode,
) -> ResultNodes:
    name, quality = clip.image_sequence.GetName(), frame_quality(clip, result)
    volume, coverage = add_volumes(scene, result, clip.node_from_image, name)
    if volume is not None:
        renderVolume(volume)
    trajectory_model, outlines = _add_paths(scene, clip, placed, quality)
    pose_table = add_pose_table(scene, clip, placed, quality, f"{name} pose table")
    made = ResultNodes(None, transforms, proxy, volume, coverage, trajectory_model, pose_table, outlines=outlines)
    if result.evaluation is None or clip.sweep.tracked is None:
        return made
    return _with_truth(scene, clip, result, made)


def _add_paths(
    scene: slicer.vtkMRMLScene, clip: SceneSweep, placed: FramePoses, quality: FrameQuality
) -> tuple[slicer.vtkMRMLModelNode, list[slicer.vtkMRMLModelNode]]:
    """The tube, and the outlines of the first and the last valid frame."""
    name = clip.image_sequence.GetName()
    corners = paths.frame_corners(clip.sweep.image_from_pixel, clip.sweep.frame_size)
    radius = _tube_radius(corners)
    node_from_image = clip.node_from_image @ placed.poses
    centres = np.where(placed.valid[:, None], node_from_image[:, :3, 3], np.nan)
    values = {paths.FRAME: np.arange(len(centres)), paths.SPEED: np.nan_to_num(quality.speed)}
    tube = paths.add_path(scene, centres, values, f"{name} trajectory", radius)
    paths.colourTrajectory(tube)
    known = np.flatnonzero(placed.valid)
    ends = (("first frame", known[0], paths.FIRST_COLOUR), ("last frame", known[-1], paths.LAST_COLOUR))
    outlines = [
        paths.add_outline(scene, (node_from_image[index] @ corners)[:3].T, f"{name} {what}", colour, radius / 2)
        for what, index, colour in ends
    ]
    return tube, outlines


def _tube_radius(corners: np.ndarray) -> float:
    """A hundredth of the diagonal of a frame: visible in the whole, thin beside it."""
    return float(np.linalg.norm(corners[:3, 2] - corners[:3, 0])) / 100


def _with_truth(scene: slicer.vtkMRMLScene, clip: SceneSweep, result: RunResult, made: ResultNodes) -> ResultNodes:
    """The nodes with the true path, errors and plots added; the truth is laid over the first frame valid in both."""
    name, estimated = clip.image_sequence.GetName(), result.trajectory
    frames = slice(result.first_frame, result.first_frame + len(estimated))
    tracked, valid = clip.sweep.tracked.poses[frames], clip.sweep.tracked.valid[frames]
    common = np.flatnonzero(valid & estimated.valid)
    if not len(common):
        return made
    shift = estimated.poses[common[0]] @ invert_rigid(tracked[common[0]])
    true = np.where(valid[:, None], (shift @ np.nan_to_num(tracked))[:, :3, 3], np.nan)
    centres = true @ clip.node_from_image[:3, :3].T + clip.node_from_image[:3, 3]
    corners = paths.frame_corners(clip.sweep.image_from_pixel, clip.sweep.frame_size)
    model = paths.add_path(scene, centres, {}, f"{name} true trajectory", _tube_radius(corners) * 0.7)
    paths.colour_plainly(model, paths.TRUTH_COLOUR)
    table = add_error_table(scene, result, estimated.centres_mm, true, f"{name} errors by frame")
    charts, series = add_plots(scene, table, name)
    return replace(made, truth_model=model, error_table=table, plots=charts, plot_series=series)


def _finish(made: ResultNodes, attributes: dict[str, str]) -> None:
    """Provenance, parent, references and folder of all nodes of a run."""
    base = made.transform_proxy.GetTransformNodeID()
    for node in (made.volume, made.coverage, made.trajectory_model, made.truth_model, *made.outlines):
        if node is not None:
            node.SetAndObserveTransformNodeID(base)
    mark(made, attributes)
    made.remember()
    make_undoable(made)
    file_result(made.transform_sequence)


def previousResults(
    browserNode: slicer.vtkMRMLSequenceBrowserNode, imageSequenceNode: slicer.vtkMRMLSequenceNode | None = None
) -> ResultNodes | None:
    """The result of the last run of a clip, also after the scene was saved and loaded; None where there is none.

    Args:
        browserNode: the browser of the clip.
        imageSequenceNode: its images; None takes the first result of the browser, whatever the images.
    """
    for sequence in sequences_of(browserNode):
        if is_result_sequence(sequence) and imageSequenceNode in (None, sequence.GetNodeReference(IMAGES)):
            return nodes_of(sequence)
    return None


def removeResults(nodes: ResultNodes) -> None:
    """Take a result out of the scene, in one step of undo, and restore the parent of the image."""
    scene = nodes.transform_sequence.GetScene()
    if scene is None:
        return
    images = nodes.transform_sequence.GetNodeReference(IMAGES)
    save_state(scene)
    _remove(nodes)
    if images is not None:
        disconnect(images)


def _remove(nodes: ResultNodes) -> None:
    scene = nodes.transform_sequence.GetScene()
    for node in list(nodes):
        for part in (*attendants(node), node):
            if part.GetScene() is scene:
                scene.RemoveNode(part)
    remove_empty_folders(scene)
