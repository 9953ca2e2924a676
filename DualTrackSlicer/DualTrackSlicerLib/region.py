"""What is drawn on the picture in the slice view: boxes, the corners and outline of a fan, a line along the ruler."""

from __future__ import annotations

import numpy as np
import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction import Fan
from DualTrackSlicerLib.scene import Frame


def addRegion(
    scene: slicer.vtkMRMLScene, frame: Frame, clip: tuple[int, int, int, int] | None, name: str
) -> slicer.vtkMRMLMarkupsROINode:
    """A box around the area `clip` (x, y, width, height; None is the whole frame) of the first frame.

    The box is as thick as the frame is narrow, and lies where the frame is loaded: it follows no transform.
    """
    height, width = frame.frame_size
    x, y, columns, rows = clip or (0, 0, width - 1, height - 1)
    corners = np.array([[x, y, 0, 1], [x + columns, y, 0, 1], [x, y + rows, 0, 1]], dtype=float)
    corners = corners @ frame.node_from_pixel.T
    right, down = corners[1, :3] - corners[0, :3], corners[2, :3] - corners[0, :3]
    lengths = np.linalg.norm(right), np.linalg.norm(down)
    axes = np.stack([right / lengths[0], down / lengths[1]], axis=1)
    normal = np.cross(axes[:, 0], axes[:, 1])
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack([axes, normal])
    matrix[:3, 3] = corners[0, :3] + (right + down) / 2
    node.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(matrix))
    node.SetSize(lengths[0], lengths[1], min(lengths))
    return node


def areaOfRegion(region: slicer.vtkMRMLMarkupsROINode, frame: Frame) -> tuple[int, int, int, int]:
    """(x, y, width, height) in pixels that a box covers, cut to the frame.

    Raises InputError: the box lies beside the frame.
    """
    height, width = frame.frame_size
    pixel_from_node = np.linalg.inv(frame.node_from_pixel)
    node_from_object = slicer.util.arrayFromVTKMatrix(region.GetObjectToNodeMatrix())
    half = np.array(region.GetSize()) / 2
    signs = np.array([[a, b, 0.0] for a in (-1, 1) for b in (-1, 1)])
    corners = np.hstack([signs * half, np.ones((4, 1))]) @ (pixel_from_node @ node_from_object).T
    pixels = np.clip(np.round(corners[:, :2]), 0, [width - 1, height - 1]).astype(int)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    if (high <= low).any():
        raise InputError(_("The box lies beside the picture; move it onto the ultrasound, or choose the whole frame."))
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])


#: Points on each arc of the outline.
ARC_POINTS = 16
#: Half the opening, degrees, of a fan where none is found: most curvilinear probes show 55 to 70 degrees in all.
USUAL_HALF_ANGLE_DEG = 30.0


def usualFan(frame_size: tuple[int, int], aspect: float) -> Fan:
    """A fan from the middle of the upper edge to the bottom, to start from where none is found."""
    height, width = frame_size
    depth = (height - 1) * aspect
    angles = -USUAL_HALF_ANGLE_DEG, USUAL_HALF_ANGLE_DEG
    return Fan(((width - 1) / 2, 0.0), angles, (0.1 * depth, depth), aspect)


def fanCorners(fan: Fan) -> np.ndarray:
    """[4, 2] (column, row): left side from start to end, right side from end to start."""
    (left, right), (start, stop) = fan.angles_deg, fan.radii_pixel
    return _points(fan, np.array([left, left, right, right]), np.array([start, stop, stop, start]))


def fanOutline(fan: Fan) -> np.ndarray:
    """[N, 2] (column, row) of points around the fan, the arcs in short straight pieces."""
    there = np.linspace(*fan.angles_deg, ARC_POINTS)
    angles = np.concatenate([there, there[::-1]])
    return _points(fan, angles, np.repeat(fan.radii_pixel[::-1], ARC_POINTS))


def fanOfCorners(pixels: np.ndarray, aspect: float) -> Fan:
    """The fan whose sides go through corners as :func:`fanCorners` orders them; arcs lie between uneven corners.

    Args:
        pixels: [4, 2] (column, row).
        aspect: height of a pixel over its width.

    Raises InputError: the sides do not meet, or the corners make no fan.
    """
    square = np.asarray(pixels, dtype=np.float64) * (1.0, aspect)
    sides = np.column_stack([square[1] - square[0], square[3] - square[2]])
    lengths = np.linalg.norm(sides, axis=0)
    if (lengths < 1).any() or abs(np.linalg.det(sides)) < 1e-3 * lengths.prod():
        raise InputError(_("The sides of the fan do not meet above the picture; move its corners."))
    origin = square[0] + sides[:, 0] * np.linalg.solve(sides, square[3] - square[0])[0]
    rays = square - origin
    distances = np.linalg.norm(rays, axis=1)
    angles = np.rad2deg(np.arctan2(rays[1:3, 0], rays[1:3, 1]))
    radii = distances[[0, 3]].mean(), distances[[1, 2]].mean()
    return Fan((origin[0], origin[1] / aspect), tuple(angles), radii, aspect)


def addFanCorners(scene: slicer.vtkMRMLScene) -> slicer.vtkMRMLMarkupsFiducialNode:
    """Four points to drag, not yet placed."""
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "DualTrack fan corners")
    node.SetControlPointLabelFormat("")
    node.CreateDefaultDisplayNodes()
    return node


def addFanOutline(scene: slicer.vtkMRMLScene) -> slicer.vtkMRMLMarkupsClosedCurveNode:
    """A line that cannot be dragged, not yet placed."""
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsClosedCurveNode", "DualTrack fan")
    node.SetCurveTypeToLinear()
    node.SetLocked(True)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetGlyphScale(0.1)
    display.SetPropertiesLabelVisibility(False)
    display.SetPointLabelsVisibility(False)
    return node


def placePoints(node: slicer.vtkMRMLMarkupsNode, pixels: np.ndarray, frame: Frame) -> None:
    """Put the points of a node at pixels [N, 2] (column, row) of the frame as it is loaded."""
    homogeneous = np.column_stack([pixels, np.zeros(len(pixels)), np.ones(len(pixels))])
    slicer.util.updateMarkupsControlPointsFromArray(node, (homogeneous @ frame.node_from_pixel.T)[:, :3])


def pixelsOf(node: slicer.vtkMRMLMarkupsNode, frame: Frame) -> np.ndarray:
    """[N, 2] (column, row) of the points of a node in the frame as it is loaded."""
    places = slicer.util.arrayFromMarkupsControlPoints(node)
    homogeneous = np.column_stack([places, np.ones(len(places))])
    return (homogeneous @ np.linalg.inv(frame.node_from_pixel).T)[:, :2]


def measureOn(
    scene: slicer.vtkMRMLScene, applicationLogic: slicer.vtkMRMLApplicationLogic
) -> slicer.vtkMRMLMarkupsLineNode:
    """A line whose two ends are where the next two clicks into a slice view are; they can be dragged later."""
    node = drawNext(scene, applicationLogic, "vtkMRMLMarkupsLineNode", "DualTrack ruler")
    node.GetDisplayNode().SetPropertiesLabelVisibility(False)
    return node


def drawNext(
    scene: slicer.vtkMRMLScene, applicationLogic: slicer.vtkMRMLApplicationLogic, kind: str, name: str
) -> slicer.vtkMRMLMarkupsNode:
    """A line or curve of a class whose points are where the next clicks into a view are."""
    node = scene.AddNewNodeByClass(kind, scene.GenerateUniqueName(name))
    node.CreateDefaultDisplayNodes()
    placeNext(node, applicationLogic)
    return node


def placeNext(node: slicer.vtkMRMLMarkupsNode, applicationLogic: slicer.vtkMRMLApplicationLogic) -> None:
    """Let the next clicks into a view put points of a node there."""
    selection, interaction = applicationLogic.GetSelectionNode(), applicationLogic.GetInteractionNode()
    selection.SetReferenceActivePlaceNodeClassName(node.GetClassName())
    selection.SetReferenceActivePlaceNodeID(node.GetID())
    interaction.SetPlaceModePersistence(False)
    interaction.SetCurrentInteractionMode(interaction.Place)


def pixelOfRuler(
    ruler: slicer.vtkMRMLMarkupsLineNode, frame: Frame, length_mm: float, aspect: float
) -> tuple[float, float] | None:
    """Size (x, y) in mm of the pixels of a frame, where the two ends of a line are so far apart; None for no line yet.

    Args:
        ruler: a line; its ends may not both be placed yet.
        frame: the picture it lies on.
        length_mm: the true distance of its ends.
        aspect: height of a pixel over its width.
    """
    if ruler.GetNumberOfDefinedControlPoints() < 2:
        return None
    across, down = np.ptp(pixelsOf(ruler, frame), axis=0)
    distance = float(np.hypot(across, down * aspect))
    return None if distance < 1 else (length_mm / distance, length_mm / distance * aspect)


def _points(fan: Fan, angles_deg: np.ndarray, radii_pixel: np.ndarray) -> np.ndarray:
    """[N, 2] (column, row) at angles from straight down and distances from where the beams meet."""
    angles = np.deg2rad(angles_deg)
    offsets = np.column_stack([np.sin(angles), np.cos(angles) / fan.aspect]) * radii_pixel[:, None]
    return offsets + fan.origin_pixel
