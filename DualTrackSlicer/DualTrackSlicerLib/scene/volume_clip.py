"""Ultrasound that was loaded as a 3D volume, offered as the clip that it is."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import get_vtk_array_type, vtk_to_numpy

from DualTrackCore.errors import InputError
from DualTrackSlicerLib.scene.nodes import free_name, ijk_to_ras, nodes_of_class, to_vtk

#: On a sequence: the volume that its frames were copied from.
SOURCE_REFERENCE = "DualTrack.sourceVolume"


def sequenceFromVolume(volumeNode: slicer.vtkMRMLVolumeNode) -> slicer.vtkMRMLSequenceBrowserNode:
    """A browser whose frames are the slices of a volume along its third axis (K), in its scene.

    The volume itself stays as it is. All frames are placed where the first slice lies, for the distance of slices says
    nothing of where the probe was. Calling it again for the same volume gives the same browser.

    Raises:
        InputError: a volume without image, or with fewer than two slices.
    """
    image = volumeNode.GetImageData()
    scalars = None if image is None else image.GetPointData().GetScalars()
    count = 0 if scalars is None else image.GetDimensions()[2]
    if count < 2:
        raise InputError(
            f"{volumeNode.GetName()} has {count} slice{'s' if count != 1 else ''} along its third axis; "
            "a sweep needs at least two frames."
        )
    existing = _existing(volumeNode)
    if existing is not None:
        return existing
    scene = volumeNode.GetScene()
    sequence = slicer.vtkMRMLSequenceNode()
    sequence.SetName(free_name(scene, f"{volumeNode.GetName()} frames"))
    sequence.SetIndexName("frame")
    sequence.SetIndexUnit("")
    scene.AddNode(sequence)
    sequence.SetNodeReferenceID(SOURCE_REFERENCE, volumeNode.GetID())
    _add_slices(sequence, volumeNode)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", f"{volumeNode.GetName()} clip")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    return browser


def _existing(volume: slicer.vtkMRMLVolumeNode) -> slicer.vtkMRMLSequenceBrowserNode | None:
    for browser in nodes_of_class(volume.GetScene(), "vtkMRMLSequenceBrowserNode"):
        master = browser.GetMasterSequenceNode()
        if master is not None and master.GetNodeReferenceID(SOURCE_REFERENCE) == volume.GetID():
            return browser
    return None


def _add_slices(sequence: slicer.vtkMRMLSequenceNode, volume: slicer.vtkMRMLVolumeNode) -> None:
    scalars = volume.GetImageData().GetPointData().GetScalars()
    width, height, count = volume.GetImageData().GetDimensions()
    slices = vtk_to_numpy(scalars).reshape(count, height * width, scalars.GetNumberOfComponents())
    template = volume.CreateNodeInstance()
    template.UnRegister(None)
    template.SetName(volume.GetName())
    template.SetIJKToRASMatrix(to_vtk(ijk_to_ras(volume)))
    for number, pixels in enumerate(slices):
        # The sequence copies the node that it is given; an empty one is cheap to copy, and gets its image afterwards.
        sequence.SetDataNodeAtValue(template, str(number))
        sequence.GetNthDataNode(number).SetAndObserveImageData(_image(pixels, (width, height)))


def _image(pixels: np.ndarray, size: tuple[int, int]) -> vtk.vtkImageData:
    image = vtk.vtkImageData()
    image.SetDimensions(*size, 1)
    image.AllocateScalars(get_vtk_array_type(pixels.dtype), pixels.shape[1])
    vtk_to_numpy(image.GetPointData().GetScalars()).reshape(pixels.shape)[:] = pixels
    return image
