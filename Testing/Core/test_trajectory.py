"""Pose algebra and the trajectory."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import polar
from scipy.spatial.transform import Rotation

from DualTrackCore.errors import InputError
from DualTrackCore.io.calibration import choose_pixel_size
from DualTrackCore.trajectory import (
    Trajectory,
    accumulate,
    invert_rigid,
    matrices_from_parameters,
    parameters_from_matrices,
    rigid_error,
)

motions = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(6)), elements=st.floats(-80, 80))


@given(motions)
def test_rotations_are_extrinsic_xyz_as_scipy_has_them(parameters):
    matrices = matrices_from_parameters(parameters)
    expected = Rotation.from_euler("xyz", parameters[:, 3:], degrees=True).as_matrix()
    np.testing.assert_allclose(matrices[:, :3, :3], expected, atol=1e-12)
    np.testing.assert_array_equal(matrices[:, :3, 3], parameters[:, :3])


@given(motions)
def test_parameters_and_matrices_are_inverse(parameters):
    np.testing.assert_allclose(parameters_from_matrices(matrices_from_parameters(parameters)), parameters, atol=1e-9)


@pytest.mark.parametrize("sign", [-1, 1])
def test_at_gimbal_lock_the_matrix_still_comes_back(sign):
    matrix = matrices_from_parameters(np.array([1, 2, 3, 20, sign * 90, -35]))
    np.testing.assert_allclose(matrices_from_parameters(parameters_from_matrices(matrix)), matrix, atol=1e-7)


@given(motions)
def test_a_rigid_inverse_undoes_its_matrix(parameters):
    matrices = matrices_from_parameters(parameters)
    np.testing.assert_allclose(invert_rigid(matrices) @ matrices, np.broadcast_to(np.eye(4), matrices.shape), atol=1e-9)


@given(motions)
def test_relative_and_accumulated_poses_are_inverse(parameters):
    trajectory = Trajectory.from_parameters(parameters)
    assert len(trajectory) == len(parameters) + 1
    np.testing.assert_allclose(trajectory.parameters, parameters, atol=1e-6)
    np.testing.assert_allclose(accumulate(trajectory.relative), trajectory.poses, atol=1e-6)


def test_a_step_moves_along_the_axes_of_the_frame_before():
    turn_then_go = np.array([[0, 0, 0, 0, 90, 0], [0, 0, 2, 0, 0, 0]])
    np.testing.assert_allclose(Trajectory.from_parameters(turn_then_go).centres_mm[-1], [2, 0, 0], atol=1e-12)


def test_a_tracked_trajectory_starts_at_its_first_valid_frame_and_keeps_its_world():
    world = matrices_from_parameters(np.arange(24.0).reshape(4, 6))
    world[0] = np.nan
    trajectory = Trajectory.from_reference(world, np.array([False, True, True, True]))
    np.testing.assert_array_equal(trajectory.poses[1], np.eye(4))
    np.testing.assert_allclose(trajectory.reference_from_frame0 @ trajectory.poses[2:], world[2:], atol=1e-9)
    assert np.isnan(trajectory.centres_mm[0]).all()
    assert np.isnan(trajectory.parameters[0]).all()
    assert np.isfinite(trajectory.parameters[1:]).all()


def test_a_slice_starts_at_its_own_first_frame_and_stays_in_the_same_world():
    world = matrices_from_parameters(np.arange(30.0).reshape(5, 6))
    part = Trajectory.from_reference(world).slice(2, 5)
    np.testing.assert_allclose(part.poses[0], np.eye(4), atol=1e-12)
    np.testing.assert_allclose(part.reference_from_frame0 @ part.poses, world[2:], atol=1e-9)


def test_the_path_length_leaves_invalid_frames_out():
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 2, 3] = [0, 1, 500, 3]
    assert Trajectory(poses, [True, True, False, True]).path_length_mm == 3


def test_a_trajectory_without_a_valid_pose_can_be_held():
    assert Trajectory.from_reference(np.full((3, 4, 4), np.nan), np.zeros(3, bool)).path_length_mm == 0


@pytest.mark.parametrize(
    ("poses", "valid", "sentence"),
    [
        (np.zeros((3, 3, 3)), None, "expected \\[frames, 4, 4\\]"),
        (np.tile(np.eye(4), (3, 1, 1)), [True], "3 poses came with 1 validity flags"),
        (np.full((2, 4, 4), np.nan), None, "pose of frame 0 is not finite"),
        (np.stack([np.eye(4), np.diag([2, 1, 1, 1])]), None, "frame 1 is not a rigid motion"),
        (np.stack([np.eye(4), np.diag([-1, 1, 1, 1])]), None, "frame 1 is not a rigid motion"),
        (np.stack([np.eye(4), np.diag([1, 1, 1, 2])]), None, "frame 1 is not a rigid motion"),
    ],
)
def test_poses_that_are_none_are_refused_with_the_frame(poses, valid, sentence):
    with pytest.raises(InputError, match=sentence):
        Trajectory(poses, valid)


def nearly_rigid() -> np.ndarray:
    """Four poses: exact, as six digits round it, and two that departed from rigid motions."""
    poses = matrices_from_parameters(np.arange(24.0).reshape(4, 6))
    poses[1] = np.round(poses[1], 6)
    poses[2, :3, :3] *= 1.004
    poses[3, 0, :3] += 0.003
    poses[3, 3, 0] = 0.002
    return poses


def test_poses_that_are_nearly_rigid_become_rigid_and_the_others_stay_bit_for_bit():
    poses = nearly_rigid()
    trajectory = Trajectory(poses, provenance={"warnings": ["before"]})
    np.testing.assert_array_equal(trajectory.poses[:2], poses[:2])
    np.testing.assert_allclose(invert_rigid(trajectory.poses[2:]) @ trajectory.poses[2:], [np.eye(4)] * 2, atol=1e-12)
    for found, given_pose in zip(trajectory.poses[2:], poses[2:], strict=True):
        np.testing.assert_allclose(found[:3, :3], polar(given_pose[:3, :3])[0], atol=1e-12)
        np.testing.assert_array_equal(found[:3, 3], given_pose[:3, 3])
    np.testing.assert_allclose(accumulate(trajectory.relative), invert_rigid(poses[0]) @ trajectory.poses, atol=1e-4)
    before, note = trajectory.provenance["warnings"]
    assert before == "before"
    assert note == "Took the nearest rigid motion in place of 2 of 4 poses that departed from one by up to 0.008."
    assert "warnings" not in Trajectory(poses[:2]).provenance


def test_poses_in_a_world_are_made_rigid_once_and_the_clip_says_so():
    poses = np.roll(nearly_rigid(), 2, axis=0)  # the first decides where frame0 lies
    tracked = Trajectory.from_reference(poses)
    again = tracked.reference_from_frame0 @ tracked.poses
    np.testing.assert_allclose(again[2:], poses[2:], atol=1e-5)
    np.testing.assert_allclose(invert_rigid(again) @ again, [np.eye(4)] * 4, atol=1e-5)
    assert len(tracked.provenance["warnings"]) == 1
    assert tracked.slice(1, 3).provenance == tracked.provenance
    frames = np.zeros((4, 8, 8), np.uint8)
    sweep = choose_pixel_size(None, None, 0.2).sweep(frames, Path("clip.mha"), "test", ["first"], tracked=tracked)
    assert sweep.provenance["conversions"] == ["first", *tracked.provenance["warnings"]]


def test_the_place_of_frame0_is_made_rigid_too():
    trajectory = Trajectory(np.eye(4)[None], None, nearly_rigid()[2])
    np.testing.assert_allclose(rigid_error(trajectory.reference_from_frame0[None]), 0, atol=1e-12)
    assert "in place of reference_from_frame0 that departed" in trajectory.provenance["warnings"][0]


def test_a_motion_that_is_not_a_number_is_refused_with_its_frames():
    parameters = np.zeros((5, 6))
    parameters[3, 2] = np.nan
    with pytest.raises(InputError, match="motion from frame 3 to frame 4"):
        Trajectory.from_parameters(parameters)


def test_a_trajectory_cannot_be_changed():
    trajectory = Trajectory.from_parameters(np.zeros((2, 6)))
    with pytest.raises(ValueError, match="read-only"):
        trajectory.poses[0, 0, 0] = 2
