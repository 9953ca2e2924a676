"""The compiled loops give what the definition gives, however the grid is cut; and a volume can grow frame by frame."""

import sys

import numpy as np
import pytest
import torch
from plain_volume import plain_volume

from DualTrackCore import compilation
from DualTrackCore.errors import InputError, MissingDependencyError
from DualTrackCore.progress import Stage
from DualTrackCore.reconstruction import (
    Fan,
    Rectangle,
    VolumeBuilder,
    VoxelGrid,
    plan_grid,
    reconstruct_volume,
    select_pixels,
)
from DualTrackCore.reconstruction.grid import cut_grid
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory, matrices_from_parameters

MODES = [(i, c) for i in ("nearest", "linear") for c in ("mean", "maximum", "latest")]
#: Turns that lay the rows of the frames along each axis of the grid, exactly and nearly.
TURNS = ((0, 0, 0), (0, 0, 90), (90, 0, 0), (20, 30, 40), (-100, 15, 170))
SIZE = (26, 31)


def turned_sweep(turn, frames=7, seed=0):
    """(sweep, trajectory, grid that is smaller than the sweep on all sides)."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (frames, *SIZE)).astype(np.uint8)
    steps = random.normal([0.05, 0, 0.3, 0.3, 1, 0.3], 0.05, (frames - 1, 6))
    sweep = Sweep(images, (0.3, 0.2), skew_deg=1.0)
    trajectory = Trajectory(matrices_from_parameters([1, 2, 3, *turn]) @ Trajectory.from_parameters(steps).poses)
    planned = plan_grid(sweep, trajectory, spacing_mm=(0.35, 0.3, 0.4))
    size = tuple(max(3, n - 3) for n in planned.size)
    return sweep, trajectory, VoxelGrid(planned.origin_mm + 0.45, planned.spacing_mm, size)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize(("interpolation", "compounding"), MODES)
def test_the_compiled_loops_give_what_the_definition_gives(interpolation, compounding, turn, monkeypatch):
    sweep, trajectory, grid = turned_sweep(turn, frames=4)
    options = {
        "interpolation": interpolation,
        "compounding": compounding,
        "fan": Fan((15, -4), (-38, 35), (7, 27)),
        "reject_below": 20,
    }
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    made = reconstruct_volume(sweep, trajectory, grid, hole_filling="none", **options)
    values, coverage = plain_volume(sweep, trajectory, grid, **options)
    assert coverage.any()
    np.testing.assert_allclose(made.coverage, coverage, atol=1e-5)
    if interpolation == "nearest" or compounding != "mean":
        np.testing.assert_array_equal(made.volume, values)
    else:
        # Sums in single precision may round a mean that lies midway to the other side.
        different = made.volume != values
        assert different.mean() < 1e-3
        assert np.abs(made.volume.astype(int) - values)[different].max(initial=0) <= 1


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize(("interpolation", "compounding"), MODES)
def test_a_cut_grid_gives_the_same_bits(interpolation, compounding, turn, monkeypatch):
    sweep, trajectory, grid = turned_sweep(turn)
    options = {"interpolation": interpolation, "compounding": compounding}
    results = []
    for threads in (1, 2, 4):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        builder = VolumeBuilder(grid, SIZE, sweep.image_from_pixel, **options)
        builder.add(sweep.frames, trajectory.poses)
        results.append(b"".join(array.tobytes() for array in builder.finish()))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_slabs_are_the_grid_and_share_no_voxel(turn, count):
    sweep, trajectory, grid = turned_sweep(turn)
    matrices = grid.voxel_from_frame0 @ trajectory.poses @ sweep.image_from_pixel
    slabs = cut_grid(matrices, Rectangle(0, 0, 30, 25), grid.size, count)
    assert len({axis for axis, _, _ in slabs}) == 1
    axis = slabs[0][0]
    assert [voxel for _, first, stop in slabs for voxel in range(first, stop)] == list(range(grid.size[axis]))
    assert len(slabs) == 1 or slabs[-1][2] - slabs[-1][1] >= 2
    if count < 8:
        assert len(slabs) == count


def test_slabs_of_a_grid_that_no_pixel_reaches_are_one():
    assert cut_grid(np.eye(4)[None] + 1e3, Rectangle(0, 0, 5, 5), (20, 20, 20), 4) == [(1, 0, 20)]


def test_runs_of_pixels_are_the_mask():
    fan = Fan((12, 3), (-40, 30), (4, 20))
    for selection in (select_pixels(SIZE, (3, 4, 10, 9)), select_pixels(SIZE, None, fan)):
        mask = np.zeros(SIZE, bool)
        for row, start, stop in selection.runs:
            assert not mask[row, start:stop].any()
            mask[row, start:stop] = True
        box = selection.rectangle
        expected = np.zeros(SIZE, bool)
        keep = True if selection.keep is None else selection.keep
        expected[box.top : box.bottom + 1, box.left : box.right + 1] = keep
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(("interpolation", "compounding"), MODES)
def test_a_volume_built_frame_by_frame_is_the_one_built_at_once(interpolation, compounding):
    sweep, trajectory, grid = turned_sweep((20, 30, 40))
    options = {"interpolation": interpolation, "compounding": compounding, "clip": (2, 1, 25, 20)}
    growing = VolumeBuilder(grid, sweep.frame_size, sweep.image_from_pixel, **options)
    growing.add(sweep.frames[0], trajectory.poses[0])
    growing.add(sweep.frames[1:4], trajectory.poses[1:4])
    early_volume, early_coverage = growing.snapshot()
    kept = early_volume.copy(), early_coverage.copy()
    growing.add(sweep.frames[4:], trajectory.poses[4:])
    whole = reconstruct_volume(sweep, trajectory, grid, hole_filling="none", **options)
    part = reconstruct_volume(sweep.slice(0, 4), Trajectory(trajectory.poses[:4]), grid, hole_filling="none", **options)
    volume, coverage = growing.snapshot()
    np.testing.assert_array_equal(volume, whole.volume)
    np.testing.assert_array_equal(coverage, whole.coverage)
    np.testing.assert_array_equal(early_volume, part.volume)
    np.testing.assert_array_equal(early_coverage, part.coverage)
    np.testing.assert_array_equal(early_volume, kept[0])
    np.testing.assert_array_equal(early_coverage, kept[1])
    assert growing.frames_used == 7


@pytest.mark.parametrize(
    ("frames", "poses", "sentence"),
    [
        (np.zeros((2, 26, 30), np.uint8), np.tile(np.eye(4), (2, 1, 1)), r"expected uint8 \[n, 26, 31\]"),
        (np.zeros((2, *SIZE)), np.tile(np.eye(4), (2, 1, 1)), "Frames are float64"),
        (np.zeros((2, *SIZE), np.uint8), np.eye(4)[None], r"expected \(2, 4, 4\)"),
        (np.zeros((1, *SIZE), np.uint8), np.full((1, 4, 4), np.nan), "finite numbers"),
    ],
)
def test_frames_and_poses_that_do_not_fit_are_refused(frames, poses, sentence):
    sweep, _, grid = turned_sweep((0, 0, 0))
    with pytest.raises(InputError, match=sentence):
        VolumeBuilder(grid, SIZE, sweep.image_from_pixel).add(frames, poses)


def test_numba_that_cannot_be_imported_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(MissingDependencyError, match=r"numba.*cannot be imported.*pip install"):
        reconstruct_volume(*turned_sweep((0, 0, 0)))


def test_loops_that_have_to_be_compiled_are_reported_first(monkeypatch):
    monkeypatch.setattr(
        compilation, "compile_kernels", lambda kernels, reporter: reporter.report(Stage.PREPARING, 1, 1)
    )
    reports = []
    reconstruct_volume(*turned_sweep((0, 0, 0)), progress=reports.append)
    assert [report.stage for report in reports][:2] == [Stage.PREPARING, Stage.RECONSTRUCTING]
