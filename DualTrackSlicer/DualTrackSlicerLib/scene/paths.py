"""The path of the probe as models: a tube along the image centres, and the outlines of the first and last frame."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from DualTrackCore.errors import InputError
from DualTrackSlicerLib.scene.nodes import add_node
from DualTrackSlicerLib.scene.nodes import tr as _

#: Arrays of the tube that it can be coloured by.
FRAME, SPEED = "Frame", "Speed"
#: Array and colour table by what to colour by. Viridis and Plasma come with the application.
_COLOURINGS = {
    "frame": (FRAME, "vtkMRMLColorTableNodeFileViridis.txt"),
    "speed": (SPEED, "vtkMRMLColorTableNodeFilePlasma.txt"),
}
FIRST_COLOUR, LAST_COLOUR, TRUTH_COLOUR = (0.30, 0.85, 0.40), (0.95, 0.45, 0.25), (0.95, 0.95, 0.95)
ERROR_COLOUR, _ERROR_OPACITY = (0.45, 0.70, 1.0), 0.25

#: Steps of the path below this many mm are left out: a tube cannot be turned at points that coincide.
_MIN_STEP_MM = 1e-4
#: Radius of a tube where it would have none, mm.
_THINNEST_MM = 1e-3


def add_path(scene: slicer.vtkMRMLScene, surface: vtk.vtkPolyData, name: str) -> slicer.vtkMRMLModelNode:
    """The model of a :func:`tube`."""
    node = _add_model(scene, surface, name)
    display = node.GetDisplayNode()
    display.SetAmbient(0.2)
    display.SetSpecular(0.2)
    return node


def showErrorTube(modelNode: slicer.vtkMRMLModelNode, shown: bool = True) -> None:
    """Show or hide the tube that says how sure a path is."""
    modelNode.GetDisplayNode().SetVisibility(shown)


def add_error_tube(scene: slicer.vtkMRMLScene, surface: vtk.vtkPolyData, name: str) -> slicer.vtkMRMLModelNode:
    """A tube that one sees through, hidden."""
    node = add_path(scene, surface, name)
    colour_plainly(node, ERROR_COLOUR)
    node.GetDisplayNode().SetOpacity(_ERROR_OPACITY)
    showErrorTube(node, False)
    return node


def colourTrajectory(modelNode: slicer.vtkMRMLModelNode, by: str = "frame") -> None:
    """Colour a trajectory by "frame" or "speed" (mm/s, or mm a frame where times are unknown).

    Raises InputError: another word.
    """
    if by not in _COLOURINGS:
        sentence = _("A trajectory cannot be coloured by {by}; choose one of {known}.")
        raise InputError(sentence.format(by=repr(by), known=", ".join(_COLOURINGS)))
    array, wanted = _COLOURINGS[by]
    display, scene = modelNode.GetDisplayNode(), modelNode.GetScene()
    table = scene.GetNodeByID(wanted) or scene.GetNodeByID("vtkMRMLColorTableNodeRainbow")
    if table is not None:
        display.SetAndObserveColorNodeID(table.GetID())
    display.SetActiveScalar(array, vtk.vtkAssignAttribute.POINT_DATA)
    display.SetScalarRangeFlag(slicer.vtkMRMLDisplayNode.UseDataScalarRange)
    display.SetScalarVisibility(True)


def colour_plainly(model: slicer.vtkMRMLModelNode, colour: tuple[float, float, float]) -> None:
    """One colour for a whole model."""
    display = model.GetDisplayNode()
    display.SetScalarVisibility(False)
    display.SetColor(*colour)


def add_outline(
    scene: slicer.vtkMRMLScene, corners: np.ndarray, name: str, colour: tuple[float, float, float], radius_mm: float
) -> slicer.vtkMRMLModelNode:
    """The border of a frame as a thin tube.

    Args:
        corners: [4, 3] in order around the frame, node coordinates, mm.
    """
    middle = (corners[0] + corners[1]) / 2
    # The tube begins and ends in the middle of an edge, so that no corner stays open.
    closed = np.vstack([middle, corners[1:], corners[:1], middle])
    node = _add_model(scene, tube(closed, {}, radius_mm), name)
    colour_plainly(node, colour)
    node.GetDisplayNode().SetAmbient(0.4)
    return node


def frame_corners(image_from_pixel: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """[4, 4] corners of a frame of (H, W) pixels in the image frame, homogeneous, as columns around the frame, mm."""
    height, width = frame_size
    pixels = [(-0.5, -0.5), (width - 0.5, -0.5), (width - 0.5, height - 0.5), (-0.5, height - 0.5)]
    return image_from_pixel @ np.array([(u, v, 0.0, 1.0) for u, v in pixels]).T


def tube(points: np.ndarray, values: Mapping[str, np.ndarray], radius_mm: float | np.ndarray) -> vtk.vtkPolyData:
    """A tube along the points that are known and do not coincide with the one kept before.

    Args:
        points: [N, 3] such as image centres in node coordinates, mm; NaN where a frame has none.
        values: [N] numbers by array name, carried along.
        radius_mm: of the tube, or [N] of the tube at each point; it ends where that is NaN.
    """
    keep: list[int] = []
    radii = np.broadcast_to(radius_mm, len(points))
    places = points.tolist()
    for index in np.flatnonzero(np.isfinite(points).all(axis=1) & np.isfinite(radii)).tolist():
        if not keep or math.dist(places[index], places[keep[-1]]) > _MIN_STEP_MM:
            keep.append(index)
    line, cells = vtk.vtkPolyData(), vtk.vtkCellArray()
    vertices = vtk.vtkPoints()
    vertices.SetDataTypeToDouble()
    vertices.SetData(numpy_to_vtk(np.ascontiguousarray(points[keep]), deep=True))
    cells.InsertNextCell(len(keep), range(len(keep)))
    line.SetPoints(vertices)
    line.SetLines(cells)
    for name, numbers in values.items():
        array = numpy_to_vtk(np.ascontiguousarray(np.asarray(numbers, dtype=np.float64)[keep]), deep=True)
        array.SetName(name)
        line.GetPointData().AddArray(array)
    surface = vtk.vtkTubeFilter()
    surface.SetInputData(line)
    if np.ndim(radius_mm):
        line.GetPointData().SetScalars(numpy_to_vtk(np.maximum(radii[keep], _THINNEST_MM), deep=True))
        surface.SetVaryRadiusToVaryRadiusByAbsoluteScalar()
    else:
        surface.SetRadius(radius_mm)
    surface.SetNumberOfSides(12)
    surface.CappingOn()
    surface.Update()
    return surface.GetOutput()


def _add_model(scene: slicer.vtkMRMLScene, surface: vtk.vtkPolyData, name: str) -> slicer.vtkMRMLModelNode:
    node = slicer.vtkMRMLModelNode()
    node.SetAndObservePolyData(surface)
    add_node(scene, node, name)
    node.CreateDefaultDisplayNodes()
    return node
