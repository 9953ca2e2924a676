"""How often the bands of lengths hold the true ones: of the model that ships, and after a correction."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from test_measurement import measurements
from test_uncertainty import curved

from DualTrackCore import estimate_trajectory, load_model
from DualTrackCore.corrections import KnownLength, correct
from DualTrackCore.measurement import Measurements
from DualTrackCore.research.datasets.entries import simulated_dataset
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import STEP_ERROR_CORRELATION, Trajectory


def held(sweep, estimate, pairs, seed):
    """[pairs, 2] whether the true length between random pixels of random frames lies in its band of 68 and of 95 %."""
    rng, (height, width) = np.random.default_rng(seed), sweep.frame_size
    stated, true = Measurements(estimate, sweep), Measurements(sweep.require_truth(), sweep)
    found = []
    for _ in range(pairs):
        frames = rng.choice(np.flatnonzero(estimate.valid & sweep.truth.valid), 2, replace=False)
        pixels = rng.uniform(0, [width - 1, height - 1], (2, 2))
        length = true.distance(*true.planes.points_of(frames, pixels), frames=frames).value
        measured = stated.distance(*stated.planes.points_of(frames, pixels), frames=frames)
        found.append([low <= length <= high for low, high in (measured.band_68, measured.band_95)])
    return np.array(found)


@pytest.mark.parametrize("aside_mm", [1e-12, -1e-12])
def test_rounding_does_not_decide_what_is_drawn(aside_mm):
    exact, aside = (measurements().distance([0, 0, 5 + off], [3, 1, 15 - off]) for off in (0, aside_mm))
    np.testing.assert_allclose([aside.band_68, aside.band_95], [exact.band_68, exact.band_95], atol=1e-9)


@pytest.mark.slow
def test_the_bands_of_the_model_that_ships_hold_about_the_share_of_lengths_that_they_say(tmp_path):
    """Clips differ: from 17 to 93 % of the lengths of one lie in their bands of 68 %, so few of them tell little."""
    model, shares = load_model("mini"), []
    for number, entry in enumerate(simulated_dataset("acquisitions", count=6, frames=112, folder=tmp_path)):
        sweep = entry.load()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimate = estimate_trajectory(sweep, model, device="cpu")
        shares.append(held(sweep, estimate, 40, number).mean(axis=0))
    held_68, held_95 = np.mean(shares, axis=0)
    assert 0.5 <= held_68 <= 0.85
    assert held_95 >= 0.9


@pytest.mark.slow
def test_bands_after_a_correction_by_a_known_length_are_narrower_and_hold_what_they_say():
    rng, (motions, sigma) = np.random.default_rng(0), curved(41)
    sweep, found, widths = Sweep(np.zeros((41, 80, 100), np.uint8), (0.2, 0.3)), [], []
    for seed in range(80):
        errors = 2 * sigma * np.sqrt(0.5) * (rng.normal(size=6) + rng.normal(size=(40, 6)))
        true = Trajectory.from_parameters(motions - errors, origin="simulated")
        said = {"model": "toy", STEP_ERROR_CORRELATION: [0.5] * 6}
        estimate = Trajectory.from_parameters(motions, said, sigma=2 * sigma)
        length = KnownLength(true.path_length_mm + 0.3 * rng.normal(), accuracy_mm=0.3)
        corrected = correct(estimate, [length])
        found.append(held(replace(sweep, tracked=true), corrected, 8, seed))
        ends = [Measurements(path, sweep).distance(*path.centres_mm[[5, 35]]).band_68 for path in (corrected, estimate)]
        widths.append([high - low for low, high in ends])
    held_68, held_95 = np.concatenate(found).mean(axis=0)
    assert 0.63 <= held_68 <= 0.77  # 80 paths are themselves sure to 5 %
    assert 0.91 <= held_95 <= 0.98
    assert np.mean(widths, axis=0)[0] < 0.5 * np.mean(widths, axis=0)[1]
