"""Results as one step of the scene's undo.

Undo in MRML removes and restores nodes. Sequence browsers lose their sequences if they take part, so they do not: after
an undo or a redo, an observer makes browsers, images and folders agree with the result nodes in the scene. Undo is
switched off in Slicer until a user or script calls `SetUndoOn` on the scene.
"""

from __future__ import annotations

from collections.abc import Iterable

import slicer

from DualTrackSlicerLib.scene.nodes import nodes_of_class, remove_empty_folders
from DualTrackSlicerLib.scene.result_nodes import file_result, restore_references
from DualTrackSlicerLib.scene.wiring import (
    BROWSER,
    IMAGES,
    POSE,
    PROXY,
    ROLE,
    connect,
    disconnect,
    moved_images,
    result_sequences,
)

#: Python attribute of a scene that is watched already.
_WATCHED = "dualTrackUndoObservers"


def save_state(scene: slicer.vtkMRMLScene) -> None:
    """Begin a step of undo, where the scene keeps any."""
    scene.SaveStateForUndo()
    if getattr(scene, _WATCHED, None):
        return

    def realign(caller: object, event: object) -> None:
        realign_scene(scene)

    events = (slicer.vtkMRMLScene.EndUndoEvent, slicer.vtkMRMLScene.EndRedoEvent)
    setattr(scene, _WATCHED, [scene.AddObserver(event, realign) for event in events])


def make_undoable(nodes: Iterable[slicer.vtkMRMLNode]) -> None:
    """Let nodes, and what stores and displays them, take part in undo."""
    for node in nodes:
        for part in (node, *attendants(node)):
            part.SetUndoEnabled(True)


def attendants(node: slicer.vtkMRMLNode) -> list[slicer.vtkMRMLNode]:
    """Display and storage nodes of a node, and what volume rendering keeps for it."""
    found = []
    if node.IsA("vtkMRMLDisplayableNode"):
        displays = [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())]
        found += displays
        renderings = [d for d in displays if d is not None and d.IsA("vtkMRMLVolumeRenderingDisplayNode")]
        found += [part for d in renderings for part in (d.GetVolumePropertyNode(), d.GetROINode())]
    if node.IsA("vtkMRMLStorableNode"):
        found += [node.GetNthStorageNode(i) for i in range(node.GetNumberOfStorageNodes())]
    return [part for part in found if part is not None]


def realign_scene(scene: slicer.vtkMRMLScene) -> None:
    """Make browsers, images and folders agree with the result nodes in the scene."""
    present = [node for node in result_sequences(scene) if node.GetNodeReference(BROWSER) is not None]
    for transforms in present:
        restore_references(transforms)
        connect(transforms)
        file_result(transforms)
    _remove_stray_proxies(scene, {node.GetNodeReferenceID(PROXY) for node in present})
    placed = {node.GetNodeReferenceID(IMAGES) for node in present}
    for images in moved_images(scene):
        if images.GetID() not in placed:
            disconnect(images)
    remove_empty_folders(scene)


def _remove_stray_proxies(scene: slicer.vtkMRMLScene, wanted: set[str]) -> None:
    """Remove proxies that a browser made for a sequence that left the scene a moment after its own proxy."""
    for node in nodes_of_class(scene, "vtkMRMLLinearTransformNode"):
        if node.GetAttribute(ROLE) == POSE and node.GetID() not in wanted:
            for part in (*attendants(node), node):
                scene.RemoveNode(part)
