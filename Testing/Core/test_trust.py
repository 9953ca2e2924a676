"""What an estimated path is good for: the worst rule decides, and everybody says the same words."""

import json
from dataclasses import replace

import numpy as np
import pytest
from oracle import noise_sweep, tiny_model
from shared_files import shared_path

from DualTrackCore.cli import main
from DualTrackCore.files import json_text
from DualTrackCore.io import load_sweep, save_sweep
from DualTrackCore.network import save_model
from DualTrackCore.network.statistics import CROP_LIMIT, PLAIN, WHOLE_LIMIT, InputCheck
from DualTrackCore.path_error import DRIFT_BY_RULE, Trust, trust_in
from DualTrackCore.run import RunReport, RunSettings, run
from DualTrackCore.tracking import LiveTracker, estimate_trajectory
from DualTrackCore.trajectory import STEP_ERROR_CORRELATION, Trajectory

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")

STRAIGHT = np.tile([0, 0, 0.5, 0, 0, 0.0], (100, 1))
GOOD = {"model": "toy", "model_trained": True, "model_simulated_only": False, "guess": False, "outside_training": []}
RANGES = {"view.depth_mm": [1.0, 500.0], "view.width_mm": [1.0, 500.0], "motion.step_mm": [0.0, 500.0]}


def path(share=0.0, **source):
    """A path whose length is off by this part of it, with 95 %, as the model says; by the rule where that is None."""
    if share is None:
        return Trajectory.from_parameters(STRAIGHT, {**GOOD, **source})
    sigma = np.zeros((100, 6))
    sigma[:, 2] = share * 0.5 / 1.959964
    source = {**GOOD, STEP_ERROR_CORRELATION: [1.0] * 6, **source}
    return Trajectory.from_parameters(STRAIGHT, source, sigma=sigma)


def measured(own, still):
    return {"metrics": {"gpe_mm": own}, "baselines": {"identity": {"gpe_mm": still}}}


def far(**distances):
    return InputCheck(PLAIN, "card", {PLAIN: distances.get("whole", 0.0)}, distances.get("crop")).as_dict()


GRAVE = {
    "untrained": ({"model_trained": False}, {}, "The weights are untrained."),
    "whole frames": ({"model_input": far(whole=WHOLE_LIMIT + 0.01)}, {}, "unlike those that the model was trained on"),
    "crops": ({"model_input": far(crop=CROP_LIMIT + 0.01)}, {}, "unlike those that the model was trained on"),
    "steps": ({"outside_training": ["long steps"]}, {}, "faster than in the training"),
    "no motion": ({}, {"evaluation": measured(4.1, 4.0)}, "no better than no motion"),
    "as no motion": ({}, {"evaluation": measured(4.0, 4.0)}, "no better than no motion"),
}
LESSER = {
    "view": ({"outside_training": ["field of view"]}, {}, "field of view"),
    "rate": ({"outside_training": ["frame rate"]}, {}, "frame rate"),
    "direction": ({"direction": "unsure"}, {}, "which way the sweep runs"),
    "views": ({"views_left_out": ["mirrored"]}, {}, "disagree"),
    "turns": ({}, {"turns": [12]}, "run back"),
    "simulated": ({"guess": True, "model_simulated_only": True}, {}, "only seen simulated sweeps"),
    "a file": ({"outside_training": None}, {}, "come without what was found"),
}
HARMLESS = [
    ({}, {}),
    ({"model_input": far(whole=WHOLE_LIMIT, crop=CROP_LIMIT)}, {}),
    ({"model_input": None}, {}),
    ({"outside_training": ["short steps"]}, {}),
    ({"direction": "sure", "views_left_out": []}, {}),
    ({"direction": "told by the user"}, {}),
    ({"model_simulated_only": True}, {}),  # a simulated sweep
    ({}, {"evaluation": measured(3.99, 4.0)}),
]


@pytest.mark.parametrize("rule", GRAVE)
def test_one_grave_reason_alone_forbids_measuring(rule):
    source, options, words = GRAVE[rule]
    found = trust_in(path(**source), **options)
    assert found.level == "do not measure"
    (reason,) = found.reasons
    assert words in reason


@pytest.mark.parametrize("rule", LESSER)
def test_one_lesser_reason_alone_makes_a_rough_guide(rule):
    source, options, words = LESSER[rule]
    found = trust_in(path(**source), **options)
    assert found.level == "rough guide"
    (reason,) = found.reasons
    assert words in reason


@pytest.mark.parametrize(("source", "options"), HARMLESS)
def test_what_is_as_in_training_leaves_a_path_usable_without_a_reason(source, options):
    assert trust_in(path(**source), **options) == Trust("usable")
    assert trust_in(path(**source), **options).text == "usable"


def test_of_two_reasons_the_worse_decides_and_comes_first():
    for source, options, grave in GRAVE.values():
        found = trust_in(path(**{"direction": "unsure", **source}), turns=[3], **options)
        assert found.level == "do not measure"
        assert grave in found.reasons[0]
        assert len(found.reasons) == 3
        assert found.text == f"do not measure: {' '.join(found.reasons)}"
    worse = trust_in(path(0.3, model_trained=False))
    assert (worse.level, len(worse.reasons)) == ("do not measure", 2)


@pytest.mark.parametrize(
    ("share", "level"),
    [
        (0.199, "usable"),
        (0.201, "rough guide"),
        (0.599, "rough guide"),
        (0.601, "do not measure"),
    ],
)
def test_the_error_that_a_model_states_has_its_limits(share, level):
    found = trust_in(path(share))
    assert found.level == level
    assert [reason.endswith("(as the model says).") for reason in found.reasons] == [True] * (level != "usable")
    if found.reasons:
        assert f"off by {share:.0%}" in found.text


@pytest.mark.parametrize(
    ("percent", "level"), [(10, "usable"), (20, "rough guide"), (51, "rough guide"), (52, "do not measure")]
)
def test_a_rule_of_thumb_has_a_wider_limit_than_a_model_that_states_its_error(percent, level):
    found = trust_in(path(None, **{DRIFT_BY_RULE: percent}))
    assert found.level == level
    assert all(reason.endswith("(by rule of thumb).") for reason in found.reasons)


def test_an_error_that_is_not_known_makes_a_rough_guide():
    whole = path()
    gap = Trajectory(whole.poses, np.arange(101) != 7, provenance=GOOD, sigma=whole.sigma)
    still = replace(path(0.5), poses=np.tile(np.eye(4), (101, 1, 1)))  # no share of nothing
    empty = Trajectory(np.zeros((3, 4, 4)), [False] * 3, provenance=GOOD)
    for unknown in (gap, still, empty):
        assert trust_in(unknown) == Trust("rough guide", ("How far the length is off is not known.",))


@pytest.mark.parametrize("origin", ["measured", "simulated", "unknown"])
def test_poses_that_nobody_estimated_get_no_trust_line(origin):
    poses = Trajectory.from_parameters(STRAIGHT, {"model_trained": False}, origin=origin)
    assert trust_in(poses, [3], measured(5, 4)) is None


def ranged(**ranges):
    model = tiny_model()
    return replace(model, card=replace(model.card, trained_ranges={**RANGES, **ranges}))


def test_tracking_and_live_tracking_carry_what_lies_outside_of_the_training():
    sweep = noise_sweep(12)
    for ranges, found in (
        ({}, []),
        ({"motion.step_mm": [0.0, 1e-9]}, ["long steps"]),
        ({"motion.step_mm": [400.0, 500.0], "view.width_mm": [400.0, 500.0]}, ["field of view", "short steps"]),
    ):
        model = ranged(**ranges)
        assert estimate_trajectory(sweep, model, device="cpu").provenance["outside_training"] == found
        with LiveTracker(model, sweep.frame_size, sweep.spacing_mm, device="cpu") as tracker:
            tracker.push(sweep.window(0, 12))
            assert tracker.finish().provenance["outside_training"] == found
    model = tiny_model()
    fast = replace(sweep, timestamps_s=np.arange(12) / (10 * (model.card.frame_rate_hz or 1)))
    model = replace(model, card=replace(model.card, frame_rate_hz=model.card.frame_rate_hz or 1.0))
    assert "frame rate" in estimate_trajectory(fast, model, device="cpu").provenance["outside_training"]


@pytest.fixture
def weights(tmp_path):
    """Small weights whose head says a direction without being sure, on sweeps of too short steps."""
    model = tiny_model(direction=True)
    model.network.direction.fc.weight.data.zero_()
    model.network.direction.fc.bias.data.fill_(1.0)
    card = replace(model.card, trained=True, trained_ranges=RANGES, direction_sure_logit=2.0)
    return str(save_model(model.network, card, tmp_path / "tiny.safetensors"))


def test_console_report_and_python_say_the_same_words(tmp_path, capsys, weights):
    clip, out = tmp_path / "clip.igs.mha", tmp_path / "out"
    save_sweep(noise_sweep(20), clip)
    words = ["run", clip, "--model", weights, "--no-reconstruct", "--no-pictures", "-o", out]
    assert main([str(word) for word in words]) == 0
    text = (out / "report.json").read_text()
    said = json.loads(text)["trajectory"]["trust"]
    assert said["level"] == "rough guide"
    assert "It is unsure which way the sweep runs." in said["reasons"]
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    places = [number for number, line in enumerate(lines) if line.startswith(("length", "trust"))]
    assert places[1] == places[0] + 1
    assert lines[places[1]].split(maxsplit=1)[1] == said["text"]
    assert json.loads(json_text(RunReport.from_dict(json.loads(text)))) == json.loads(text)
    found = trust_in(run(str(clip), RunSettings(model=weights, reconstruct=False)).trajectory)
    assert found.as_dict() == said


def test_a_result_turned_over_is_told_its_direction_and_keeps_its_other_reasons(monkeypatch, weights):
    monkeypatch.setattr("DualTrackCore.run.pipeline.find_turns", lambda sweep, reporter: [5])
    first = run(noise_sweep(20), RunSettings(model=weights, reconstruct=False))
    once = first.turned_over()
    before, after = (result.report.trajectory["trust"]["reasons"] for result in (first, once))
    assert "The pictures run back." in after
    assert after == [reason for reason in before if "unsure" not in reason] != before
    assert once.turned_over().report.trajectory["trust"] == first.report.trajectory["trust"]
    assert once.report.trajectory["turns"] == [5]


def test_several_sweeps_have_a_column_for_it(tmp_path, capsys, weights):
    clips = [tmp_path / f"{number}.igs.mha" for number in range(2)]
    for clip in clips:
        save_sweep(noise_sweep(20), clip)
    words = ["run", *clips, "--model", weights, "--no-reconstruct", "--no-pictures", "-o", tmp_path / "out"]
    assert main([str(word) for word in words]) == 0
    assert (tmp_path / "out" / "summary.csv").read_text().count(",rough guide,") == 2
    assert capsys.readouterr().out.count("rough guide") == 2


def test_every_picture_is_stamped_with_the_level(monkeypatch, tmp_path, weights):
    pytest.importorskip("matplotlib", reason="Pictures need matplotlib, which is not installed.")
    figures = []
    monkeypatch.setattr("DualTrackCore.pictures.drawing.save", lambda figure, path: figures.append(figure))
    result = run(noise_sweep(20), RunSettings(model=weights, voxel_mm=2.0))
    result.write(tmp_path / "out")
    stamps = [text.get_text() for figure in figures for text in figure.texts if text.get_gid() == "trust"]
    assert stamps == [result.report.trajectory["trust"]["level"]] * 3


@pytest.mark.parametrize("tracked", [True, False])
def test_the_spine_phantom_of_large_steps_must_not_be_measured(tracked):
    """Neighbours are 1.6 mm apart and share no speckle: the model that ships fails there, with a tracker or without."""
    config = "data/config/PlusDeviceSet_SpinePhantomFreehandReconstructionOnly.xml"
    sweep = load_sweep(shared_path("data/seq/SpinePhantomFreehand.igs.mha"), calibration=shared_path(config))
    result = run(sweep if tracked else replace(sweep, tracked=None), RunSettings(reconstruct=False))
    said = result.report.trajectory["trust"]
    assert said["level"] == "do not measure"
    assert any("no better than no motion" in reason for reason in said["reasons"]) == tracked
