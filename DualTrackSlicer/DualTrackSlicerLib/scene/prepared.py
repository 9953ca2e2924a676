"""Where the pictures of a clip lie in the scene once they are turned, mirrored, cropped and measured by their depth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from DualTrackCore.run.preparation import image_from_prepared, seen
from DualTrackCore.run.results import RunReport
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.sweep import image_from_pixel
from DualTrackCore.trajectory import invert_rigid
from DualTrackSlicerLib.scene.input import SceneSweep


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
