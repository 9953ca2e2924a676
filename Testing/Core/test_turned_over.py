"""A path that runs the other way: told before the run, or turned over after it."""

import json
from dataclasses import fields, replace
from typing import get_args, get_type_hints

import numpy as np
import pytest
from oracle import noise_sweep, tiny_model
from worker_processes import Driver

from DualTrackCore.cli import main
from DualTrackCore.errors import InputError
from DualTrackCore.io import read_trajectory_csv, save_sweep, write_trajectory_csv
from DualTrackCore.network import save_model
from DualTrackCore.path_error import Direction, turned_over
from DualTrackCore.reconstruction import plan_grid, reconstruct_volume
from DualTrackCore.research.simulation import rendered, simulated_sweep
from DualTrackCore.run import RunSettings, run
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")

MIRROR = np.diag([1.0, 1, -1, 1])


def model_file(folder, logit=None, sure=2.0):
    """Small weights without a direction head, or with one that says the same of every sweep."""
    model = tiny_model(direction=logit is not None)
    if logit is not None:
        model.network.direction.fc.weight.data.zero_()
        model.network.direction.fc.bias.data.fill_(logit)
    path = folder / f"tiny {logit}.safetensors"
    return str(save_model(model.network, replace(model.card, direction_sure_logit=sure), path))


def random_path(frames=20, seed=0, **options) -> Trajectory:
    motions = np.random.default_rng(seed).normal([0, 0, 0.5, 0, 0, 0], 0.2, (frames - 1, 6))
    return Trajectory.from_parameters(motions, **options)


@pytest.fixture(scope="module")
def tracked():
    """A simulated sweep, whose true poses are known."""
    return rendered(simulated_sweep(0, frames=16, frame_size=(60, 80), spacing_mm=0.4))


def test_a_path_turned_over_twice_is_the_first_one_bit_for_bit():
    said = {"model": "mini", "direction": "sure", "direction_mirrored": True, "direction_log_odds": 3.0}
    path = random_path(provenance=said, sigma=np.ones((19, 6)))
    once = turned_over(path)
    np.testing.assert_allclose(once.relative, MIRROR @ path.relative @ MIRROR, atol=1e-12)
    np.testing.assert_allclose(once.parameters[:, 2:5], -path.parameters[:, 2:5], atol=1e-9)
    np.testing.assert_array_equal(once.sigma, path.sigma)
    told = {"direction": "told by the user", "direction_mirrored": False, "direction_log_odds": -3.0}
    assert dict(once.provenance) == {**said, **told, "turned_over": "sure"}
    twice = turned_over(once)
    np.testing.assert_array_equal(twice.poses, path.poses)
    assert dict(twice.provenance) == said
    unknown = turned_over(turned_over(random_path(provenance={"frames": "kept"})))
    assert dict(unknown.provenance) == {"frames": "kept"}


def test_frames_without_a_pose_stay_without_one():
    path = random_path()
    poses, valid = path.poses.copy(), np.ones(20, bool)
    poses[7], valid[7] = np.nan, False
    once = turned_over(replace(path, poses=poses, valid=valid))
    np.testing.assert_array_equal(once.valid, valid)
    np.testing.assert_array_equal(once.poses[valid], turned_over(path).poses[valid])


@pytest.mark.parametrize("origin", ["measured", "simulated"])
def test_poses_that_are_known_cannot_be_turned_over(tmp_path, capsys, origin):
    with pytest.raises(InputError, match=rf"The poses are {origin}.* cannot be turned over"):
        turned_over(random_path(origin=origin))
    save_sweep(replace(noise_sweep(20), tracked=random_path(origin=origin)), tmp_path / "clip.igs.mha")
    words = ["reconstruct", tmp_path / "clip.igs.mha", "--direction", "other-way", "-o", tmp_path / "out"]
    assert main([str(word) for word in words]) == 2
    assert "only estimated ones can run the other way" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_settings_and_tracking_offer_the_same_directions():
    assert get_type_hints(RunSettings)["direction"] == Direction
    assert next(f for f in fields(RunSettings) if f.name == "direction").default == get_args(Direction)[0] == "auto"


@pytest.mark.parametrize("axes", ["frame0", "principal"])
def test_a_volume_turned_over_is_the_one_of_the_path_turned_over(tracked, axes):
    path = replace(random_path(16, provenance={"model": "mini"}))
    grid = plan_grid(tracked, path, spacing_mm=0.7, axes=axes)
    volume = reconstruct_volume(tracked, path, grid, hole_filling="none")
    once = volume.turned_over(turned_over(path))
    expected = reconstruct_volume(tracked, turned_over(path), once.grid, hole_filling="none")
    np.testing.assert_allclose(once.coverage, expected.coverage, atol=1e-3)
    assert (np.abs(once.volume.astype(int) - expected.volume) > 1).mean() < 1e-3
    assert np.count_nonzero(volume.volume != expected.volume) > 1000
    np.testing.assert_allclose(
        once.grid.frame0_from_voxel[:3, 3], (MIRROR @ grid.frame0_from_voxel)[:3] @ [0, 0, grid.size[2] - 1, 1]
    )
    back = once.turned_over(path)
    np.testing.assert_array_equal(back.volume, volume.volume)
    np.testing.assert_allclose(back.grid.mm_from_voxel, grid.mm_from_voxel, atol=1e-12)


def test_a_grid_in_the_reference_is_mirrored_at_the_first_frame(tracked):
    path = random_path(16)
    turned = np.eye(4)
    turned[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    turned[:3, 3] = 5, -7, 30
    path = replace(path, reference_from_frame0=turned @ turned_by(40))
    grid = plan_grid(tracked, path, spacing_mm=0.7, frame="reference")
    other = grid.turned_over()
    first = grid.frame0_from_voxel @ [3, 4, 5, 1]
    np.testing.assert_allclose(other.frame0_from_voxel @ [3, 4, grid.size[2] - 1 - 5, 1], MIRROR @ first, atol=1e-9)


def turned_by(degrees: float) -> np.ndarray:
    return Trajectory.from_parameters([[1.0, 2, 3, degrees, 10, 5]]).poses[1]


@pytest.mark.parametrize(
    ("logit", "said"), [(None, "as the weights say"), (5.0, "sure"), (-5.0, "sure"), (1.0, "unsure")]
)
def test_a_result_turned_over_is_that_of_a_run_the_other_way(tmp_path, tracked, logit, said):
    weights = model_file(tmp_path, logit)
    first = run(tracked, RunSettings(model=weights, voxel_mm=1.0))
    once = first.turned_over()
    told = run(tracked, RunSettings(**once.report.settings))
    np.testing.assert_array_equal(once.trajectory.poses, told.trajectory.poses)
    assert first.report.trajectory["direction"] == said
    assert once.report.trajectory["direction"] == told.report.trajectory["direction"] == "told by the user"
    assert once.report.settings["direction"] == ("as-found" if logit is not None and logit < 0 else "other-way")
    assert once.evaluation["metrics"] == told.evaluation["metrics"]
    assert once.evaluation["metrics"]["gpe_mm"] != first.evaluation["metrics"]["gpe_mm"]
    assert once.report.volume["size"] == first.report.volume["size"]
    unsure = [sentence for sentence in first.warnings if "unsure which way" in sentence]
    assert len(unsure) == (said == "unsure")
    assert once.warnings == [sentence for sentence in first.warnings if sentence not in unsure]
    twice = once.turned_over()
    assert set(twice.warnings) == set(first.warnings)
    one, other = (dict(result.report.as_dict(), created="") for result in (first, twice))
    one["warnings"] = other["warnings"] = None
    assert other == one
    np.testing.assert_array_equal(twice.volume, first.volume)
    assert once.write(tmp_path / "out").files == first.write(tmp_path / "first").files


def test_command_line_worker_and_python_run_the_same_way(tmp_path, capsys, tracked):
    weights, clip, out = model_file(tmp_path, 5.0), tmp_path / "clip.igs.mha", tmp_path / "out"
    save_sweep(tracked, clip)
    settings = RunSettings(model=weights, direction="other-way", reconstruct=False, pictures=False)
    expected = run(clip, settings).trajectory
    words = ["run", clip, "--model", weights, "--direction", "other-way", "--no-reconstruct", "--no-pictures"]
    assert main([str(word) for word in (*words, "-o", out)]) == 0
    assert "direction    told by the user" in capsys.readouterr().out
    np.testing.assert_allclose(read_trajectory_csv(out / "trajectory.csv").poses, expected.poses, atol=1e-6)
    report = json.loads((out / "report.json").read_text())
    assert report["trajectory"]["direction"] == "told by the user"
    assert report["trajectory"]["source"]["direction_log_odds"] == -5.0
    track = ["track", clip, "--model", weights, "--direction", "other-way", "-o", tmp_path / "path.csv"]
    assert main([str(word) for word in track]) == 0
    np.testing.assert_allclose(read_trajectory_csv(tmp_path / "path.csv").poses, expected.poses, atol=1e-6)
    with Driver() as worker:
        found = worker.run(tracked, settings).trajectory
    np.testing.assert_allclose(found.poses, expected.poses, atol=1e-6)
    assert found.provenance["direction"] == "told by the user"


def test_an_estimate_in_a_file_is_turned_over_without_the_network(tmp_path):
    path = random_path(20, provenance={"model": "mini"})
    save_sweep(noise_sweep(20), tmp_path / "clip.igs.mha")
    write_trajectory_csv(path, tmp_path / "path.csv")
    words = ["reconstruct", tmp_path / "clip.igs.mha", "--poses", tmp_path / "path.csv", "--direction", "other-way"]
    assert main([str(word) for word in (*words, "--voxel", "1", "--no-pictures", "-o", tmp_path / "out")]) == 0
    found = read_trajectory_csv(tmp_path / "out" / "trajectory.csv")
    np.testing.assert_allclose(found.poses, turned_over(path).poses, atol=1e-6)
    words = ["convert", tmp_path / "clip.igs.mha", tmp_path / "other.igs.mha", "--poses", tmp_path / "path.csv"]
    assert main([str(word) for word in (*words, "--direction", "other-way")]) == 0


def test_a_result_of_given_poses_is_turned_over_and_back():
    path = random_path(20, provenance={"model": "mini"})
    sweep = Sweep(noise_sweep(20).frames, 0.3, tracked=path)
    first = run(sweep, RunSettings(poses="tracked", voxel_mm=1.0))
    once = first.turned_over()
    assert first.report.trajectory["direction"] is None
    np.testing.assert_array_equal(once.trajectory.poses, turned_over(path).poses)
    assert once.report.settings["direction"] == "other-way"
    again = run(sweep, RunSettings(**once.report.settings))
    np.testing.assert_array_equal(again.trajectory.poses, once.trajectory.poses)
    assert once.turned_over().report.settings == first.report.settings
