"""Nodes of a scene: by class and by free name, and their matrices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import slicer
import vtk

from DualTrackCore.io.pose_marks import FIELDS, ORIGIN, header_marks
from DualTrackCore.io.sequence_parts import SCANNER_FIELDS, scanner_facts
from DualTrackCore.progress import finished as finished
from DualTrackCore.trajectory import PoseOrigin, Trajectory

try:
    from slicer.i18n import tr as tr
except ImportError:  # the MRML libraries without the application

    def tr(text: str) -> str:
        """The text in the language of the application: here as it is."""
        return text


#: Attribute of an image that Slicer loaded from DICOM.
_INSTANCES = "DICOM.instanceUIDs"
#: What SlicerIGSIO puts before the names of header fields.
HEADER = "Sequences."


def nodes_of_class(scene: slicer.vtkMRMLScene, name: str) -> list[slicer.vtkMRMLNode]:
    """All nodes of a class or of one derived from it, in the order of the scene."""
    collection = scene.GetNodesByClass(name)
    collection.UnRegister(None)
    return as_list(collection)


def as_list(collection: vtk.vtkCollection) -> list[object]:
    """The objects of a VTK collection."""
    return [collection.GetItemAsObject(i) for i in range(collection.GetNumberOfItems())]


def add_node(scene: slicer.vtkMRMLScene, node: slicer.vtkMRMLNode, name: str) -> slicer.vtkMRMLNode:
    """Add a node under a name, which gets a number where it is taken; a name is free again when its node goes."""
    node.SetName(name if scene.GetFirstNodeByName(name) is None else scene.GenerateUniqueName(name))
    return scene.AddNode(node)


def renderings_of(volume: slicer.vtkMRMLDisplayableNode) -> list[slicer.vtkMRMLVolumeRenderingDisplayNode]:
    """The display nodes that render a volume."""
    displays = [volume.GetNthDisplayNode(i) for i in range(volume.GetNumberOfDisplayNodes())]
    return [display for display in displays if isinstance(display, slicer.vtkMRMLVolumeRenderingDisplayNode)]


def ijk_to_ras(volume: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """[4, 4] float64: voxel index to the local RAS of a volume node, mm; transforms above the node are left out.

    SlicerIGSIO leaves the spacing of a file in the image data, where Slicer draws by it although its node says 1 mm.
    """
    return ijk_to_ras_of([volume])[0]


def ijk_to_ras_of(volumes: Iterable[slicer.vtkMRMLVolumeNode]) -> np.ndarray:
    """[N, 4, 4] as :func:`ijk_to_ras`, of volumes whose image data have one spacing."""
    matrix, found, spacing = vtk.vtkMatrix4x4(), [], None
    for volume in volumes:
        if spacing is None:  # of the first alone, for VTK is slow to let go of an image
            image = volume.GetImageData()
            spacing = (1.0, 1.0, 1.0) if image is None else image.GetSpacing()
        volume.GetIJKToRASMatrix(matrix)
        found.append(matrix.GetData())
    return np.array(found, dtype=np.float64).reshape(-1, 4, 4) * (*spacing, 1.0)


def header_text(node: slicer.vtkMRMLNode, field: str) -> str | None:
    """A field of the header of the file that a sequence was read from; SlicerIGSIO puts a word before its name."""
    return node.GetAttribute(field) or node.GetAttribute(f"{HEADER}{field}")


def scanner_of(images: slicer.vtkMRMLSequenceNode) -> dict[str, Any]:
    """Facts on scanner and probe of a clip for a provenance: of the header of its file, or of its DICOM object.

    Slicer keeps the UID of the object, and in its database where the file lies.
    """
    facts = scanner_facts({name: header_text(images, field) for name, field in SCANNER_FIELDS.items()})
    uids, database = images.GetNthDataNode(0).GetAttribute(_INSTANCES), getattr(slicer, "dicomDatabase", None)
    if not facts and uids and database is not None and (path := database.fileForInstance(uids.split()[0])):
        from DualTrackCore.io.dicom import scanner_in

        return scanner_in(path)
    return facts


def ijk_to_world(volume: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """[4, 4] float64: voxel index to the world of the scene, mm; transforms above the node are linear."""
    return world_from_node(volume) @ ijk_to_ras(volume)


def world_from_node(node: slicer.vtkMRMLTransformableNode) -> np.ndarray:
    """[4, 4] float64: the local RAS of a node to the world of the scene, mm; transforms above the node are linear."""
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(node.GetParentTransformNode(), None, matrix)
    return np.array(matrix.GetData(), dtype=np.float64).reshape(4, 4)


def matrix_to_parent(transform: slicer.vtkMRMLTransformNode) -> np.ndarray | None:
    """[4, 4] float64: from a transform node to its parent, mm; None for a transform that is not linear."""
    if not transform.IsLinear():
        return None
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToParent(matrix)
    return np.array(matrix.GetData(), dtype=np.float64).reshape(4, 4)


def set_pose_origin(node: slicer.vtkMRMLNode, trajectory: Trajectory) -> None:
    """Say on a node where its poses are from; Slicer keeps it with the scene."""
    for name, text in header_marks(trajectory).items():
        node.SetAttribute(name, text)


def pose_marks(nodes: Sequence[slicer.vtkMRMLNode]) -> dict[str, str]:
    """What nodes say of where their poses are from, for :func:`~DualTrackCore.io.pose_marks.marked`: the worst.

    Empty where no node says anything.
    """
    said = {name: [text for node in nodes if (text := header_text(node, key))] for name, key in FIELDS.items()}
    marks = {name: " and ".join(dict.fromkeys(texts)) for name, texts in said.items() if texts}
    return {**marks, ORIGIN: PoseOrigin.worst(said[ORIGIN]).value} if said[ORIGIN] else marks


def to_vtk(matrix: np.ndarray) -> vtk.vtkMatrix4x4:
    """A VTK matrix of a [4, 4] array."""
    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, dtype=np.float64).ravel().tolist())
    return result
