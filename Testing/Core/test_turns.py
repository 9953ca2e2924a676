"""A probe that turns back within its sweep is noticed by its pictures, and one that goes on is left alone."""

from dataclasses import replace

import numpy as np
import pytest
from oracle import noise_sweep, tiny_model
from scipy.ndimage import gaussian_filter, uniform_filter1d
from shared_files import shared_path

from DualTrackCore.io import load_sweep
from DualTrackCore.network import save_model
from DualTrackCore.repeats import _running_mean, find_turns, turn_warnings
from DualTrackCore.research.simulation import simulated_sweep
from DualTrackCore.research.simulation.motion import FAMILIES
from DualTrackCore.run import RunSettings, run
from DualTrackCore.sample import sample_sweep
from DualTrackCore.sweep import Sweep

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")

#: Speckle in space, [z, y, x], whose grains are three pixels and four steps of the probe wide.
SPECKLE = gaussian_filter(np.random.default_rng(0).normal(size=(240, 48, 64)), (2.0, 0.8, 1.2), mode="wrap")
SPECKLE = np.clip(128 + 50 * SPECKLE / SPECKLE.std(), 0, 255)


def pictures(places, seed=1, noise=6.0) -> Sweep:
    """What a probe sees at places along z, between the planes and with noise of its own."""
    places = np.asarray(places, float)
    low = np.floor(places).astype(int)
    share = (places - low)[:, None, None]
    seen = SPECKLE[low] * (1 - share) + SPECKLE[low + 1] * share
    seen += np.random.default_rng(seed).normal(0, noise, seen.shape)
    return Sweep(np.clip(seen, 0, 255).astype(np.uint8), 0.5)


def there_and_back(turn: int, frames: int, pace: float = 1.0) -> np.ndarray:
    """Places of a probe that goes a step a frame, and from a frame on comes back."""
    steps = np.arange(frames)
    return np.where(steps <= turn, steps, turn - (steps - turn) * pace) + turn * max(pace - 1, 0) + 40


@pytest.mark.parametrize(("turn", "frames", "pace"), [(30, 70, 1.0), (30, 70, 0.7), (40, 70, 1.4), (12, 60, 1.0)])
def test_a_turn_is_found_at_its_frame_however_fast_the_probe_comes_back(turn, frames, pace):
    (found,) = find_turns(pictures(there_and_back(turn, frames, pace)))
    assert abs(found - turn) <= 2


def test_several_turns_are_found_also_across_blocks_of_frames():
    legs = [np.arange(60), 60 - np.arange(1, 51), 10 + np.arange(1, 101), 110 - np.arange(1, 91), 20 + np.arange(1, 61)]
    found = find_turns(pictures(20 + np.concatenate(legs)))
    np.testing.assert_allclose(found, [59, 109, 209, 299], atol=3)


@pytest.mark.parametrize(
    "places",
    [
        np.arange(200),
        200 - np.arange(180) * 0.5,
        np.arange(60) * 3,  # neighbours hardly alike
        np.r_[np.arange(50), np.full(40, 50), 50 + np.arange(50)],  # a pause
        np.full(60, 20),  # at rest
        20 + np.arange(100) + 0.4 * np.random.default_rng(2).normal(size=100),  # tremor
        [20, 21],
    ],
    ids=["on", "slowly down", "far steps", "pause", "rest", "tremor", "two frames"],
)
def test_a_probe_that_goes_on_or_rests_has_not_turned(places):
    assert find_turns(pictures(places)) == []


def test_pictures_that_jump_say_nothing():
    frames = pictures(30 + np.arange(80) * 0.3).frames.copy()
    frames[30] = 0
    frames[50:54, 10:40, 10:50] = 255
    assert find_turns(Sweep(frames, 0.5)) == []
    assert find_turns(noise_sweep(80)) == []
    assert find_turns(Sweep(np.zeros((60, 48, 64), np.uint8), 0.5)) == []


def test_layers_that_rise_and_sink_while_the_probe_goes_on_are_no_turn():
    depth = np.arange(48)[:, None] + 6 * np.sin(np.linspace(0, 3 * np.pi, 90))[:, None, None]
    layers = 60 * np.sin(depth) * np.ones(64)
    going = pictures(20 + np.arange(90)).frames.astype(float)
    assert find_turns(Sweep(np.clip(going + layers, 0, 255).astype(np.uint8), 0.5)) == []


def test_the_sample_goes_on():
    assert find_turns(sample_sweep()) == []


@pytest.mark.parametrize(
    ("name", "turns"),
    [
        ("real/ultrabones_leg_0138.h5", [18]),  # aside and back by 5 mm, and on
        ("real/ultrabones_leg_0221.h5", []),
        ("seq/SpinePhantomFreehand.igs.mha", []),
        ("seq/NwirePhantomFreehand.igs.mha", []),  # wires in water show no speckle, so nothing is said
        ("seq/fCal_Test_Validation_3NWires_fCal2.0.igs.mha", []),
    ],
)
def test_recorded_sweeps_turn_where_the_tracker_says_so_and_nowhere_else(name, turns):
    found = find_turns(load_sweep(shared_path(f"data/{name}")))
    assert len(found) == len(turns)
    np.testing.assert_allclose(found, turns, atol=2)


def test_a_run_there_and_back_is_warned_about_by_its_frame_and_its_path_stays_as_found(tmp_path):
    sweep, model = pictures(there_and_back(30, 70)), tiny_model()
    weights = str(save_model(model.network, model.card, tmp_path / "tiny.safetensors"))
    doubled = sweep.chosen(np.r_[:10, 9, 9, 10:70])
    found = run(doubled, RunSettings(model=weights, first_frame=2, reconstruct=False))
    (said,) = [sentence for sentence in found.warnings if "run back" in sentence]
    number = int(said.split("at frame ")[1].split(":")[0])
    assert abs(number - 32) <= 2
    one_way = run(replace(sweep.slice(2, 70)), RunSettings(model=weights, reconstruct=False)).trajectory
    kept = np.r_[:8, 10:70]
    np.testing.assert_allclose(found.trajectory.poses[kept], one_way.poses, atol=1e-9)
    assert not any(
        "run back" in sentence
        for sentence in run(pictures(20 + np.arange(70)), RunSettings(model=weights, reconstruct=False)).warnings
    )


def test_many_turns_are_named_in_one_sentence():
    (said,) = turn_warnings([5, 20, 40, 60, 80, 100, 120], first_frame=10)
    assert "at frame 15, 30, 50, 70, 90 and 2 more:" in said
    assert turn_warnings([]) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_simulated_sweep_that_goes_on_has_no_turn(family):
    assert find_turns(simulated_sweep(400, frames=48, family=family, frame_size=(64, 80), spacing_mm=0.45)) == []


@pytest.mark.parametrize("shape", [(5, 48, 64), (3, 5, 9), (2, 9, 3)])
def test_running_means_are_those_of_scipy(shape):
    values = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    for axis in (1, 2):
        np.testing.assert_array_equal(_running_mean(values, 9, axis), uniform_filter1d(values, 9, axis=axis))
