"""The subject-hierarchy folder that holds the results of one run."""

from __future__ import annotations

from collections.abc import Sequence

import slicer
import vtk

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
    found = vtk.vtkIdList()
    hierarchy.GetItemChildren(parent, found, recursive)
    return [found.GetId(i) for i in range(found.GetNumberOfIds())]
