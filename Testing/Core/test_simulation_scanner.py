"""What a scanner does to echo levels: each effect against its physics, and nothing where it is off."""

import numpy as np
import pytest
import torch

from DualTrackCore.research.simulation import Probe, simulated_sweep
from DualTrackCore.research.simulation.acquisition import (
    HELD_OUT,
    RANGES,
    Acquisition,
    Motion,
    Scanner,
    Tracker,
    View,
)
from DualTrackCore.research.simulation.clip import kept_frames, shown_clip, tracked_by
from DualTrackCore.research.simulation.render import codes_of_levels, levels_of_codes
from DualTrackCore.research.simulation.scanner import framed, scanned

SPACING = (0.25, 0.25)
#: A range that cuts off nothing of fully developed speckle, so that grey values are levels.
PROBE = Probe()
WIDE = {"dynamic_range_db": 120.0, "top_db": 40.0}


def speckle(frames, rows=64, columns=64, seed=0):
    """Levels of independent fully developed speckle, dB."""
    random = np.random.default_rng(seed)
    return torch.from_numpy((10 * np.log10(random.exponential(size=(frames, rows, columns)))).astype(np.float32))


def shown(levels, probe=PROBE, seed=0, **options):
    scanner = Scanner(**{**WIDE, **options})
    return scanned(levels, scanner, probe, SPACING, np.random.default_rng(seed)).numpy().astype(float)


def level(grey):
    """dB of grey values in the wide range."""
    return (grey - 255) * (120 / 255) + 40


def correlation(a, b):
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_a_scanner_with_every_effect_off_shows_the_frames_of_today_to_the_last_bit():
    sweep = simulated_sweep(3, frames=3, frame_size=(64, 80))
    source = sweep.frames
    levels = np.stack([source._renderer.level_db(pose, i) for i, pose in enumerate(source.poses)])
    grey = scanned(torch.from_numpy(levels), Scanner(), source.probe, SPACING, np.random.default_rng(0))
    np.testing.assert_array_equal(grey.numpy(), sweep.window(0, 3))


def test_stored_levels_are_off_by_half_a_step_at_most_and_keep_what_no_beam_reaches():
    levels = np.linspace(-64.9, 34.9, 1001, dtype=np.float32)
    assert np.abs(levels_of_codes(codes_of_levels(levels)) - levels).max() <= 100 / 254 / 2 + 1e-4
    assert np.isneginf(levels_of_codes(np.zeros(1, np.uint8))).all()
    assert codes_of_levels(np.array([-500.0, 500.0])).tolist() == [1, 255]


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_persistence_makes_frames_alike_as_a_power_of_its_share(share):
    frames = shown(speckle(60), persistence=share)[20:]
    for lag in (1, 2, 4):
        found = np.mean([correlation(frames[i], frames[i + lag]) for i in range(len(frames) - lag)])
        assert found == pytest.approx(share**lag, abs=0.03)


def test_averaged_frames_share_what_they_have_in_common():
    frames = shown(speckle(40), averaged_frames=4)[4:]
    for lag in (1, 3, 4):
        found = np.mean([correlation(frames[i], frames[i + lag]) for i in range(len(frames) - lag)])
        assert found == pytest.approx(1 - lag / 4, abs=0.03)


def test_frames_of_the_warm_up_are_remembered_and_not_shown():
    levels, scanner = speckle(12), Scanner(**WIDE, persistence=0.6)
    whole = scanned(levels, scanner, Probe(), SPACING, np.random.default_rng(0))
    later = scanned(levels, scanner, Probe(), SPACING, np.random.default_rng(0), warm_up=8)
    assert len(later) == 4
    np.testing.assert_array_equal(whole[8:], later)
    assert (scanned(levels[8:], scanner, Probe(), SPACING, np.random.default_rng(0)) != later).any()


def test_clutter_holds_its_share_of_what_stands_still_and_falls_off_with_depth():
    echoes = speckle(30, rows=128)
    frames = level(shown(echoes, clutter_db=0.0, clutter_depth_mm=5.0))
    power = 10 ** (frames / 10)
    still = power.mean(axis=0)  # clutter + the mean of the echoes
    for row in (0, 10, 20, 40):
        expected = 1 + 10 ** (-(20 / np.log(10)) * row * SPACING[1] / 5.0 / 10)
        band = slice(max(row - 2, 0), row + 3)
        assert still[band].mean() == pytest.approx(expected, rel=0.35)
    fixed = [correlation(frames[i, :8], frames[i + 1, :8]) for i in range(20)]
    deep = [correlation(frames[i, -40:], frames[i + 1, -40:]) for i in range(20)]
    assert np.mean(fixed) > 0.25
    assert abs(np.mean(deep)) < 0.03


def test_a_part_of_the_picture_has_the_clutter_of_its_depth():
    dark = torch.full((1, 64, 64), -60.0)
    scanner = Scanner(**WIDE, clutter_db=0.0, clutter_depth_mm=5.0)
    near, far = (
        scanned(dark, scanner, Probe(), SPACING, np.random.default_rng(0), first_row=row, picture_rows=256).numpy()
        for row in (0, 100)
    )
    assert near[0, :10].mean() > far[0, :10].mean() + 20


def test_a_standoff_is_echo_free_and_clutter_goes_through_it():
    frame = shown(speckle(1, rows=128), standoff_mm=10.0)[0]
    assert frame[: int(10 / SPACING[1]) - 1].max() == 0
    assert frame[int(10 / SPACING[1]) + 1 :].mean() > 100
    water = shown(speckle(1, rows=128), standoff_mm=10.0, clutter_db=-10.0, clutter_depth_mm=2.0)[0]
    assert level(water[:30]).mean() == pytest.approx(-12.5, abs=3)  # the mean of the logarithm lies 2.5 dB lower


def test_compounding_makes_speckle_smoother_as_the_root_of_the_angles():
    probe = Probe(f_number=1.0, frequency_mhz=15.0)  # lines of the test are independent already
    power = [10 ** (level(shown(speckle(1, 96, 96), probe, compounding_angles=n)) / 10) for n in (1, 4)]
    contrast = [p.std() / p.mean() for p in power]
    assert contrast[0] / contrast[1] == pytest.approx(2.0, rel=0.15)


def test_noise_is_new_in_every_frame_and_amplified_with_depth():
    dark = torch.full((2, 128, 64), -60.0)
    probe = Probe(frequency_mhz=5.0, tgc_db_cm_mhz=0.5)
    frames = level(shown(dark, probe, noise_db=-30.0))
    assert abs(correlation(frames[0, :20], frames[1, :20])) < 0.1
    rise = frames[:, 100:110].mean() - frames[:, :10].mean()
    assert rise == pytest.approx(probe.gain_db(np.array(25.0)), abs=1.0)


def test_gain_curve_range_and_gamma_change_grey_values_as_they_say():
    flat = torch.full((1, 101, 8), -10.0)
    curved = level(shown(flat, gain_curve_db=(0.0, 8.0, 0.0))[0, :, 0])
    assert curved[0] == pytest.approx(-10, abs=0.5)
    assert curved[50] == pytest.approx(-2, abs=0.5)
    plain = scanned(flat, Scanner(dynamic_range_db=60, top_db=20), Probe(), SPACING, np.random.default_rng(0))
    dim = scanned(flat, Scanner(dynamic_range_db=60, top_db=20, gamma=2.0), Probe(), SPACING, np.random.default_rng(0))
    assert plain[0, 0, 0] == round(255 * 0.5)
    assert dim[0, 0, 0] == round(255 * 0.25)


def test_black_borders_and_marks_stand_still_and_leave_the_middle_alone():
    frames = torch.full((3, 64, 96), 100, dtype=torch.uint8)
    assert framed(frames, View(), SPACING, np.random.default_rng(0)) is frames
    view = View(border_mm=(2.0, 1.0), overlay=True)
    changed = framed(frames, view, SPACING, np.random.default_rng(0)).numpy()
    assert (changed[:, :, 28:68] == 100).all()
    assert (changed[0] == changed).all()
    assert set(np.unique(changed)) == {0, 100, 255}


def test_frames_that_a_clip_keeps_are_skipped_lost_and_repeated_as_told():
    random = np.random.default_rng(0)
    assert kept_frames(Motion(), 100, random, 200).tolist() == list(range(100))
    thirds = kept_frames(Motion(skip=3), 100, random, 200)
    assert set(np.diff(thirds)) == {3}
    lost = kept_frames(Motion(lost=0.1), 100, random, 200)
    assert len(lost) == 90
    repeated = kept_frames(Motion(repeated=0.3), 1000, random, 2000)
    assert (np.diff(repeated) == 0).mean() == pytest.approx(0.3, abs=0.1)
    assert len(kept_frames(Motion(), 100, random, 40)) == 40


def test_what_is_held_out_is_never_drawn_for_training():
    for seed in range(400):
        own = Acquisition.of_seed(seed)
        assert not 8.0 <= own.probe.frequency_mhz <= 9.0
        assert own.probe.geometry == "linear" or not 30.0 <= own.probe.radius_mm <= 36.0
        assert not 0.45 <= own.scanner.persistence <= 0.55
        assert not 6.0 <= own.tissue.fibre_mm <= 9.0
    kinds = {kind: [Acquisition.of_seed(seed, kind) for seed in range(20)] for kind in HELD_OUT}
    assert all(0.45 <= own.scanner.persistence <= 0.55 for own in kinds["persistence"])
    assert all(6.0 <= own.tissue.fibre_mm <= 9.0 for own in kinds["tissue"])
    for own in kinds["probe"]:
        assert 8.0 <= own.probe.frequency_mhz <= 9.0 or 30.0 <= own.probe.radius_mm <= 36.0


def test_what_is_drawn_lies_in_the_ranges_that_the_card_lists():
    for seed in range(200):
        own = Acquisition.of_seed(seed)
        for name, (low, high) in RANGES.items():
            part, field = name.split(".")
            values = getattr(getattr(own, part), field)
            if own.probe.geometry == "linear" and field in ("radius_mm", "field_angle_deg"):
                continue
            off = getattr(type(getattr(own, part))(), field)
            for value in values if isinstance(values, tuple) else (values,):
                assert value == off or low <= value <= high, name


def test_beams_as_wide_at_the_focus_widen_by_the_lens_and_both_are_drawn():
    probes = [Acquisition.of_seed(seed).probe for seed in range(300)]
    f_numbers = np.log([probe.lens_f_number for probe in probes])
    widths = np.log([probe.focal_width_factor for probe in probes])
    assert f_numbers.std() == pytest.approx(np.log(7 / 2.5) / np.sqrt(12), rel=0.1)
    assert widths.std() == pytest.approx(np.log(3 / 0.7) / np.sqrt(12), rel=0.1)
    assert abs(np.corrcoef(f_numbers, widths)[0, 1]) < 0.2  # or the depth profile of a beam would tell its width
    for probe in probes[:20]:
        at_focus, beyond = probe.elevational_sigma_mm(probe.lens_focus_mm + np.array([0.0, 500.0]))
        assert at_focus == pytest.approx(2.09 / probe.frequency_mhz * probe.focal_width_factor)
        assert beyond / 500 == pytest.approx(0.204 / probe.lens_f_number, rel=0.1)


def test_a_clip_shows_the_scanner_of_its_acquisition():
    from DualTrackCore.research.simulation import acquired_sweep

    own = Acquisition(view=View(depth_mm=12, width_mm=12), scanner=Scanner(persistence=0.6), motion=Motion(skip=2))
    levels = acquired_sweep(1, own, 12, 0.25, levels=True)
    clip = shown_clip(levels, own, 1)
    assert len(clip) == 6
    np.testing.assert_array_equal(clip.frames, shown_clip(levels, own, 1).frames)
    plain = acquired_sweep(1, own, 12, 0.25)
    assert correlation(*clip.frames[3:5]) > correlation(*plain.window(6, 9)[::2]) + 0.05


def test_a_tracker_adds_its_noise_about_the_image_centre_and_comes_late():
    sweep = simulated_sweep(3, frames=300, family="Per_L_DtP", frame_size=(64, 80))
    random = np.random.default_rng(0)
    assert tracked_by(sweep, Tracker(), random) is sweep.tracked
    noisy = tracked_by(sweep, Tracker(noise_mm=0.2, noise_deg=0.5), random)
    steps = noisy.parameters - sweep.tracked.parameters
    assert steps[:, :3].std() == pytest.approx(0.2 * np.sqrt(2), rel=0.1)
    assert steps[:, 3:].std() == pytest.approx(0.5 * np.sqrt(2), rel=0.1)
    late = tracked_by(sweep, Tracker(latency_s=2 / 20), random)  # two frames at 20 a second
    np.testing.assert_allclose(late.poses[5:, :3, 3], sweep.tracked.poses[3:-2, :3, 3], atol=1e-6)
