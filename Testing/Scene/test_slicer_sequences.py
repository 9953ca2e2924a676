"""Sequences that Slicer saves: times of pictures in colour, and transforms without pictures."""

import numpy as np
import pytest
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from DualTrackCore.errors import InputError
from DualTrackCore.io import load_sweep


def picture(channels, grey):
    image = vtk.vtkImageData()
    image.SetDimensions(6, 5, 1)
    image.GetPointData().SetScalars(numpy_to_vtk(np.full((30, channels), grey, np.uint8), deep=True))
    node = slicer.vtkMRMLVectorVolumeNode() if channels == 3 else slicer.vtkMRMLScalarVolumeNode()
    node.SetAndObserveImageData(image)
    return node


def saved(scene, path, nodes, storage):
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("s")
    for number, node in enumerate(nodes):
        sequence.SetDataNodeAtValue(node, str(number / 20))
    node = scene.AddNewNodeByClass(storage)
    node.SetFileName(str(path))
    assert node.WriteData(sequence)
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sequence_of_slicer_keeps_its_times_in_grey_and_in_colour(scene, tmp_path, channels):
    nodes = [picture(channels, 10 * number) for number in range(4)]
    sweep = load_sweep(saved(scene, tmp_path / "a.seq.nrrd", nodes, "vtkMRMLVolumeSequenceStorageNode"))
    assert sweep.timestamps_s == pytest.approx([0, 0.05, 0.1, 0.15])
    assert sweep.window(0, 4)[:, 0, 0].tolist() == [0, 10, 20, 30]


def test_a_sequence_of_transforms_is_said_to_have_no_pictures(scene, tmp_path):
    nodes = [slicer.vtkMRMLLinearTransformNode() for _ in range(3)]
    path = saved(scene, tmp_path / "a.seq.mha", nodes, "vtkMRMLLinearTransformSequenceStorageNode")
    sweep = load_sweep(path)
    assert len(sweep) == 3
    with pytest.raises(InputError, match="tracking but no images; choose a recording with frames"):
        sweep.require_images()
