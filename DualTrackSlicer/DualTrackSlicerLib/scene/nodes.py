"""Nodes of a scene: by class and by free name; their matrices, folder, and attributes that say what made them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import slicer
import vtk

if TYPE_CHECKING:
    from DualTrackCore.run.results import RunResult


def nodes_of_class(scene: slicer.vtkMRMLScene, name: str) -> list[slicer.vtkMRMLNode]:
    """All nodes of a class or of one derived from it, in the order of the scene."""
    collection = scene.GetNodesByClass(name)
    collection.UnRegister(None)
    return as_list(collection)


def as_list(collection: vtk.vtkCollection) -> list[object]:
    """The objects of a VTK collection."""
    return [collection.GetItemAsObject(i) for i in range(collection.GetNumberOfItems())]


def free_name(scene: slicer.vtkMRMLScene, name: str) -> str:
    """`name`, or with a number behind it where a node of the scene has it; a name is free again when its node goes."""
    return name if scene.GetFirstNodeByName(name) is None else scene.GenerateUniqueName(name)


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


_FOLDER = "DualTrack.Folder"


def file_nodes(scene: slicer.vtkMRMLScene, nodes: Sequence[slicer.vtkMRMLNode], name: str) -> int:
    """Put nodes into one folder and return its item; the folder that already holds the first of them is used again.

    Args:
        nodes: all in the scene; at least one.
        name: of a new folder, at the top of the hierarchy.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = folder_of(nodes[0])
    if folder is None:
        folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), name)
        hierarchy.SetItemAttribute(folder, _FOLDER, "1")
    for node in nodes:
        # Also moves the item that the application has made for the node already.
        hierarchy.CreateItem(folder, node)
    return folder


def folder_of(node: slicer.vtkMRMLNode) -> int | None:
    """The result folder that a node lies in, or None."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    item = hierarchy.GetItemByDataNode(node)
    parent = hierarchy.GetItemParent(item) if item else 0
    return parent if parent and hierarchy.GetItemAttribute(parent, _FOLDER) else None


def remove_empty_folders(scene: slicer.vtkMRMLScene) -> None:
    """Remove items of nodes that have left the scene, and result folders in which nothing else is."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    items = _items(hierarchy, hierarchy.GetSceneItemID(), recursive=True)
    for item in [item for item in items if hierarchy.GetItemAttribute(item, _FOLDER)]:
        for child in _items(hierarchy, item, recursive=False):
            node = hierarchy.GetItemDataNode(child)
            if node is not None and node.GetScene() is None:
                hierarchy.RemoveItem(child, False, False)
        if not hierarchy.GetNumberOfItemChildren(item):
            hierarchy.RemoveItem(item, False, False)


def _items(hierarchy: slicer.vtkMRMLSubjectHierarchyNode, parent: int, recursive: bool) -> list[int]:
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(parent, items, recursive)
    return [items.GetId(i) for i in range(items.GetNumberOfIds())]


def provenance_attributes(result: RunResult) -> dict[str, str]:
    """Node attributes that say how a result was made; what the result does not tell is left out.

    DualTrack.Model, .ModelSha256, .Spacing (mm across columns and down rows), .Precision, .Chunk (frames), .Device,
    .Version, .Date (ISO 8601) and .Settings (all settings as JSON). Poses that a tracker measured have no model.
    """
    report = result.report
    spacing, source = report.sweep.get("spacing_mm"), report.trajectory["source"]
    values = {
        "DualTrack.Model": source.get("model"),
        "DualTrack.ModelSha256": source.get("weights_sha256"),
        "DualTrack.Spacing": None if spacing is None else " ".join(f"{value:.9g}" for value in spacing),
        "DualTrack.Precision": source.get("precision"),
        "DualTrack.Chunk": source.get("chunk_frames"),
        "DualTrack.Device": source.get("device"),
        "DualTrack.Version": report.dualtrack_version,
        "DualTrack.Date": report.created,
        "DualTrack.Settings": json.dumps(report.settings, sort_keys=True),
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def mark(nodes: Iterable[slicer.vtkMRMLNode], attributes: dict[str, str]) -> None:
    """Write the attributes to every node."""
    for node in nodes:
        for name, value in attributes.items():
            node.SetAttribute(name, value)
