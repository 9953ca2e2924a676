"""The nodes of one run: how they find each other again, their folder, and how they are one step of the scene's undo.

Undo in MRML removes and restores nodes. Sequence browsers lose their sequences if they take part, so they do not: after
an undo or a redo, an observer makes browsers, images and folders agree with the result nodes in the scene. Undo is
switched off in Slicer until a user or script calls `SetUndoOn` on the scene.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import slicer
import vtk

from DualTrackSlicerLib.scene.nodes import nodes_of_class, renderings_of
from DualTrackSlicerLib.scene.wiring import (
    BROWSER,
    IMAGES,
    POSE,
    PROXY,
    ROLE,
    connect,
    connected,
    disconnect,
    moved_images,
    result_sequences,
    synchronize,
)

#: Attribute that all nodes of one run share.
RUN = "DualTrack.Run"
#: Attribute of a corrected result: that of the result that it was corrected from.
CORRECTED = "DualTrack.CorrectedFrom"
#: Attribute of the item of their folder.
_FOLDER = "DualTrack.Folder"
#: Python attribute of a scene that is watched already.
_WATCHED = "dualTrackUndoObservers"

#: Fields of :class:`ResultNodes` that the transform sequence refers to by "DualTrack.<field>".
SINGLE = (
    *("volume", "coverage", "trajectory_model", "pose_table", "truth_model", "error_table", "error_tube"),
    *("expected_error", "error_colours"),
)
SEVERAL = ("outlines", "plots", "plot_series")


@dataclass(frozen=True, eq=False)
class ResultNodes:
    """The nodes of one run. What the run did not give, or a user deleted, is None or missing from its list.

    Attributes:
        folder: subject-hierarchy item that holds them all; None where the folder is gone.
        transform_sequence: a linear transform for each image of the clip, in its browser.
        transform_proxy: the transform of the selected image, parent of the image proxy.
        volume, coverage: grey values (8 bit) and how much was seen (float32).
        trajectory_model: tube along the image centres; see `colourTrajectory`.
        outlines: border of the first and of the last frame of the run.
        pose_table: poses and quality of each frame; see `trajectoryFromTable`.
        error_tube: around the path; the true image centres lie within it with a probability of 95 %. Hidden at first,
            see `showErrorTube`; None where nothing says how sure the poses are.
        expected_error, error_colours: how far what the volume shows is expected to lie from its true place, mm, and
            its colours, where that is shown; see `showExpectedError`.
        truth_model, error_table, plots, plot_series: where the clip is tracked and the poses were estimated.
    """

    folder: int | None
    transform_sequence: slicer.vtkMRMLSequenceNode
    transform_proxy: slicer.vtkMRMLTransformNode | None
    volume: slicer.vtkMRMLScalarVolumeNode | None = None
    coverage: slicer.vtkMRMLScalarVolumeNode | None = None
    trajectory_model: slicer.vtkMRMLModelNode | None = None
    pose_table: slicer.vtkMRMLTableNode | None = None
    error_tube: slicer.vtkMRMLModelNode | None = None
    expected_error: slicer.vtkMRMLScalarVolumeNode | None = None
    error_colours: slicer.vtkMRMLColorTableNode | None = None
    truth_model: slicer.vtkMRMLModelNode | None = None
    error_table: slicer.vtkMRMLTableNode | None = None
    outlines: list[slicer.vtkMRMLModelNode] = field(default_factory=list)
    plots: list[slicer.vtkMRMLPlotChartNode] = field(default_factory=list)
    plot_series: list[slicer.vtkMRMLPlotSeriesNode] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the folder, which users may change; that of the transform sequence where there is none."""
        hierarchy = _hierarchy(self.transform_sequence.GetScene())
        return self.transform_sequence.GetName() if self.folder is None else hierarchy.GetItemName(self.folder)

    def __iter__(self) -> Iterator[slicer.vtkMRMLNode]:
        """All nodes."""
        yield self.transform_sequence
        if self.transform_proxy is not None:
            yield self.transform_proxy
        for _, node in self.by_role():
            yield node

    def by_role(self) -> Iterator[tuple[str, slicer.vtkMRMLNode]]:
        """(field, node) of all nodes that the transform sequence refers to, but its proxy."""
        for name in SINGLE:
            if getattr(self, name) is not None:
                yield name, getattr(self, name)
        for name in SEVERAL:
            yield from ((name, node) for node in getattr(self, name))


def nodes_of(transforms: slicer.vtkMRMLSequenceNode) -> ResultNodes:
    """The nodes of the run that a transform sequence belongs to, as far as they are in the scene."""
    single = {name: transforms.GetNodeReference(_reference(name)) for name in SINGLE}
    several = {}
    for name in SEVERAL:
        role = _reference(name)
        nodes = (transforms.GetNthNodeReference(role, i) for i in range(transforms.GetNumberOfNodeReferences(role)))
        several[name] = [node for node in nodes if node is not None]
    return ResultNodes(folder_of(transforms), transforms, transforms.GetNodeReference(PROXY), **single, **several)


def restore_references(transforms: slicer.vtkMRMLSequenceNode) -> None:
    """Refer to all nodes of the same run; a sequence forgets nodes that leave the scene before it does."""
    run = transforms.GetAttribute(RUN)
    by_role: dict[str, list[slicer.vtkMRMLNode]] = {}
    for node in nodes_of_class(transforms.GetScene(), "vtkMRMLNode"):
        if run is not None and node.GetAttribute(RUN) == run:
            by_role.setdefault(node.GetAttribute(ROLE), []).append(node)
    for name in (*SINGLE, *SEVERAL):
        if name in by_role:
            transforms.RemoveNodeReferenceIDs(_reference(name))
        # The numbers in IDs count up, so shorter IDs are older.
        for node in sorted(by_role.get(name, ()), key=lambda node: (len(node.GetID()), node.GetID())):
            transforms.AddNodeReferenceID(_reference(name), node.GetID())
    if transforms.GetNodeReference(PROXY) is None and POSE in by_role:
        transforms.SetNodeReferenceID(PROXY, by_role[POSE][0].GetID())


def file_result(transforms: slicer.vtkMRMLSequenceNode, name: str | None = None) -> None:
    """Put all nodes of a run into one folder: that of its transform sequence, or a new one at the top.

    Args:
        name: of a new folder; by default that of the clip, with a number where that is taken.
    """
    hierarchy, folder = _hierarchy(transforms.GetScene()), folder_of(transforms)
    if folder is None:
        corrected = " corrected" if transforms.GetAttribute(CORRECTED) else ""
        plain, number = f"DualTrack {transforms.GetNodeReference(IMAGES).GetName()}{corrected}", 1
        name = name or plain
        while hierarchy.GetItemByName(name):
            name, number = f"{plain} {number + 1}", number + 1
        folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), name)
        hierarchy.SetItemAttribute(folder, _FOLDER, "1")
    for node in nodes_of(transforms):
        # Also moves the item that the application has made for the node already.
        hierarchy.CreateItem(folder, node)


def folder_of(node: slicer.vtkMRMLNode) -> int | None:
    """The result folder that a node lies in, or None."""
    hierarchy = _hierarchy(node.GetScene())
    item = hierarchy.GetItemByDataNode(node)
    parent = hierarchy.GetItemParent(item) if item else 0
    return parent if parent and hierarchy.GetItemAttribute(parent, _FOLDER) else None


def _hierarchy(scene: slicer.vtkMRMLScene) -> slicer.vtkMRMLSubjectHierarchyNode:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


def _items(hierarchy: slicer.vtkMRMLSubjectHierarchyNode, parent: int, recursive: bool) -> list[int]:
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(parent, items, recursive)
    return [items.GetId(i) for i in range(items.GetNumberOfIds())]


def save_state(scene: slicer.vtkMRMLScene) -> None:
    """Begin a step of undo, where the scene keeps any.

    Of what is displayed how, copies are kept. Other nodes come and go as they are: a copy of all transforms of a long
    clip takes a tenth of a second, for every result in the scene.
    """
    changed = vtk.vtkCollection()
    for node in nodes_of_class(scene, "vtkMRMLDisplayNode"):
        changed.AddItem(node)
    scene.SaveStateForUndo(changed)
    if not getattr(scene, _WATCHED, None):
        events = (slicer.vtkMRMLScene.EndUndoEvent, slicer.vtkMRMLScene.EndRedoEvent)
        setattr(scene, _WATCHED, [scene.AddObserver(event, _realign) for event in events])


def _realign(scene: slicer.vtkMRMLScene, event: object) -> None:
    """Make browsers, images and folders agree with the result nodes in the scene."""
    present = [node for node in result_sequences(scene) if node.GetNodeReference(BROWSER) is not None]
    came_back = {
        node.GetNodeReference(IMAGES): node
        for node in present
        if not node.GetNodeReference(BROWSER).IsSynchronizedSequenceNode(node, True)
    }
    for transforms in present:
        restore_references(transforms)
        synchronize(transforms)
        file_result(transforms)
    # A browser makes a new proxy for a sequence that leaves the scene a moment after its own proxy.
    proxies = {node.GetNodeReferenceID(PROXY) for node in present}
    poses = [n for n in nodes_of_class(scene, "vtkMRMLLinearTransformNode") if n.GetAttribute(ROLE) == POSE]
    remove_nodes(scene, [node for node in poses if node.GetID() not in proxies])
    for images in {*moved_images(scene), *(node.GetNodeReference(IMAGES) for node in present)}:
        shown = came_back.get(images) or connected(images)
        if shown is None:
            disconnect(images)
        else:
            show_alone(shown)


def remove_nodes(scene: slicer.vtkMRMLScene, nodes: Iterable[slicer.vtkMRMLNode]) -> None:
    """Take nodes, what stores and displays them, and result folders that are empty then out of a scene."""
    for node in list(nodes):
        for part in (*_attendants(node), node):
            if part.GetScene() is scene:
                scene.RemoveNode(part)
    hierarchy = _hierarchy(scene)
    items = _items(hierarchy, hierarchy.GetSceneItemID(), recursive=True)
    for item in [item for item in items if hierarchy.GetItemAttribute(item, _FOLDER)]:
        for child in _items(hierarchy, item, recursive=False):
            node = hierarchy.GetItemDataNode(child)
            if node is not None and node.GetScene() is None:
                hierarchy.RemoveItem(child, False, False)
        if not hierarchy.GetNumberOfItemChildren(item):
            hierarchy.RemoveItem(item, False, False)


def show_alone(transforms: slicer.vtkMRMLSequenceNode) -> None:
    """Move the image of the clip with one of its results and show that one, none of the others."""
    connect(transforms)
    for other in result_sequences(transforms.GetScene(), transforms.GetNodeReference(IMAGES)):
        set_visible(nodes_of(other), other is transforms)


def set_visible(nodes: ResultNodes, visible: bool) -> None:
    """Show the paths, outlines and volume rendering of a result in 3D, or hide all that it shows there."""
    for model in (nodes.trajectory_model, nodes.truth_model, *nodes.outlines):
        if model is not None and model.GetDisplayNode() is not None:
            model.GetDisplayNode().SetVisibility(visible)
    for display in () if nodes.volume is None else renderings_of(nodes.volume):
        display.SetVisibility(visible)
    if nodes.error_tube is not None and not visible:
        nodes.error_tube.GetDisplayNode().SetVisibility(False)


def make_undoable(nodes: Iterable[slicer.vtkMRMLNode]) -> None:
    """Let nodes, and what stores and displays them, take part in undo."""
    for node in nodes:
        for part in (node, *_attendants(node)):
            part.SetUndoEnabled(True)


def _attendants(node: slicer.vtkMRMLNode) -> list[slicer.vtkMRMLNode]:
    """Display and storage nodes of a node, and what volume rendering keeps for it."""
    parts = []
    if node.IsA("vtkMRMLDisplayableNode"):
        parts += [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())]
        parts += [part for d in renderings_of(node) for part in (d.GetVolumePropertyNode(), d.GetROINode())]
    if node.IsA("vtkMRMLStorableNode"):
        parts += [node.GetNthStorageNode(i) for i in range(node.GetNumberOfStorageNodes())]
    return [part for part in parts if part is not None]


def _reference(name: str) -> str:
    return f"DualTrack.{name}"
