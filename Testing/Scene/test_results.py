"""Results become nodes that belong to the clip."""

import gc
import json
from dataclasses import replace

import numpy as np
import pytest
import slicer
import vtk
from clip_nodes import (
    add_clip,
    add_simulated_clip,
    add_transforms,
    array_of,
    drifting,
    ijk_to_ras,
    job_result,
    known_clip,
    random_rigid,
    simulated,
    vtk_matrix,
)
from DualTrackSlicerLib.scene import (
    clips,
    colourTrajectory,
    removeResults,
    sequenceFromVolume,
    shownResult,
    showResults,
    sweepFromBrowser,
    trajectoryFromTable,
)

from DualTrackCore.errors import InputError
from DualTrackCore.trajectory import Trajectory

TRUTH = simulated()
ESTIMATE = drifting(TRUTH.tracked)


@pytest.fixture
def clip(scene):
    """A clip that knows the truth, and no tracking in the scene."""
    return known_clip(scene, TRUTH)


@pytest.fixture
def result(clip):
    return job_result(clip.sweep, ESTIMATE)


def motion(nodes) -> np.ndarray:
    return slicer.util.arrayFromTransformMatrix(nodes.transform_proxy)


def world_from_image(volume) -> np.ndarray:
    """[4, 4] from the voxels of a volume node to the world, transforms above it included."""
    matrix, parent = vtk.vtkMatrix4x4(), volume.GetParentTransformNode()
    volume.GetIJKToRASMatrix(matrix)
    to_world = np.eye(4) if parent is None else slicer.util.arrayFromTransformMatrix(parent, toWorld=True)
    return to_world @ array_of(matrix)


def hierarchy(scene) -> dict[str, list[str]]:
    """Names of nodes by the name of the subject-hierarchy item above them."""
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    items, names = vtk.vtkIdList(), {}
    tree.GetItemChildren(tree.GetSceneItemID(), items, True)
    for item in (items.GetId(i) for i in range(items.GetNumberOfIds())):
        parent = tree.GetItemName(tree.GetItemParent(item))
        names.setdefault(parent, []).append(tree.GetItemName(item))
    return names


def node_ids(scene) -> set[str]:
    return {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}


def test_there_is_one_transform_for_each_image_with_its_index_value(scene, clip, result):
    transforms, images = showResults(scene, clip, result).transform_sequence, clip.image_sequence
    assert transforms.GetNumberOfDataNodes() == images.GetNumberOfDataNodes() == len(TRUTH)
    for number in range(len(TRUTH)):
        assert transforms.GetNthIndexValue(number) == images.GetNthIndexValue(number)
    assert transforms.GetIndexName() == images.GetIndexName() == "time"
    assert transforms.GetIndexUnit() == "s"
    assert clip.browser.IsSynchronizedSequenceNode(transforms, True)


def test_the_image_hangs_below_the_proxy_and_scrubbing_moves_it(scene, clip, result):
    nodes = showResults(scene, clip, result)
    image = clip.browser.GetProxyNode(clip.image_sequence)
    for number in (5, 17, 0, 23):
        clip.browser.SetSelectedItemNumber(number)
        assert image.GetParentTransformNode() is nodes.transform_proxy
        expected = clip.node_from_image @ ESTIMATE.poses[number] @ np.linalg.inv(clip.node_from_image)
        np.testing.assert_allclose(motion(nodes), expected, atol=1e-12)
        shown = slicer.util.arrayFromVolume(image)[0]
        np.testing.assert_array_equal(shown, clip.sweep.frames[number : number + 1][0])


def test_the_first_frame_stays_where_it_was_loaded(scene, clip, result):
    nodes = showResults(scene, clip, result)
    clip.browser.SetSelectedItemNumber(0)
    np.testing.assert_allclose(motion(nodes), np.eye(4), atol=1e-12)


def require_meeting(browser, images, volume, result):
    """Pixels of the shown frames lie in the voxels that they were inserted into."""
    pixels = np.array([(0, 0, 0, 1), (63, 0, 0, 1), (20, 47, 0, 1)], float).T
    for number in (0, 9, 23):
        browser.SetSelectedItemNumber(number)
        shown = np.linalg.inv(world_from_image(volume)) @ world_from_image(browser.GetProxyNode(images)) @ pixels
        inserted = result.grid.voxel_from_frame0 @ ESTIMATE.poses[number] @ TRUTH.image_from_pixel @ pixels
        np.testing.assert_allclose(shown, inserted, atol=1e-6)


def test_frames_and_volume_meet_in_the_world_whatever_the_directions(scene):
    matrix = ijk_to_ras(TRUTH.spacing_mm, random_rigid(np.random.default_rng(1))[:3, :3], (50, -70, 20))
    browser, images = add_clip(scene, TRUTH.frames[:], matrix)
    result = job_result(TRUTH, ESTIMATE)
    nodes = showResults(scene, sweepFromBrowser(browser), result)
    require_meeting(browser, images, nodes.volume, result)


def test_frames_and_volume_meet_also_where_the_user_gave_the_spacing(scene):
    browser, images = add_clip(scene, TRUTH.frames[:], ijk_to_ras((1, 1)))
    result = job_result(TRUTH, ESTIMATE)
    nodes = showResults(scene, sweepFromBrowser(browser, spacing_mm=TRUTH.spacing_mm), result)
    require_meeting(browser, images, nodes.volume, result)


def test_frames_placed_one_by_one_end_up_along_the_trajectory(scene):
    placed = random_rigid(np.random.default_rng(2)) @ TRUTH.tracked.poses @ TRUTH.image_from_pixel
    browser, images = add_clip(scene, TRUTH.frames[:], placed)
    clip = sweepFromBrowser(browser)
    showResults(scene, clip, job_result(clip.sweep, TRUTH.tracked, volume=False))
    for number in (0, 11, 23):
        browser.SetSelectedItemNumber(number)
        np.testing.assert_allclose(world_from_image(browser.GetProxyNode(images)), placed[number], atol=1e-6)


def test_the_volume_and_its_coverage_lie_on_the_grid_of_the_result(scene, clip, result):
    nodes = showResults(scene, clip, result)
    for node, array in ((nodes.volume, result.volume), (nodes.coverage, result.coverage)):
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), array)
        assert slicer.util.arrayFromVolume(node).dtype == array.dtype
        np.testing.assert_allclose(
            world_from_image(node), clip.node_from_image @ result.grid.frame0_from_voxel, atol=1e-9
        )
    assert nodes.volume.GetDisplayNode().GetWindowLevelMax() == 255


def test_the_volume_outlives_the_result_whose_memory_it_shares(scene, clip, result):
    own = replace(result, reconstruction=replace(result.reconstruction, volume=np.array(result.volume)))
    nodes = showResults(scene, clip, own)
    assert np.shares_memory(slicer.util.arrayFromVolume(nodes.volume), own.volume)
    del own
    gc.collect()
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(nodes.volume), result.volume)


def test_the_volume_is_rendered_with_dark_speckle_clear_and_bone_opaque(scene, clip, result):
    volume = showResults(scene, clip, result).volume
    display = volume.GetNthDisplayNode(1)
    assert display.IsA("vtkMRMLVolumeRenderingDisplayNode")
    assert display.GetVisibility()
    opacity = display.GetVolumePropertyNode().GetScalarOpacity()
    assert opacity.GetValue(15) == 0
    assert 0 < opacity.GetValue(100) < opacity.GetValue(250) < 1


def test_the_trajectory_runs_through_the_image_centres_and_carries_frame_and_speed(scene, clip, result):
    model = showResults(scene, clip, result).trajectory_model
    points = slicer.util.arrayFromModelPoints(model)
    frame = slicer.util.arrayFromModelPointData(model, "Frame")
    centres = (clip.node_from_image @ ESTIMATE.poses)[:, :3, 3]
    for number in (0, 10, 23):
        np.testing.assert_allclose(points[frame == number].mean(axis=0), centres[number], atol=0.02)
    speed = slicer.util.arrayFromModelPointData(model, "Speed")
    steps = np.linalg.norm(np.diff(ESTIMATE.centres_mm, axis=0), axis=1)
    np.testing.assert_allclose(speed[frame == 10], steps[9] * 20, rtol=1e-4)


def test_the_trajectory_is_coloured_by_frame_and_then_as_wished(scene, clip, result):
    model = showResults(scene, clip, result).trajectory_model
    display = model.GetDisplayNode()
    assert (display.GetActiveScalarName(), bool(display.GetScalarVisibility())) == ("Frame", True)
    colourTrajectory(model, "speed")
    assert display.GetActiveScalarName() == "Speed"
    with pytest.raises(InputError, match="'weather'"):
        colourTrajectory(model, "weather")


def test_the_outlines_are_the_borders_of_the_first_and_the_last_frame(scene, clip, result):
    nodes = showResults(scene, clip, result)
    half = np.array(TRUTH.frame_size[::-1]) / 2 * TRUTH.spacing_mm
    for model, number in zip(nodes.outlines, (0, 23), strict=True):
        corners = np.array([(x, y, 0, 1) for x in (-half[0], half[0]) for y in (-half[1], half[1])]).T
        expected = (clip.node_from_image @ ESTIMATE.poses[number] @ corners)[:3]
        bounds = np.array(model.GetPolyData().GetBounds()).reshape(3, 2)
        radius = np.hypot(*(2 * half)) / 200
        np.testing.assert_allclose(bounds[:, 0], expected.min(axis=1), atol=2 * radius)
        np.testing.assert_allclose(bounds[:, 1], expected.max(axis=1), atol=2 * radius)
    assert [model.GetName() for model in nodes.outlines] == ["clip first frame", "clip last frame"]


def test_the_pose_table_gives_the_poses_back_to_the_last_digit(scene, clip, result):
    table = showResults(scene, clip, result).pose_table
    np.testing.assert_array_equal(trajectoryFromTable(table).poses, ESTIMATE.poses)
    steps = slicer.util.arrayFromTableColumn(table, "Step (mm)")
    assert np.isnan(steps[0])
    np.testing.assert_allclose(steps[1:], np.linalg.norm(np.diff(ESTIMATE.centres_mm, axis=0), axis=1))
    turns = slicer.util.arrayFromTableColumn(table, "Turn (deg)")
    cosine = (np.trace(ESTIMATE.relative[4, :3, :3]) - 1) / 2
    assert turns[5] == pytest.approx(np.rad2deg(np.arccos(cosine)))


def test_another_table_is_no_trajectory(scene):
    table = scene.AddNewNodeByClass("vtkMRMLTableNode", "shopping")
    with pytest.raises(InputError, match="shopping is no table of poses"):
        trajectoryFromTable(table)


def test_frames_outside_of_the_run_keep_the_nearest_pose_and_are_not_valid(scene, clip):
    result = job_result(clip.sweep, ESTIMATE, first=4, last=19)
    nodes = showResults(scene, clip, result)
    assert nodes.transform_sequence.GetNumberOfDataNodes() == len(TRUTH)
    valid = slicer.util.arrayFromTableColumn(nodes.pose_table, "Valid")
    assert np.flatnonzero(valid).tolist() == list(range(4, 20))
    back = np.linalg.inv(clip.node_from_image)
    for number, same_as in ((0, 0), (3, 0), (4, 0), (10, 6), (19, 15), (23, 15)):
        clip.browser.SetSelectedItemNumber(number)
        expected = clip.node_from_image @ result.trajectory.poses[same_as] @ back
        np.testing.assert_allclose(motion(nodes), expected, atol=1e-12)


def test_frames_with_invalid_poses_keep_the_nearest_valid_one(scene, clip):
    valid = np.ones(len(TRUTH), bool)
    valid[[5, 6, 7]] = False
    trajectory = Trajectory(ESTIMATE.poses, valid)
    nodes = showResults(scene, clip, job_result(replace(clip.sweep, tracked=None), trajectory, volume=False))
    for number, same_as in ((5, 4), (6, 4), (7, 8)):
        clip.browser.SetSelectedItemNumber(number)
        expected = clip.node_from_image @ ESTIMATE.poses[same_as] @ np.linalg.inv(clip.node_from_image)
        np.testing.assert_allclose(motion(nodes), expected, atol=1e-12)
    assert np.flatnonzero(slicer.util.arrayFromTableColumn(nodes.pose_table, "Valid") == 0).tolist() == [5, 6, 7]


def test_the_truth_is_shown_where_it_is_known(scene, clip, result):
    nodes = showResults(scene, clip, result)
    table = nodes.error_table
    drift = slicer.util.arrayFromTableColumn(table, "Drift (mm)")
    np.testing.assert_allclose(drift[1:], result.evaluation["per_frame"]["drift_mm"][1:])
    true_x = slicer.util.arrayFromTableColumn(table, "True x (mm)")
    np.testing.assert_allclose(true_x, TRUTH.tracked.centres_mm[:, 0], atol=1e-9)
    points = slicer.util.arrayFromModelPoints(nodes.truth_model)
    last = (clip.node_from_image @ TRUTH.tracked.poses)[-1, :3, 3]
    assert np.linalg.norm(points - last, axis=1).min() < 0.5
    assert [chart.GetName() for chart in nodes.plots] == ["clip errors", "clip path"]
    for chart, count in zip(nodes.plots, (3, 6), strict=True):
        assert chart.GetNumberOfPlotSeriesNodes() == count
        for series in (chart.GetNthPlotSeriesNode(i) for i in range(count)):
            assert series.GetTableNode() is table
            assert table.GetTable().GetColumnByName(series.GetYColumnName()) is not None
            assert table.GetTable().GetColumnByName(series.GetXColumnName()) is not None


def test_the_truth_is_laid_over_the_first_frame_of_a_run_that_began_later(scene, clip):
    result = job_result(clip.sweep, ESTIMATE, first=6, volume=False)
    table = showResults(scene, clip, result).error_table
    assert slicer.util.arrayFromTableColumn(table, "Frame")[0] == 6
    for axis in "xyz":
        assert abs(slicer.util.arrayFromTableColumn(table, f"True {axis} (mm)")[0]) < 1e-9
    expected = TRUTH.tracked.slice(6, 24).centres_mm[:, 2]
    np.testing.assert_allclose(slicer.util.arrayFromTableColumn(table, "True z (mm)"), expected, atol=1e-9)


def test_without_truth_there_are_no_errors(scene, clip):
    untracked = replace(clip, sweep=replace(clip.sweep, tracked=None))
    nodes = showResults(scene, untracked, job_result(untracked.sweep, ESTIMATE, volume=False))
    assert (nodes.truth_model, nodes.error_table, nodes.plots, nodes.plot_series) == (None, None, [], [])
    assert nodes.volume is None
    assert nodes.trajectory_model is not None


def test_everything_is_in_one_folder(scene, clip, result):
    nodes = showResults(scene, clip, result)
    tree = hierarchy(scene)
    assert sorted(tree["DualTrack clip"]) == sorted(node.GetName() for node in nodes)
    assert nodes.folder is not None


def test_every_node_says_where_it_comes_from(scene, clip, result):
    for node in showResults(scene, clip, result):
        assert node.GetAttribute("DualTrack.Model") == "mini"
        assert node.GetAttribute("DualTrack.ModelSha256") == "ab" * 32
        assert node.GetAttribute("DualTrack.Spacing") == "0.5 0.4"
        assert node.GetAttribute("DualTrack.Precision") == "fp32"
        assert node.GetAttribute("DualTrack.Chunk") == "16"
        assert node.GetAttribute("DualTrack.Version") == "1.2.3"
        assert node.GetAttribute("DualTrack.Date") == "2026-05-04T03:02:01+00:00"
        assert json.loads(node.GetAttribute("DualTrack.Settings"))["compounding"] == "mean"


def test_results_of_two_clips_stand_side_by_side(scene, clip, result):
    other, _ = add_simulated_clip(scene, TRUTH, name="other")
    first = showResults(scene, clip, result)
    second = showResults(scene, sweepFromBrowser(other), result)
    assert list(shownResult(clip.browser)) == list(first)
    assert list(shownResult(other)) == list(second)
    assert {"DualTrack clip", "DualTrack other"} <= hierarchy(scene).keys()


def test_results_are_not_offered_as_clips(scene, clip, result):
    showResults(scene, clip, result)
    assert [offered.sequence for offered in clips(scene)] == [clip.image_sequence]


def test_removing_a_result_leaves_the_scene_as_it_was(scene, clip, result):
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    before = node_ids(scene)
    removeResults(showResults(scene, clip, result))
    assert node_ids(scene) == before
    assert clip.browser.GetProxyNode(clip.image_sequence).GetParentTransformNode() is None
    assert shownResult(clip.browser) is None
    assert hierarchy(scene) == {}


def test_a_clip_goes_back_below_the_transform_it_came_from(scene, clip, result):
    still = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "registration")
    still.SetMatrixTransformToParent(vtk_matrix(random_rigid(np.random.default_rng(4))))
    image = clip.browser.GetProxyNode(clip.image_sequence)
    image.SetAndObserveTransformNodeID(still.GetID())
    before = world_from_image(image)
    nodes = showResults(scene, clip, result)
    clip.browser.SetSelectedItemNumber(0)
    np.testing.assert_allclose(world_from_image(image), before, atol=1e-9)
    assert nodes.volume.GetParentTransformNode() is still
    removeResults(nodes)
    assert image.GetParentTransformNode() is still


def test_a_tracked_clip_goes_back_below_its_tracking(scene, clip, result):
    browser, images = clip.browser, clip.image_sequence
    transforms = add_transforms(scene, browser, images, random_rigid(np.random.default_rng(4), 24), name="probe")
    image, tracker = browser.GetProxyNode(images), browser.GetProxyNode(transforms)
    image.SetAndObserveTransformNodeID(tracker.GetID())
    nodes = showResults(scene, clip, result)
    assert image.GetParentTransformNode() is nodes.transform_proxy
    assert nodes.transform_proxy.GetParentTransformNode() is None
    removeResults(nodes)
    assert image.GetParentTransformNode() is tracker


def test_a_result_of_another_clip_is_refused_and_the_scene_stays_as_it_is(scene, clip):
    result = job_result(TRUTH, ESTIMATE, volume=False)
    later = replace(result.report, sweep={**result.report.sweep, "first_frame": 10})
    before = node_ids(scene)
    with pytest.raises(InputError, match="frames 10 to 33 and the clip has 24 frames"):
        showResults(scene, clip, replace(result, report=later))
    clip.image_sequence.RemoveDataNodeAtValue(clip.image_sequence.GetNthIndexValue(23))
    with pytest.raises(InputError, match="has 23 frames now and had 24"):
        showResults(scene, clip, result)
    scene.RemoveNode(clip.browser)
    with pytest.raises(InputError, match="no longer in the scene"):
        showResults(scene, clip, result)
    assert node_ids(scene) <= before


def test_index_values_that_cannot_be_told_apart_are_refused(scene, clip, result):
    clip.image_sequence.SetNumericIndexValueTolerance(0.2)
    before = node_ids(scene)
    with pytest.raises(InputError, match=r"tolerance of 0\.2,"):
        showResults(scene, clip, result)
    assert node_ids(scene) == before


def test_the_slices_of_a_volume_get_their_poses_like_any_clip(scene, clip, result):
    volume = showResults(scene, clip, result).volume
    copy = slicer.vtkMRMLScalarVolumeNode()
    copy.SetAndObserveImageData(volume.GetImageData())
    copy.SetSpacing(0.5, 0.5, 0.5)
    copy.SetName("scan")
    scene.AddNode(copy)
    read = sweepFromBrowser(sequenceFromVolume(copy), spacing_mm=0.5)
    motions = np.tile([0, 0, 0.5, 0, 0, 0], (len(read.sweep) - 1, 1))
    nodes = showResults(scene, read, job_result(read.sweep, Trajectory.from_parameters(motions), volume=False))
    assert nodes.transform_sequence.GetNumberOfDataNodes() == copy.GetImageData().GetDimensions()[2]
