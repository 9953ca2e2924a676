"""The weights that ship do what the documentation says of them, on the sample sweep that they never saw."""

from dataclasses import replace

import numpy as np
import pytest

from DualTrackCore import estimate_trajectory, evaluate, load_model
from DualTrackCore.research.heads import estimate_with_head
from DualTrackCore.research.training import load_recipe
from DualTrackCore.research.training.initial import recipe_card
from DualTrackCore.sample import sample_sweep
from DualTrackCore.trajectory import Trajectory, invert_rigid


@pytest.fixture(scope="module")
def model():
    return load_model("mini")


@pytest.fixture(scope="module")
def sweep():
    sample = sample_sweep()
    return replace(sample, frames=np.array(sample.window(0, len(sample))))


def backwards(sweep):
    poses = sweep.tracked.poses[::-1]
    tracked = Trajectory(invert_rigid(poses[0]) @ poses, origin=sweep.tracked.origin)
    return replace(sweep, frames=sweep.frames[::-1], tracked=tracked)


def test_errors_on_the_sample_are_a_fraction_of_those_without_motion(model, sweep):
    evaluation = evaluate(estimate_trajectory(sweep, model), sweep)
    none = evaluation.baselines["identity"]
    assert evaluation.metrics["gpe_mm"] < none["gpe_mm"] / 3
    assert evaluation.metrics["lpe_mm"] < none["lpe_mm"] / 2
    assert evaluation.metrics["correlation_tz"] > 0.6


def test_the_direction_of_travel_is_found_both_ways(model, sweep):
    for way in (sweep, backwards(sweep)):
        estimated, true = estimate_trajectory(way, model).poses[-1, 2, 3], way.tracked.poses[-1, 2, 3]
        assert abs(true) > 30
        assert 0.6 < estimated / true < 1.4


def test_the_card_says_what_it_was_trained_on_and_what_error_to_expect(model):
    assert model.card.simulated_only
    assert "Simulated sweeps only" in model.card.training_data
    assert "GPE" in model.card.expected_error
    assert "held-out simulated" in model.card.expected_error


def test_the_card_is_that_of_the_recipe_but_for_what_was_measured(model):
    unknown = {"expected_error": "unknown", "bf16_error": None, "fp16_error": None, "trained_ranges": None}
    unknown |= {"direction_sure_logit": None, "input_limits": None}
    unknown |= {f"step_error_{what}": None for what in ("correlation", "freedom", "powers", "growth")}
    unmeasured = replace(model.card, architecture={}, **unknown)
    assert unmeasured == replace(recipe_card(load_recipe("mini/heads")), architecture={})


def test_both_encoders_take_part(model, sweep):
    network = model.network

    def elevational_mm() -> np.ndarray:
        return np.abs(estimate_with_head(sweep, model, "fusion").parameters[:, 2])

    whole, changed = elevational_mm(), []
    for part in (network.global_encoder.proj, network.local_encoder[1]):
        kept = part.weight.detach().clone()
        try:
            part.weight.data.zero_()
            changed.append(np.abs(elevational_mm() - whole).mean())
        finally:
            part.weight.data.copy_(kept)
    assert changed[0] > 0.002  # anatomy says little of distances, and tells the direction
    assert changed[1] > 0.05  # of a mean step of about .3 mm
