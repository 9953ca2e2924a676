"""The pictures of a clip before a run, and where they lie once they are turned, mirrored, cropped and measured."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
import vtk

from DualTrackCore.run.preparation import image_from_prepared, seen, source_from_pixel
from DualTrackCore.run.results import RunReport
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.sweep import Sweep, image_from_pixel
from DualTrackCore.trajectory import invert_rigid
from DualTrackSlicerLib.scene.frames import FrameLayout, fields_of, first_layout, frames_in_pieces, timestamps_of
from DualTrackSlicerLib.scene.input import Clip, SceneSweep
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


def frameOf(clip: Clip, settings: RunSettings, number: int = 0) -> Frame:
    """Where the first frame of a clip lies, or another one, its pixels counted as the settings turn and mirror it."""
    if clip.sequence is None:
        node, layout = clip.volume, FrameLayout((*clip.size, 1), 1, vtk.VTK_UNSIGNED_CHAR)
    else:
        node, layout = clip.sequence.GetNthDataNode(number), first_layout(clip.sequence)
    size, pixel = clip.size[::-1], np.eye(4)
    pixel[np.ix_([0, 1, 3], [0, 1, 3])] = source_from_pixel(settings, None, size)
    size = size[::-1] if settings.rotate % 180 else size
    return Frame(size, ijk_to_ras(node) @ layout.ijk_from_pixel @ pixel)


def framesInPieces(clip: Clip, spacing_mm: tuple[float, float] | None = None) -> Generator[object, None, Sweep]:
    """The frames and times alone of a clip, which are looked up when they are read; pieces as `frames_in_pieces`.

    Raises InputError: frames that cannot be used.
    """
    sequence, times = clip.sequence, None
    layout = None if sequence is None else first_layout(sequence)
    frames, _notes = yield from frames_in_pieces(sequence or clip.volume, layout)
    if sequence is not None:
        times = timestamps_of(sequence, fields_of(sequence))
    return Sweep(frames, spacing_mm, timestamps_s=times)


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
