"""The reconstructed volume and its coverage as volume nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import get_vtk_array_type, vtk_to_numpy

from DualTrackSlicerLib.scene.nodes import free_name, to_vtk

if TYPE_CHECKING:
    from DualTrackCore.run.results import RunResult

GREY, COVERAGE_COLOURS = "vtkMRMLColorTableNodeGrey", "vtkMRMLColorTableNodeIron"


def add_volumes(
    scene: slicer.vtkMRMLScene, result: RunResult, node_from_frame0: np.ndarray, name: str
) -> tuple[slicer.vtkMRMLScalarVolumeNode | None, slicer.vtkMRMLScalarVolumeNode | None]:
    """(volume, coverage) of a run, copied out of its arrays; None where the run reconstructed nothing.

    Args:
        node_from_frame0: [4, 4], mm; makes the IJKToRAS together with the grid of the result.
        name: of the clip.
    """
    if result.grid is None:
        return None, None
    node_from_voxel = node_from_frame0 @ result.grid.frame0_from_voxel
    volume = coverage = None
    if result.volume is not None:
        volume = _add_volume(scene, result.volume, node_from_voxel, f"{name} volume")
        _display(volume, GREY, (0.0, 255.0))
    if result.coverage is not None:
        coverage = _add_volume(scene, result.coverage, node_from_voxel, f"{name} coverage")
        # A few voxels near a pivot are seen very often; one that was seen ten times is seen well.
        _display(coverage, COVERAGE_COLOURS, (0.0, 10.0))
    return volume, coverage


def _add_volume(
    scene: slicer.vtkMRMLScene, array: np.ndarray, node_from_voxel: np.ndarray, name: str
) -> slicer.vtkMRMLScalarVolumeNode:
    """A volume node of [K, J, I] values."""
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    image.AllocateScalars(get_vtk_array_type(array.dtype), 1)
    vtk_to_numpy(image.GetPointData().GetScalars()).reshape(array.shape)[:] = array
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetName(free_name(scene, name))
    node.SetIJKToRASMatrix(to_vtk(node_from_voxel))
    node.SetAndObserveImageData(image)
    return scene.AddNode(node)


def _display(volume: slicer.vtkMRMLScalarVolumeNode, colours: str, limits: tuple[float, float]) -> None:
    volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    display.SetAndObserveColorNodeID(colours)
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(*limits)
