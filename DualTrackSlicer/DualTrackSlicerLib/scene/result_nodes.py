"""The nodes of one run, and how they find each other again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import slicer

from DualTrackSlicerLib.scene.nodes import file_nodes, folder_of, nodes_of_class
from DualTrackSlicerLib.scene.wiring import IMAGES, POSE, PROXY, ROLE

#: Attribute that all nodes of one run share.
RUN = "DualTrack.Run"

#: Fields of :class:`ResultNodes` that the transform sequence refers to by "DualTrack.<field>".
SINGLE = ("volume", "coverage", "trajectory_model", "pose_table", "truth_model", "error_table")
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
        truth_model, error_table, plots, plot_series: where the clip is tracked and the poses were estimated.
    """

    folder: int | None
    transform_sequence: slicer.vtkMRMLSequenceNode
    transform_proxy: slicer.vtkMRMLTransformNode | None
    volume: slicer.vtkMRMLScalarVolumeNode | None = None
    coverage: slicer.vtkMRMLScalarVolumeNode | None = None
    trajectory_model: slicer.vtkMRMLModelNode | None = None
    pose_table: slicer.vtkMRMLTableNode | None = None
    truth_model: slicer.vtkMRMLModelNode | None = None
    error_table: slicer.vtkMRMLTableNode | None = None
    outlines: list[slicer.vtkMRMLModelNode] = field(default_factory=list)
    plots: list[slicer.vtkMRMLPlotChartNode] = field(default_factory=list)
    plot_series: list[slicer.vtkMRMLPlotSeriesNode] = field(default_factory=list)

    def __iter__(self) -> Iterator[slicer.vtkMRMLNode]:
        """All nodes."""
        singles = [self.transform_sequence, self.transform_proxy, *(getattr(self, name) for name in SINGLE)]
        yield from (node for node in singles if node is not None)
        for name in SEVERAL:
            yield from getattr(self, name)

    def remember(self) -> None:
        """Make the transform sequence refer to all other nodes, and write its role on each node."""
        for name in SINGLE:
            node = getattr(self, name)
            if node is not None:
                node.SetAttribute(ROLE, name)
        for name in SEVERAL:
            for node in getattr(self, name):
                node.SetAttribute(ROLE, name)
        restore_references(self.transform_sequence)


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
    found: dict[str, list[slicer.vtkMRMLNode]] = {}
    for node in nodes_of_class(transforms.GetScene(), "vtkMRMLNode"):
        if run is not None and node.GetAttribute(RUN) == run:
            found.setdefault(node.GetAttribute(ROLE), []).append(node)
    for name in (*SINGLE, *SEVERAL):
        role = _reference(name)
        if name in found:
            transforms.RemoveNodeReferenceIDs(role)
        # The numbers in IDs count up, so shorter IDs are older.
        for node in sorted(found.get(name, []), key=lambda node: (len(node.GetID()), node.GetID())):
            transforms.AddNodeReferenceID(role, node.GetID())
    if transforms.GetNodeReference(PROXY) is None and POSE in found:
        transforms.SetNodeReferenceID(PROXY, found[POSE][0].GetID())


def file_result(transforms: slicer.vtkMRMLSequenceNode) -> int:
    """Put all nodes of a run into their folder; returns its item."""
    images = transforms.GetNodeReference(IMAGES)
    return file_nodes(transforms.GetScene(), list(nodes_of(transforms)), f"DualTrack {images.GetName()}")


def _reference(name: str) -> str:
    return f"DualTrack.{name}"
