"""The uncertainty volume: how far what each voxel shows may lie from its true place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from test_uncertainty import curved, drawn_poses

from DualTrackCore.corrections import KnownLength, correct
from DualTrackCore.errors import InputError
from DualTrackCore.io import write_trajectory_csv
from DualTrackCore.measurement.displacement import displacement_volume
from DualTrackCore.path_error import DRIFT_BY_RULE, path_error, turned_over
from DualTrackCore.reconstruction import plan_grid, reconstruct_volume
from DualTrackCore.run import RunSettings, run
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import STEP_ERROR_CORRELATION, Trajectory

SAYS = {"model": "toy", STEP_ERROR_CORRELATION: [0.5] * 6}


def sweep_of(frames, size=(60, 80)):
    return Sweep(np.full((frames, *size), 9, np.uint8), (0.3, 0.3))


def made(motions, sigma, spacing=0.5, **source):
    path = Trajectory.from_parameters(motions, {**SAYS, **source}, sigma=sigma)
    sweep = sweep_of(len(path))
    return path, reconstruct_volume(sweep, path, plan_grid(sweep, path, spacing_mm=spacing))


def at(volume, values, points):
    """Values in the voxels of points [n, 3]."""
    voxels = np.rint(points @ volume.grid.voxel_from_frame0[:3, :3].T + volume.grid.voxel_from_frame0[:3, 3]).astype(
        int
    )
    return values[tuple(voxels.T[::-1])]


def test_a_voxel_is_off_by_as_much_as_on_drawn_paths():
    motions, sigma = curved(41)
    path, volume = made(motions, sigma)
    values = displacement_volume(volume, path)
    true = drawn_poses(motions, sigma, np.full(6, 0.5), draws=2000)
    rng = np.random.default_rng(0)
    frames = rng.integers(5, 41, 60)
    flat = np.concatenate([rng.uniform(-8, 8, (60, 2)), np.zeros((60, 1)), np.ones((60, 1))], axis=1)
    points = np.einsum("kij,kj->ki", path.poses[frames], flat)[:, :3]
    moved = np.einsum("kdij,kj->kdi", true[frames], flat)[..., :3]
    wanted = np.sqrt(((moved - points[:, None]) ** 2).sum(axis=2).mean(axis=1))
    np.testing.assert_allclose(at(volume, values, points), wanted, rtol=0.12, atol=0.05)
    assert np.corrcoef(at(volume, values, points), wanted)[0, 1] > 0.99


def test_a_turn_has_its_lever_arm():
    path, volume = made(np.tile([0, 0, 0.5, 0, 0, 0.0], (40, 1)), np.tile([0, 0, 0, 0, 0, 0.2], (40, 1)))
    values = displacement_volume(volume, path)
    ends = at(volume, values, np.array([[0, 0, 20.0], [10, 0, 20.0], [-10, 0, 20], [10, 0, 10]]))
    turn = np.deg2rad(0.2) * np.sqrt(0.5 * 40 + 0.5 * 40**2)
    assert ends[0] < 0.1
    np.testing.assert_allclose(ends[1:3], 10 * turn, rtol=0.05)
    assert ends[3] < 0.6 * ends[1]


def test_it_lies_on_the_voxels_of_the_volume_and_is_zero_where_that_shows_nothing():
    motions, sigma = curved(41)
    path, volume = made(motions, sigma)
    values = displacement_volume(volume, path)
    shown = (volume.coverage > 0) | volume.filled
    assert (values.shape, values.dtype) == (volume.grid.shape, np.float32)
    assert (values[~shown] == 0).all()
    assert (~shown).any()
    assert (values[shown] > 0).mean() > 0.95
    np.testing.assert_allclose(values, values.round(2), atol=1e-6)


def test_by_the_rule_of_thumb_and_after_a_correction_it_is_that_of_the_centres():
    motions = np.tile([0, 0, 0.5, 0, 0, 0.0], (40, 1))
    path, volume = made(motions, None, **{DRIFT_BY_RULE: 20.0})
    points = np.array([[0, 0, 10.0], [9, -5, 10.0], [0, 0, 20.0]])
    np.testing.assert_allclose(at(volume, displacement_volume(volume, path), points), [2, 2, 4], rtol=0.06)
    corrected = correct(path, [KnownLength(20.0, accuracy_mm=0.01)])
    wanted = np.sqrt(np.trace(path_error(corrected).covariance_mm2[[20, 20, 40]], axis1=1, axis2=2))
    np.testing.assert_allclose(at(volume, displacement_volume(volume, corrected), points), wanted, rtol=0.06, atol=0.02)


def test_where_several_frames_pass_their_mean_square_counts():
    motions = np.tile([0, 0, 0.5, 0, 0, 0.0], (40, 1)) * np.where(np.arange(40) < 20, 1, -1)[:, None]
    path, volume = made(motions, np.tile([0.3, 0, 0, 0, 0, 0], (40, 1)), **{STEP_ERROR_CORRELATION: [0.0] * 6})
    start = at(volume, displacement_volume(volume, path), np.array([[0, 0, 2.5]]))[0]
    assert start == pytest.approx(0.3 * np.sqrt((5 + 35) / 2), rel=0.05)


def test_frames_that_are_not_in_the_volume_do_not_shift_the_others():
    motions = np.tile([0, 0, 0.5, 0, 0, 0.0], (40, 1))
    path = Trajectory.from_parameters(motions, SAYS, sigma=np.tile([0, 0, 0.1, 0, 0, 0], (40, 1)))
    sweep = replace(sweep_of(41), frame_valid=np.arange(41) >= 15)
    volume = reconstruct_volume(sweep, path, plan_grid(sweep, path, spacing_mm=0.5))
    wanted = path_error(path).length_mm[[20, 38]]
    points = path.centres_mm[[20, 38]]
    np.testing.assert_allclose(at(volume, displacement_volume(volume, path), points), wanted, rtol=0.03)


def test_a_large_volume_is_interpolated_between_few_nodes():
    motions, sigma = curved(41)
    path, coarse = made(motions, sigma, 0.6)
    _, fine = made(motions, sigma, 0.15)
    points = path.centres_mm[5:40:5]
    one, other = (at(volume, displacement_volume(volume, path), points) for volume in (coarse, fine))
    assert max(fine.grid.size) > 100
    np.testing.assert_allclose(one, other, rtol=0.1, atol=0.03)


def test_the_mirror_image_is_as_unsure():
    motions, sigma = curved(41)
    path, volume = made(motions, sigma)
    over = turned_over(path)
    mirrored = displacement_volume(volume.turned_over(over), over)
    apart = np.abs(mirrored[::-1] - displacement_volume(volume, path))
    assert apart.mean() < 0.002  # pixels midway between two nodes go to the other one
    assert apart.max() < 0.15


def test_a_path_whose_error_is_not_known_has_none():
    motions, sigma = curved(41)
    path, volume = made(motions, sigma)
    gap = np.array(sigma)
    gap[20] = np.nan
    for unknown in (replace(path, sigma=gap), Trajectory.from_parameters(motions, origin="measured")):
        with pytest.raises(InputError, match="not known for all of its frames"):
            displacement_volume(volume, unknown)


def test_a_run_writes_it_beside_the_volume_on_request_with_the_marks_of_the_volume(tmp_path):
    motions, sigma = curved(21)
    write_trajectory_csv(Trajectory.from_parameters(motions, SAYS, sigma=sigma), tmp_path / "path.csv")
    settings = RunSettings(
        poses=str(tmp_path / "path.csv"), voxel_mm=1.0, pictures=False, evaluate=False, uncertainty_volume=True
    )
    random = np.random.default_rng(0).integers(0, 255, (21, 60, 80)).astype(np.uint8)
    result = run(Sweep(random, 0.3), settings)
    report = result.write(tmp_path / "out")
    assert "uncertainty.nrrd" in report.files
    images = [sitk.ReadImage(str(tmp_path / "out" / name)) for name in ("uncertainty.nrrd", "volume.nrrd")]
    for of in (sitk.Image.GetOrigin, sitk.Image.GetSpacing, sitk.Image.GetDirection, sitk.Image.GetSize):
        assert of(images[0]) == of(images[1])
    for name in ("DualTrackPosesTrust", "DualTrackPosesOrigin", "DualTrackPosesEstimatedBy"):
        assert images[0].GetMetaData(name) == images[1].GetMetaData(name) != ""
    written = sitk.GetArrayFromImage(images[0])
    np.testing.assert_array_equal(written, displacement_volume(result.reconstruction, result.trajectory))
    plain = run(Sweep(random, 0.3), replace(settings, uncertainty_volume=False)).write(tmp_path / "out")
    assert "uncertainty.nrrd" not in plain.files
    assert not (tmp_path / "out" / "uncertainty.nrrd").exists()


def test_a_run_that_cannot_say_it_notes_why(tmp_path):
    sweep = replace(
        sweep_of(5), tracked=Trajectory.from_parameters(np.tile([0, 0, 0.5, 0, 0, 0], (4, 1)), origin="measured")
    )
    settings = RunSettings(poses="tracked", pictures=False, evaluate=False, uncertainty_volume=True, repeats="keep")
    report = run(sweep, settings).write(tmp_path / "out")
    assert (
        "No uncertainty volume was written: How far the path is off is not known for all of its frames."
        in report.warnings
    )
    assert "uncertainty.nrrd" not in report.files
