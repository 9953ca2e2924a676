"""The physics of simulated speckle: its statistics, how it decorrelates, how it moves, how it fades with depth."""

import itertools

import numpy as np
import pytest

from DualTrackCore.errors import InputError
from DualTrackCore.research.simulation import Phantom, Probe, Renderer
from DualTrackCore.research.simulation.simulator import SimulatedFrames
from DualTrackCore.research.simulation.speckle import WIDTHS, blend_for_width, field_correlation

SPACING = (0.2, 0.2)
#: Without noise, and with a range so wide that no echo is clipped.
LOUD = {"noise_db": -300.0, "dynamic_range_db": 120.0, "top_db": 30.0}


def renderer(phantom=None, size=(150, 200), spacing=SPACING, **probe) -> Renderer:
    return Renderer(phantom or Phantom(3, 3, homogeneous=True), Probe(**{**LOUD, **probe}), size, spacing)


def at(x=0.0, y=0.0, z=0.0) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return pose


def intensity(view: Renderer, pose: np.ndarray, rows: slice) -> np.ndarray:
    """Echo intensity before attenuation and compression."""
    return np.abs(view._speckle(pose)[rows]) ** 2


@pytest.mark.parametrize("depth_mm", [6.0, 18.0, 27.0])
def test_fully_developed_speckle_is_rayleigh_distributed(depth_mm):
    view = renderer()
    row = int(depth_mm / SPACING[1])
    amplitude = np.sqrt(np.concatenate([intensity(view, at(z=7.3 * k), slice(row, row + 6)) for k in range(60)]))
    assert amplitude.mean() / amplitude.std() == pytest.approx(1.913, rel=0.03)
    levels = np.array([0.5, 1.0, 1.5, 2.0])
    above = [(amplitude > level).mean() for level in levels]
    assert above == pytest.approx(np.exp(-(levels**2)), abs=0.02)
    assert (amplitude**2).mean() == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("frequency_mhz", [5.0, 7.6])
@pytest.mark.parametrize("depth_mm", [10.0, 18.0, 26.0])
def test_elevational_intensity_correlation_follows_the_closed_form(depth_mm, frequency_mhz):
    view = renderer(frequency_mhz=frequency_mhz)
    row = int(depth_mm / SPACING[1])
    rows = slice(row - 2, row + 3)
    sigma = Probe(frequency_mhz=frequency_mhz).elevational_sigma_mm(view.beams.depth_mm[rows]).mean()
    places = 4.1 * np.arange(60)
    first = np.array([intensity(view, at(z=z), rows) for z in places])
    for distance in (0.5, 1.0, 1.5):
        moved = np.array([intensity(view, at(z=z + distance * sigma), rows) for z in places])
        measured = np.corrcoef(first.ravel(), moved.ravel())[0, 1]
        assert measured == pytest.approx(np.exp(-(distance**2) / 2), abs=0.03)


@pytest.mark.parametrize(
    ("depth_mm", "octaves"), [(20.0, "two at once"), (28.0, "the second alone"), (55.0, "a third")]
)
def test_beams_wider_than_the_stored_speckle_keep_statistics_and_closed_form(depth_mm, octaves):
    """Their widths are 5.7, 10 and 25 times the narrowest; the widest stored one is 6.4 times."""
    probe = Probe(frequency_mhz=10.0, lens_focus_mm=10.0, lens_height_mm=4.0, lateral_widening=0.0)
    view = Renderer(Phantom(3, 3, homogeneous=True), probe, (150, 100), (0.5, 0.4), wide=True)
    row = int(depth_mm / 0.4)
    rows, sigma = slice(row - 1, row + 2), float(probe.elevational_sigma_mm(row * 0.4))
    places = 9.7 * np.arange(50)
    first = np.array([intensity(view, at(z=z), rows) for z in places])
    amplitude = np.sqrt(first)
    assert amplitude.mean() / amplitude.std() == pytest.approx(1.913, rel=0.04)
    assert first.mean() == pytest.approx(1.0, rel=0.1)
    for distance in (0.5, 1.0, 1.5):
        moved = np.array([intensity(view, at(z=z + distance * sigma), rows) for z in places])
        measured = np.corrcoef(first.ravel(), moved.ravel())[0, 1]
        assert measured == pytest.approx(np.exp(-(distance**2) / 2), abs=0.05), octaves


def test_speckle_of_a_fan_has_the_beams_widths_along_and_across_beams_at_its_middle_and_edges():
    fan = {"geometry": "curvilinear", "frequency_mhz": 5.0, "radius_mm": 60.0, "field_angle_deg": 70.0}
    probe = Probe(**fan, elements=256, lens_focus_mm=50, lens_height_mm=12, transmit_focus_mm=50, noise_db=-300.0)
    view = Renderer(Phantom(3, 3, homogeneous=True), probe, (600, 200), (0.5, 0.15))
    beams = view.beams
    frames = np.array([intensity(view, at(z=6.3 * k), slice(None)) for k in range(12)])

    def width(near: np.ndarray, far: np.ndarray, distance_mm: float) -> float:
        return distance_mm / np.sqrt(-2 * np.log(np.corrcoef(near.ravel(), far.ravel())[0, 1]))

    for row in (70, 330, 560):
        lateral = float(probe.lateral_sigma_mm(beams.depth_mm[row]))
        apart = max(1, round(lateral / beams.spacing_mm[row]))
        for start in (0, 180, 355):
            part = frames[:, row - 2 : row + 4, start : start + 150]
            moved = frames[:, row - 2 : row + 4, start + apart : start + apart + 150]
            assert width(part, moved, apart * beams.spacing_mm[row]) == pytest.approx(lateral, rel=0.2)
            assert width(part[:, :-1], part[:, 1:], 0.15) == pytest.approx(probe.axial_sigma_mm, rel=0.2)


def test_a_blend_has_unit_power_and_the_correlation_of_its_width():
    width = np.linspace(1, WIDTHS[-1], 50)
    level, narrow, wide = blend_for_width(width)
    a, b = WIDTHS[level], WIDTHS[level + 1]
    for distance in (0.0, 0.5, 1.0, 1.5, 2.0):
        d = distance * width
        field = narrow**2 * field_correlation(a, a, d) + wide**2 * field_correlation(b, b, d)
        field += 2 * narrow * wide * field_correlation(a, b, d)
        assert field**2 == pytest.approx(np.exp(-(distance**2) / 2), abs=0.01)


def test_the_beam_is_narrowest_at_the_lens_focus_as_published():
    sigmas = [float(Probe(frequency_mhz=f).elevational_sigma_mm(18.0)) for f in (5.0, 7.6, 10.0)]
    assert sigmas == pytest.approx([0.42, 0.27, 0.21], abs=0.01)
    width_mm = 2.3548 * float(Probe(frequency_mhz=7.6).elevational_sigma_mm(40.0))
    assert width_mm == pytest.approx(3.0, abs=0.2)


def test_lateral_correlation_has_the_width_of_the_beam():
    view = renderer(spacing=(0.1, 0.2))
    for depth_mm in (8.0, 20.0, 28.0):
        row = int(depth_mm / 0.2)
        frames = np.array([intensity(view, at(z=6.1 * k), slice(row, row + 1)) for k in range(80)])
        sigma = float(Probe().lateral_sigma_mm(depth_mm))
        shift = round(sigma / 0.1)
        measured = np.corrcoef(frames[..., shift:].ravel(), frames[..., :-shift].ravel())[0, 1]
        assert measured == pytest.approx(np.exp(-((shift * 0.1 / sigma) ** 2) / 2), abs=0.06)


@pytest.mark.parametrize("shift", [(3, 0), (0, 2), (-5, 4)])
def test_motion_in_the_plane_moves_the_image_by_that_many_pixels(shift):
    columns, rows = shift
    view = renderer(lens_height_mm=1.0, lateral_widening=0.0)
    before = view.frame(at(), 0)
    after = view.frame(at(columns * SPACING[0], rows * SPACING[1]), 1)
    spectra = [np.fft.fft2(frame.astype(float) - frame.mean()) for frame in (before, after)]
    cross = spectra[0] * np.conj(spectra[1])
    peak = np.fft.ifft2(cross / np.maximum(np.abs(cross), 1e-9)).real
    found = np.unravel_index(peak.argmax(), peak.shape)
    assert tuple((np.array(found) + 20) % peak.shape - 20) == (rows, columns)


def test_echoes_fade_with_depth_as_attenuation_says_and_compensation_undoes_it():
    def mean_db(**probe):
        frames = [renderer(**probe).frame(at(z=5.0 * k), k).astype(float) for k in range(8)]
        return np.mean(frames, axis=(0, 2)) * (120 / 255)

    faded = mean_db(tgc_db_cm_mhz=0.0, frequency_mhz=5.0)
    depth_cm = np.arange(150) * SPACING[1] / 10
    slope = np.polyfit(depth_cm, faded, 1)[0]
    assert slope == pytest.approx(-2 * 0.5 * 5.0, rel=0.05)
    flat = np.polyfit(depth_cm, mean_db(tgc_db_cm_mhz=0.5, frequency_mhz=5.0), 1)[0]
    assert abs(flat) < 0.3


def test_noise_is_amplified_with_depth_and_differs_between_frames():
    view = renderer(noise_db=-25.0, tgc_limit_db=60.0, top_db=60.0)
    first, second = view.frame(at(), 0).astype(float), view.frame(at(), 1).astype(float)
    change = np.abs(first - second).mean(axis=1)
    assert change[:20].mean() < change[-20:].mean()
    assert change[-20:].mean() > 3


@pytest.mark.parametrize("noise_db", [-30.0, -20.0])
def test_where_nothing_echoes_the_grey_level_is_that_of_the_noise(noise_db):
    """At 20 MHz the deepest rows get no echo; the mean of the logarithm of exponential noise is its level - 2.5 dB."""
    view = renderer(noise_db=noise_db, frequency_mhz=20.0, tgc_db_cm_mhz=0.0)
    deep = np.mean([view.frame(at(), k)[-10:] for k in range(8)]) * (120 / 255) - (120 - 30)
    assert deep == pytest.approx(noise_db - 2.5, abs=0.5)


def test_frames_of_a_probe_that_stands_still_differ_by_their_noise():
    frames = SimulatedFrames(
        Phantom(3, 3, homogeneous=True),
        Probe(noise_db=-20.0, frequency_mhz=10.0),
        np.stack([at()] * 3),
        (60, 60),
        SPACING,
    )
    assert all((one[-10:] != other[-10:]).mean() > 0.3 for one, other in itertools.combinations([*frames[0:3]], 2))
    np.testing.assert_array_equal(frames[1], frames[1:2][0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frequency_mhz": 0.0}, "frequency_mhz is 0.0; expected a number from 1.0 to 20.0"),
        ({"geometry": "radial"}, "geometry is 'radial'; expected one of linear, curvilinear"),
        ({"dynamic_range_db": float("nan")}, "dynamic_range_db is nan"),
    ],
)
def test_a_probe_out_of_range_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Probe(**changes)


def test_bone_casts_a_shadow_and_vessels_are_dark():
    phantom = Phantom(5, 3)
    depth = np.broadcast_to(np.arange(0, 40, 0.2, dtype=np.float32)[:, None], (200, 200))
    across = np.broadcast_to(np.linspace(-20, 20, 200, dtype=np.float32), (200, 200))
    echo, attenuation = phantom.tissue(across, depth, np.zeros((200, 200), np.float32))
    bone = attenuation > 10
    assert bone.any()
    below = np.cumsum(bone, axis=0) > 10
    frame = Renderer(phantom, Probe(noise_db=-120.0), (200, 200), SPACING).frame(at(y=19.9), 0)
    assert frame[below].mean() < 5
    assert frame[~below].mean() > 40
    assert (echo < -30).any()
