"""The picture area as a box in the slice view: drawn with the mouse, kept in pixels."""

from __future__ import annotations

import numpy as np
import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import InputError
from DualTrackSlicerLib.scene import SceneSweep


def addRegion(
    scene: slicer.vtkMRMLScene, sceneSweep: SceneSweep, clip: tuple[int, int, int, int] | None
) -> slicer.vtkMRMLMarkupsROINode:
    """A box around the area `clip` (x, y, width, height; None is the whole frame) of the current frame.

    The box is as thick as the frame is narrow, and lies where the frame is loaded: it follows no transform.
    """
    height, width = sceneSweep.sweep.frame_size
    x, y, columns, rows = clip or (0, 0, width - 1, height - 1)
    node_from_pixel = sceneSweep.node_from_image @ sceneSweep.sweep.image_from_pixel
    corners = np.array([[x, y, 0, 1], [x + columns, y, 0, 1], [x, y + rows, 0, 1]], dtype=float) @ node_from_pixel.T
    right, down = corners[1, :3] - corners[0, :3], corners[2, :3] - corners[0, :3]
    lengths = np.linalg.norm(right), np.linalg.norm(down)
    axes = np.stack([right / lengths[0], down / lengths[1]], axis=1)
    normal = np.cross(axes[:, 0], axes[:, 1])
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "DualTrack picture area")
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack([axes, normal])
    matrix[:3, 3] = corners[0, :3] + (right + down) / 2
    node.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(matrix))
    node.SetSize(lengths[0], lengths[1], min(lengths))
    return node


def areaOfRegion(region: slicer.vtkMRMLMarkupsROINode, sceneSweep: SceneSweep) -> tuple[int, int, int, int]:
    """(x, y, width, height) in pixels that a box covers, cut to the frame.

    Raises:
        InputError: the box lies beside the frame.
    """
    height, width = sceneSweep.sweep.frame_size
    pixel_from_node = np.linalg.inv(sceneSweep.node_from_image @ sceneSweep.sweep.image_from_pixel)
    node_from_object = slicer.util.arrayFromVTKMatrix(region.GetObjectToNodeMatrix())
    half = np.array(region.GetSize()) / 2
    signs = np.array([[a, b, 0.0] for a in (-1, 1) for b in (-1, 1)])
    corners = np.hstack([signs * half, np.ones((4, 1))]) @ (pixel_from_node @ node_from_object).T
    low = np.clip(np.round(corners[:, :2].min(axis=0)), 0, [width - 1, height - 1]).astype(int)
    high = np.clip(np.round(corners[:, :2].max(axis=0)), 0, [width - 1, height - 1]).astype(int)
    if (high <= low).any():
        raise InputError(_("The box lies beside the picture; move it onto the ultrasound, or choose the whole frame."))
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])
