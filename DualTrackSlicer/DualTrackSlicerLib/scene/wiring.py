"""The transforms of a run: made, put above the image node of a clip, and taken away again.

The transform sequence of a run is synchronized in the browser of the clip, and its proxy becomes the parent of the
image proxy. Stepping copies over the attributes and references of proxies, so everything to be remembered is kept on
sequence nodes.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import slicer
import vtk

from DualTrackCore.errors import InputError
from DualTrackSlicerLib.scene.nodes import as_list, nodes_of_class, to_vtk
from DualTrackSlicerLib.scene.nodes import tr as _

#: Attribute of every node that a run makes; on the transform sequence :data:`POSES`, on its items :data:`POSE`.
ROLE = "DualTrack.Role"
POSES, POSE = "poses", "pose"

#: Frames that are worked on before the application gets a turn.
PIECE = 32

#: References of the transform sequence of a run.
IMAGES, BROWSER, PROXY = "DualTrack.images", "DualTrack.browser", "DualTrack.proxy"

#: On the image sequence: whether a run moves it, the former parent of its proxy, and the run that moves it.
_MOVED, _BASE, _SHOWN = "DualTrack.Moved", "DualTrack.base", "DualTrack.shown"


def sequences_of(browser: slicer.vtkMRMLSequenceBrowserNode) -> list[slicer.vtkMRMLSequenceNode]:
    """All sequences of a browser, the master first."""
    nodes = vtk.vtkCollection()
    browser.GetSynchronizedSequenceNodes(nodes, True)
    return as_list(nodes)


def is_result_sequence(node: slicer.vtkMRMLSequenceNode | None) -> bool:
    """Whether a sequence holds the poses of a run."""
    return node is not None and node.GetAttribute(ROLE) == POSES


def parent_of_clip(
    browser: slicer.vtkMRMLSequenceBrowserNode, images: slicer.vtkMRMLSequenceNode
) -> slicer.vtkMRMLTransformNode | None:
    """The parent of the image proxy, or its former parent where the result of a run took its place."""
    proxy = browser.GetProxyNode(images)
    parent = None if proxy is None else proxy.GetParentTransformNode()
    if parent is not None and is_result_sequence(browser.GetSequenceNode(parent)):
        return images.GetNodeReference(_BASE)
    return parent


def _still_parent(
    browser: slicer.vtkMRMLSequenceBrowserNode, images: slicer.vtkMRMLSequenceNode
) -> slicer.vtkMRMLTransformNode | None:
    """The nearest transform above the image with nothing that moves above it: the parent of results, too."""
    link = base = parent_of_clip(browser, images)
    while link is not None:
        moving = browser.GetSequenceNode(link) is not None
        link = link.GetParentTransformNode()
        base = link if moving else base
    return base


def transform_sequence(
    browser: slicer.vtkMRMLSequenceBrowserNode,
    images: slicer.vtkMRMLSequenceNode,
    motions: np.ndarray,
    attributes: dict[str, str],
) -> Generator[None, None, slicer.vtkMRMLSequenceNode]:
    """A sequence of linear transforms with the index values of the images, neither in the scene nor in the browser yet.

    It is made in pieces of :data:`PIECE` transforms.

    Args:
        motions: [N, 4, 4] local RAS to local RAS, mm, one for each image.
        attributes: of the sequence and of its transforms.

    Raises InputError: index values that the sequence of images does not tell apart.
    """
    sequence = slicer.vtkMRMLSequenceNode()
    sequence.SetIndexType(images.GetIndexType())
    sequence.SetIndexName(images.GetIndexName())
    sequence.SetIndexUnit(images.GetIndexUnit())
    sequence.SetNumericIndexValueTolerance(images.GetNumericIndexValueTolerance())
    template = slicer.vtkMRMLLinearTransformNode()
    for node, role in ((sequence, POSES), (template, POSE)):
        node.SetName(f"{images.GetName()} poses")
        for key, value in {**attributes, ROLE: role}.items():
            node.SetAttribute(key, value)
    values = [images.GetNthIndexValue(number) for number in range(images.GetNumberOfDataNodes())]
    for number, (value, motion) in enumerate(zip(values, motions, strict=True)):
        if number % PIECE == 0:
            yield
        template.SetMatrixTransformToParent(to_vtk(motion))
        sequence.SetDataNodeAtValue(template, value)
    # A browser reuses the item before a missing one without a word, so every image must have its own transform.
    if [sequence.GetNthIndexValue(number) for number in range(sequence.GetNumberOfDataNodes())] != values:
        sentence = _(
            "The index values of {name} lie closer together than its tolerance of {tolerance}, so frames cannot be "
            "told apart; load the clip with the frame number as index."
        )
        tolerance = f"{images.GetNumericIndexValueTolerance():g}"
        raise InputError(sentence.format(name=images.GetName(), tolerance=tolerance))
    sequence.SetNodeReferenceID(IMAGES, images.GetID())
    sequence.SetNodeReferenceID(BROWSER, browser.GetID())
    return sequence


def connect(transforms: slicer.vtkMRMLSequenceNode) -> slicer.vtkMRMLTransformNode:
    """Let the image of a clip move with a transform sequence, in place of that of another run; idempotent.

    Args:
        transforms: with the references :data:`IMAGES` and :data:`BROWSER`; gets the reference :data:`PROXY`.

    Returns:
        The transform proxy.
    """
    browser, images = transforms.GetNodeReference(BROWSER), transforms.GetNodeReference(IMAGES)
    if not images.GetAttribute(_MOVED):
        parent = parent_of_clip(browser, images)
        images.SetNodeReferenceID(_BASE, None if parent is None else parent.GetID())
        images.SetAttribute(_MOVED, "1")
    proxy = synchronize(transforms)
    browser.GetProxyNode(images).SetAndObserveTransformNodeID(proxy.GetID())
    images.SetNodeReferenceID(_SHOWN, transforms.GetID())
    return proxy


def synchronize(transforms: slicer.vtkMRMLSequenceNode) -> slicer.vtkMRMLTransformNode:
    """Step a transform sequence with its images, below what the clip lay below; idempotent. Returns its proxy."""
    browser, images = transforms.GetNodeReference(BROWSER), transforms.GetNodeReference(IMAGES)
    base, proxy = _still_parent(browser, images), _proxy(browser, transforms)
    transforms.SetNodeReferenceID(PROXY, proxy.GetID())
    proxy.SetAndObserveTransformNodeID(None if base is None else base.GetID())
    return proxy


def connected(images: slicer.vtkMRMLSequenceNode) -> slicer.vtkMRMLSequenceNode | None:
    """The transform sequence that the images move with: the one that was connected last, else the newest."""
    shown, present = images.GetNodeReference(_SHOWN), result_sequences(images.GetScene(), images)
    return shown if shown in present else (present or [None])[-1]


def _proxy(
    browser: slicer.vtkMRMLSequenceBrowserNode, transforms: slicer.vtkMRMLSequenceNode
) -> slicer.vtkMRMLTransformNode:
    """The proxy of a transform sequence: the present one, one that came back with a redo, or a new one."""
    proxy = browser.GetProxyNode(transforms) if browser.IsSynchronizedSequenceNode(transforms, True) else None
    if proxy is not None:
        return proxy
    former = transforms.GetNodeReference(PROXY)
    modified = browser.StartModify()
    browser.AddSynchronizedSequenceNode(transforms)
    browser.SetOverwriteProxyName(transforms, False)
    if former is None:
        # The browser names and adds a copy of this node; the sequences logic fills it at the next step.
        template = slicer.vtkMRMLLinearTransformNode()
        template.Copy(transforms.GetNthDataNode(max(browser.GetSelectedItemNumber(), 0)))
        template.SetName(transforms.GetName())
        proxy = browser.AddProxyNode(template, transforms, True)
    else:
        proxy = browser.AddProxyNode(former, transforms, False)
    browser.EndModify(modified)
    return proxy


def disconnect(images: slicer.vtkMRMLSequenceNode) -> None:
    """Parent the image to its former parent; does nothing where no run moved it."""
    if not images.GetAttribute(_MOVED):
        return
    base = images.GetNodeReference(_BASE)
    for browser in nodes_of_class(images.GetScene(), "vtkMRMLSequenceBrowserNode"):
        proxy = browser.GetProxyNode(images)
        if proxy is not None:
            proxy.SetAndObserveTransformNodeID(None if base is None else base.GetID())
    for reference in (_BASE, _SHOWN):
        images.SetNodeReferenceID(reference, None)
    images.RemoveAttribute(_MOVED)


def moved_images(scene: slicer.vtkMRMLScene) -> list[slicer.vtkMRMLSequenceNode]:
    """Image sequences that a run moves, or moved before the run was undone."""
    return [node for node in nodes_of_class(scene, "vtkMRMLSequenceNode") if node.GetAttribute(_MOVED)]


def result_sequences(
    scene: slicer.vtkMRMLScene, images: slicer.vtkMRMLSequenceNode | None = None
) -> list[slicer.vtkMRMLSequenceNode]:
    """Transform sequences of all runs in a scene, or of those of one clip, the oldest first."""
    found = [node for node in nodes_of_class(scene, "vtkMRMLSequenceNode") if is_result_sequence(node)]
    return [node for node in found if images in (None, node.GetNodeReference(IMAGES))]
