"""Matrices between VTK and numpy."""

from __future__ import annotations

import numpy as np
import slicer
import vtk


def ijk_to_ras(volume: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """[4, 4] float64: voxel index to the local RAS of a volume node, mm; transforms above the node are left out."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return from_vtk(matrix)


def matrix_to_parent(transform: slicer.vtkMRMLTransformNode) -> np.ndarray | None:
    """[4, 4] float64: from a transform node to its parent, mm; None for a transform that is not linear."""
    if not transform.IsLinear():
        return None
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToParent(matrix)
    return from_vtk(matrix)


def from_vtk(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """[4, 4] float64 copy of a VTK matrix."""
    return np.array(matrix.GetData(), dtype=np.float64).reshape(4, 4)


def to_vtk(matrix: np.ndarray) -> vtk.vtkMatrix4x4:
    """A VTK matrix of a [4, 4] array."""
    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, dtype=np.float64).ravel().tolist())
    return result
