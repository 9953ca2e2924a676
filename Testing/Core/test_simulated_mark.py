"""That a sweep is simulated is known after writing and reading, never guessed, and asked for by tracking."""

import warnings
from dataclasses import replace

import h5py
import numpy as np
import pytest
from oracle import noise_sweep, tiny_model

from DualTrackCore.cli import main
from DualTrackCore.errors import CheckpointError
from DualTrackCore.io import load_sweep, save_sweep
from DualTrackCore.network import Model, ModelCard
from DualTrackCore.research.simulation import simulated_sweep
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import TrackingWarning, estimate_trajectory

SUFFIXES = (".igs.mha", ".seq.nrrd", ".h5")
GUESS = "only ever seen simulated sweeps"


@pytest.fixture(scope="module")
def simulated():
    return simulated_sweep(3_000_001, frames=3, frame_size=(32, 40), spacing_mm=0.5, speckle_seed=9_100)


@pytest.fixture
def model():
    """A small model whose card says that it knows simulated sweeps only."""
    tiny = tiny_model()
    return Model(tiny.network, replace(tiny.card, name="toy", trained=True, simulated_only=True))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_simulated_sweep_is_known_as_one_after_reading(simulated, tmp_path, suffix):
    path = tmp_path / f"sweep{suffix}"
    save_sweep(simulated, path)
    assert load_sweep(path).is_simulated


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("other", SUFFIXES)
def test_converting_keeps_the_mark(simulated, tmp_path, suffix, other):
    save_sweep(simulated, tmp_path / f"first{suffix}")
    assert main(["convert", str(tmp_path / f"first{suffix}"), str(tmp_path / f"second{other}"), "--quiet"]) == 0
    assert load_sweep(tmp_path / f"second{other}").is_simulated


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_simulate_command_writes_the_mark(tmp_path, suffix):
    path = tmp_path / f"sweep{suffix}"
    assert main(["simulate", "-o", str(path), "--frames", "2", "--size", "16,16", "--spacing", "1"]) == 0
    assert load_sweep(path).is_simulated


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_recorded_sweep_is_never_taken_for_a_simulated_one(tmp_path, suffix):
    misleading = {"source": "simulation", "format": "simulated sweep", "simulated": "False"}
    sweep = Sweep(np.zeros((2, 16, 16), np.uint8), 0.5, provenance=misleading)
    assert not sweep.is_simulated
    path = tmp_path / f"simulation{suffix}"
    save_sweep(sweep, path)
    assert not load_sweep(path).is_simulated


@pytest.mark.parametrize("text", ["False", "true", "1", "", "no"])
def test_only_the_exact_word_in_a_sequence_file_counts(simulated, tmp_path, text):
    path = tmp_path / "sweep.mha"
    save_sweep(simulated, path)
    content = path.read_bytes()
    field = b"DualTrackSimulatedFrames = True"
    assert field in content
    path.write_bytes(content.replace(field, b"DualTrackSimulatedFrames = " + text.encode()))
    assert not load_sweep(path).is_simulated


@pytest.mark.parametrize("value", [1, 0, "True", False, np.array([True, True])])
def test_only_a_truth_value_in_an_hdf5_file_counts(simulated, tmp_path, value):
    path = tmp_path / "sweep.h5"
    save_sweep(simulated, path)
    with h5py.File(path, "r+") as file:
        file["images"].attrs["simulated"] = value
    assert not load_sweep(path).is_simulated


def test_a_part_of_a_simulated_sweep_is_simulated(simulated):
    assert simulated.slice(0, 2).is_simulated


def test_a_model_of_simulated_sweeps_warns_on_any_other_sweep(model):
    with pytest.warns(TrackingWarning, match=f"The model toy has {GUESS}.*dualtrack models fetch"):
        trajectory = estimate_trajectory(noise_sweep(4), model, device="cpu")
    assert sum(GUESS in text for text in trajectory.provenance["warnings"]) == 1
    assert trajectory.provenance["model_simulated_only"] is True


def test_it_does_not_warn_on_a_simulated_sweep(model):
    sweep = replace(noise_sweep(4), provenance={"simulated": True})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trajectory = estimate_trajectory(sweep, model, device="cpu")
    assert trajectory.provenance["warnings"] == []


def test_a_model_of_recorded_sweeps_does_not_warn_of_simulated_ones(model):
    recorded = Model(model.network, replace(model.card, simulated_only=False))
    assert estimate_trajectory(noise_sweep(4), recorded, device="cpu").provenance["warnings"] == []


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_a_card_says_plainly_whether_training_saw_simulated_sweeps_only(value):
    with pytest.raises(CheckpointError, match=r"simulated_only is .*; expected true or false"):
        ModelCard(simulated_only=value)


def test_a_card_keeps_the_mark_in_its_file(model):
    assert ModelCard.from_json(model.card.to_json(), "card").simulated_only is True
    assert ModelCard.from_json("{}", "card").simulated_only is False
