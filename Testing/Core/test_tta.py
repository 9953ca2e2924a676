"""Test-time augmentation: the network runs on the sweep mirrored and backwards as well; the mean counts."""

import json
from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pytest
from all_knowing import FRAMES, SPACING, all_knowing, numbered_sweep, random_poses
from oracle import noise_sweep, tiny_model

import DualTrackCore.tracking.engine as engine
from DualTrackCore.cli import main
from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.io import read_trajectory_csv, save_sweep
from DualTrackCore.network import load_model
from DualTrackCore.network.model import save_model
from DualTrackCore.progress import Stage
from DualTrackCore.research.comparison.methods import load_networks
from DualTrackCore.research.heads import estimate_with_head
from DualTrackCore.run import run
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.tracking import estimate_trajectory
from DualTrackCore.tracking.test_time_augmentation import AUGMENTATION_COUNTS, flipped_sweep, reversed_sweep
from DualTrackCore.trajectory import Trajectory

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")


@pytest.fixture(scope="module")
def model():
    plain = tiny_model()
    return replace(plain, card=replace(plain.card, spacing_mm=SPACING))


@pytest.mark.parametrize("runs", AUGMENTATION_COUNTS)
def test_a_network_that_is_right_about_every_view_is_right_about_their_mean(model, monkeypatch, runs):
    poses = random_poses()
    monkeypatch.setattr(engine, "run_network", all_knowing(poses))
    found = estimate_trajectory(numbered_sweep(), model, test_time_augmentation=runs)
    np.testing.assert_allclose(found.poses, poses, atol=1e-9)


@pytest.mark.parametrize(("runs", "left"), [(1, 0.8), (2, 0.6), (4, 0.1)])
def test_the_errors_of_the_views_are_averaged(model, monkeypatch, runs, left):
    """A step that a view of the sweep backwards finds too long along z is too long against z in the sweep."""
    poses = Trajectory.from_parameters(np.tile([0.1, 0, 0.5, 0, 0, 0], (FRAMES - 1, 1))).poses
    errors = {"own": 0.8, "flip": 0.4, "reverse": 0.6, "reverse+flip": 0.2}
    monkeypatch.setattr(engine, "run_network", all_knowing(poses, errors))
    found = estimate_trajectory(numbered_sweep(), model, test_time_augmentation=runs)
    np.testing.assert_allclose(found.parameters[:, 2], 0.5 + left, atol=1e-9)


def test_two_and_four_views_of_the_network_are_the_means_of_its_runs():
    sweep, network = noise_sweep(20), tiny_model()
    turned = reversed_sweep(sweep)
    mirror = np.array([-1, 1, 1, 1, -1, -1])  # signs of tx, ty, tz, rx, ry, rz in a mirror

    def in_the_order_of_the_sweep(motions):
        return Trajectory(Trajectory.from_parameters(motions).poses[::-1]).parameters

    own, flipped, back, back_flipped = (
        estimate_trajectory(seen, network).parameters
        for seen in (sweep, flipped_sweep(sweep), turned, flipped_sweep(turned))
    )
    runs = [own, flipped * mirror, in_the_order_of_the_sweep(back), in_the_order_of_the_sweep(back_flipped * mirror)]
    for count in (2, 4):
        found = estimate_trajectory(sweep, network, test_time_augmentation=count, chunk_frames=7)
        np.testing.assert_allclose(found.parameters, np.mean(runs[:count], axis=0), atol=1e-5)


def test_a_sweep_whose_last_chunk_has_one_frame_is_turned_too():
    sweep, network = noise_sweep(9), tiny_model()
    one, other = (
        estimate_trajectory(sweep, network, test_time_augmentation=4, chunk_frames=chunk).parameters for chunk in (8, 9)
    )
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_views_are_named_in_the_provenance_and_in_the_stages():
    stages = []
    found = estimate_trajectory(
        noise_sweep(6),
        tiny_model(),
        test_time_augmentation=4,
        progress=lambda report: stages.append((report.stage, report.detail)),
    )
    names = ["as it is", "mirrored", "backwards", "backwards and mirrored"]
    assert found.provenance["test_time_augmentation"] == names
    assert list(dict.fromkeys(stages))[0::2] == [(Stage.NETWORK, ""), *((Stage.NETWORK, name) for name in names[1:])]
    assert "test_time_augmentation" not in estimate_trajectory(noise_sweep(6), tiny_model()).provenance


def test_another_view_can_be_stopped():
    stages = []
    with pytest.raises(Cancelled):
        estimate_trajectory(
            noise_sweep(6),
            tiny_model(),
            test_time_augmentation=2,
            progress=lambda report: stages.append((report.stage, report.detail)),
            cancelled=lambda: (Stage.NETWORK, "mirrored") in stages,
        )


def test_settings_and_tracking_offer_the_same_numbers_of_views():
    assert get_args(get_type_hints(RunSettings)["test_time_augmentation"]) == AUGMENTATION_COUNTS


@pytest.mark.parametrize("runs", [0, 3, 8, True, 2.5])
def test_another_number_of_views_is_refused(runs):
    with pytest.raises(InputError, match="choose 1, 2, 4"):
        estimate_trajectory(noise_sweep(6), tiny_model(), test_time_augmentation=runs)


def test_an_encoder_alone_takes_one_view():
    with pytest.raises(InputError, match="'local' has no test-time augmentation"):
        estimate_with_head(noise_sweep(6), tiny_model(), "local", test_time_augmentation=2)


def test_command_line_job_and_comparison_give_what_python_gives(tmp_path, capsys):
    save_sweep(noise_sweep(8), tmp_path / "sweep.igs.mha")
    weights, tiny = tmp_path / "tiny.safetensors", tiny_model()
    save_model(tiny.network, tiny.card, weights)
    expected = estimate_trajectory(noise_sweep(8), load_model(weights), test_time_augmentation=4).poses
    words = ["run", tmp_path / "sweep.igs.mha", "--model", weights, "--tta", "4", "--voxel", "2", "--no-pictures"]
    assert main([str(word) for word in (*words, "-o", tmp_path / "out")]) == 0
    assert "mean of the sweep as it is, mirrored, backwards, backwards and mirrored" in capsys.readouterr().out
    np.testing.assert_allclose(read_trajectory_csv(tmp_path / "out" / "trajectory.csv").poses, expected, atol=1e-6)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(report["trajectory"]["source"]["test_time_augmentation"]) == 4
    settings = RunSettings(model=str(weights), test_time_augmentation=4, reconstruct=False)
    np.testing.assert_allclose(run(noise_sweep(8), settings).trajectory.poses, expected, atol=1e-6)
    method = load_networks([f"tta4:{weights}"])[f"tta4:{weights}"]
    np.testing.assert_allclose(method.estimate(noise_sweep(8)).poses, expected, atol=1e-6)
    assert method.name == "tta4:tiny"
