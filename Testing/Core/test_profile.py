"""A scanner profile: made of sweeps of known length, kept in a small strict file, chosen by what a file says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml
from drifting_paths import CORRELATION, MODEL, SIGMA, motions, pair

from DualTrackCore.corrections.knowledge import KnownLength, KnownScale
from DualTrackCore.corrections.path import correct
from DualTrackCore.corrections.profile import (
    LEAST_SPREAD,
    MeasuredSweep,
    Preset,
    Profile,
    find_profile,
    profile_for,
    read_profile,
    remove_profile,
    save_profile,
    stored_profiles,
)
from DualTrackCore.errors import InputError
from DualTrackCore.network.catalogue import FOLDER_VARIABLE
from DualTrackCore.path_error import CORRECTIONS, path_error
from DualTrackCore.run.profiling import measured
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import STEP_ERROR_CORRELATION, Trajectory

SOURCE = {"model": "toy", "weights_sha256": "ab" * 32}
CLINIC = Preset("Maker One", "L12-3", 7.5, 40.0, 20.0, (0.1, 0.1))


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "models"))
    return tmp_path / "models" / "profiles"


def measured_sweep(factor=1.6, spread=0.03):
    return MeasuredSweep("told by the user", 50.0, 50 / factor, factor, spread, 120)


def profile(name="clinic", preset=CLINIC, factors=(1.6,), source=SOURCE):
    return Profile.of(name, source, preset, [measured_sweep(factor) for factor in factors], made="2026-11-30")


def clip(rate_hz=20.0, spacing_mm=0.1, **scanner):
    """A sweep whose file says this of the scanner."""
    said = {"device": CLINIC.device, "transducer": CLINIC.transducer, "frequency_mhz": 7.5, "depth_mm": 40.0, **scanner}
    sweep = Sweep.from_array(np.zeros((3, 8, 8), np.uint8), spacing_mm=spacing_mm, frame_rate_hz=rate_hz)
    return replace(sweep, provenance={"scanner": {name: value for name, value in said.items() if value is not None}})


def too_short(factor, seed=0, **options):
    """The true path, and an estimate of it whose elevational motion is too short by the factor."""
    truth, found = pair(seed, **options)
    wrong = found.parameters / [1, 1, factor, factor, factor, 1]
    return truth, Trajectory.from_parameters(wrong, MODEL, sigma=found.sigma / factor)


def test_the_factor_of_one_sweep_scales_another_right():
    one, other = (too_short(1.8, seed, sigma=SIGMA / 4) for seed in (1, 2))
    for length in (one[0], one[0].path_length_mm):
        said = Profile.of("a", SOURCE, CLINIC, [measured(one[1], length)])
        assert said.factor == pytest.approx(1.8, rel=0.25)
        path = correct(other[1], [said.scale])
        by_itself = other[1].parameters * [1, 1, *[said.factor] * 3, 1]
        np.testing.assert_allclose(path.parameters, by_itself, atol=1e-9)
        assert abs(np.log(path.path_length_mm / other[0].path_length_mm)) < 0.3 < np.log(1.8)


def test_without_errors_of_its_own_the_factor_is_exact_and_trembling_is_no_way():
    true = motions()
    truth = Trajectory.from_parameters(true, origin="measured")
    found = Trajectory.from_parameters(true / [1, 1, 1.7, 1.7, 1.7, 1], MODEL)
    assert measured(found, truth).factor == pytest.approx(1.7, rel=1e-3)
    noise = np.random.default_rng(0).normal(0, 0.3, (len(true) + 1, 3))
    poses = truth.poses.copy()
    poses[:, :3, 3] += noise
    trembling = Trajectory(poses, origin="measured")
    assert trembling.path_length_mm > 1.4 * truth.path_length_mm
    assert measured(found, trembling).factor == pytest.approx(1.7, rel=0.03)


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        (lambda: (Trajectory.from_parameters(motions(), MODEL), 12.0), "It is 12 mm long, and a profile needs 20 mm"),
        (lambda: (Trajectory.from_parameters(motions(), MODEL), 500.0), "scaled by 0.2 to 5 it is .*check the number"),
        (lambda: (Trajectory.from_parameters(motions(12), MODEL), 50.0), "It has 12 frames with a pose"),
        (lambda: (Trajectory.from_parameters(motions()[:, [2, 1, 0, 3, 4, 5]], MODEL), 48.0), "runs across the pict"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(sweep, words):
    with pytest.raises(InputError, match=words):
        measured(*sweep())


def test_sweeps_that_contradict_each_other_are_refused_and_it_is_said_by_how_much():
    with pytest.raises(InputError, match=r"factors are 1\.20, 1\.90, the largest 1\.58 times the smallest"):
        profile(factors=(1.2, 1.9))


def test_the_factor_is_the_mean_of_logarithms_and_the_spread_that_of_the_next_sweep():
    logs = np.log([1.5, 1.6, 1.8])
    said = profile(factors=(1.5, 1.6, 1.8))
    assert said.factor == pytest.approx(np.exp(logs.mean()))
    assert said.spread == pytest.approx(np.sqrt(logs.var(ddof=1) * 4 / 3 + LEAST_SPREAD**2))
    assert profile(factors=(1.6,)).spread == pytest.approx(np.hypot(0.03, LEAST_SPREAD))
    assert profile(factors=(1.6, 1.6, 1.6)).spread == pytest.approx(LEAST_SPREAD)


def test_a_sweep_of_uneven_parts_spreads_more():
    even, uneven = motions(), motions() * np.linspace(0.5, 1.5, 119)[:, None]
    still = np.concatenate([0 * even[:40], even, 0 * even[:25]])
    paths = [Trajectory.from_parameters(one, MODEL) for one in (even, still, uneven)]
    small, with_rests, large = (measured(path, 48.0).spread for path in paths)
    assert small < 0.02
    assert with_rests < 0.05
    assert measured(paths[2], replace(paths[2], origin="measured", provenance={})).spread < 1e-9
    assert large > 0.2


def test_bands_get_narrower_as_far_as_the_profile_is_sure_and_no_farther():
    _, path = too_short(1.8)
    bands = [path_error(correct(path, [KnownScale("a", 1.8, spread)])) for spread in (0.05, 0.1, 0.4)]
    parts = [band.end_length_mm / correct(path, [KnownScale("a", 1.8, 0.1)]).path_length_mm for band in bands]
    for part, spread in zip(parts, (0.05, 0.1, 0.4), strict=True):
        assert spread * 0.9 < part < spread + 0.03
    free = path_error(correct(path, [KnownScale("a", 1.8, 1.0)])).end_length_mm
    assert bands[0].end_length_mm < path_error(path).end_length_mm * 1.8 < free


def test_a_profile_says_nothing_of_turns_and_nothing_where_no_share_was_measured():
    _, path = too_short(1.8)
    sure = correct(path, [KnownScale("a", 1.8, 0.01)])
    np.testing.assert_array_less(1.79 * path.sigma[:, 3:5], sure.sigma[:, 3:5])
    said = {name: value for name, value in path.provenance.items() if name != STEP_ERROR_CORRELATION}
    unmeasured = correct(replace(path, provenance=said), [KnownScale("a", 1.8, 0.01)])
    np.testing.assert_allclose(unmeasured.sigma[:, 2], 1.8 * path.sigma[:, 2], rtol=0.02)
    assert sure.sigma[0, 2] < 1.8 * path.sigma[0, 2] * np.sqrt(1 - CORRELATION[2]) * 1.1


def test_a_known_length_goes_over_the_profile():
    truth, path = too_short(1.8)
    both = correct(path, [KnownScale("a", 1.5, 0.05), KnownLength(truth.path_length_mm)])
    assert both.path_length_mm == pytest.approx(truth.path_length_mm)
    assert [entry["kind"] for entry in both.provenance[CORRECTIONS]] == ["scanner profile", "known length"]


def test_the_errors_of_poses_with_a_profile_hold():
    """The length of a path that was scaled by a factor that errs as it says lies in its bands as often as they say."""
    hits, rng = 0, np.random.default_rng(3)
    for seed in range(60):
        truth, path = too_short(1.8, seed, sigma=np.array([0.01, 0.01, 0.02, 0.02, 0.02, 0.01]))
        true_scale = truth.path_length_mm / correct(path, [KnownScale("a", 1.0, 0.1)]).path_length_mm
        found = correct(path, [KnownScale("a", float(true_scale * np.exp(rng.normal(0, 0.1))), 0.1)])
        hits += abs(found.path_length_mm - truth.path_length_mm) < path_error(found).end_length_mm
    assert 0.53 < hits / 60 < 0.83


def test_a_profile_comes_back_from_its_file_as_it_was(own_folder):
    said = profile(factors=(1.5, 1.6))
    path = save_profile(said)
    assert path == own_folder / "clinic.yaml"
    assert read_profile(path) == find_profile("clinic") == find_profile(str(path)) == said
    assert stored_profiles() == ([said], [])
    with pytest.raises(InputError, match="There is a scanner profile clinic already"):
        save_profile(said)
    assert remove_profile("clinic") == path
    with pytest.raises(InputError, match="no scanner profile 'clinic'; there are: none"):
        find_profile("clinic")


@pytest.mark.parametrize("name", ["auto", "none", "", "A B", "../a", "x" * 65])
def test_names_that_cannot_be_are_refused(name):
    with pytest.raises(InputError, match="is not a valid name of a profile"):
        save_profile(replace(profile(), name=name))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"factor": 7}, "factor in the scanner profile .*clinic.yaml is 7; expected a number from 0.2 to 5"),
        ({"factor": float("nan")}, "factor in .* is nan"),
        ({"spread": 0}, "spread in .* is 0; expected a number above 0"),
        ({"format": 2}, "has format 2; this version reads 1"),
        ({"scale": 2}, "scale in .* is no known key"),
        ({"sweeps": [{"length": "measured"}]}, "length_mm in .* is missing"),
        ({"preset": {"depth_mm": -3}}, "preset.depth_mm in .* is -3"),
        ({"preset": None}, "expected a mapping"),
        ({"name": "other"}, "says that its name is other; rename the file"),
        ({"model": None}, "model in .* is None; expected text"),
    ],
)
def test_every_fault_of_a_file_is_one_sentence(change, words):
    path = save_profile(profile())
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    with pytest.raises(InputError, match=words) as refusal:
        find_profile("clinic")
    assert "\n" not in str(refusal.value)
    found, faults = stored_profiles()
    assert not found
    assert faults == [str(refusal.value)]


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "a: [", "\x00", "a: 2026-99-99", "[" * 5000, "x" * (2 << 20), "- &a [*a]"]
)
def test_what_is_no_profile_is_refused_in_a_sentence(text):
    path = save_profile(profile())
    path.write_text(text)
    with pytest.raises(InputError, match=r"clinic\.yaml"):
        find_profile("clinic")


def test_the_profile_of_the_scanner_that_a_file_names_is_used():
    said = profile()
    save_profile(said)
    save_profile(profile("other-probe", replace(CLINIC, transducer="C5")))
    assert profile_for("auto", clip(), SOURCE) == (said, [])
    assert profile_for("auto", clip(device="maker  ONE"), SOURCE) == (said, [])
    assert profile_for("auto", clip(device=None, frequency_mhz=None), SOURCE) == (said, [])


@pytest.mark.parametrize(
    "scanner",
    [
        {"device": None, "transducer": None},
        {"device": "Maker Two"},
        {"transducer": "L9"},
        {"depth_mm": 60.0},
        {"frequency_mhz": 10.0},
    ],
)
def test_a_profile_that_does_not_fit_is_not_used(scanner):
    save_profile(profile())
    assert profile_for("auto", clip(**scanner), SOURCE) == (None, [])


def test_of_several_profiles_that_fit_none_is_used_and_they_are_named():
    save_profile(profile("a"))
    save_profile(profile("b", replace(CLINIC, depth_mm=42.0)))
    found, (note,) = profile_for("auto", clip(), SOURCE)
    assert found is None
    assert "(a, b) and none was used" in note


def test_a_damaged_file_does_not_stop_a_run_that_did_not_name_it():
    said = profile()
    (save_profile(said).parent / "bad.yaml").write_text("a: 1")
    found, (note,) = profile_for("auto", clip(), SOURCE)
    assert found == said
    assert "bad.yaml" in note


def test_facts_that_cannot_be_are_not_known_and_a_depth_that_the_user_says_goes_first():
    wild = clip(rate_hz=1e9, frequency_mhz=-3, depth_mm=np.zeros(2), device=["A", "B"])
    assert Preset.of(wild) == Preset("['A', 'B']", CLINIC.transducer, None, None, None, (0.1, 0.1))
    told = replace(clip(), provenance={**clip().provenance, "prepared": {"depth_mm": 60.0}})
    assert Preset.of(told).depth_mm == 60


def test_outside_of_its_preset_one_sentence_warns():
    save_profile(profile())
    far = clip(rate_hz=30, spacing_mm=0.15, depth_mm=60.0, frequency_mhz=10.0)
    found, (note,) = profile_for("clinic", far, SOURCE)
    assert found.name == "clinic"
    for words in (
        "depth 60 mm, not 40 mm",
        "frequency 10 MHz, not 7.5 MHz",
        "frame rate 30 Hz, not 20 Hz",
        "pixel size",
    ):
        assert words in note
    near = clip(rate_hz=18, spacing_mm=0.11, depth_mm=42.0, frequency_mhz=7.9)
    assert profile_for("clinic", near, SOURCE)[1] == []


def test_a_profile_of_another_model_is_refused_and_of_other_weights_warned_of():
    save_profile(profile())
    with pytest.raises(InputError, match="made with the model toy, and the path is by mini: its factor means nothing"):
        profile_for("clinic", clip(), {**SOURCE, "model": "mini"})
    other = {**SOURCE, "weights_sha256": "cd" * 32}
    assert "other weights of toy" in profile_for("clinic", clip(), other)[1][0]
    found, (note,) = profile_for("auto", clip(), other)
    assert found is None
    assert "clinic fits this clip, but was made with other weights" in note


@pytest.mark.parametrize("known", [KnownScale("clinic", 1.6, 0.1), KnownLength(50.0)])
def test_a_path_is_not_scaled_twice(known):
    save_profile(profile())
    path = correct(pair(0)[1], [known])
    with pytest.raises(InputError, match="The path was scaled already"):
        profile_for("clinic", clip(), {**SOURCE, **path.provenance})
