"""Calibrations that Slicer saves are read as Slicer shows them."""

import numpy as np
import pytest
import slicer

from DualTrackCore.io import read_calibration

SHOWN = np.array([[0.2, 0.01, 0.3, 10], [0.02, 0.21, -0.4, 20], [0.1, 0.05, 0.9, 30], [0, 0, 0, 1]])


@pytest.mark.parametrize("suffix", ["tfm", "h5", "txt"])
def test_a_calibration_is_read_as_slicer_shows_it(scene, tmp_path, suffix):
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "ImageToProbe")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(SHOWN))
    storage = scene.AddNewNodeByClass("vtkMRMLTransformStorageNode")
    storage.SetFileName(str(tmp_path / f"ImageToProbe.{suffix}"))
    assert storage.WriteData(node)
    again = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    assert storage.ReadData(again)
    shown = slicer.util.arrayFromTransformMatrix(again)
    np.testing.assert_allclose(shown, SHOWN, atol=1e-9)
    np.testing.assert_allclose(read_calibration(tmp_path / f"ImageToProbe.{suffix}"), shown, atol=1e-9)
