"""The voxel grid: where it lies, that it holds the sweep, and that it is refused before it fills the memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction import VoxelGrid, plan_grid, reconstruct_volume
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory, matrices_from_parameters

motions = st.lists(st.tuples(*[st.floats(-4, 4)] * 3, *[st.floats(-20, 20)] * 3), min_size=0, max_size=6)


def sweep_of(frames, size=(30, 40), spacing=(0.4, 0.3), skew=0.0):
    return Sweep(np.zeros((frames, *size), np.uint8), spacing, skew_deg=skew)


def straight(frames, step=0.5):
    return Trajectory.from_parameters(np.tile([0, 0, step, 0, 0, 0], (frames - 1, 1)))


def corners_mm(sweep, trajectory):
    height, width = sweep.frame_size
    pixels = np.array([[u, v, 0, 1] for u in (0, width - 1) for v in (0, height - 1)], float)
    return np.concatenate([(pose @ sweep.image_from_pixel @ pixels.T).T[:, :3] for pose in trajectory.poses])


@settings(max_examples=60)
@given(motions, st.floats(0.2, 3), st.sampled_from(["frame0", "principal"]), st.floats(-5, 5))
def test_every_corner_of_every_frame_lies_within_half_a_voxel_of_the_grid(steps, spacing, axes, skew):
    sweep = sweep_of(len(steps) + 1, skew=skew)
    trajectory = Trajectory.from_parameters(np.reshape(steps, (-1, 6)))
    grid = plan_grid(sweep, trajectory, spacing_mm=spacing, axes=axes)
    points = np.c_[corners_mm(sweep, trajectory), np.ones(4 * len(sweep))]
    index = (grid.voxel_from_frame0 @ points.T)[:3].T
    assert (index > -1e-6).all()
    assert (index < np.array(grid.size) - 0.5 + 1e-6).all()


@settings(max_examples=60)
@given(motions, st.floats(0.2, 3))
def test_the_origin_is_the_smallest_corner_and_the_size_the_rounded_extent(steps, spacing):
    sweep = sweep_of(len(steps) + 1)
    trajectory = Trajectory.from_parameters(np.reshape(steps, (-1, 6)))
    grid = plan_grid(sweep, trajectory, spacing_mm=spacing)
    points = corners_mm(sweep, trajectory)
    np.testing.assert_allclose(grid.origin_mm, points.min(axis=0), atol=1e-9)
    extent = np.ptp(points, axis=0) / spacing
    away = np.abs(np.array(grid.size) - 1 - extent)
    thin = (np.array(grid.size) == 2) & (extent < 0.5)  # one layer would hold its own plane only
    assert away[~thin].max(initial=0) <= 0.5 + 1e-6


@pytest.mark.parametrize("step", [0.0, 1e-3, -1e-3, -0.02])
def test_a_sweep_that_hardly_leaves_its_plane_has_a_volume(step):
    sweep = Sweep(np.full((8, 30, 40), 100, np.uint8), (0.4, 0.3))
    trajectory = straight(8, step)
    grid = plan_grid(sweep, trajectory, spacing_mm=0.5)
    assert grid.size[2] == (2 if step else 1)
    volume = reconstruct_volume(sweep, trajectory, grid)
    assert (volume.coverage > 0).any(axis=0).mean() > 0.95


@given(
    st.tuples(*[st.floats(-100, 100)] * 3),
    st.tuples(*[st.floats(0.05, 5)] * 3),
    st.tuples(*[st.floats(-180, 180)] * 3),
    st.booleans(),
)
def test_voxels_and_millimetres_convert_back_and_forth(origin, spacing, angles, tracked):
    turn = matrices_from_parameters([0, 0, 0, *angles])
    reference = matrices_from_parameters([10, -20, 30, 40, 50, 60]) if tracked else None
    grid = VoxelGrid(origin, spacing, (5, 6, 7), turn[:3, :3], reference)
    np.testing.assert_allclose(grid.voxel_from_mm @ grid.mm_from_voxel, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(grid.voxel_from_frame0 @ grid.frame0_from_voxel, np.eye(4), atol=1e-8)
    np.testing.assert_allclose(grid.mm_from_voxel[:3, 3], origin)
    if tracked:
        np.testing.assert_allclose(reference @ grid.frame0_from_voxel, grid.mm_from_voxel, atol=1e-8)
    assert grid.frame == ("reference" if tracked else "frame0")


def test_automatic_spacing_lies_between_pixel_and_step_and_is_never_finer_than_the_pixel():
    dense = plan_grid(sweep_of(20), straight(20, step=0.05))
    sparse = plan_grid(sweep_of(20), straight(20, step=1.6))
    assert dense.spacing_mm == (0.4, 0.4, 0.4)
    assert sparse.spacing_mm == (0.8, 0.8, 0.8)
    assert sparse.note == ""


def test_automatic_spacing_is_coarsened_to_the_memory_limit_and_the_grid_says_so():
    grid = plan_grid(sweep_of(50), straight(50), max_bytes=200_000)
    assert grid.bytes_needed <= 200_000
    assert grid.bytes_needed > 100_000
    assert "coarsened from the 0.45 mm" in grid.describe()


def test_a_given_spacing_beyond_the_memory_limit_is_refused_with_one_that_fits():
    sweep, trajectory = sweep_of(50), straight(50)
    with pytest.raises(InputError, match=r"a spacing of ([0-9.]+) x .* mm would fit") as refused:
        plan_grid(sweep, trajectory, spacing_mm=0.1, max_bytes=10_000_000)
    fitting = float(str(refused.value).split("a spacing of ")[1].split()[0])
    assert plan_grid(sweep, trajectory, spacing_mm=fitting, max_bytes=10_000_000).bytes_needed <= 10_000_000
    assert fitting < 0.2


def test_an_absurdly_fine_spacing_is_refused_without_allocating():
    with pytest.raises(InputError, match="would fit"):
        plan_grid(sweep_of(2), straight(2), spacing_mm=1e-9)


def test_principal_axes_make_the_grid_of_an_oblique_sweep_smaller_and_keep_it_right_handed():
    sweep = sweep_of(60)
    tilted = matrices_from_parameters([10, 20, 30, 20, 40, 30]) @ straight(60).poses
    trajectory = Trajectory.from_reference(tilted)
    plain = plan_grid(sweep, trajectory, spacing_mm=0.5, frame="reference")
    fitted = plan_grid(sweep, trajectory, spacing_mm=0.5, frame="reference", axes="principal")
    assert fitted.voxels < 0.5 * plain.voxels
    assert np.linalg.det(fitted.axes) == pytest.approx(1)
    assert (np.diag(fitted.axes) > 0).all()


def test_principal_axes_never_make_the_grid_larger():
    sweep, trajectory = sweep_of(20, size=(40, 40), spacing=(0.3, 0.3)), straight(20)
    plain = plan_grid(sweep, trajectory, spacing_mm=0.5)
    assert plan_grid(sweep, trajectory, spacing_mm=0.5, axes="principal").voxels <= plain.voxels


def test_a_region_restricts_the_grid_to_its_box():
    grid = plan_grid(sweep_of(20), straight(20), spacing_mm=0.5, region=((-3, -100, 2), (3, 100, 5)))
    np.testing.assert_allclose(grid.origin_mm, [-3, -4.35, 2])
    assert grid.size == (13, 18, 7)


def test_a_clip_rectangle_shrinks_the_grid_to_its_pixels():
    grid = plan_grid(sweep_of(3), straight(3), spacing_mm=0.1, clip=(10, 5, 8, 6))
    np.testing.assert_allclose(grid.origin_mm, [(10 - 19.5) * 0.4, (5 - 14.5) * 0.3, 0])
    assert grid.size == (33, 19, 11)


def test_frames_with_an_invalid_pose_or_image_do_not_stretch_the_grid():
    poses = matrices_from_parameters(np.array([[0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [500] * 6, [900] * 6], float))
    sweep = Sweep(np.zeros((4, 30, 40), np.uint8), (0.4, 0.3), frame_valid=[True, True, True, False])
    grid = plan_grid(sweep, Trajectory(poses, [True, True, False, True]), spacing_mm=0.5)
    assert grid.size[2] == 3


def test_a_grid_in_the_reference_world_lies_where_the_tracker_saw_the_sweep():
    world = matrices_from_parameters(np.array([[100, 50, 20 + i, 0, 0, 90] for i in range(5)], float))
    grid = plan_grid(sweep_of(5), Trajectory.from_reference(world), spacing_mm=0.5, frame="reference")
    np.testing.assert_allclose(grid.origin_mm, [100 - 4.35, 50 - 7.8, 20], atol=1e-9)
    assert grid.frame == "reference"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"spacing_mm": 0}, "finite and above 0"),
        ({"spacing_mm": -1.0}, "finite and above 0"),
        ({"spacing_mm": float("nan")}, "finite and above 0"),
        ({"spacing_mm": (0.5, 0.5)}, "one or three numbers"),
        ({"spacing_mm": "fine"}, "neither a number in mm nor 'auto'"),
        ({"region": ((100, 0, 0), (120, 1, 1))}, "lies outside the sweep, which covers"),
        ({"region": ((1, 0, 0), (0, 1, 1))}, "smallest first"),
        ({"region": ((0, 0, 0), (1, 1, float("nan")))}, "is not a box"),
        ({"clip": (40, 0, 5, 5)}, "starts outside the frame of 40 x 30"),
        ({"clip": (0, 0, 0, 5)}, "at least 1 pixel"),
        ({"clip": (0, 0, 5)}, "four whole numbers"),
        ({"axes": "diagonal"}, "choose 'frame0' or 'principal'"),
        ({"frame": "reference"}, "has no reference world"),
        ({"frame": "patient"}, "choose 'frame0' or 'reference'"),
        ({"fan": "round"}, "neither a Fan, 'auto' nor None"),
        ({"max_bytes": 0}, "memory limit of 0 bytes"),
    ],
)
def test_unusable_options_are_refused_in_a_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        plan_grid(sweep_of(3), straight(3), **options)


@pytest.mark.parametrize(
    ("sweep", "trajectory", "sentence"),
    [
        (sweep_of(3), straight(4), "3 frames and the trajectory 4 poses"),
        (sweep_of(3, spacing=None), straight(3), "pixel spacing of this sweep is unknown"),
        (sweep_of(3, size=(0, 0)), straight(3), "tracking but no images"),
        (sweep_of(3), Trajectory(np.full((3, 4, 4), np.nan), [False] * 3), "None of the 3 frames"),
    ],
)
def test_a_sweep_that_cannot_be_placed_is_refused_in_a_sentence(sweep, trajectory, sentence):
    with pytest.raises(InputError, match=sentence):
        plan_grid(sweep, trajectory)


@pytest.mark.parametrize(
    "values",
    [
        {"origin_mm": (0, 0, np.inf)},
        {"spacing_mm": (1, 1, 0)},
        {"size": (1, 2, 0)},
        {"size": (1.5, 2, 3)},
        {"axes": np.diag([1, 1, -1])},
        {"axes": np.eye(3) * 1.1},
        {"reference_from_frame0": np.eye(3)},
    ],
)
def test_a_grid_that_is_none_is_refused(values):
    good = {"origin_mm": (0, 0, 0), "spacing_mm": 1.0, "size": (2, 2, 2)}
    VoxelGrid(**good)
    with pytest.raises(InputError):
        VoxelGrid(**{**good, **values})
