"""The fingerprint of training data: the numbers are those of the sweeps, and what a network is not made for is said."""

from dataclasses import replace

import numpy as np
import pytest
from training_data import SPACING_MM, tracked_sweep

from DualTrackCore.network import ModelCard
from DualTrackCore.research.training.fingerprint import fingerprint, fingerprint_text, unlike
from DualTrackCore.trajectory import Trajectory


@pytest.fixture(scope="module")
def sweeps():
    return [tracked_sweep(0, 20), tracked_sweep(1, 30), tracked_sweep(2, 30, (60, 80))]


def test_it_holds_sizes_spacing_and_motions_of_all_sweeps(sweeps):
    found = fingerprint(sweeps)
    motions = np.concatenate([sweep.tracked.parameters for sweep in sweeps])
    assert (found["sweeps"], found["frames"], found["frames_per_sweep"]) == (3, 80, [20, 30, 30])
    assert list(found["frame_sizes"].items()) == [("72 x 80", 2), ("60 x 80", 1)]
    assert found["spacing_mm"] == [[SPACING_MM[0]] * 3, [SPACING_MM[1]] * 3]
    assert found["frame_rate_hz"] is None
    assert list(found["motion_mean"].values()) == pytest.approx(motions.mean(axis=0), rel=1e-3)
    assert list(found["motion_deviation"].values()) == pytest.approx(motions.std(axis=0), rel=1e-3)
    assert found["step_mm"][1] == pytest.approx(np.median(np.linalg.norm(motions[:, :3], axis=1)), rel=1e-3)
    assert found["path_mm"][2] == pytest.approx(max(s.tracked.path_length_mm for s in sweeps), rel=1e-3)
    assert ModelCard.from_json(ModelCard(training_fingerprint=found).to_json(), "test").training_fingerprint == found
    assert fingerprint_text(found).startswith("Data: 3 sweeps of 30 frames, 72 x 80 pixels of 0.5 x 0.4 mm, steps of ")


def test_frames_without_poses_count_for_no_motion(sweeps):
    poses, valid = sweeps[0].tracked.poses, np.arange(20) < 5
    half = replace(sweeps[0], tracked=Trajectory(poses, valid, origin="measured"))
    whole = np.std(sweeps[0].tracked.parameters[:4], axis=0)
    assert list(fingerprint([half])["motion_deviation"].values()) == pytest.approx(whole, rel=1e-3)
    none = fingerprint([replace(sweeps[0], tracked=Trajectory(poses, np.arange(20) < 1, origin="measured"))])
    assert none["motion_mean"] is none["step_mm"] is None
    assert "no motion is known" in fingerprint_text(none)


def test_pixels_and_lengths_that_a_network_is_not_made_for_are_said(sweeps):
    found = fingerprint(sweeps)
    assert unlike(found, ModelCard(spacing_mm=SPACING_MM), 30) == []
    wide, high, long = unlike(found, ModelCard(spacing_mm=(0.2, 0.1)), 29)
    assert "0.5 mm wide, those of the network 0.2 mm" in wide
    assert "0.4 mm high, those of the network 0.1 mm" in high
    assert "The longest sweep has 30 frames and the network takes 29" in long
