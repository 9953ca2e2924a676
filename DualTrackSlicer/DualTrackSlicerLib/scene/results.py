"""The results of runs as nodes of the scene: made, found again, shown, turned over and removed."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import numpy as np
import slicer
import vtk

from DualTrackCore.errors import InputError
from DualTrackCore.path_error import path_error
from DualTrackCore.trajectory import Trajectory, invert_rigid
from DualTrackSlicerLib.scene import paths
from DualTrackSlicerLib.scene.display import add_volumes, renderVolume
from DualTrackSlicerLib.scene.input import SceneSweep
from DualTrackSlicerLib.scene.nodes import add_node, finished
from DualTrackSlicerLib.scene.nodes import tr as _
from DualTrackSlicerLib.scene.prepared import prepared_clip
from DualTrackSlicerLib.scene.records import clip_of, keep_report, result_in_pieces, said_of
from DualTrackSlicerLib.scene.result_nodes import (
    CORRECTED,
    RUN,
    ResultNodes,
    file_result,
    make_undoable,
    nodes_of,
    remove_nodes,
    restore_references,
    save_state,
    show_alone,
)
from DualTrackSlicerLib.scene.tables import add_error_table, add_plots, frame_quality, pose_table
from DualTrackSlicerLib.scene.wiring import (
    IMAGES,
    PIECE,
    ROLE,
    connect,
    connected,
    disconnect,
    is_result_sequence,
    result_sequences,
    sequences_of,
    transform_sequence,
)

if TYPE_CHECKING:
    from DualTrackCore.run.results import RunResult


class _Made(NamedTuple):
    """What is made of a result before the scene changes."""

    transforms: slicer.vtkMRMLSequenceNode
    table: slicer.vtkMRMLTableNode
    path: vtk.vtkPolyData
    error_tube: vtk.vtkPolyData | None


def showResults(
    scene: slicer.vtkMRMLScene, sceneSweep: SceneSweep, result: RunResult, replaced: ResultNodes | None = None
) -> ResultNodes:
    """Put a result into the scene and show it: one step of undo. Earlier results of the same clip stay, hidden.

    Afterwards the image moves through the scene as its browser is stepped. Nothing is changed where the result does
    not fit the clip. The volumes share the memory of the result's arrays.

    Args:
        replaced: an earlier result that goes; the new one takes the name of its folder.

    Raises InputError: the result is of another clip, has no valid pose, or the clip has left the scene.
    """
    return finished(showInPieces(scene, sceneSweep, result, replaced))


def showInPieces(
    scene: slicer.vtkMRMLScene,
    sceneSweep: SceneSweep,
    result: RunResult,
    replaced: ResultNodes | None = None,
    base: ResultNodes | None = None,
) -> Generator[None, None, ResultNodes]:
    """Do as :func:`showResults` in small pieces; the scene changes in the last one alone.

    Args:
        base: the result that this one was corrected from; see :func:`baseOf`.
    """
    _require_unchanged(scene, sceneSweep)
    clip = prepared_clip(sceneSweep, result.report)
    placed = _poses_of_all_frames(result.trajectory, result.first_frame, len(clip.sweep))
    attributes = {RUN: uuid4().hex, **said_of(result)}
    if base is not None:
        attributes[CORRECTED] = base.transform_sequence.GetAttribute(RUN)
    # What moves the image of each frame to where it was: the first one stays where it was loaded.
    motions = clip.node_from_image @ placed.poses @ clip.image_from_node
    transforms = yield from transform_sequence(clip.browser, clip.image_sequence, motions, attributes)
    quality = frame_quality(clip, result)
    frames = None if result.reconstruction is None else result.reconstruction.placed
    used = None if frames is None else result.first_frame + frames.numbers
    table = yield from pose_table(clip, placed, quality, used)
    centres = (clip.node_from_image @ placed.poses)[:, :3, 3]
    values = {paths.FRAME: np.arange(len(centres)), paths.SPEED: np.nan_to_num(quality.speed)}
    path = paths.tube(np.where(placed.valid[:, None], centres, np.nan), values, _tube_radius(clip))
    made = _Made(transforms, table, path, (yield from _error_tube(result, centres)))
    yield
    _require_unchanged(scene, sceneSweep)  # others had their turns
    if replaced is not None and replaced.transform_sequence.GetScene() is not scene:
        raise InputError(_("The result was deleted meanwhile; nothing was changed."))
    return _show(scene, clip, result, placed, made, attributes, replaced)


def _require_unchanged(scene: slicer.vtkMRMLScene, sceneSweep: SceneSweep) -> None:
    images = sceneSweep.image_sequence
    if images.GetScene() is not scene or sceneSweep.browser.GetScene() is not scene:
        sentence = _("The clip {name} is no longer in the scene; its result cannot be shown there.")
        raise InputError(sentence.format(name=images.GetName()))
    if images.GetNumberOfDataNodes() != len(sceneSweep.sweep):
        sentence = _("The clip {name} has {now} frames now and had {before} when the run began; run it again.")
        now, before = images.GetNumberOfDataNodes(), len(sceneSweep.sweep)
        raise InputError(sentence.format(name=images.GetName(), now=now, before=before))


def _show(
    scene: slicer.vtkMRMLScene,
    clip: SceneSweep,
    result: RunResult,
    placed: Trajectory,
    made: _Made,
    attributes: dict[str, str],
    replaced: ResultNodes | None,
) -> ResultNodes:
    save_state(scene)
    name = None if replaced is None else replaced.name
    if replaced is not None:
        remove_nodes(scene, replaced)
    transforms = scene.AddNode(made.transforms)
    nodes = ResultNodes(None, transforms, connect(transforms))
    nodes = _with_estimate(scene, clip, result, placed, made, nodes)
    nodes = _with_truth(scene, clip, result, nodes)
    keep_report(transforms, result)
    _finish(nodes, attributes, name)
    show_alone(transforms)
    return nodes_of(transforms)


def _poses_of_all_frames(trajectory: Trajectory, first_frame: int, count: int) -> Trajectory:
    """The poses of a run for all `count` images of its clip; where not valid, those of the nearest valid frame.

    Raises InputError: frames beyond the clip, or no valid pose.
    """
    stop = first_frame + len(trajectory)
    if first_frame < 0 or stop > count:
        sentence = _(
            "The result is about the frames {first} to {last} and the clip has {count} frames; it is of another clip."
        )
        raise InputError(sentence.format(first=first_frame, last=stop - 1, count=count))
    valid = np.zeros(count, bool)
    valid[first_frame:stop] = trajectory.valid
    known = np.flatnonzero(valid)
    if not len(known):
        raise InputError(_("The result has no valid pose; there is nothing to show."))
    frames = np.arange(count)
    after = known[np.minimum(np.searchsorted(known, frames), len(known) - 1)]
    before = known[np.maximum(np.searchsorted(known, frames, side="right") - 1, 0)]
    nearest = np.where(np.abs(frames - before) <= np.abs(after - frames), before, after)
    poses, errors = trajectory.poses[nearest - first_frame], {"sigma": None, "path_covariance": None}
    for (name, _none), rows in zip(errors.items(), (count - 1, count), strict=True):
        if (known := getattr(trajectory, name)) is not None:
            errors[name] = np.full((rows, known.shape[1]), np.nan)
            errors[name][first_frame : first_frame + len(known)] = known
    return Trajectory(poses, valid, provenance=trajectory.provenance, origin=trajectory.origin, **errors)


def _error_tube(result: RunResult, centres: np.ndarray) -> Generator[None, None, vtk.vtkPolyData | None]:
    """Around the path of the run, [N, 3] centres of all images; None where nothing is known of its error."""
    error = path_error(result.trajectory)
    if error is None or not np.isfinite(error.end_length_mm):
        return None
    radius, first = np.full(len(centres), np.nan), result.first_frame
    for start in range(0, len(result.trajectory), PIECE):
        yield
        part = error.covariance_mm2[start : start + PIECE]
        radius[first + start : first + start + len(part)] = replace(error, covariance_mm2=part).radius_mm()
    yield
    return paths.tube(centres, {}, radius)


def _with_estimate(
    scene: slicer.vtkMRMLScene,
    clip: SceneSweep,
    result: RunResult,
    placed: Trajectory,
    made: _Made,
    nodes: ResultNodes,
) -> ResultNodes:
    """The nodes with volumes, path and table of poses added."""
    name = clip.image_sequence.GetName()
    volume, coverage = add_volumes(scene, result, clip.node_from_image, name)
    if volume is not None:
        renderVolume(volume)
    path, outlines = paths.add_path(scene, made.path, f"{name} trajectory"), _add_outlines(scene, clip, placed)
    paths.colourTrajectory(path)
    table, error_tube = add_node(scene, made.table, f"{name} pose table"), None
    if made.error_tube is not None:
        basis = path_error(result.trajectory).basis
        error_tube = paths.add_error_tube(scene, made.error_tube, f"{name} error tube, 95 % {basis}")
    nodes = replace(nodes, volume=volume, coverage=coverage, trajectory_model=path, outlines=outlines)
    return replace(nodes, pose_table=table, error_tube=error_tube)


def _add_outlines(scene: slicer.vtkMRMLScene, clip: SceneSweep, placed: Trajectory) -> list[slicer.vtkMRMLModelNode]:
    """Of the first and the last valid frame."""
    corners, name = _corners(clip), clip.image_sequence.GetName()
    known, radius = np.flatnonzero(placed.valid), _tube_radius(clip) / 2
    ends = (("first frame", known[0], paths.FIRST_COLOUR), ("last frame", known[-1], paths.LAST_COLOUR))
    places = [(clip.node_from_image @ placed.poses[index] @ corners)[:3].T for _what, index, _colour in ends]
    return [
        paths.add_outline(scene, place, f"{name} {what}", colour, radius)
        for place, (what, _index, colour) in zip(places, ends, strict=True)
    ]


def _corners(clip: SceneSweep) -> np.ndarray:
    return paths.frame_corners(clip.sweep.image_from_pixel, clip.sweep.frame_size)


def _tube_radius(clip: SceneSweep) -> float:
    """A hundredth of the diagonal of a frame: visible in the whole, thin beside it."""
    corners = _corners(clip)
    return float(np.linalg.norm(corners[:3, 2] - corners[:3, 0])) / 100


def _with_truth(scene: slicer.vtkMRMLScene, clip: SceneSweep, result: RunResult, made: ResultNodes) -> ResultNodes:
    """The nodes with the true path, errors and plots added; the truth is laid over the first frame valid in both."""
    if result.evaluation is None or clip.sweep.truth is None:
        return made
    name, estimated = clip.image_sequence.GetName(), result.trajectory
    frames = slice(result.first_frame, result.first_frame + len(estimated))
    tracked, valid = clip.sweep.tracked.poses[frames], clip.sweep.tracked.valid[frames]
    common = np.flatnonzero(valid & estimated.valid)
    if not len(common):
        return made
    shift = estimated.poses[common[0]] @ invert_rigid(tracked[common[0]])
    true = np.where(valid[:, None], (shift @ np.nan_to_num(tracked))[:, :3, 3], np.nan)
    centres = true @ clip.node_from_image[:3, :3].T + clip.node_from_image[:3, 3]
    surface = paths.tube(centres, {}, _tube_radius(clip) * 0.7)
    model = paths.add_path(scene, surface, f"{name} true trajectory")
    paths.colour_plainly(model, paths.TRUTH_COLOUR)
    table = add_error_table(scene, result, estimated.centres_mm, true, f"{name} errors by frame")
    charts, series = add_plots(scene, table, name)
    return replace(made, truth_model=model, error_table=table, plots=charts, plot_series=series)


def _finish(made: ResultNodes, attributes: dict[str, str], name: str | None) -> None:
    """Provenance, parent, references and folder of all nodes of a run."""
    base = made.transform_proxy.GetTransformNodeID()
    for node in (made.volume, made.coverage, made.trajectory_model, made.error_tube, made.truth_model, *made.outlines):
        if node is not None:
            node.SetAndObserveTransformNodeID(base)
    for node in made:
        for key, value in attributes.items():
            node.SetAttribute(key, value)
    for role, node in made.by_role():
        node.SetAttribute(ROLE, role)
    restore_references(made.transform_sequence)
    make_undoable(made)
    file_result(made.transform_sequence, name)


def resultsOf(imageSequenceNode: slicer.vtkMRMLSequenceNode) -> list[ResultNodes]:
    """All results of a clip in the scene, the oldest first."""
    return [nodes_of(node) for node in result_sequences(imageSequenceNode.GetScene(), imageSequenceNode)]


def baseOf(nodes: ResultNodes) -> ResultNodes | None:
    """The result that one was corrected from; None for one that was not, or whose base has left the scene."""
    transforms = nodes.transform_sequence
    wanted, images = transforms.GetAttribute(CORRECTED), transforms.GetNodeReference(IMAGES)
    found = [node for node in result_sequences(transforms.GetScene(), images) if node.GetAttribute(RUN) == wanted]
    return nodes_of(found[0]) if wanted and found else None


def shownResult(
    browserNode: slicer.vtkMRMLSequenceBrowserNode, imageSequenceNode: slicer.vtkMRMLSequenceNode | None = None
) -> ResultNodes | None:
    """The result that a clip moves with, also after the scene was saved and loaded; None where there is none.

    Args:
        browserNode: the browser of the clip.
        imageSequenceNode: its images; None takes the first of the browser that have a result.
    """
    for images in sequences_of(browserNode) if imageSequenceNode is None else [imageSequenceNode]:
        if not is_result_sequence(images) and (shown := connected(images)) is not None:
            return nodes_of(shown)
    return None


def showResult(nodes: ResultNodes) -> None:
    """Show a result in place of the other ones of its clip, whose image moves with it then."""
    show_alone(nodes.transform_sequence)
    if nodes.trajectory_model is not None:
        paths.colourTrajectory(nodes.trajectory_model)


def compareResults(nodes: ResultNodes, other: ResultNodes) -> None:
    """Show the path of another result beside that of a shown one, each in a colour; :func:`showResult` ends it."""
    showResult(nodes)
    for result, colour in ((nodes, paths.FIRST_COLOUR), (other, paths.LAST_COLOUR)):
        if result.trajectory_model is not None:
            result.trajectory_model.GetDisplayNode().SetVisibility(True)
            paths.colour_plainly(result.trajectory_model, colour)


def turnOver(nodes: ResultNodes) -> ResultNodes:
    """Show a result with the sweep running the other way, in place of the first; again, and it is the first one.

    Raises InputError: the poses are measured, or the clip has left the scene or changed; the result stays as it is.
    """
    return finished(turnOverInPieces(nodes))


def turnOverInPieces(nodes: ResultNodes) -> Generator[object, None, ResultNodes]:
    """Do as :func:`turnOver` in small pieces; the scene changes in the last one alone."""
    scene = nodes.transform_sequence.GetScene()
    clip = clip_of(nodes, pictures=False)
    yield
    result = yield from result_in_pieces(nodes, clip)
    turned = yield from result.turn_over_in_pieces()
    yield
    del result  # takes a while, as everything about a large volume
    yield
    return (yield from showInPieces(scene, clip, turned, nodes))


def removeResults(nodes: ResultNodes) -> None:
    """Take a result out of the scene, in one step of undo; the newest one left is shown, or the image goes back."""
    scene = nodes.transform_sequence.GetScene()
    if scene is None:
        return
    images = nodes.transform_sequence.GetNodeReference(IMAGES)
    save_state(scene)
    remove_nodes(scene, nodes)
    if images is not None:
        left = connected(images)
        if left is None:
            disconnect(images)
        else:
            show_alone(left)
