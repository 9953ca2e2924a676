"""What the nodes of a result say of it: the report, short facts on every node, and the result made of them again."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from DualTrackCore.errors import InputError
from DualTrackCore.io.pose_marks import header_marks
from DualTrackCore.progress import finished
from DualTrackCore.run.results import RunReport, RunResult
from DualTrackSlicerLib.scene.input import SceneSweep, sweepInPieces
from DualTrackSlicerLib.scene.nodes import ijk_to_ras
from DualTrackSlicerLib.scene.nodes import tr as _
from DualTrackSlicerLib.scene.prepared import prepared_clip
from DualTrackSlicerLib.scene.result_nodes import ResultNodes
from DualTrackSlicerLib.scene.tables import frames_used, trajectory_in_pieces
from DualTrackSlicerLib.scene.wiring import BROWSER, IMAGES

if TYPE_CHECKING:
    from DualTrackCore.reconstruction import PlacedFrames, Reconstruction, VoxelGrid
    from DualTrackCore.sweep import Sweep
    from DualTrackCore.trajectory import Trajectory

#: Attributes of the transform sequence: `RunReport.to_json()` without the errors by frame, which a table holds, and
#: how long the run took, s.
REPORT, SECONDS = "DualTrack.Report", "DualTrack.Seconds"


def said_of(result: RunResult) -> dict[str, str]:
    """Attributes for every node of a result, for whoever meets it alone; what the result does not tell is left out.

    Spacing is in mm across columns and down rows, Chunk in frames, Warnings in lines. Given poses may have no model.
    """
    report = result.report
    spacing, source = report.sweep.get("spacing_mm"), report.trajectory["source"]
    values = {
        "DualTrack.Model": source.get("model"),
        "DualTrack.ModelSha256": source.get("weights_sha256"),
        "DualTrack.Spacing": None if spacing is None else " ".join(f"{value:.9g}" for value in spacing),
        "DualTrack.Precision": source.get("precision"),
        "DualTrack.Chunk": source.get("chunk_frames"),
        "DualTrack.Device": source.get("device"),
        "DualTrack.Version": report.dualtrack_version,
        "DualTrack.Date": report.created,
        "DualTrack.Settings": json.dumps(report.settings, sort_keys=True),
        "DualTrack.Trust": (report.trajectory["trust"] or {}).get("text"),
        "DualTrack.Warnings": "\n".join(report.warnings) or None,
        **header_marks(result.trajectory),
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def keep_report(transforms: slicer.vtkMRMLSequenceNode, result: RunResult) -> None:
    """Keep the report of a result on its transform sequence."""
    report = result.report
    if report.evaluation is not None:
        report = replace(report, evaluation={**report.evaluation, "per_frame": {}})
    transforms.SetAttribute(REPORT, report.to_json())
    transforms.SetAttribute(SECONDS, str(result.seconds.get("total", "")))


def reportOf(nodes: ResultNodes) -> RunReport:
    """The report of a result, without errors by frame. Raises InputError: it is missing or of another version."""
    try:
        return RunReport.from_dict(json.loads(nodes.transform_sequence.GetAttribute(REPORT) or "{}"))
    except (ValueError, AttributeError, InputError):
        sentence = _("{name} was made by another version of DualTrack; its figures are not shown; run the clip again.")
        raise InputError(sentence.format(name=nodes.name)) from None


def secondsOf(nodes: ResultNodes) -> float | None:
    """How long a run took, s; None where that is not known."""
    text = nodes.transform_sequence.GetAttribute(SECONDS)
    return float(text) if text else None


def clip_of(nodes: ResultNodes, pictures: bool = True) -> SceneSweep:
    """The clip of a result as it is loaded; without its `pictures` they are black. Raises InputError: it is gone."""
    return finished(clip_in_pieces(nodes, pictures))


def clip_in_pieces(
    nodes: ResultNodes, pictures: bool = True, tracker: slicer.vtkMRMLSequenceNode | None = None
) -> Generator[object, None, SceneSweep]:
    """:func:`clip_of`, in pieces as :func:`~DualTrackSlicerLib.scene.input.sweepInPieces`, or tracked by `tracker`."""
    transforms = nodes.transform_sequence
    browser, images = (transforms.GetNodeReference(name) for name in (BROWSER, IMAGES))
    if browser is None or images is None:
        sentence = _("The clip of {name} is no longer in the scene; load it again and run it.")
        raise InputError(sentence.format(name=nodes.name))
    return (yield from sweepInPieces(browser, images, pictures=pictures, transformSequenceNode=tracker))


def result_in_pieces(nodes: ResultNodes, clip: SceneSweep) -> Generator[None, None, RunResult]:
    """The result that the nodes of a run hold, with the frames of its clip; some slices of its volume at each step.

    Raises InputError: nodes of the run were deleted, or it is not of this clip.
    """
    report = reportOf(nodes)
    clip = prepared_clip(clip, report)
    sweep, trajectory = yield from path_of(nodes, clip, report)
    seconds = {} if secondsOf(nodes) is None else {"total": secondsOf(nodes)}
    yield
    volume = yield from _reconstruction(nodes, clip, report.volume)
    if volume is not None:
        first, how = report.sweep["first_frame"], report.volume["settings"]
        frames = slice(first, first + len(sweep))
        volume = replace(volume, placed=placed_frames(nodes.pose_table, frames, trajectory.poses, clip.sweep, how))
    if clip.sweep.truth is None:
        report = replace(report, evaluation=None)  # the tracker has left the scene
    return RunResult(sweep, trajectory, volume, report, seconds)


def path_of(nodes: ResultNodes, clip: SceneSweep, report: RunReport) -> Generator[None, None, tuple[Sweep, Trajectory]]:
    """The frames of a run and their poses, in pieces; `clip` is that of :func:`prepared_clip`.

    Raises InputError: as above.
    """
    trajectory, first = (yield from path_in_pieces(nodes, report)), report.sweep["first_frame"]
    if first + len(trajectory) > len(clip.sweep):
        raise InputError(_("{name} is of another clip; run the clip again.").format(name=nodes.name))
    return clip.sweep.slice(first, first + len(trajectory)), trajectory


def placed_frames(
    table: slicer.vtkMRMLTableNode, frames: slice, poses: np.ndarray, sweep: Sweep, how: Mapping[str, Any]
) -> PlacedFrames | None:
    """The frames of a run that its volume was made from; None where an earlier version did not say which."""
    used = frames_used(table)
    if used is None or "fan" not in how:
        return None
    from DualTrackCore.reconstruction import PixelSelection, PlacedFrames

    numbers = np.flatnonzero(used[frames])
    runs = PixelSelection.from_settings(how, sweep.frame_size).runs
    return PlacedFrames(numbers, poses[numbers] @ sweep.image_from_pixel, runs)


def path_in_pieces(nodes: ResultNodes, report: RunReport) -> Generator[None, None, Trajectory]:
    """The path of the frames that a run used, with all that its report says of it, from the nodes of the run.

    Raises InputError: the table of poses was deleted, or is another one.
    """
    first, count = report.sweep["first_frame"], report.sweep["frames"]
    frames, motions = slice(first, first + count), slice(first, first + count - 1)
    if nodes.pose_table is None:
        raise InputError(_("The table of poses of {name} was deleted; run the clip again.").format(name=nodes.name))
    kept = yield from trajectory_in_pieces(nodes.pose_table)
    if first + count > len(kept):
        raise InputError(_("{name} is of another clip; run the clip again.").format(name=nodes.name))
    parts = {"poses": frames, "valid": frames, "sigma": motions, "path_covariance": frames}
    values = {n: None if getattr(kept, n) is None else getattr(kept, n)[part] for n, part in parts.items()}
    return replace(kept, provenance=dict(report.trajectory["source"]), **values)


def _reconstruction(
    nodes: ResultNodes, clip: SceneSweep, facts: Mapping[str, Any] | None
) -> Generator[None, None, Reconstruction | None]:
    """Volume and coverage of the nodes on a grid in frame0; None where there are none."""
    if facts is None or nodes.volume is None or nodes.coverage is None:
        return None
    from DualTrackCore.reconstruction import Reconstruction, slabs

    volume, coverage = (slicer.util.arrayFromVolume(node) for node in (nodes.volume, nodes.coverage))
    filled = np.empty(volume.shape, bool)
    for part in slabs(coverage):
        filled[part] = (volume[part] > 0) & (coverage[part] == 0)
        yield
    used, skipped = facts["frames_used"], facts["frames_skipped"]
    grid = grid_of(nodes.volume, clip.node_from_image, facts)
    return Reconstruction(volume, coverage, filled, grid, used, skipped, facts["settings"])


def grid_of(volume: slicer.vtkMRMLScalarVolumeNode, node_from_image: np.ndarray, facts: Mapping[str, Any]) -> VoxelGrid:
    """Where the voxels of a volume node lie in frame0; `facts` are what the report says of the volume."""
    from DualTrackCore.reconstruction import VoxelGrid

    frame0_from_voxel = np.linalg.inv(node_from_image) @ ijk_to_ras(volume)
    spacing, size = np.linalg.norm(frame0_from_voxel[:3, :3], axis=0), volume.GetImageData().GetDimensions()
    axes, note = frame0_from_voxel[:3, :3] / spacing, facts["description"].partition("; ")[2].rstrip(".")
    return VoxelGrid(frame0_from_voxel[:3, 3], tuple(spacing.round(9)), size, axes, note=note)
