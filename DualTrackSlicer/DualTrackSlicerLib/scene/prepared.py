"""The pictures of a clip before a run, and where they lie once they are turned, mirrored, cropped and measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import slicer
import vtk

from DualTrackCore.grey import to_grey_uint8
from DualTrackCore.progress import Reporter
from DualTrackCore.run.preparation import image_from_prepared, seen, source_from_pixel
from DualTrackCore.run.results import RunReport
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.sweep import Sweep, image_from_pixel
from DualTrackCore.trajectory import invert_rigid
from DualTrackSlicerLib.scene.frames import FrameLayout, SceneFrames, first_layout, read_frames
from DualTrackSlicerLib.scene.input import Clip, SceneSweep, fields_of, timestamps_of
from DualTrackSlicerLib.scene.nodes import ijk_to_ras


@dataclass(frozen=True, eq=False)
class Frame:
    """The first frame as it is loaded, turned and mirrored: what is drawn upon.

    Attributes:
        frame_size: (H, W) in pixels.
        node_from_pixel: [4, 4] pixel (column, row, 0, 1) to the local RAS of the image node, mm.
    """

    frame_size: tuple[int, int]
    node_from_pixel: np.ndarray


def frameOf(clip: Clip, settings: RunSettings) -> Frame:
    """Where the first frame of a clip lies, its pixels counted as the settings turn and mirror it."""
    if clip.sequence is None:
        node, layout = clip.volume, FrameLayout((*clip.size, 1), 1, vtk.VTK_UNSIGNED_CHAR)
    else:
        node, layout = clip.sequence.GetNthDataNode(0), first_layout(clip.sequence)
    size, pixel = clip.size[::-1], np.eye(4)
    pixel[np.ix_([0, 1, 3], [0, 1, 3])] = source_from_pixel(settings, None, size)
    size = size[::-1] if settings.rotate % 180 else size
    return Frame(size, ijk_to_ras(node) @ layout.ijk_from_pixel @ pixel)


def framesOf(clip: Clip, spacing_mm: tuple[float, float] | None = None) -> Sweep:
    """The frames and times alone of a clip; 8-bit frames of a sequence are looked up when they are read.

    Raises InputError: frames that cannot be used.
    """
    if clip.sequence is None:
        array = slicer.util.arrayFromVolume(clip.volume)
        return Sweep(to_grey_uint8(array, colour_axis=3 if array.ndim == 4 else None)[0], spacing_mm)
    sequence, layout = clip.sequence, first_layout(clip.sequence)
    stored = layout.scalar_type == vtk.VTK_UNSIGNED_CHAR
    frames = SceneFrames(sequence, layout) if stored else read_frames(sequence, layout, Reporter())[0]
    return Sweep(frames, spacing_mm, timestamps_s=timestamps_of(sequence, fields_of(sequence)))


def prepared_clip(clip: SceneSweep, report: RunReport) -> SceneSweep:
    """A clip with all of its frames as the run of a report took them, except that no text is blacked out.

    Its image frame is that of the prepared picture; the first frame stays where it was loaded.
    """
    settings, spacing = RunSettings.from_dict(report.settings), report.sweep["spacing_mm"]
    if spacing is not None and settings.rotate % 180:
        spacing = spacing[::-1]
    is_sized = spacing is not None and tuple(spacing) != clip.sweep.spacing_mm
    if is_sized:
        # Pixels of unknown size are shown as 1 mm.
        shown = image_from_pixel(clip.sweep.spacing_mm or (1.0, 1.0), clip.sweep.skew_deg, clip.sweep.frame_size)
        sweep = replace(clip.sweep, spacing_mm=tuple(spacing))
        image_from_node = sweep.image_from_pixel @ np.linalg.inv(shown) @ clip.image_from_node
        clip = replace(clip, sweep=sweep, image_from_node=image_from_node)
    if not (settings.rotate or settings.mirror or settings.crop):
        return clip
    image_from_seen = image_from_prepared(clip.sweep, settings, settings.crop)[0]
    return replace(
        clip,
        sweep=seen(clip.sweep, settings, settings.crop),
        node_from_image=clip.node_from_image @ image_from_seen,
        image_from_node=invert_rigid(image_from_seen) @ clip.image_from_node,
    )
