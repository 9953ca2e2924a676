"""Speckle decorrelation on homogeneous simulated speckle, where the right answer is known."""

import numpy as np
import pytest

from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.progress import Reporter
from DualTrackCore.research.comparison import Decorrelation
from DualTrackCore.research.simulation import Phantom, Probe, SimulatedFrames
from DualTrackCore.research.speckle.decorrelation import DecorrelationCurves, cumulative_fit, fit_planes, profile
from DualTrackCore.research.speckle.patches import LAGS, PITCH_MM, PatchGrid, sweep_correlation
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

SIZE = (96, 128)
PROBE = Probe(elements=128, pitch_mm=0.25)


def speckle_sweep(motions, seed=0, spacing_mm=0.25, size=SIZE):
    """Homogeneous speckle under known motions [n, 6], frames rendered."""
    trajectory = Trajectory.from_parameters(motions, origin="simulated")
    phantom = Phantom(seed, speckle_seed=5, homogeneous=True)
    frames = SimulatedFrames(phantom, PROBE, trajectory.poses, size, (spacing_mm, spacing_mm))
    return Sweep(frames[:], spacing_mm, tracked=trajectory)


def steps(elevational_mm, count=24, wobble=0.0, seed=3):
    """Constant elevational steps, with random in-plane motion of `wobble` mm and half as many degrees."""
    motions = np.zeros((count, 6))
    motions[:, [0, 1, 5]] = np.random.default_rng(seed).normal(size=(count, 3)) * [wobble, wobble, wobble / 2]
    motions[:, 2] = elevational_mm
    return motions


@pytest.fixture(scope="module")
def method():
    """Calibrated on sweeps of other steps at other places of the speckle."""
    sweeps = [speckle_sweep(steps(step), seed) for seed, step in ((1, 0.1), (2, 0.18), (3, 0.35))]
    return Decorrelation.calibrated(sweeps)


@pytest.mark.parametrize("step", [0.15, 0.25, 0.4])
def test_a_constant_elevational_step_comes_out_within_15_percent(method, step):
    found = method.estimate(speckle_sweep(steps(step, wobble=0.1), seed=9)).parameters
    assert found[:, 2].mean() == pytest.approx(step, rel=0.15)
    assert found[:, 2].std() < 0.4 * step


def test_in_plane_motion_comes_out_within_a_tenth_of_a_pixel(method):
    motions = steps(0.1, wobble=0.3)
    found = method.estimate(speckle_sweep(motions, seed=9)).parameters
    error = found - motions
    assert np.sqrt((error[:, :2] ** 2).mean()) < 0.1 * PITCH_MM
    assert np.abs(error[:, 5]).max() < 0.1


def test_frames_of_another_spacing_give_the_same_millimetres(method):
    sweep = speckle_sweep(steps(0.2, wobble=0.1), seed=9, spacing_mm=0.2, size=(120, 160))
    error = method.estimate(sweep).parameters - sweep.tracked.parameters
    assert np.abs(error[:, :2]).max() < 0.05
    assert error[:, 2].mean() == pytest.approx(0, abs=0.05)


def test_the_direction_is_assumed_unless_it_comes_from_the_tracking(method):
    back = speckle_sweep(steps(-0.2), seed=9)
    assert method.estimate(back).parameters[:, 2].mean() > 0.15
    oracle = Decorrelation(method.curves, method.gain, "oracle").estimate(back).parameters
    assert oracle[:, 2].mean() < -0.15
    other = Decorrelation(method.curves, method.gain, -1).estimate(back).parameters
    np.testing.assert_array_equal(other, oracle)


def test_the_oracle_direction_shows_in_the_name_and_needs_tracking(method):
    oracle = Decorrelation(method.curves, method.gain, "oracle")
    assert oracle.name == "decorrelation (oracle direction)"
    assert oracle.needs_truth
    assert "direction" in oracle.uses
    assert method.uses == "images"
    untracked = Sweep(np.zeros((3, *SIZE), np.uint8), 0.25)
    with pytest.raises(InputError, match="oracle direction needs"):
        oracle.estimate(untracked)


def test_dark_frames_give_no_motion_instead_of_a_failure(method):
    trajectory = method.estimate(Sweep(np.zeros((6, *SIZE), np.uint8), 0.25))
    np.testing.assert_allclose(trajectory.parameters, 0, atol=1e-9)


def test_the_first_frames_may_move_by_many_pixels(method):
    motions = steps(0.0, count=6)
    motions[:, 0] = 1.1
    found = method.estimate(speckle_sweep(motions, seed=4)).parameters
    np.testing.assert_allclose(found[:, 0], 1.1, atol=0.05)


def test_what_cannot_be_used_is_refused_in_a_sentence(method):
    pixels = np.zeros((3, 40, 40), np.uint8)
    with pytest.raises(InputError, match="at least 2 x 2 patches"):
        method.estimate(Sweep(pixels, 0.25))
    with pytest.raises(InputError, match="at least two"):
        method.estimate(Sweep(np.zeros((1, *SIZE), np.uint8), 0.25))
    with pytest.raises(InputError, match="spacing"):
        method.estimate(Sweep(np.zeros((3, *SIZE), np.uint8)))
    with pytest.raises(InputError, match="no tracking"):
        Decorrelation.calibrated([Sweep(np.zeros((3, *SIZE), np.uint8), 0.25)])
    with pytest.raises(InputError, match="at least one"):
        Decorrelation.calibrated([])
    with pytest.raises(InputError, match="'left'"):
        Decorrelation(method.curves, method.gain, "left")
    tracked = Trajectory.from_parameters(steps(0.2, 3), origin="measured")
    dark = Sweep(np.zeros((4, *SIZE), np.uint8), 0.25, tracked=tracked)
    with pytest.raises(InputError, match="show no speckle"):
        Decorrelation.calibrated([dark])


def test_it_can_be_cancelled(method):
    with pytest.raises(Cancelled):
        method.estimate(Sweep(np.zeros((4, *SIZE), np.uint8), 0.25), cancelled=lambda: True)


def test_the_width_of_the_beam_is_read_off_the_correlation():
    motions = np.zeros((60, 6))
    motions[:, 2] = np.linspace(0.05, 0.4, 60)
    sweep = speckle_sweep(motions, seed=6)
    measured = sweep_correlation(sweep, Reporter())
    curves = DecorrelationCurves.fitted([(measured, sweep.tracked)])
    true = PROBE.elevational_sigma_mm(measured.grid.depth_mm)
    # The logarithm of grey values forgets somewhat faster than the intensity, for which the widths are stated.
    ratio = np.exp(curves.log_sigma) / true
    assert np.all((ratio > 0.6) & (ratio < 1.05))
    assert np.corrcoef(profile(measured), np.log(true))[0, 1] > 0.9


def test_a_plane_is_found_from_its_distances():
    grid = PatchGrid(SIZE)
    true = np.array([0.3, 0.004, -0.006])
    distance = true[0] + true[1] * grid.y_mm - true[2] * grid.x_mm
    weight = np.full((1, len(distance)), 1e6)
    weight[0, 0], distance[0] = 0, np.nan  # a patch without speckle is not read
    plane, normal = fit_planes(grid, distance[None], weight)
    np.testing.assert_allclose(plane[0], true, atol=1e-5)
    assert normal.shape == (1, 3, 3)


def test_steps_are_found_from_their_sums_over_several_frames():
    true = np.random.default_rng(0).normal(size=(30, 3))
    total = np.concatenate([np.zeros((1, 3)), true.cumsum(axis=0)])
    measured, weight = np.full((30, LAGS, 3), 7.0), np.zeros((30, LAGS, 3, 3))
    for lag in range(1, LAGS + 1):
        measured[: 31 - lag, lag - 1] = total[lag:] - total[:-lag]
        weight[: 31 - lag, lag - 1] = np.eye(3)
    weight[10, 0] = 0  # one step is known only as the difference of sums
    np.testing.assert_allclose(cumulative_fit(measured, weight), true, atol=1e-6)
