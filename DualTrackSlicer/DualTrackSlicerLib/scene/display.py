"""Volumes as nodes, and results made visible: volume rendering for B-mode, slice views that fit or follow the frame.

Plain MRML: views are nodes and logics here, never widgets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from DualTrackCore.io.calibration import split_affine
from DualTrackSlicerLib.scene.frames import layout_of
from DualTrackSlicerLib.scene.nodes import add_node, ijk_to_world, nodes_of_class, renderings_of, to_vtk
from DualTrackSlicerLib.scene.nodes import tr as _

if TYPE_CHECKING:
    from DualTrackCore.run.results import RunResult
    from DualTrackSlicerLib.scene.result_nodes import ResultNodes

#: Grey value to opacity a millimetre: fluid and the noise around it stay clear, tissue is a haze through which the
#: frame and the trajectory are seen, bone and skin stand out.
_OPACITY = ((0, 0.0), (25, 0.0), (75, 0.006), (140, 0.026), (200, 0.09), (255, 0.3))
#: Grey value to colour, from a dark warm brown to nearly white, as obstetric presets have it.
_COLOURS = ((0, (0.0, 0.0, 0.0)), (60, (0.32, 0.18, 0.12)), (140, (0.78, 0.55, 0.42)), (255, (1.0, 0.96, 0.9)))
PRESET_NAME = "DualTrack B-mode"
_GREY, _COVERAGE_COLOURS = "vtkMRMLColorTableNodeGrey", "vtkMRMLColorTableNodeIron"


def add_volumes(
    scene: slicer.vtkMRMLScene, result: RunResult, node_from_frame0: np.ndarray, name: str
) -> list[slicer.vtkMRMLScalarVolumeNode | None]:
    """[volume, coverage] of a run, which share the memory of its arrays; None where the run reconstructed nothing.

    No voxel is looked at, so arrays that are mapped from a file cost nothing before they are seen.

    Args:
        node_from_frame0: [4, 4], mm; makes the IJKToRAS together with the grid of the result.
        name: of the clip.
    """
    if result.grid is None:
        return [None, None]
    # A few voxels near a pivot are seen very often; one that was seen ten times is seen well.
    shown = (("volume", result.volume, _GREY, 255.0), ("coverage", result.coverage, _COVERAGE_COLOURS, 10.0))
    nodes = []
    for what, array, colours, brightest in shown:
        image = vtk.vtkImageData()
        image.SetDimensions(array.shape[::-1])
        image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=False))
        node, display = slicer.vtkMRMLScalarVolumeNode(), slicer.vtkMRMLScalarVolumeDisplayNode()
        node.SetIJKToRASMatrix(to_vtk(node_from_frame0 @ result.grid.frame0_from_voxel))
        add_node(scene, node, f"{name} {what}")
        # In this order: a display node that is to find its window itself reads all voxels of an image.
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(0.0, brightest)
        display.SetAndObserveColorNodeID(colours)
        node.SetAndObserveDisplayNodeID(scene.AddNode(display).GetID())
        node.SetAndObserveImageData(image)
        nodes.append(node)
    return nodes


def renderVolume(
    volumeNode: slicer.vtkMRMLScalarVolumeNode, logic: slicer.vtkSlicerVolumeRenderingLogic | None = None
) -> slicer.vtkMRMLVolumeRenderingDisplayNode:
    """Show a volume of grey values 0 to 255 by volume rendering with a preset for B-mode.

    Args:
        volumeNode: in a scene.
        logic: the volume-rendering logic, which knows the method that this computer can do and the user prefers; None
            takes the application's, and without an application renders on the GPU.
    """
    scene, module = volumeNode.GetScene(), getattr(getattr(slicer, "modules", None), "volumerendering", None)
    logic = logic or (module and module.logic())
    display = next(iter(renderings_of(volumeNode)), None)
    if display is None:
        if logic is None:
            display = slicer.vtkMRMLGPURayCastVolumeRenderingDisplayNode()
        else:
            display = logic.CreateVolumeRenderingDisplayNode()
            # The logic hands over a reference of its own with the node.
            display.UnRegister(None)
        scene.AddNode(display)
        volumeNode.AddAndObserveDisplayNodeID(display.GetID())
    properties = display.GetVolumePropertyNode()
    if properties is None:
        properties = scene.AddNewNodeByClass("vtkMRMLVolumePropertyNode", PRESET_NAME)
        display.SetAndObserveVolumePropertyNodeID(properties.GetID())
    _set_b_mode(properties)
    display.SetFollowVolumeDisplayNode(False)
    display.SetVisibility(True)
    return display


def _set_b_mode(node: slicer.vtkMRMLVolumePropertyNode) -> None:
    opacity, colours = vtk.vtkPiecewiseFunction(), vtk.vtkColorTransferFunction()
    for grey, value in _OPACITY:
        opacity.AddPoint(grey, value)
    for grey, colour in _COLOURS:
        colours.AddRGBPoint(grey, *colour)
    node.SetScalarOpacity(opacity)
    node.SetColor(colours)
    properties = node.GetVolumeProperty()
    # Speckle has no surfaces: shading would only bring out its grain.
    properties.ShadeOff()
    properties.SetInterpolationTypeToLinear()


def fitSliceViews(
    volumeNode: slicer.vtkMRMLVolumeNode, applicationLogic: slicer.vtkMRMLApplicationLogic | None
) -> str | None:
    """Show a volume in all slice views, each fitted to it.

    Args:
        applicationLogic: `slicer.app.applicationLogic()`; None where there is no application.

    Returns:
        None, or why nothing was shown.
    """
    if applicationLogic is None:
        return _("There is no application, so there are no slice views to fit.")
    selection = applicationLogic.GetSelectionNode()
    if selection is None:
        return _("The scene has no selection node, so no slice view takes a volume.")
    selection.SetActiveVolumeID(volumeNode.GetID())
    applicationLogic.PropagateVolumeSelection(slicer.vtkMRMLApplicationLogic.BackgroundLayer, 1)
    return None


class FrameFollower:
    """Keeps a slice view on the image of a clip while it moves, the way up that it was recorded; see :meth:`stop`.

    The slice is shown in the 3D views as well where `in3D`.
    """

    def __init__(
        self,
        sliceNode: slicer.vtkMRMLSliceNode,
        browserNode: slicer.vtkMRMLSequenceBrowserNode,
        imageSequenceNode: slicer.vtkMRMLSequenceNode,
        in3D: bool = True,
    ) -> None:
        sliceNode.SetSliceVisible(in3D)
        self._slice_node, self._layout = sliceNode, layout_of(imageSequenceNode)
        self._image = browserNode.GetProxyNode(imageSequenceNode)
        event = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        self._tag = self._image.AddObserver(event, lambda caller, event: self.align())
        self.align()

    def align(self) -> None:
        """Lay the slice into the plane of the image, through its middle: columns to the right, rows downwards."""
        world_from_pixel = ijk_to_world(self._image) @ self._layout.ijk_from_pixel
        # Slice views count upwards. For an image in LPS this is the axial view.
        shown = split_affine(world_from_pixel, self._layout.size[::-1]).x_from_image * [1.0, -1.0, 1.0, 1.0]
        self._slice_node.GetSliceToRAS().DeepCopy(to_vtk(shown))
        self._slice_node.UpdateMatrices()

    def stop(self) -> None:
        """Leave the slice view where it is."""
        if self._tag is not None:
            self._image.RemoveObserver(self._tag)
            self._tag = None


def layFrameOver(scene: slicer.vtkMRMLScene, image: slicer.vtkMRMLVolumeNode, over: bool = True) -> None:
    """Show the frame of a clip over the volume in the red slice view, or the volume alone."""
    red = scene.GetNodeByID("vtkMRMLSliceCompositeNodeRed")
    if red is not None:
        red.SetForegroundVolumeID(image.GetID() if over else None)
        red.SetForegroundOpacity(1.0 if over else 0.0)


def fadeVolumes(shown: ResultNodes, other: ResultNodes, share: float) -> None:
    """Show two volumes over each other in all slice views: the first alone at a share of 0, the second at 1."""
    if shown.volume is None or other.volume is None:
        return
    for composite in nodes_of_class(shown.volume.GetScene(), "vtkMRMLSliceCompositeNode"):
        composite.SetBackgroundVolumeID(shown.volume.GetID())
        composite.SetForegroundVolumeID(other.volume.GetID())
        composite.SetForegroundOpacity(share)
    for volume, visible in ((shown.volume, share < 0.5), (other.volume, share >= 0.5)):
        for display in renderings_of(volume):
            display.SetVisibility(visible)
