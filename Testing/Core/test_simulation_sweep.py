"""Simulated sweeps as objects: paths, determinism, lazy frames, memory, fans, and the command."""

import pickle
import tracemalloc

import numpy as np
import pytest

from DualTrackCore.cli import main
from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.io import load_sweep
from DualTrackCore.research.simulation import FAMILIES, Probe, probe_trajectory, rendered, simulated_sweep

#: Sweeps of these tests share one speckle, which takes a second to make.
SHARED = {"speckle_seed": 3, "frame_size": (40, 56), "spacing_mm": 0.4}


@pytest.fixture(scope="module")
def steps():
    """Relative motions of each family, [n, 6] mm and degrees."""
    return {
        family: np.concatenate([probe_trajectory(family, 400, seed).parameters for seed in range(10)])
        for family in FAMILIES
    }


def test_steps_spread_as_in_the_public_data(steps):
    spread = np.concatenate(list(steps.values())).std(axis=0)
    assert spread == pytest.approx([0.280, 0.053, 0.254, 0.058, 0.043, 0.059], rel=0.25)


@pytest.mark.parametrize("family", FAMILIES[:12])
def test_a_family_moves_along_its_axis_in_its_direction(steps, family):
    mean = steps[family].mean(axis=0)
    axis, other = (2, 0) if family.startswith("Per") else (0, 2)
    assert np.sign(mean[axis]) == (1 if family.endswith("DtP") else -1)
    assert 0.15 < abs(mean[axis]) < 0.5
    assert abs(mean[other]) < 0.3 * abs(mean[axis])


@pytest.mark.parametrize(("family", "column"), [("rotation", 4), ("tilt", 3)])
def test_turning_families_turn(family, column):
    for seed in range(5):
        angle = np.cumsum(probe_trajectory(family, 400, seed).parameters[:, column])
        assert np.ptp(angle) > 10


def test_curved_paths_bend_once_or_twice():
    def turns(family, seed):
        centres = probe_trajectory(family, 400, seed).centres_mm[::20, [0, 2]]
        steps = np.diff(centres, axis=0)
        return np.unwrap(np.arctan2(steps[:, 0], steps[:, 1]))

    for seed in range(5):
        straight, bow, wave = (turns(f"Per_{shape}_DtP", seed) for shape in "LCS")
        assert np.ptp(bow) > 0.5 > abs(straight[-1] - straight[0])
        assert abs(bow[-1] - bow[0]) > 0.5
        assert np.ptp(wave) > 0.5


def test_tremor_is_faster_than_the_path_and_the_hand_sometimes_rests():
    sweeps = [probe_trajectory("Per_L_DtP", 600, seed).parameters for seed in range(12)]
    elevational = np.concatenate([parameters[:, 2] for parameters in sweeps])
    assert (np.abs(elevational) < 0.1).mean() > 0.01
    side = sweeps[0][:, 1]
    assert np.corrcoef(side[1:], side[:-1])[0, 1] < 0.5


def test_a_hand_shakes_wanders_and_slips_as_much_as_it_is_told_to():
    def centres(**changes: float) -> np.ndarray:
        return probe_trajectory("Per_L_DtP", 400, 7, face_to_centre_mm=0, **changes).centres_mm

    usual = centres()
    np.testing.assert_array_equal(usual, probe_trajectory("Per_L_DtP", 400, 7, face_to_centre_mm=0).centres_mm)
    still, shaking = (np.diff(centres(tremor=factor)[:, 0], n=2).std() for factor in (0.0, 6.0))
    assert still < 0.02 < 0.3 < shaking
    steady, wandering = (centres(tremor=0.0, wander=factor)[:, 1] for factor in (0.0, 4.0))
    assert np.ptp(wandering - steady) > 3
    assert np.abs(np.diff(wandering - steady)).max() < 0.2
    slips = centres(tremor=0.0, jerks_hz=0.2) - centres(tremor=0.0)
    sudden = np.abs(np.diff(slips, axis=0)).max(axis=1) > 0.05
    assert 2 <= sudden.sum() <= 40
    assert np.abs(slips[-1]).max() > 0.5  # it stays where it slipped to


def test_equal_seeds_give_equal_sweeps_and_others_differ():
    first, again, other = (simulated_sweep(seed, frames=3, **SHARED) for seed in (4, 4, 5))
    assert np.array_equal(first.frames[:], again.frames[:])
    assert np.array_equal(first.tracked.poses, again.tracked.poses)
    assert not np.array_equal(first.frames[:], other.frames[:])


def test_frames_do_not_depend_on_the_slicing_or_the_process():
    sweep = simulated_sweep(6, frames=9, **SHARED)
    whole = np.asarray(sweep.frames)
    assert np.array_equal(np.concatenate([sweep.frames[:2], sweep.frames[2:7], sweep.frames[7:]]), whole)
    assert np.array_equal(sweep.frames[::-2], whole[::-2])
    assert np.array_equal(sweep.frames[-1], whole[-1])
    sent = pickle.dumps(sweep.frames)
    assert len(sent) < 10_000
    assert np.array_equal(pickle.loads(sent)[3:5], whole[3:5])


def test_reading_a_long_sweep_in_windows_needs_little_memory():
    sweep = simulated_sweep(7, frames=600, **SHARED)
    sweep.window(0, 1)
    tracemalloc.start()
    for start in range(0, 600, 200):
        sweep.window(start, start + 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    fields = sweep.frames.phantom.fields
    assert fields.nbytes < 150e6


def test_tracking_is_exact_and_times_follow_the_frame_rate():
    sweep = simulated_sweep(8, frames=20, family="Par_C_PtD", **SHARED)
    assert np.array_equal(sweep.tracked.poses, sweep.frames.poses)
    assert np.array_equal(sweep.tracked.poses[0], np.eye(4))
    assert sweep.frame_rate_hz == pytest.approx(20.0)
    assert sweep.provenance["family"] == "Par_C_PtD"


def test_rendering_reports_progress_and_can_be_cancelled():
    sweep = simulated_sweep(9, frames=20, **SHARED)
    seen = []
    kept = rendered(sweep, lambda progress: seen.append(progress.done))
    assert seen == [0, 16, 20]
    assert isinstance(kept.frames, np.ndarray)
    with pytest.raises(Cancelled):
        rendered(sweep, cancelled=lambda: True)


def test_a_curvilinear_probe_shows_a_sector_with_beams_at_equal_angles():
    probe = Probe(geometry="curvilinear", frequency_mhz=3.5, radius_mm=50, field_angle_deg=60, noise_db=-60, top_db=5)
    sweep = simulated_sweep(1, frames=1, probe=probe, frame_size=(120, 160), spacing_mm=0.8, speckle_seed=3)
    frame = sweep.frames[0]
    v, u = np.mgrid[:120, :160]
    x, y = (u - 79.5) * 0.8, v * 0.8 + 50
    radius, angle = np.hypot(x, y), np.rad2deg(np.arctan2(x, y))
    sector = (radius >= 50) & (radius <= 50 + 119 * 0.8) & (np.abs(angle) <= 30)
    assert not frame[~sector].any()
    assert (frame[sector & (radius < 70)] > 0).mean() > 0.9
    beams = sweep.frames._renderer.beams
    assert beams.spacing_mm == pytest.approx((50 + beams.depth_mm) * np.deg2rad(60) / (2 * 192 - 1))
    step = np.hypot(np.diff(beams.x_mm, axis=1), np.diff(beams.y_mm, axis=1)).mean(axis=1)
    assert step == pytest.approx(beams.spacing_mm, rel=1e-3)


def test_a_linear_probe_narrower_than_the_frame_leaves_black_margins():
    probe = Probe(elements=64, pitch_mm=0.3)
    frame = simulated_sweep(1, frames=1, probe=probe, **SHARED).frames[0]
    assert not frame[:, :3].any()
    assert not frame[:, -3:].any()
    assert frame[:, 28].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "zigzag"}, "'zigzag' is unknown; choose one of"),
        ({"frames": 0}, "0 frames"),
        ({"seed": -1}, "seed is -1"),
        ({"spacing_mm": 0}, "out of range"),
        ({"frame_size": (2, 2)}, "between 8 and 4096"),
    ],
)
def test_bad_options_are_refused_with_a_sentence(options, message):
    with pytest.raises(InputError, match=message):
        simulated_sweep(**{"seed": 0, "frames": 2, **SHARED, **options})


def test_the_command_writes_frames_with_their_true_poses(tmp_path, capsys):
    path = tmp_path / "sweep.igs.mha"
    command = ["simulate", "-o", str(path), "--seed", "3", "--frames", "5", "--family", "Per_S_PtD", "--quiet"]
    assert main([*command, "--size", "64,48", "--spacing", "0.4", "--frequency", "6"]) == 0
    assert "5 simulated frames" in capsys.readouterr().out
    sweep = load_sweep(path)
    assert sweep.frame_size == (48, 64)
    assert sweep.spacing_mm == pytest.approx((0.4, 0.4))
    truth = probe_trajectory("Per_S_PtD", 5, 3, face_to_centre_mm=47 * 0.4 / 2)
    assert sweep.tracked.poses == pytest.approx(truth.poses, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--family", "zigzag"], "zigzag"),
        (["--frames", "0"], "0 frames"),
        (["--frequency", "99"], "from 1.0 to 20.0"),
        (["--seed", "-3"], "seed is -3"),
        (["--size", "4,4"], "between 8 and 4096"),
        (["--spacing", "a"], "numbers"),
    ],
)
def test_the_command_refuses_bad_options_and_writes_nothing(options, message, tmp_path, capsys):
    path = tmp_path / "sweep.igs.mha"
    try:
        code = main(["simulate", "-o", str(path), "--quiet", *options])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not path.exists()
