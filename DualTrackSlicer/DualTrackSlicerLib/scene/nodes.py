"""Nodes of a scene by their class."""

from __future__ import annotations

import slicer
import vtk


def nodes_of_class(scene: slicer.vtkMRMLScene, name: str) -> list[slicer.vtkMRMLNode]:
    """All nodes of a class or of one derived from it, in the order of the scene."""
    found = scene.GetNodesByClass(name)
    found.UnRegister(None)
    return as_list(found)


def as_list(collection: vtk.vtkCollection) -> list[object]:
    """The objects of a VTK collection."""
    return [collection.GetItemAsObject(i) for i in range(collection.GetNumberOfItems())]


def free_name(scene: slicer.vtkMRMLScene, name: str) -> str:
    """`name`, or with a number behind it where a node of the scene has it; a name is free again when its node goes."""
    return name if scene.GetFirstNodeByName(name) is None else scene.GenerateUniqueName(name)
