"""Clips in the scene become sweeps."""

import numpy as np
import pytest
import slicer
from clip_nodes import (
    LPS,
    add_clip,
    add_simulated_clip,
    add_transforms,
    drifting,
    ijk_to_ras,
    job_result,
    random_rigid,
    sequence_node,
    simulated,
    volume_image,
    vtk_matrix,
)
from DualTrackSlicerLib.scene import clips, frames, sequenceFromVolume, showResults, sweepFromBrowser

from DualTrackCore.errors import InputError

RANDOM = np.random.default_rng(5)
FRAMES = RANDOM.integers(0, 256, (5, 6, 8), dtype=np.uint8)


def test_a_grey_clip_gives_its_pixels_spacing_and_times(scene):
    browser, sequence = add_clip(scene, FRAMES, ijk_to_ras((0.3, 0.2)), rate_hz=25)
    clip = sweepFromBrowser(browser)
    np.testing.assert_array_equal(clip.sweep.frames[:], FRAMES)
    np.testing.assert_allclose(clip.sweep.spacing_mm, (0.3, 0.2))
    assert clip.sweep.frame_rate_hz == pytest.approx(25)
    assert clip.image_sequence is sequence
    assert clip.transform_sequence is None
    assert clip.sweep.tracked is None


def test_grey_frames_are_views_of_the_scene_and_not_copies(scene):
    browser, sequence = add_clip(scene, FRAMES, ijk_to_ras((0.3, 0.2)))
    sweep = sweepFromBrowser(browser).sweep
    sequence.GetNthDataNode(2).GetImageData().SetScalarComponentFromDouble(4, 3, 0, 0, 199)
    assert sweep.frames[2:3][0, 3, 4] == 199


def test_frames_outlive_their_nodes(scene):
    browser, _ = add_clip(scene, FRAMES, ijk_to_ras((0.3, 0.2)))
    sweep = sweepFromBrowser(browser).sweep
    scene.Clear(True)
    np.testing.assert_array_equal(sweep.frames[:], FRAMES)


def test_the_image_centre_goes_where_the_node_has_it(scene):
    matrix = ijk_to_ras((0.3, 0.2), random_rigid(RANDOM)[:3, :3], (10, 20, 30))
    browser, _ = add_clip(scene, FRAMES, matrix)
    clip = sweepFromBrowser(browser)
    for pixel in ([0, 0, 0, 1], [7, 5, 0, 1], [3.5, 2.5, 0, 1]):
        image = clip.sweep.image_from_pixel @ pixel
        np.testing.assert_allclose(clip.node_from_image @ image, matrix @ pixel, atol=1e-9)
    np.testing.assert_allclose(clip.node_from_image @ [0, 0, 0, 1], matrix @ [3.5, 2.5, 0, 1], atol=1e-9)
    assert np.linalg.det(clip.node_from_image) == pytest.approx(1)


def test_a_mirrored_third_axis_of_the_node_does_not_mirror_the_image_frame(scene):
    browser, _ = add_clip(scene, FRAMES, ijk_to_ras((0.3, 0.2), np.diag([-1.0, -1.0, -1.0])))
    clip = sweepFromBrowser(browser)
    assert np.linalg.det(clip.node_from_image) == pytest.approx(1)
    np.testing.assert_allclose(clip.node_from_image[:3, 2], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(clip.node_from_image @ clip.image_from_node[3], np.eye(4), atol=1e-12)


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_one_slice_volumes_are_read_whichever_axis_is_the_empty_one(scene, empty):
    sequence = sequence_node(scene, "turned")
    for number, frame in enumerate(FRAMES):
        node = slicer.vtkMRMLScalarVolumeNode()
        node.SetSpacing(0.3, 0.4, 0.5)
        sequence.SetDataNodeAtValue(node, str(number))
        # Arrays run K, J, I, so the empty axis I is the last one.
        sequence.GetNthDataNode(number).SetAndObserveImageData(volume_image(np.expand_dims(frame, 2 - empty)))
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    sweep = sweepFromBrowser(browser).sweep
    np.testing.assert_array_equal(sweep.frames[:], FRAMES)
    expected = [spacing for axis, spacing in enumerate((0.3, 0.4, 0.5)) if axis != empty]
    np.testing.assert_allclose(sweep.spacing_mm, expected)


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_turns_grey_with_the_usual_weights(scene, channels):
    colour = RANDOM.integers(0, 256, (3, 6, 8, channels), dtype=np.uint8)
    browser, _ = add_clip(scene, colour, ijk_to_ras((0.3, 0.2)))
    sweep = sweepFromBrowser(browser).sweep
    expected = colour[..., :3] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(sweep.frames[:] - expected).max() <= 0.5 + 1e-9
    assert any("Converted colour" in sentence for sentence in sweep.provenance["conversions"])


def test_deep_grey_is_scaled_over_all_frames_together(scene):
    deep = np.linspace(0, 32767, FRAMES.size).reshape(FRAMES.shape).astype(np.int16)
    browser, _ = add_clip(scene, deep, ijk_to_ras((0.3, 0.2)))
    frames = sweepFromBrowser(browser).sweep.frames[:]
    assert (frames[0].min(), frames[-1].max()) == (0, 255)
    assert frames[0].max() < frames[-1].min()


def test_a_dicom_clip_is_read_as_slicer_loads_it(scene):
    # Slicer's importer: I and J to the left and the posterior, spacing from the file, index in seconds.
    browser, _ = add_clip(scene, np.repeat(FRAMES[..., None], 3, axis=-1), ijk_to_ras((0.21, 0.23), LPS), rate_hz=30)
    offered = clips(scene)[0]
    assert (offered.frames, offered.size, offered.problem) == (5, (8, 6), None)
    assert offered.spacing_mm == pytest.approx((0.21, 0.23))
    assert offered.rate_hz == pytest.approx(30, rel=1e-4)
    assert offered.duration_s == pytest.approx(4 / 30, rel=1e-4)
    np.testing.assert_array_equal(sweepFromBrowser(browser).sweep.frames[:], FRAMES)


def test_one_millimetre_means_that_the_spacing_is_unknown(scene):
    browser, _ = add_clip(scene, FRAMES, ijk_to_ras((1, 1)))
    assert clips(scene)[0].spacing_mm is None
    sweep = sweepFromBrowser(browser).sweep
    assert sweep.spacing_mm is None
    assert sweep.provenance["spacing_source"] == "unknown"


def test_a_spacing_that_the_user_gives_counts(scene):
    browser, _ = add_clip(scene, FRAMES, ijk_to_ras((1, 1)))
    clip = sweepFromBrowser(browser, spacing_mm=(0.2, 0.1))
    assert clip.sweep.spacing_mm == (0.2, 0.1)
    # The image is shown with pixels of 1 mm; its corner in node coordinates must still be its corner in the image.
    corner_in_node = ijk_to_ras((1, 1)) @ [0, 0, 0, 1]
    np.testing.assert_allclose(clip.image_from_node[0] @ corner_in_node, [-0.7, -0.25, 0, 1], atol=1e-12)


def test_what_is_no_browser_is_refused(scene):
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "frame")
    with pytest.raises(InputError, match=r"frame, a vtkMRMLScalarVolumeNode; give the sequence browser"):
        sweepFromBrowser(volume)
    with pytest.raises(InputError, match="The clip is nothing"):
        sweepFromBrowser(None)


def test_a_browser_without_images_is_refused(scene):
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "empty browser")
    with pytest.raises(InputError, match="empty browser shows no image sequence"):
        sweepFromBrowser(browser)


def test_a_single_frame_is_refused_and_the_chooser_says_why(scene):
    browser, _ = add_clip(scene, FRAMES[:1], ijk_to_ras((0.3, 0.2)), name="still")
    with pytest.raises(InputError, match="still has 1 frame; a sweep needs at least two"):
        sweepFromBrowser(browser)
    assert clips(scene)[0].problem.startswith("still has 1 frame")


def test_volumes_over_time_are_refused(scene):
    sequence = sequence_node(scene, "4D")
    for number in range(3):
        sequence.SetDataNodeAtValue(slicer.vtkMRMLScalarVolumeNode(), str(number))
        sequence.GetNthDataNode(number).SetAndObserveImageData(volume_image(FRAMES))
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    with pytest.raises(InputError, match="4D is a sequence of volumes of 5 slices"):
        sweepFromBrowser(browser)


def test_frames_that_change_size_are_refused_with_the_frame(scene):
    browser, sequence = add_clip(scene, FRAMES, ijk_to_ras((0.3, 0.2)))
    sequence.GetNthDataNode(3).SetAndObserveImageData(volume_image(FRAMES[:1, :4]))
    with pytest.raises(InputError, match=r"changes at frame 3 from 8 x 6 pixels in grey to 8 x 4"):
        sweepFromBrowser(browser)


def test_of_a_long_clip_few_items_are_looked_at_and_the_others_where_they_are_read(scene, monkeypatch):
    looked_at, original = [], frames._item
    monkeypatch.setattr(
        frames, "_item", lambda sequence, number: (looked_at.append(number), original(sequence, number))[1]
    )
    browser, sequence = add_clip(scene, RANDOM.integers(0, 256, (2000, 6, 8), dtype=np.uint8), ijk_to_ras((0.3, 0.2)))
    assert clips(scene)[0].size == (8, 6)
    sweep = sweepFromBrowser(browser).sweep
    assert len(looked_at) <= 2 * (frames._LOOKED_AT + 3)
    assert {0, 1, 1999} <= set(looked_at)
    other = next(number for number in range(2000) if number not in looked_at)
    sequence.GetNthDataNode(other).SetAndObserveImageData(volume_image(FRAMES[:1, :4]))
    assert sweep.window(0, other).shape == (other, 6, 8)
    with pytest.raises(InputError, match=rf"changes at frame {other} from 8 x 6 pixels in grey to 8 x 4"):
        sweep.window(0, 2000)


def test_a_frame_without_image_is_refused(scene):
    browser, sequence = add_clip(scene, FRAMES, ijk_to_ras((0.3, 0.2)))
    sequence.GetNthDataNode(1).SetAndObserveImageData(None)
    with pytest.raises(InputError, match="Frame 1 of clip has no image"):
        sweepFromBrowser(browser)


def loose_volume(scene, name="scan"):
    volume = slicer.vtkMRMLScalarVolumeNode()
    volume.SetName(name)
    volume.SetIJKToRASMatrix(vtk_matrix(ijk_to_ras((0.3, 0.2))))
    volume.SetAndObserveImageData(volume_image(FRAMES))
    return scene.AddNode(volume)


def test_a_volume_without_sequence_is_offered_as_frames_along_its_third_axis(scene):
    volume = loose_volume(scene)
    offered = clips(scene)
    assert [clip.volume for clip in offered] == [volume]
    assert (offered[0].frames, offered[0].size, offered[0].browser) == (5, (8, 6), None)
    sweep = sweepFromBrowser(sequenceFromVolume(volume)).sweep
    np.testing.assert_array_equal(sweep.frames[:], FRAMES)
    np.testing.assert_allclose(sweep.spacing_mm, (0.3, 0.2))
    assert sweep.tracked is None


def test_a_volume_beside_a_clip_is_offered_too_and_what_a_browser_shows_is_not(scene):
    shown = loose_volume(scene, "shown")
    browser, sequence = add_clip(scene, FRAMES, ijk_to_ras((0.3, 0.2)))
    browser.AddProxyNode(shown, sequence, False)
    volume = loose_volume(scene)
    assert [(clip.sequence, clip.volume) for clip in clips(scene)] == [(sequence, None), (None, volume)]


def test_a_volume_that_became_a_clip_is_offered_once(scene):
    volume = loose_volume(scene)
    browser = sequenceFromVolume(volume)
    assert sequenceFromVolume(volume) is browser
    assert [clip.browser for clip in clips(scene)] == [browser]


def test_a_volume_of_one_slice_is_refused_as_a_clip(scene):
    volume = loose_volume(scene)
    volume.SetAndObserveImageData(volume_image(FRAMES[:1]))
    with pytest.raises(InputError, match="scan has 1 slice along its third axis"):
        sequenceFromVolume(volume)
    assert clips(scene) == []


def world_from_node(sweep, node_from_pixel):
    """[N, 4, 4] transforms that put frames shown at `node_from_pixel` where the sweep was tracked, in some world."""
    image_from_node = sweep.image_from_pixel @ np.linalg.inv(node_from_pixel)
    return random_rigid(RANDOM) @ sweep.tracked.poses @ image_from_node


def test_transforms_above_the_image_are_its_tracking(scene):
    truth = simulated(6)
    browser, images = add_simulated_clip(scene, truth)
    matrix = ijk_to_ras(truth.spacing_mm, origin=(10, -20, 30))
    transforms = add_transforms(scene, browser, images, world_from_node(truth, matrix), name="probe")
    browser.GetProxyNode(images).SetAndObserveTransformNodeID(browser.GetProxyNode(transforms).GetID())
    clip = sweepFromBrowser(browser)
    assert clip.transform_sequence is transforms
    np.testing.assert_allclose(clip.sweep.tracked.poses, truth.tracked.poses, atol=1e-6)
    assert clip.sweep.provenance["tracking"] == "Tracked: the image lies below probe."


def test_a_static_transform_above_the_moving_one_does_not_change_the_trajectory(scene):
    truth = simulated(6)
    browser, images = add_simulated_clip(scene, truth)
    matrix = ijk_to_ras(truth.spacing_mm, origin=(10, -20, 30))
    transforms = add_transforms(scene, browser, images, world_from_node(truth, matrix), name="probe")
    still = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "registration")
    still.SetMatrixTransformToParent(vtk_matrix(random_rigid(RANDOM)))
    proxy = browser.GetProxyNode(transforms)
    proxy.SetAndObserveTransformNodeID(still.GetID())
    browser.GetProxyNode(images).SetAndObserveTransformNodeID(proxy.GetID())
    np.testing.assert_allclose(sweepFromBrowser(browser).sweep.tracked.poses, truth.tracked.poses, atol=1e-6)


def test_transforms_named_as_plus_names_them_are_multiplied_out(scene):
    truth = simulated(6)
    browser, images = add_simulated_clip(scene, truth)
    world = world_from_node(truth, ijk_to_ras(truth.spacing_mm, origin=(10, -20, 30)))
    probe_from_image = random_rigid(RANDOM)
    add_transforms(scene, browser, images, np.broadcast_to(probe_from_image, (6, 4, 4)), name="ImageToProbe")
    add_transforms(scene, browser, images, world @ np.linalg.inv(probe_from_image), name="ProbeToReference")
    clip = sweepFromBrowser(browser)
    np.testing.assert_allclose(clip.sweep.tracked.poses, truth.tracked.poses, atol=1e-6)
    assert clip.sweep.provenance["tracking"] == "Tracked: Image to Probe to Reference."


def test_pixels_get_their_size_from_the_tracking_where_the_image_has_none(scene):
    # As PLUS has it: the image is shown in pixels, and ImageToReference carries the spacing.
    truth = simulated(6)
    browser, images = add_clip(scene, truth.frames[:], np.eye(4))
    world_from_pixel = random_rigid(RANDOM) @ truth.tracked.poses @ truth.image_from_pixel
    add_transforms(scene, browser, images, world_from_pixel, name="ImageToReference")
    sweep = sweepFromBrowser(browser).sweep
    np.testing.assert_allclose(sweep.spacing_mm, truth.spacing_mm, rtol=1e-9)
    np.testing.assert_allclose(sweep.tracked.poses, truth.tracked.poses, atol=1e-6)
    with pytest.raises(InputError, match="contradicts"):
        sweepFromBrowser(browser, spacing_mm=0.1)


def test_frames_without_a_transform_of_their_own_are_invalid_and_not_given_the_one_before(scene):
    truth = simulated(6)
    browser, images = add_simulated_clip(scene, truth)
    world = world_from_node(truth, ijk_to_ras(truth.spacing_mm, origin=(10, -20, 30)))
    world[3] = np.nan
    add_transforms(scene, browser, images, world, name="ImageToReference")
    assert sweepFromBrowser(browser).sweep.tracked.valid.tolist() == [True, True, True, False, True, True]


def test_transforms_that_lead_nowhere_are_named_and_not_guessed(scene):
    browser, images = add_clip(scene, FRAMES, ijk_to_ras((0.3, 0.2)))
    add_transforms(scene, browser, images, random_rigid(RANDOM, 5), name="ProbeToReference")
    sweep = sweepFromBrowser(browser).sweep
    assert sweep.tracked is None
    assert "the browser holds ProbeToReference" in sweep.provenance["tracking"]


def test_frames_placed_one_by_one_are_tracked_by_their_own_matrices(scene):
    truth = simulated(6)
    placed = random_rigid(RANDOM) @ truth.tracked.poses @ truth.image_from_pixel
    browser, _ = add_clip(scene, truth.frames[:], placed)
    np.testing.assert_allclose(sweepFromBrowser(browser).sweep.tracked.poses, truth.tracked.poses, atol=1e-6)


def test_the_poses_of_an_earlier_run_are_not_taken_for_tracking(scene):
    truth = simulated(6)
    browser, _ = add_simulated_clip(scene, truth)
    clip = sweepFromBrowser(browser)
    showResults(scene, clip, job_result(clip.sweep, drifting(truth.tracked), volume=False))
    again = sweepFromBrowser(browser)
    assert again.sweep.tracked is None
    np.testing.assert_array_equal(again.node_from_image, clip.node_from_image)


def test_tracking_is_still_found_below_the_poses_of_an_earlier_run(scene):
    truth = simulated(6)
    browser, images = add_simulated_clip(scene, truth)
    matrix = ijk_to_ras(truth.spacing_mm, origin=(10, -20, 30))
    transforms = add_transforms(scene, browser, images, world_from_node(truth, matrix), name="probe")
    browser.GetProxyNode(images).SetAndObserveTransformNodeID(browser.GetProxyNode(transforms).GetID())
    clip = sweepFromBrowser(browser)
    for _ in range(2):
        showResults(scene, clip, job_result(clip.sweep, drifting(truth.tracked), volume=False))
        clip = sweepFromBrowser(browser)
        assert clip.transform_sequence is transforms
        np.testing.assert_allclose(clip.sweep.tracked.poses, truth.tracked.poses, atol=1e-6)
