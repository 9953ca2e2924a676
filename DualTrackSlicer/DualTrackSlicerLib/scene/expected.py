"""The expected error of a result over its volume: a coarse volume of mm with colours and a legend."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from DualTrackCore.errors import InputError
from DualTrackSlicerLib.scene.behind import placed_in_pieces
from DualTrackSlicerLib.scene.nodes import add_node, ijk_to_ras, nodes_of_class, to_vtk
from DualTrackSlicerLib.scene.nodes import tr as _
from DualTrackSlicerLib.scene.result_nodes import (
    RUN,
    ResultNodes,
    file_result,
    make_undoable,
    nodes_of,
    remove_nodes,
    restore_references,
    save_state,
)
from DualTrackSlicerLib.scene.wiring import IMAGES, ROLE

if TYPE_CHECKING:
    from DualTrackCore.measurement.displacement import Displacement

#: In the coarse volume: the volume shows nothing here.
UNSEEN = -1.0
#: From sure to unsure; told apart also by readers who see colours differently.
_COLOURS = (
    (0.0, (0.19, 0.35, 0.75)),
    (0.35, (0.45, 0.78, 0.86)),
    (0.65, (0.98, 0.93, 0.48)),
    (1.0, (0.80, 0.10, 0.15)),
)
#: How much of the volume the colours cover.
_OPACITY = 0.45


def showExpectedError(nodes: ResultNodes) -> Generator[object, None, ResultNodes]:
    """Add the expected error of a result to the scene, in pieces; one step of undo. The scene changes in the last one.

    Raises InputError: how far the path is off is not known, or the result lacks its volume, poses or clip.
    """
    from DualTrackCore.measurement.displacement import displacement_in_pieces

    placed = yield from placed_in_pieces(nodes)
    try:
        made = yield from displacement_in_pieces(placed.grid, placed.frames, placed.trajectory)
    except InputError:
        raise InputError(_("Nothing says how sure the path of {name} is.").format(name=nodes.name)) from None
    values = yield from _where_shown(nodes, made)
    transforms = nodes.transform_sequence
    scene = transforms.GetScene()
    if scene is None or nodes.volume.GetScene() is None:
        raise InputError(_("The result was deleted meanwhile; nothing was changed."))
    save_state(scene)
    name = transforms.GetNodeReference(IMAGES).GetName()
    volume, colours = _add_volume(scene, nodes, values, made.voxel_from_node, name)
    for role, node in (("expected_error", volume), ("error_colours", colours)):
        for key in nodes.volume.GetAttributeNames():
            node.SetAttribute(key, nodes.volume.GetAttribute(key))
        node.SetAttribute(RUN, transforms.GetAttribute(RUN))
        node.SetAttribute(ROLE, role)
    make_undoable([volume, colours])
    restore_references(transforms)
    file_result(transforms)
    return nodes_of(transforms)


def hideExpectedError(nodes: ResultNodes) -> None:
    """Take the expected error of a result out of the scene again, in one step of undo."""
    scene = nodes.transform_sequence.GetScene()
    save_state(scene)
    layErrorOver(replace(nodes, expected_error=None), True)
    remove_nodes(scene, [node for node in (nodes.expected_error, nodes.error_colours) if node is not None])


def layErrorOver(nodes: ResultNodes, inRed: bool) -> None:
    """Show the expected error of a result over its volume in the slice views, in red only if asked; or that of none."""
    scene, views = nodes.transform_sequence.GetScene(), []
    for composite in nodes_of_class(scene, "vtkMRMLSliceCompositeNode"):
        if composite.GetLayoutName() == "Red" and not inRed:
            continue
        shown = composite.GetForegroundVolumeID()
        node = None if shown is None else scene.GetNodeByID(shown)
        if nodes.expected_error is not None:
            composite.SetForegroundVolumeID(nodes.expected_error.GetID())
            composite.SetForegroundOpacity(_OPACITY)
            views += [f"vtkMRMLSliceNode{composite.GetLayoutName()}"]
        elif shown is not None and (node is None or node.GetAttribute(ROLE) == "expected_error"):
            composite.SetForegroundVolumeID(None)
            composite.SetForegroundOpacity(0.0)
    if nodes.expected_error is not None:
        legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(nodes.expected_error)
        legend.SetVisibility(bool(views))
        legend.SetViewNodeIDs(views)


def _where_shown(nodes: ResultNodes, made: Displacement) -> Generator[None, None, np.ndarray]:
    """[nz, ny, nx] mm at all nodes where the volume shows something, a layer a piece; UNSEEN elsewhere."""
    volume, coverage = (slicer.util.arrayFromVolume(node) for node in (nodes.volume, nodes.coverage or nodes.volume))
    z, y, x = (
        np.minimum(np.rint(np.arange(count) * step).astype(int), size - 1)
        for count, step, size in zip(made.seen.shape, made.voxel_from_node[::-1], volume.shape, strict=True)
    )
    shown = np.empty(made.seen.shape, bool)
    for layer, place in enumerate(z):
        yield
        shown[layer] = (volume[place] > 0)[np.ix_(y, x)] | (coverage[place] > 0)[np.ix_(y, x)]
    values, known = made.values, made.seen
    while (shown & ~known).any() and known.any():
        yield
        values, known = _grown(values, known)
    return np.where(shown & known, values, UNSEEN)


def _add_volume(
    scene: slicer.vtkMRMLScene, nodes: ResultNodes, values: np.ndarray, voxel_from_node: np.ndarray, name: str
) -> tuple[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLColorTableNode]:
    """(volume of mm at the nodes that the core computes, its colours)."""
    known = values[values >= 0]
    most = _round_up(np.percentile(known, 99) if len(known) else 0.0)
    image = vtk.vtkImageData()
    image.SetDimensions(values.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(values.astype(np.float32).ravel(), deep=True))
    colours = add_node(scene, _colour_table(), f"{name} expected error, colours")
    node, display = slicer.vtkMRMLScalarVolumeNode(), slicer.vtkMRMLScalarVolumeDisplayNode()
    node.SetIJKToRASMatrix(to_vtk(ijk_to_ras(nodes.volume) @ np.diag([*voxel_from_node, 1.0])))
    add_node(scene, node, f"{name} expected error, mm")
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0.0, most)
    display.SetInterpolate(False)  # between a node and one without a value there is nothing
    display.SetAutoThreshold(False)
    display.SetThreshold(0.0, 1e6)
    display.SetApplyThreshold(True)
    display.SetAndObserveColorNodeID(colours.GetID())
    node.SetAndObserveDisplayNodeID(scene.AddNode(display).GetID())
    node.SetAndObserveImageData(image)
    node.SetAndObserveTransformNodeID(nodes.volume.GetTransformNodeID())
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
    legend.SetTitleText(_("Expected error, mm"))
    legend.SetLabelFormat("%.1f")
    legend.SetNumberOfLabels(5)
    legend.SetVisibility(False)  # until it is laid over a view
    return node, colours


def _grown(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same one node farther, with the mean of what is known around it; and which nodes are known then."""
    total, count = np.pad(values * known, 1), np.pad(known.astype(float), 1)
    for axis in range(3):
        total, count = (sum(np.roll(array, shift, axis) for shift in (-1, 0, 1)) for array in (total, count))
    total, count = (array[1:-1, 1:-1, 1:-1] for array in (total, count))
    return np.where(known, values, total / np.maximum(count, 1)), count > 0


def _round_up(value: float) -> float:
    """The next of 1, 2 and 5 in any power of ten, at least a tenth."""
    power = 10.0 ** np.floor(np.log10(max(value, 0.1)))
    return float(next(power * step for step in (1, 2, 5, 10) if power * step >= min(value, 10 * power)))


def _colour_table() -> slicer.vtkMRMLColorTableNode:
    table = slicer.vtkMRMLColorTableNode()
    table.SetTypeToUser()
    table.SetNumberOfColors(256)
    at, colours = zip(*_COLOURS, strict=True)
    for number in range(256):
        colour = [np.interp(number / 255, at, channel) for channel in zip(*colours, strict=True)]
        table.SetColor(number, f"{number}", *colour, 1.0)
    return table
