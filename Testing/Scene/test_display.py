"""Results in views: slice views fitted, a slice that follows the frame, and what it all costs."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
import vtk
from clip_nodes import (
    LPS,
    add_clip,
    add_simulated_clip,
    alike,
    array_of,
    drifting,
    ijk_to_ras,
    job_result,
    random_rigid,
    simulated,
)
from DualTrackSlicerLib.scene import FrameFollower, fitSliceViews, renderVolume, showResults, sweepFromBrowser
from DualTrackSlicerLib.scene.nodes import renderings_of
from view import SliceViews

from DualTrackCore.trajectory import Trajectory

TRUTH = simulated()


@pytest.fixture
def slice_logic(application):
    """A slice view that the application logic knows."""
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLApplicationLogic(application.logic)
    logic.SetMRMLScene(application.scene)
    logic.AddSliceNode("Red")
    logic.GetSliceNode().SetDimensions(200, 100, 1)
    logics = vtk.vtkCollection()
    logics.AddItem(logic)
    application.logic.SetSliceLogics(logics)
    yield logic
    logic.SetMRMLScene(None)


def shown_clip(scene):
    browser, images = add_simulated_clip(scene, TRUTH)
    clip = sweepFromBrowser(browser)
    nodes = showResults(scene, clip, job_result(clip.sweep, drifting(TRUTH.tracked)))
    return clip, nodes, browser.GetProxyNode(images)


def test_slice_views_show_the_volume_and_all_of_it(application, slice_logic):
    _, nodes, _ = shown_clip(application.scene)
    assert fitSliceViews(nodes.volume, application.logic) is None
    assert slice_logic.GetSliceCompositeNode().GetBackgroundVolumeID() == nodes.volume.GetID()
    bounds = [0.0] * 6
    nodes.volume.GetRASBounds(bounds)
    width, height, _ = slice_logic.GetSliceNode().GetFieldOfView()
    # An axial view: R across, A down.
    assert width >= bounds[1] - bounds[0]
    assert height >= bounds[3] - bounds[2]
    assert height < 4 * (bounds[3] - bounds[2])


def test_without_an_application_nothing_is_fitted_and_the_reason_is_given(scene):
    _, nodes, _ = shown_clip(scene)
    assert "no application" in fitSliceViews(nodes.volume, None)


def test_a_slice_follows_the_frame_until_it_is_told_to_stop(application, slice_logic):
    clip, nodes, image = shown_clip(application.scene)
    node = slice_logic.GetSliceNode()
    follower = FrameFollower(node, clip.browser, clip.image_sequence)
    assert node.GetSliceVisible()

    def distances() -> np.ndarray:
        """How far the corners of the shown frame lie from the slice plane, mm."""
        to_world, ijk = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
        nodes.transform_proxy.GetMatrixTransformToWorld(to_world)
        image.GetIJKToRASMatrix(ijk)
        corners = array_of(to_world) @ array_of(ijk) @ np.array([(0, 0, 0, 1), (63, 0, 0, 1), (0, 47, 0, 1)]).T
        plane = array_of(node.GetSliceToRAS())
        return np.abs(plane[:3, 2] @ (corners[:3] - plane[:3, 3:]))

    for number in (4, 20):
        clip.browser.SetSelectedItemNumber(number)
        assert distances().max() < 1e-3
    follower.stop()
    follower.stop()
    clip.browser.SetSelectedItemNumber(2)
    assert distances().max() > 0.1


@pytest.mark.parametrize(
    "directions", [LPS, np.eye(3), np.diag([1, -1, 1]), random_rigid(np.random.default_rng(7))[:3, :3]]
)
def test_red_follows_any_clip_with_its_rows_downwards_and_never_mirrored(application, directions):
    views = SliceViews(application.logic, application.scene)
    # In colour and in LPS as Slicer loads DICOM, and in other directions.
    frames = np.repeat(TRUTH.frames[:6][..., None], 3, axis=-1)
    browser, images = add_clip(application.scene, frames, ijk_to_ras(TRUTH.spacing_mm, directions, (30, 5, -9)))
    fitSliceViews(browser.GetProxyNode(images), application.logic)
    follower = FrameFollower(views.node("Red"), browser, images)
    drawn = views.middle("Red", TRUTH.frame_size[::-1], TRUTH.spacing_mm)
    assert alike(drawn, TRUTH.frames[:1][0]) > 0.95
    if directions is LPS:
        np.testing.assert_allclose(array_of(views.node("Red").GetSliceToRAS())[:3, :3], np.diag([-1, 1, 1]), atol=1e-9)
    follower.stop()
    views.close()


def test_rendering_again_adds_no_second_rendering(application):
    _, nodes, _ = shown_clip(application.scene)
    count = nodes.volume.GetNumberOfDisplayNodes()
    logic = application.module_logics["vtkSlicerVolumeRenderingLogic"]
    assert renderVolume(nodes.volume, logic) is nodes.volume.GetNthDisplayNode(1)
    assert nodes.volume.GetNumberOfDisplayNodes() == count


def test_the_logic_of_the_application_chooses_how_to_render(application):
    _, nodes, _ = shown_clip(application.scene)
    other = application.scene.AddNode(slicer.vtkMRMLScalarVolumeNode())
    other.SetAndObserveImageData(nodes.volume.GetImageData())
    logic = application.module_logics["vtkSlicerVolumeRenderingLogic"]
    logic.SetDefaultRenderingMethod("vtkMRMLCPURayCastVolumeRenderingDisplayNode")
    display = renderVolume(other, logic)
    assert display.IsA("vtkMRMLCPURayCastVolumeRenderingDisplayNode")
    assert display.GetVolumePropertyNode().GetScalarOpacity().GetValue(15) == 0
    assert display.GetVisibility()


def test_results_are_rendered_as_the_application_chooses(application, monkeypatch):
    """A computer without a graphics card has the method of the processor there."""
    logic = application.module_logics["vtkSlicerVolumeRenderingLogic"]
    logic.SetDefaultRenderingMethod("vtkMRMLCPURayCastVolumeRenderingDisplayNode")
    modules = SimpleNamespace(volumerendering=SimpleNamespace(logic=lambda: logic))
    monkeypatch.setattr(slicer, "modules", modules, raising=False)
    _, nodes, _ = shown_clip(application.scene)
    (display,) = renderings_of(nodes.volume)
    assert display.IsA("vtkMRMLCPURayCastVolumeRenderingDisplayNode")
    assert display.GetVolumePropertyNode().GetScalarOpacity().GetValue(15) == 0


def test_six_hundred_frames_take_less_than_a_second_of_the_processor(scene):
    browser, _ = add_clip(scene, np.zeros((600, 24, 32), np.uint8), ijk_to_ras((0.3, 0.3)), rate_hz=20)
    motions = np.tile([0.02, 0, 0.2, 0.02, 0.05, 0], (599, 1))
    start = time.process_time()
    clip = sweepFromBrowser(browser)
    result = job_result(clip.sweep, Trajectory.from_parameters(motions), volume=False)
    nodes = showResults(scene, clip, result)
    assert time.process_time() - start < 1
    assert nodes.transform_sequence.GetNumberOfDataNodes() == 600
