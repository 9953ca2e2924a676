"""Volumes whose slices are the frames of a clip."""

from __future__ import annotations

from collections.abc import Generator

import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from DualTrackCore.errors import InputError
from DualTrackCore.progress import finished
from DualTrackSlicerLib.scene.nodes import add_node, ijk_to_ras, nodes_of_class, to_vtk
from DualTrackSlicerLib.scene.nodes import tr as _
from DualTrackSlicerLib.scene.result_nodes import remove_nodes

#: On a sequence: the volume that its frames were copied from.
SOURCE = "DualTrack.sourceVolume"


def sequenceFromVolume(volumeNode: slicer.vtkMRMLVolumeNode) -> slicer.vtkMRMLSequenceBrowserNode:
    """A browser whose frames are the slices of a volume along its third axis (K), in its scene.

    The volume itself stays as it is. All frames are placed where the first slice lies, for the distance of slices says
    nothing of where the probe was. Calling it again for the same volume gives the same browser.

    Raises InputError: a volume without image, or with fewer than two slices.
    """
    return clipFromVolume(volumeNode) or finished(copyInPieces(volumeNode))


def clipFromVolume(volumeNode: slicer.vtkMRMLVolumeNode) -> slicer.vtkMRMLSequenceBrowserNode | None:
    """The clip that was made of a volume, if it is in its scene."""
    for browser in nodes_of_class(volumeNode.GetScene(), "vtkMRMLSequenceBrowserNode"):
        master = browser.GetMasterSequenceNode()
        if master is not None and master.GetNodeReferenceID(SOURCE) == volumeNode.GetID():
            return browser
    return None


def copyInPieces(
    volumeNode: slicer.vtkMRMLVolumeNode,
) -> Generator[None, None, slicer.vtkMRMLSequenceBrowserNode]:
    """:func:`sequenceFromVolume` where there is none yet, a slice at each step; the scene changes in the last one.

    Raises InputError: as there, or the volume changed meanwhile.
    """
    image = volumeNode.GetImageData()
    scalars = None if image is None else image.GetPointData().GetScalars()
    width, height, count = (0, 0, 0) if scalars is None else image.GetDimensions()
    if count < 2:
        one = _("{name} has 1 slice along its third axis; a sweep needs at least two frames.")
        none = _("{name} has 0 slices along its third axis; a sweep needs at least two frames.")
        raise InputError((one if count else none).format(name=volumeNode.GetName()))
    sequence, template = slicer.vtkMRMLSequenceNode(), volumeNode.CreateNodeInstance()
    sequence.SetIndexName("frame")
    sequence.SetIndexUnit("")
    template.UnRegister(None)
    template.SetName(volumeNode.GetName())
    template.SetIJKToRASMatrix(to_vtk(ijk_to_ras(volumeNode)))
    state = image.GetMTime()
    slices = vtk_to_numpy(scalars).reshape(count, height * width, scalars.GetNumberOfComponents())
    for number, pixels in enumerate(slices):
        if volumeNode.GetImageData() is not image or image.GetMTime() != state:
            raise InputError(_("{name} changed while it was looked at; try again.").format(name=volumeNode.GetName()))
        frame = vtk.vtkImageData()
        frame.SetDimensions(width, height, 1)
        frame.GetPointData().SetScalars(numpy_to_vtk(pixels, deep=True))
        # The sequence copies the node that it is given; an empty one is cheap to copy, and gets its image afterwards.
        sequence.SetDataNodeAtValue(template, str(number)).SetAndObserveImageData(frame)
        yield
    scene = volumeNode.GetScene()
    add_node(scene, sequence, f"{volumeNode.GetName()} frames")
    sequence.SetNodeReferenceID(SOURCE, volumeNode.GetID())
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", f"{volumeNode.GetName()} clip")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    return browser


def removeClip(browserNode: slicer.vtkMRMLSequenceBrowserNode) -> None:
    """Take a clip that was made of a volume out of its scene, if it is still there; the volume stays."""
    images = browserNode.GetMasterSequenceNode()
    if images is None:
        return
    proxy = browserNode.GetProxyNode(images)
    remove_nodes(browserNode.GetScene(), [browserNode, images, *([] if proxy is None else [proxy])])
