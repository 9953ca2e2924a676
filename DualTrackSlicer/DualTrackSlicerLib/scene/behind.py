"""The frames behind a point of a result's volume, and the point of a frame that lies in the plane of another view."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import slicer

from DualTrackCore.errors import InputError
from DualTrackCore.run.preparation import source_from_pixel
from DualTrackCore.run.settings import RunSettings
from DualTrackSlicerLib.scene.frames import first_layout
from DualTrackSlicerLib.scene.input import SceneSweep
from DualTrackSlicerLib.scene.nodes import ijk_to_world, world_from_node
from DualTrackSlicerLib.scene.nodes import tr as _
from DualTrackSlicerLib.scene.prepared import prepared_clip
from DualTrackSlicerLib.scene.records import clip_in_pieces, grid_of, path_of, placed_frames, reportOf
from DualTrackSlicerLib.scene.result_nodes import ResultNodes

if TYPE_CHECKING:
    from DualTrackCore.reconstruction import PlacedFrames, VoxelGrid
    from DualTrackCore.run.results import RunReport
    from DualTrackCore.trajectory import Trajectory

#: How far from the plane of a picture a click into it may lie, by rounding, mm.
_IN_PLANE_MM = 1e-3


@dataclass(frozen=True, eq=False)
class Behind:
    """The frames that made a voxel, the one of the largest weight first.

    Attributes:
        frames: [m] numbers of the images in the clip, from 0.
        pixels: [m, 2] (column, row) in the image as it is loaded.
        places: [m, 3] where these pixels lie in the scene, RAS, mm.
        weights: [m] of each frame in the voxel.
        times_s: [m] when the frames were recorded; None where that is not known.
        note: a sentence where frames were left out, else empty.
    """

    frames: np.ndarray
    pixels: np.ndarray
    places: np.ndarray
    weights: np.ndarray
    times_s: np.ndarray | None
    note: str


@dataclass(frozen=True, eq=False)
class FramesBehind:
    """Finds the frames behind points of a result; see :func:`framesBehind`."""

    nodes: ResultNodes
    _clip: SceneSweep
    _grid: VoxelGrid
    _placed: PlacedFrames
    _how: Mapping[str, Any]
    _source_from_pixel: np.ndarray

    def at(self, place: np.ndarray) -> Behind:
        """The frames that made the voxel at a place [3] in the scene, RAS, mm.

        Raises InputError: the place lies outside of the volume, or no frame made its voxel.
        """
        from DualTrackCore.reconstruction.sources import find_sources

        world_from_frame0 = world_from_node(self.nodes.volume) @ self._clip.node_from_image
        point = np.linalg.inv(world_from_frame0) @ [*place, 1]
        voxel = self._grid.voxel_from_frame0 @ point
        if (np.abs(voxel[:3] + 0.5 - np.array(self._grid.size) / 2) >= np.array(self._grid.size) / 2).any():
            sentence = _("This point lies outside of the volume of {name}; click into the volume.")
            raise InputError(sentence.format(name=self.nodes.name))
        found = find_sources(self._grid, self._placed, self._how, point[:3], self._clip.sweep.frames)
        if not len(found.frames):
            raise InputError(self._nothing(found.voxel))
        numbers, times = np.searchsorted(self._placed.numbers, found.frames), self._clip.sweep.timestamps_s
        pixels = np.column_stack([found.pixels, np.zeros(len(numbers)), np.ones(len(numbers))])
        places = np.einsum("nij,nj->ni", world_from_frame0 @ self._placed.frame0_from_pixel[numbers], pixels)
        loaded = pixels[:, [0, 1, 3]] @ self._source_from_pixel.T
        times = None if times is None else times[found.frames]
        return Behind(found.frames, loaded[:, :2], places[:, :3], found.weights, times, found.note)

    def _nothing(self, voxel: tuple[int, int, int]) -> str:
        """Why no frame made a voxel."""
        if self.nodes.volume.GetImageData().GetScalarComponentAsDouble(*voxel, 0) > 0:
            return _("No frame saw this place: the gap between frames was filled from what lies around it.")
        return _("No frame saw this place; click where the volume shows something.")


class Placed(NamedTuple):
    """What a result says of its volume.

    Attributes:
        loaded, clip: the clip as it is loaded, and as the run took it.
        report: of the run.
        trajectory: of its frames.
        frames: those that the volume was made from, counted in the run.
        grid: where its voxels lie in frame0.
    """

    loaded: SceneSweep
    clip: SceneSweep
    report: RunReport
    trajectory: Trajectory
    frames: PlacedFrames
    grid: VoxelGrid


def placed_in_pieces(nodes: ResultNodes) -> Generator[object, None, Placed]:
    """What a result says of its volume; no voxel is read, and no picture but where grey values decide.

    Raises InputError: volume, poses or clip have left the scene, or the result is of an earlier version.
    """
    if nodes.volume is None:
        raise InputError(_("The volume of {name} was deleted; run the clip again.").format(name=nodes.name))
    report = reportOf(nodes)
    how = report.volume["settings"]
    by_grey = how["compounding"] == "maximum" or how["reject_below"] > 0
    loaded = yield from clip_in_pieces(nodes, pictures=by_grey)
    yield
    clip = prepared_clip(loaded, report)
    yield
    sweep, trajectory = yield from path_of(nodes, clip, report)
    yield
    first = report.sweep["first_frame"]
    frames = placed_frames(nodes.pose_table, slice(first, first + len(sweep)), trajectory.poses, clip.sweep, how)
    if frames is None:
        sentence = _("{name} was made by an earlier version, which did not note its frames; run the clip again.")
        raise InputError(sentence.format(name=nodes.name))
    return Placed(loaded, clip, report, trajectory, frames, grid_of(nodes.volume, clip.node_from_image, report.volume))


def framesBehind(nodes: ResultNodes) -> Generator[object, None, FramesBehind]:
    """What finds the frames behind points of a result, made in pieces.

    Raises InputError: volume, poses or clip have left the scene, or the result is of an earlier version.
    """
    loaded, clip, report, _path, frames, grid = yield from placed_in_pieces(nodes)
    settings = RunSettings.from_dict(report.settings)
    source = source_from_pixel(settings, settings.crop, loaded.sweep.frame_size)
    frames = frames._replace(numbers=report.sweep["first_frame"] + frames.numbers)
    return FramesBehind(nodes, clip, grid, frames, report.volume["settings"], source)


def pixelAt(
    browser: slicer.vtkMRMLSequenceBrowserNode, images: slicer.vtkMRMLSequenceNode, place: np.ndarray
) -> np.ndarray | None:
    """[2] (column, row) in the picture that a clip shows at the moment of a place in the scene; None beside it."""
    layout = first_layout(images)
    world_from_pixel = ijk_to_world(browser.GetProxyNode(images)) @ layout.ijk_from_pixel
    column, row, across, _one = np.linalg.inv(world_from_pixel) @ [*place, 1]
    inside = -0.5 <= column < layout.size[0] - 0.5 and -0.5 <= row < layout.size[1] - 0.5
    in_plane = abs(across) * np.linalg.norm(world_from_pixel[:3, 2]) < _IN_PLANE_MM
    return np.array([column, row]) if inside and in_plane else None
