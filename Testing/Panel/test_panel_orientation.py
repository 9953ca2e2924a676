"""Clips that the panel makes lie the right way round in the slice views, before, during and after a run."""

from types import SimpleNamespace

import numpy as np
import pytest
import slicer
import vtk
from clip_nodes import alike, below_frame, job_result, simulated
from journey import finish

from DualTrackCore import Sweep, Trajectory, save_sweep
from DualTrackCore.sample import sample_sweep

SWEEP = simulated(12)
#: Screen-right and screen-up in RAS: patient left and anterior, as in any axial view.
AXIAL = np.array([[-1.0, 0, 0], [0, 1, 0]])


def screen_axes(node) -> np.ndarray:
    """[2, 3]: directions to the right and upwards on the screen, in RAS."""
    return slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, :2].T


def require_upright(views, frame, spacing_mm) -> None:
    """Red draws the frame as it is stored, in its size, and no mirrored or turned one."""
    drawn = views.middle("Red", frame.shape[::-1], spacing_mm)
    assert alike(drawn, frame) > 0.9
    for turned in (frame[::-1], frame[:, ::-1], frame[::-1, ::-1]):
        assert alike(drawn, turned) < 0.8


def from_h5(host, tmp_path):
    path = tmp_path / "clip.h5"
    save_sweep(SWEEP, path)
    messages = SimpleNamespace(AddMessage=lambda *args: pytest.fail(str(args)))
    parent = SimpleNamespace(supportedNameFilters=lambda path: ["*.h5"], userMessages=lambda: messages)
    assert host.module.DualTrackSlicerFileReader(parent).load({"fileName": str(path)})
    return slicer.mrmlScene.GetNodeByID(parent.loadedNodes[1])


def test_a_clip_from_h5_is_shown_upright_and_not_mirrored(host, views, tmp_path):
    browser = from_h5(host, tmp_path)
    assert views.picture("Red").any()
    require_upright(views, SWEEP.frames[0:1][0], SWEEP.spacing_mm)
    np.testing.assert_allclose(screen_axes(views.node("Red")), AXIAL, atol=1e-9)
    image = browser.GetProxyNode(browser.GetMasterSequenceNode())
    ijk_to_ras = vtk.vtkMatrix4x4()
    image.GetIJKToRASMatrix(ijk_to_ras)
    expected = np.diag([-SWEEP.spacing_mm[0], -SWEEP.spacing_mm[1], 1])
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(ijk_to_ras)[:3, :3], expected, atol=1e-9)


def test_the_sample_is_upright_before_during_and_after_a_run(host, panel, views):
    sample = sample_sweep()
    host.click(panel.ui.sampleButton)
    browser = panel.parameters.browser
    require_upright(views, sample.frames[0:1][0], sample.spacing_mm)
    panel.ui.posesComboBox.currentIndex = 1
    panel.ui.lastFrameSpinBox.value = 29
    host.click(panel.ui.applyButton)
    require_upright(views, sample.frames[0:1][0], sample.spacing_mm)
    finish(host, panel)
    assert panel.runSection.run.error == ""
    for number in (0, 14, 29):
        browser.SetSelectedItemNumber(number)
        require_upright(views, sample.frames[number : number + 1][0], sample.spacing_mm)
        red = screen_axes(views.node("Red"))
        pose = sample.tracked.poses[number][:3, :2] * [1, -1]
        np.testing.assert_allclose(red, (np.diag([-1.0, -1, 1]) @ pose).T, atol=1e-6)
        image = browser.GetProxyNode(browser.GetMasterSequenceNode())
        assert alike(below_frame(panel.view().result.volume, image), sample.frames[number : number + 1][0]) > 0.95


def test_yellow_and_green_show_the_volume_where_the_frames_were(host, views):
    from DualTrackSlicerLib.scene import fitSliceViews, showResults, sweepFromBrowser
    from DualTrackSlicerLib.sweep_nodes import addSweep

    # Straight to superior; the first 14 frames are brighter at the left and at the near side.
    frames = np.full((20, 40, 40), 20, np.uint8)
    frames[:14, :, :20] += 100
    frames[:14, :20] += 60
    straight = Trajectory.from_parameters(np.tile([0, 0, 0.5, 0, 0, 0], (19, 1)))
    sweep = Sweep(frames, 0.5, tracked=straight)
    clip = sweepFromBrowser(addSweep(slicer.mrmlScene, sweep, "clip"))
    nodes = showResults(slicer.mrmlScene, clip, job_result(sweep, straight, voxel_mm=0.5))
    fitSliceViews(nodes.volume, slicer.app.applicationLogic())
    for name, up in (("Red", 1), ("Yellow", 2), ("Green", 2)):
        right = [0, -1, 0] if name == "Yellow" else [-1, 0, 0]
        np.testing.assert_allclose(screen_axes(views.node(name)), [right, np.eye(3)[up]], atol=1e-9)
        drawn = views.middle(name, (40, 40 if name == "Red" else 20), (0.5, 0.5)).astype(float)
        rows, columns = drawn.shape
        left_and_right = drawn[:, : columns // 2].mean(), drawn[:, columns // 2 + 1 :].mean()
        above_and_below = drawn[: rows // 2].mean(), drawn[rows // 2 + 1 :].mean()
        # The near side is anterior: above in red, at the left of yellow. The first frames are below in both others.
        assert left_and_right[0] > left_and_right[1] + 10
        assert (above_and_below[0] > above_and_below[1] + 10) == (name == "Red")
