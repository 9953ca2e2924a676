"""Points of the anatomy that are marked in frames: each mark of a point list is bound to the frame it was set on.

What a mark is about is its frame and pixel; they stand in the description of the control point, and so in the scene's
file. Where the mark lies in space follows from them and from the result that is shown. Marks with the same label are
of the same point.
"""

from __future__ import annotations

import re

import numpy as np
import slicer

from DualTrackCore.corrections import Mark
from DualTrackCore.run.preparation import source_from_pixel
from DualTrackCore.run.settings import RunSettings
from DualTrackSlicerLib.scene.input import Clip
from DualTrackSlicerLib.scene.nodes import add_node, matrix_to_parent, nodes_of_class
from DualTrackSlicerLib.scene.nodes import tr as _
from DualTrackSlicerLib.scene.prepared import Frame, frameOf

#: Description of a bound mark; pixels of the picture as the clip has it.
_BOUND = "frame {number}, column {x:.2f}, row {y:.2f}"
_PARTS = re.compile(r"frame (\d+), column (-?\d+\.\d\d), row (-?\d+\.\d\d)")
#: How far from the plane of a frame a mark was not set on it, and from its place it was moved, mm.
_BESIDE_MM, _MOVED_MM = 0.2, 1e-2


#: References of the transform sequence of a corrected result: the list of marks and the transforms that were used.
LANDMARKS, TRACKER = "DualTrack.landmarks", "DualTrack.tracker"


def landmarkLists(scene: slicer.vtkMRMLScene) -> list[slicer.vtkMRMLMarkupsFiducialNode]:
    """The point lists in a scene whose points have names."""
    nodes = nodes_of_class(scene, "vtkMRMLMarkupsFiducialNode")
    return [node for node in nodes if node.GetControlPointLabelFormat()]


def addLandmarks(scene: slicer.vtkMRMLScene) -> slicer.vtkMRMLMarkupsFiducialNode:
    """An empty list whose next marks are of the point A; its label format names the point."""
    node = slicer.vtkMRMLMarkupsFiducialNode()
    add_node(scene, node, "DualTrack landmarks")
    node.CreateDefaultDisplayNodes()
    node.SetControlPointLabelFormat("A")
    return node


def marksOf(node: slicer.vtkMRMLMarkupsFiducialNode, clip: Clip, settings: RunSettings) -> tuple[list[Mark], int]:
    """The marks of a list in the picture as a run turns and mirrors it, and how many control points are on no frame."""
    found = [(_label(node, index), _bound(node, index)) for index in _defined(node)]
    pixel_from_source = np.linalg.inv(source_from_pixel(settings, None, clip.size[::-1]))
    marks = []
    for label, bound in found:
        if bound is not None:
            x, y = (pixel_from_source @ [*bound[1:], 1.0])[:2].round(2)
            marks.append(Mark(label, bound[0], float(x), float(y)))
    return marks, len(found) - len(marks)


def bindMarks(node: slicer.vtkMRMLMarkupsFiducialNode, clip: Clip) -> None:
    """Bind marks that are new or were moved to a frame: their own if they still lie on it, else the one shown now.

    A mark that lies on neither is bound to none.

    Args:
        node: the list.
        clip: the clip whose frames are marked; one with a browser.
    """
    shown = clip.browser.GetSelectedItemNumber()
    for index in _defined(node):
        place, bound = np.array(node.GetNthControlPointPositionWorld(index)), _bound(node, index)
        if bound is not None and np.linalg.norm(_place(clip, bound) - place) <= _MOVED_MM:
            continue
        numbers = dict.fromkeys([shown] if bound is None else [bound[0], shown])
        text = next((text for number in numbers if (text := _on_frame(clip, number, place))), "")
        if node.GetNthControlPointDescription(index) != text:
            node.SetNthControlPointDescription(index, text)


def placeMarks(node: slicer.vtkMRMLMarkupsFiducialNode, clip: Clip) -> None:
    """Put bound marks where their frames lie in the result that is shown; arguments as for :func:`bindMarks`."""
    for index in _defined(node):
        bound = _bound(node, index)
        if bound is None or bound[0] >= clip.frames:
            continue
        place = _place(clip, bound)
        if np.linalg.norm(place - node.GetNthControlPointPositionWorld(index)) > _MOVED_MM:
            node.SetNthControlPointPositionWorld(index, *place)


def _defined(node: slicer.vtkMRMLMarkupsFiducialNode) -> list[int]:
    count = range(node.GetNumberOfControlPoints())
    return [index for index in count if node.GetNthControlPointPositionStatus(index) == node.PositionDefined]


def _label(node: slicer.vtkMRMLMarkupsFiducialNode, index: int) -> str:
    return node.GetNthControlPointLabel(index).strip() or _("point {number}").format(number=index + 1)


def _bound(node: slicer.vtkMRMLMarkupsFiducialNode, index: int) -> tuple[int, float, float] | None:
    """Frame, column and row of a mark; None where it is bound to no frame."""
    parts = _PARTS.fullmatch(node.GetNthControlPointDescription(index) or "")
    return None if parts is None else (int(parts[1]), float(parts[2]), float(parts[3]))


def _on_frame(clip: Clip, number: int, place: np.ndarray) -> str:
    """The description of a mark at a place [3] of the world, if that is on a frame; else empty."""
    frame, world_from_pixel = _frame(clip, number)
    across = np.cross(world_from_pixel[:3, 0], world_from_pixel[:3, 1])
    beside = abs(across @ (place - world_from_pixel[:3, 3])) / np.linalg.norm(across)
    x, y = (np.linalg.inv(world_from_pixel) @ [*place, 1.0])[:2]
    height, width = frame.frame_size
    is_inside = -0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5
    return _BOUND.format(number=number, x=x, y=y) if beside <= _BESIDE_MM and is_inside else ""


def _place(clip: Clip, bound: tuple[int, float, float]) -> np.ndarray:
    """[3] where a frame and pixel lie in the world now."""
    number, x, y = bound
    return (_frame(clip, number)[1] @ [x, y, 0.0, 1.0])[:3]


def _frame(clip: Clip, number: int) -> tuple[Frame, np.ndarray]:
    """A frame, and [4, 4] its pixels in the world as the clip moves through the scene now, mm."""
    images, value = clip.sequence, clip.sequence.GetNthIndexValue(number)
    frame = frameOf(clip, RunSettings(), number)
    world, link = np.eye(4), clip.browser.GetProxyNode(images).GetParentTransformNode()
    while link is not None:
        sequence = clip.browser.GetSequenceNode(link)
        item = None if sequence is None else sequence.GetDataNodeAtValue(value, True)
        matrix = matrix_to_parent(item or link)
        world = world if matrix is None else matrix @ world
        link = link.GetParentTransformNode()
    return frame, world @ frame.node_from_pixel
