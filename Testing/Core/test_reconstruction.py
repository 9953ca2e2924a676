"""Pixels arrive in the right voxels with the right weights, and nothing else does."""

import os
from dataclasses import replace
from inspect import signature

import numpy as np
import pytest
import torch
from plain_volume import plain_volume

from DualTrackCore.errors import Cancelled, InputError, OutputError, SweepWarning
from DualTrackCore.progress import Stage
from DualTrackCore.reconstruction import Fan, HoleFilling, VoxelGrid, plan_grid, reconstruct_volume
from DualTrackCore.run import RunSettings, run
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory, matrices_from_parameters

MODES = [(i, c) for i in ("nearest", "linear") for c in ("mean", "maximum", "latest")]


def freehand(frames=9, size=(40, 50), seed=0, skew=2.0):
    """Speckle on a bent path; skewed, oblong pixels, so that a wrong axis or a lost shear shows."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (frames, *size)).astype(np.uint8)
    steps = random.normal([0.1, 0, 0.4, 0.5, 1, 0.3], 0.1, (frames - 1, 6))
    return Sweep(images, (0.3, 0.2), skew_deg=skew), Trajectory.from_parameters(steps)


@pytest.mark.parametrize(("interpolation", "compounding"), MODES)
def test_a_freehand_sweep_gives_what_the_definition_gives(interpolation, compounding):
    sweep, trajectory = freehand(frames=4, size=(24, 30))
    # Smaller than the sweep on all sides, so that pixels outside have to be left out.
    planned = plan_grid(sweep, trajectory, spacing_mm=(0.5, 0.45, 0.4))
    grid = VoxelGrid(planned.origin_mm + 0.7, planned.spacing_mm, tuple(n - 3 for n in planned.size))
    made = reconstruct_volume(
        sweep, trajectory, grid, interpolation=interpolation, compounding=compounding, hole_filling="none"
    )
    values, coverage = plain_volume(sweep, trajectory, grid, interpolation, compounding)
    np.testing.assert_array_equal(made.volume, values)
    np.testing.assert_allclose(made.coverage, coverage, atol=1e-5)
    assert 0.1 < made.covered_fraction < 1


def test_pixels_that_coincide_with_voxels_are_copied_exactly():
    random = np.random.default_rng(1)
    frames = random.integers(0, 256, (5, 12, 14)).astype(np.uint8)
    sweep = Sweep(frames, 0.5)
    trajectory = Trajectory.from_parameters(np.tile([0, 0, 0.5, 0, 0, 0], (4, 1)))
    grid = plan_grid(sweep, trajectory, spacing_mm=0.5)
    for interpolation, compounding in MODES:
        made = reconstruct_volume(
            sweep, trajectory, grid, interpolation=interpolation, compounding=compounding, hole_filling="none"
        )
        np.testing.assert_array_equal(made.volume, frames)
        np.testing.assert_allclose(made.coverage, 1, atol=1e-5)


def test_a_single_frame_makes_a_volume_of_one_slice():
    sweep = Sweep(np.random.default_rng(2).integers(1, 256, (1, 12, 14)).astype(np.uint8), 0.5)
    for interpolation, compounding in MODES:
        made = reconstruct_volume(
            sweep, Trajectory(np.eye(4)[None]), interpolation=interpolation, compounding=compounding
        )
        np.testing.assert_array_equal(made.volume, sweep.frames)


@pytest.mark.parametrize(("interpolation", "compounding"), MODES)
def test_the_result_is_the_same_at_any_number_of_threads(interpolation, compounding, monkeypatch):
    sweep, trajectory = freehand()
    grid = plan_grid(sweep, trajectory, spacing_mm=0.7)
    results = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        made = reconstruct_volume(
            sweep, trajectory, grid, interpolation=interpolation, compounding=compounding, hole_filling="none"
        )
        results.append((made.volume.tobytes(), made.coverage.tobytes()))
    assert results[0] == results[1] == results[2]


def test_black_pixels_are_seen_and_the_rest_is_not():
    sweep, trajectory = Sweep(np.zeros((3, 10, 10), np.uint8), 0.5), Trajectory(np.tile(np.eye(4), (3, 1, 1)))
    grid = VoxelGrid((-5, -5, -5), 1.0, (11, 11, 11))
    for interpolation, compounding in MODES:
        made = reconstruct_volume(
            sweep, trajectory, grid, interpolation=interpolation, compounding=compounding, hole_filling="none"
        )
        assert not made.volume.any()
        assert (made.coverage[5, 3:8, 3:8] > 0).all()
        assert not made.coverage[0].any()


def test_invalid_frames_are_skipped_and_counted():
    sweep, trajectory = freehand(frames=6)
    poses = trajectory.poses.copy()
    poses[2] = np.nan
    sweep = Sweep(sweep.frames, sweep.spacing_mm, frame_valid=[1, 1, 1, 1, 0, 1])
    broken = Trajectory(poses, [1, 1, 0, 1, 1, 1])
    grid = plan_grid(sweep, broken, spacing_mm=0.5)
    made = reconstruct_volume(sweep, broken, grid)
    kept = [0, 1, 3, 5]
    expected = reconstruct_volume(Sweep(sweep.frames[kept], sweep.spacing_mm), Trajectory(trajectory.poses[kept]), grid)
    np.testing.assert_array_equal(made.volume, expected.volume)
    assert (made.frames_used, made.frames_skipped) == (4, 2)


def test_clip_fan_and_threshold_leave_pixels_out():
    sweep, trajectory = freehand(frames=1)
    grid = plan_grid(sweep, trajectory, spacing_mm=0.1)
    fan = Fan((25, 0), (-30, 30), (10, 30))
    made = reconstruct_volume(
        sweep, trajectory, grid, interpolation="nearest", clip=(10, 5, 30, 20), fan=fan, reject_below=100
    )
    mask = fan.mask((40, 50)) & (sweep.frames[0] >= 100)
    mask[:5] = mask[26:] = False
    mask[:, :10] = mask[:, 41:] = False
    assert made.coverage.sum() == mask.sum()
    assert made.volume[made.coverage > 0].min() >= 100


def test_an_automatic_fan_leaves_out_the_caption():
    fan = Fan((160, -30), (-35, 35), (50, 240))
    frames = (np.random.default_rng(0).rayleigh(25, (12, 240, 320)).clip(1, 255) * fan.mask((240, 320))).astype(
        np.uint8
    )
    frames[:, 5:20, 5:70] = 255
    sweep = Sweep(frames, 0.25)
    trajectory = Trajectory.from_parameters(np.tile([0, 0, 0.25, 0, 0, 0], (11, 1)))
    made = reconstruct_volume(sweep, trajectory, interpolation="nearest", compounding="maximum", fan="auto")
    assert made.grid.size[0] < 300
    assert made.volume.max() < 255
    assert made.covered_fraction > 0.5


def test_filled_voxels_are_told_from_measured_ones():
    sweep, trajectory = freehand()
    grid = plan_grid(sweep, trajectory, spacing_mm=0.3)
    open_holes = reconstruct_volume(sweep, trajectory, grid, hole_filling="none")
    made = reconstruct_volume(sweep, trajectory, grid, hole_filling=[HoleFilling("stick"), HoleFilling("gaussian")])
    assert made.filled.any()
    assert not made.coverage[made.filled].any()
    np.testing.assert_array_equal(made.coverage, open_holes.coverage)
    np.testing.assert_array_equal(made.volume[~made.filled], open_holes.volume[~made.filled])
    assert made.filled_fraction > 0
    assert not open_holes.filled.any()


def test_a_reference_grid_shows_the_same_voxels_as_the_frame0_grid_it_coincides_with():
    sweep, trajectory = freehand()
    world = matrices_from_parameters([100, -50, 30, 20, 30, 40])
    tracked = Trajectory.from_reference(world @ trajectory.poses)
    plain_grid = plan_grid(sweep, trajectory, spacing_mm=0.6)
    moved = VoxelGrid(
        (world @ [*plain_grid.origin_mm, 1])[:3], plain_grid.spacing_mm, plain_grid.size, world[:3, :3], world
    )
    a = reconstruct_volume(sweep, trajectory, plain_grid)
    b = reconstruct_volume(sweep, tracked, moved)
    assert (a.volume != b.volume).mean() < 1e-3


@pytest.mark.parametrize("name", ["v.nrrd", "v.mha", "v.nii.gz"])
def test_a_written_volume_keeps_values_origin_spacing_and_direction(tmp_path, name):
    import SimpleITK as sitk

    sweep, trajectory = freehand()
    grid = plan_grid(sweep, trajectory, spacing_mm=(0.5, 0.6, 0.7), axes="principal")
    made = reconstruct_volume(sweep, trajectory, grid)
    image = sitk.ReadImage(str(made.write(tmp_path / name)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), made.volume)
    index = (3, 5, 2)
    expected = (grid.mm_from_voxel @ [*index, 1])[:3]
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), expected, atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_coverage_and_filled_flags_are_written_too(tmp_path):
    import SimpleITK as sitk

    made = reconstruct_volume(*freehand(), interpolation="nearest", hole_filling="stick")
    for what in ("coverage", "filled"):
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(made.write(tmp_path / f"{what}.nrrd", what))))
        np.testing.assert_array_equal(array, getattr(made, what))


def test_coverage_of_weights_is_written_in_steps_that_compress(tmp_path):
    import SimpleITK as sitk

    made = reconstruct_volume(*freehand(frames=20))
    path = made.write(tmp_path / "coverage.nrrd", "coverage")
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(written > 0, made.coverage > 0)
    assert np.abs(written - made.coverage).max() <= 1 / 64
    exact = tmp_path / "exact.nrrd"
    sitk.WriteImage(made.to_sitk("coverage"), str(exact), useCompression=True)
    assert path.stat().st_size < 0.5 * exact.stat().st_size


def test_a_failed_write_leaves_what_stood_there(tmp_path):
    made = reconstruct_volume(*freehand(frames=2))
    with pytest.raises(InputError, match=r"v\.png is not a volume file"):
        made.write(tmp_path / "v.png")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        made.write(tmp_path / "file" / "v.nrrd")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("name", ["v.nrrd", "v.mha", "v.nii.gz", "v.nii"])
def test_a_volume_that_the_disk_cuts_short_is_not_taken_for_written(tmp_path, monkeypatch, capfd, name):
    import SimpleITK as sitk

    made = reconstruct_volume(*freehand())
    before = made.write(tmp_path / name).read_bytes()
    write = sitk.WriteImage

    def cut_short(image: sitk.Image, path: str, **options: bool) -> None:
        write(image, path, **options)
        os.truncate(path, os.path.getsize(path) * 2 // 3)

    monkeypatch.setattr(sitk, "WriteImage", cut_short)
    with pytest.raises(OutputError, match=r"Cannot write .*the disk takes no more"):
        made.write(tmp_path / name)
    assert (tmp_path / name).read_bytes() == before
    assert os.listdir(tmp_path) == [name]
    assert capfd.readouterr().err == ""
    with pytest.raises(InputError, match=r"v\.mhd is not a volume file"):
        made.write(tmp_path / "v.mhd")


def test_progress_counts_frames_and_cancelling_stops():
    sweep, trajectory = freehand()
    reports = []
    reconstruct_volume(sweep, trajectory, progress=reports.append)
    counts = [(report.done, report.total) for report in reports if report.stage is Stage.RECONSTRUCTING]
    assert counts == [(done, 9) for done in range(10)]
    with pytest.raises(Cancelled):
        reconstruct_volume(sweep, trajectory, progress=reports.append, cancelled=lambda: len(reports) > 13)
    assert len(reports) == 14


def test_frames_are_read_in_windows():
    class Source:
        shape, dtype = (40, 20, 20), np.dtype(np.uint8)
        largest = 0

        def __getitem__(self, key):
            Source.largest = max(Source.largest, key.stop - key.start)
            return np.full((key.stop - key.start, 20, 20), 7, np.uint8)

    trajectory = Trajectory.from_parameters(np.tile([0, 0, 0.5, 0, 0, 0], (39, 1)))
    made = reconstruct_volume(Sweep(Source(), 0.5), trajectory)
    assert set(np.unique(made.volume[made.coverage > 0])) == {7}
    assert 0 < Source.largest <= 8


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"interpolation": "cubic"}, "choose one of nearest, linear"),
        ({"compounding": "median"}, "choose one of mean, maximum, latest"),
        ({"reject_below": 256}, "from 0 to 255"),
        ({"reject_below": -1}, "from 0 to 255"),
        ({"hole_filling": "magic"}, "hole filling 'magic' is unknown"),
        ({"clip": (100, 0, 5, 5)}, "starts outside the frame"),
        ({"grid": VoxelGrid((900, 0, 0), 1.0, (3, 3, 3))}, "No pixel of the 9 usable frames reached the volume"),
    ],
)
def test_unusable_options_are_refused_in_a_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        reconstruct_volume(*freehand(), **options)


def test_frames_and_poses_of_different_number_are_refused():
    sweep, trajectory = freehand()
    with pytest.raises(InputError, match="9 frames and the trajectory 8 poses"):
        reconstruct_volume(sweep, trajectory.slice(0, 8))


def test_an_error_while_reading_frames_reaches_the_caller():
    class Broken:
        shape, dtype = (20, 20, 20), np.dtype(np.uint8)

        def __getitem__(self, key):
            if key.start >= 8:
                raise OSError("the disk is gone")
            return np.zeros((key.stop - key.start, 20, 20), np.uint8)

    with pytest.raises(OSError, match="the disk is gone"):
        reconstruct_volume(Sweep(Broken(), 0.5), Trajectory(np.tile(np.eye(4), (20, 1, 1))))


def test_corner_pixels_on_the_border_of_the_grid_stay_in_it_whatever_the_rounding():
    # A grid that is planned from the corners has the outermost of them on its border, up to the last bit.
    random = np.random.default_rng(4)
    for _ in range(150):
        sweep = Sweep(random.integers(1, 256, (2, 9, 11)).astype(np.uint8), (0.31, 0.23))
        trajectory = Trajectory.from_parameters(random.normal(0, [0.3, 0.3, 0.3, 20, 20, 20], (1, 6)))
        planned = plan_grid(sweep, trajectory, spacing_mm=0.3)
        # One voxel more on the far side, so that every pixel lies in a cell.
        grid = VoxelGrid(planned.origin_mm, planned.spacing_mm, tuple(n + 1 for n in planned.size))
        made = reconstruct_volume(sweep, trajectory, grid)
        # Weights below 1/512 are not kept.
        np.testing.assert_allclose(made.coverage.sum(), sweep.frames.size, rtol=0.01)


def test_a_volume_in_python_has_the_defaults_of_a_run():
    run, compared = RunSettings(), []
    of_a_run = {"spacing_mm": run.voxel_mm, "fan": {"none": None}.get(run.fan, run.fan)}
    for function in (plan_grid, reconstruct_volume):
        for name, parameter in signature(function).parameters.items():
            if name in ("sweep", "trajectory", "grid", "region", "max_bytes", "progress", "cancelled"):
                continue  # what is computed, and what no run is told
            default = None if name == "spacing_mm" and parameter.default == "auto" else parameter.default
            assert default == of_a_run.get(name, getattr(run, name, "no such setting")), name
            compared.append(name)
    assert {"interpolation", "compounding", "hole_filling", "device", "reject_below"} <= set(compared)


def test_a_volume_in_python_is_that_of_a_run():
    sweep, trajectory = freehand()
    tracked = replace(sweep, tracked=trajectory)
    made = run(tracked, RunSettings(poses="tracked")).reconstruction
    own = reconstruct_volume(sweep, trajectory)
    assert own.filled.any()
    for what in ("volume", "coverage", "filled"):
        np.testing.assert_array_equal(getattr(own, what), getattr(made, what))


def test_a_fan_that_is_not_found_is_said_with_what_to_do():
    sweep, trajectory = freehand(frames=12)
    tracked = replace(sweep, tracked=trajectory)
    with pytest.warns(
        SweepWarning, match=r"No fan was found .* columns 0 to 49 and rows 0 to 39; .*angles and radii \(fan\)"
    ):
        result = run(tracked, RunSettings(poses="tracked", fan="auto"))
    assert any("No fan was found" in warning for warning in result.warnings)
    still = replace(tracked, frames=np.repeat(sweep.frames[:1], 12, axis=0))
    with pytest.raises(InputError, match=r"No image area was found.*\(clip\)"):
        run(still, RunSettings(poses="tracked", fan="auto", repeats="keep"))
