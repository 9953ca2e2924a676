"""Files as Slicer shows them: its own storage nodes, and what the extension SlicerIGSIO does with a sequence metafile.

SlicerIGSIO is not at hand as a library. Its importer (vtkSlicerMetafileImporterLogic) reads transforms by the code of
Slicer's vtkMRMLLinearTransformSequenceStorageNode, which is used here too, and the pixels of an .mha by
vtkMetaImageReader into volume nodes with the spacing of the header and no IJKToRAS; those of a .nrrd by
vtkMRMLVolumeSequenceStorageNode. Both are done here by the same calls.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import slicer
import vtk
from clip_nodes import array_of, vtk_matrix
from vtk.util.numpy_support import vtk_to_numpy

_FIELD = re.compile(rb"Seq_Frame\d+_(\w+?)TransformStatus ?=")


def pixels_of(image: vtk.vtkImageData) -> np.ndarray:
    """[H, W] of an image of one slice."""
    width, height, _ = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width)


def read_data(scene, kind: str, storage_kind: str, path: Path):
    """A node that Slicer's storage node fills from a file."""
    storage = scene.AddNewNodeByClass(storage_kind)
    storage.SetFileName(str(path))
    node = scene.AddNewNodeByClass(kind)
    assert storage.ReadData(node)
    return node


def read_volume(scene, path: Path) -> slicer.vtkMRMLScalarVolumeNode:
    return read_data(scene, "vtkMRMLScalarVolumeNode", "vtkMRMLVolumeArchetypeStorageNode", path)


def read_image_sequence(scene, path: Path) -> slicer.vtkMRMLSequenceNode:
    return read_data(scene, "vtkMRMLSequenceNode", "vtkMRMLVolumeSequenceStorageNode", path)


def read_transforms(scene, path: Path, folder: Path) -> dict[str, list[np.ndarray]]:
    """All transforms of an .mha by name, [4, 4] of every frame.

    The storage node gives only the first one of a file, so it gets a file for each in `folder`.
    """
    header, mark, data = path.read_bytes().partition(b"ElementDataFile")
    names = dict.fromkeys(match[1] for match in _FIELD.finditer(header))
    found = {}
    for name in names:
        others = re.compile(rb"Seq_Frame\d+_(?!%b)\w+?Transform(Status)? ?=" % name)
        kept = [line for line in header.splitlines(True) if not others.match(line)]
        copy = folder / f"{name.decode()}.seq.mha"
        copy.write_bytes(b"".join(kept) + mark + data)
        node = read_data(scene, "vtkMRMLSequenceNode", "vtkMRMLLinearTransformSequenceStorageNode", copy)
        found[name.decode()] = [matrix_of(node.GetNthDataNode(i)) for i in range(node.GetNumberOfDataNodes())]
    return found


def matrix_of(transform: slicer.vtkMRMLLinearTransformNode) -> np.ndarray:
    """[4, 4] to the parent."""
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToParent(matrix)
    return array_of(matrix)


def image_node_of_metafile(scene, path: Path, frame: int) -> slicer.vtkMRMLScalarVolumeNode:
    """A frame of an .mha as SlicerIGSIO puts it into the scene."""
    reader = vtk.vtkMetaImageReader()
    reader.SetFileName(str(path))
    reader.Update()
    whole = reader.GetOutput()
    width, height, count = whole.GetDimensions()
    image = vtk.vtkImageData()
    image.SetDimensions(width, height, 1)
    image.SetSpacing(*whole.GetSpacing()[:2], 1)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    stored = vtk_to_numpy(whole.GetPointData().GetScalars()).reshape(count, height, width)
    pixels_of(image)[:] = stored[frame]
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    node.SetAndObserveImageData(image)
    return node


def put_below(image, *matrices: np.ndarray) -> None:
    """Put a node below transform nodes, the nearest first."""
    child = image
    for matrix in matrices:
        parent = image.GetScene().AddNewNodeByClass("vtkMRMLLinearTransformNode")
        parent.SetMatrixTransformToParent(vtk_matrix(matrix))
        child.SetAndObserveTransformNodeID(parent.GetID())
        child = parent


def ras_from_pixel(image: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    """[4, 4] from the pixels of a node to the world of the scene, as Slicer's views draw them.

    They hand IJK to VTK's reslice, which takes it for coordinates of the image data; so a spacing that was left in the
    data comes on top.
    """
    ijk, world = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    image.GetIJKToRASMatrix(ijk)
    if image.GetParentTransformNode() is not None:
        image.GetParentTransformNode().GetMatrixTransformToWorld(world)
    return array_of(world) @ array_of(ijk) @ np.diag([*image.GetImageData().GetSpacing(), 1])


def resampled(volume: slicer.vtkMRMLScalarVolumeNode, image: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    """[H, W] float: the volume where the pixels of the image node lie in the scene; -1 outside of it."""
    reslice, transform = vtk.vtkImageReslice(), vtk.vtkTransform()
    transform.SetMatrix(vtk_matrix(np.linalg.inv(ras_from_pixel(volume)) @ ras_from_pixel(image)))
    reslice.SetInputData(volume.GetImageData())
    reslice.SetResliceTransform(transform)
    reslice.SetInterpolationModeToLinear()
    reslice.SetOutputScalarType(vtk.VTK_FLOAT)
    reslice.SetBackgroundLevel(-1)
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputExtent(image.GetImageData().GetExtent())
    reslice.Update()
    return pixels_of(reslice.GetOutput())


def agreement(volume, coverage, image) -> float:
    """Correlation of an image node with the volume that lies there, over seen voxels; 0 where few are seen."""
    seen = resampled(coverage, image) > 0.5
    if seen.mean() < 0.5:
        return 0.0
    return float(np.corrcoef(resampled(volume, image)[seen], pixels_of(image.GetImageData())[seen])[0, 1])
