"""Sweeps as an acquisition decides them: sizes, provenance, and that effects that are off change no frame."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from DualTrackCore.errors import InputError
from DualTrackCore.research.simulation import Probe, acquired_sweep, probe_trajectory, simulated_sweep
from DualTrackCore.research.simulation.acquisition import Acquisition, Motion, View
from DualTrackCore.research.simulation.render import levels_of_codes

SHARED = {"speckle_seed": 3, "frame_size": (40, 56), "spacing_mm": 0.4}
CONVEX = Probe(
    geometry="curvilinear",
    frequency_mhz=3.5,
    radius_mm=50,
    field_angle_deg=60,
    noise_db=-60,
    top_db=5,
    elevational_factor=2,
)


def digest(frames) -> str:
    return hashlib.sha256(frames[:].tobytes()).hexdigest()[:16]


def test_frames_without_effects_are_those_of_the_first_simulator_bit_for_bit():
    """The digests were taken before tissue and contact had any effect."""
    linear = simulated_sweep(4, frames=3, **SHARED).frames
    assert digest(linear) == "1a0cf59affdbf9c7"
    assert (
        digest(simulated_sweep(1, frames=2, probe=CONVEX, **{**SHARED, "spacing_mm": 0.8}).frames) == "01b764746b676593"
    )
    fine = simulated_sweep(4, frames=3, **{**SHARED, "frame_size": (128, 160), "spacing_mm": 0.25}).frames
    assert digest(replace(fine, levels=True)) == "7da7203741f8e1e4"


def test_an_acquisition_decides_size_path_and_provenance():
    acquisition = Acquisition(probe=CONVEX, view=View(depth_mm=80, width_mm=100), motion=Motion("Par_C_PtD", 0.8))
    sweep = acquired_sweep(5, acquisition, 4, 0.8, speckle_seed=3)
    assert sweep.frames.shape == (4, 100, 125)
    assert sweep.frames.wide
    path = probe_trajectory("Par_C_PtD", 4, 5, face_to_centre_mm=99 * 0.8 / 2, step_mm=0.8, frame_rate_hz=20.0)
    assert np.array_equal(sweep.tracked.poses, path.poses)
    assert sweep.provenance["simulated"]
    assert (sweep.provenance["seed"], sweep.provenance["family"]) == (5, "Par_C_PtD")
    plain = json.loads(json.dumps(sweep.provenance["acquisition"]))
    assert plain["view"]["depth_mm"] == 80
    assert plain["probe"]["geometry"] == "curvilinear"


def test_levels_of_an_acquired_sweep_are_its_frames_before_the_grey_map():
    acquisition = Acquisition(view=View(depth_mm=24, width_mm=24))
    grey, codes = (acquired_sweep(5, acquisition, 2, 0.4, 3, levels=levels).frames[1] for levels in (False, True))
    mapped = acquisition.probe.grey(levels_of_codes(codes))
    assert np.abs(mapped.astype(int) - grey).max() <= 2


@pytest.mark.parametrize("spacing_mm", [0, None])
def test_an_acquired_sweep_without_pixel_size_is_refused(spacing_mm):
    with pytest.raises(InputError, match="spacing"):
        acquired_sweep(5, Acquisition(), 2, spacing_mm)
