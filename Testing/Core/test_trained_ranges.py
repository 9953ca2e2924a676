"""A card that lists what its training sweeps were drawn from: warnings come from those ranges alone."""

from dataclasses import replace

import numpy as np
import pytest
from oracle import noise_sweep, tiny_model

from DualTrackCore.network.catalogue import ModelCard
from DualTrackCore.network.statistics import CROP_LIMIT, PLAIN, WHOLE_LIMIT, InputCheck
from DualTrackCore.tracking import LiveTracker, TrackingWarning, estimate_trajectory
from DualTrackCore.tracking.preprocessing import Preprocessor, scope_warnings, step_warnings

RANGES = {"view.depth_mm": [30.0, 160.0], "view.width_mm": [30.0, 110.0], "motion.step_mm": [0.05, 1.6]}


def model_with(**changes):
    model = tiny_model()
    return replace(model, card=replace(model.card, trained_ranges=RANGES, **changes))


def said(frames_mm, rate=20.0):
    """Warnings about a sweep of frames of so many mm (width, depth)."""
    model = model_with()
    spacing = frames_mm[0] / 80, frames_mm[1] / 64
    sweep = replace(noise_sweep(3), spacing_mm=spacing, frames=np.zeros((3, 64, 80), np.uint8))
    sweep = replace(sweep, timestamps_s=np.arange(3) / rate)
    return [text for text in scope_warnings(sweep, model, Preprocessor.for_model(model, sweep)) if " mm " in text]


def test_any_view_within_the_ranges_is_fine_whatever_the_frame_size_and_rate_of_the_card():
    for view in ((30, 30), (110, 160), (40, 100)):
        assert said(view) == []
    assert not any("frames/s" in text for text in said((40, 40), rate=3.0))


def test_a_view_far_outside_is_named_with_the_range():
    assert said((200, 100)) == ["The frames are 200 mm wide; the model was trained on 30 to 110 mm."]
    (deep,) = said((60, 300))
    assert "300 mm deep" in deep
    assert "30 to 160 mm" in deep
    assert len(said((12, 12))) == 2


def test_steps_outside_of_the_training_are_named_with_what_to_do():
    card = model_with().card

    def steps(mm):
        return step_warnings(card, np.tile([0, 0, mm, 0, 0, 0], (5, 1)))

    assert steps(0.05) == steps(0.4) == steps(1.6) == []
    assert "move the probe more slowly" in steps(1.7)[0]
    assert "move the probe faster" in steps(0.01)[0]
    assert step_warnings(tiny_model().card, np.full((5, 6), 9.0)) == []  # a card without ranges says nothing of steps


def test_a_run_and_a_live_run_say_so():
    ranges = {**RANGES, "motion.step_mm": [500.0, 900.0]}
    model = replace(tiny_model(), card=replace(tiny_model().card, trained_ranges=ranges))
    sweep = noise_sweep(12)
    with pytest.warns(TrackingWarning, match="from frame to frame on average"):
        found = estimate_trajectory(sweep, model, device="cpu")
    assert any("move the probe faster" in text for text in found.provenance["warnings"])
    with LiveTracker(model, sweep.frame_size, sweep.spacing_mm, device="cpu") as tracker:
        tracker.push(sweep.window(0, 12))
        with pytest.warns(TrackingWarning, match="from frame to frame on average"):
            tracker.finish()


def test_a_card_may_state_how_far_clips_of_its_training_lie_from_it():
    far = InputCheck(PLAIN, "card", {PLAIN: 1.5}, 0.9)
    assert "0.90 for local crops (limit 0.5)" in far.warnings()[0]
    assert replace(far, limits=(2.0, 1.0)).warnings() == []
    assert "1.50 for whole frames (limit 1)" in replace(far, limits=(1.0, 1.0)).warnings()[0]
    assert far.limits == (WHOLE_LIMIT, CROP_LIMIT)


def test_cards_without_ranges_are_written_as_before():
    text = ModelCard(name="a").to_json()
    assert "trained_ranges" not in text
    assert "input_limits" not in text
    card = model_with(input_limits=(2.0, 1.2)).card
    assert ModelCard.from_json(card.to_json(), "x") == card
