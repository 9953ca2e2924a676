"""How whole frames are normalised, and whether a clip is like the training data: told by the weights themselves."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import TINY, noise_sweep, oracle_sweep, tiny_model
from shared_files import shared_path
from torch import nn
from training_data import tiny_recipe

from DualTrackCore import estimate_trajectory, load_model
from DualTrackCore.cli import main
from DualTrackCore.io import load_sweep, save_sweep
from DualTrackCore.network import DualTrack, Model, ModelCard, save_model
from DualTrackCore.network import statistics as statistics_module
from DualTrackCore.network.catalogue import PUBLISHED_SPACING_MM, published_models
from DualTrackCore.network.statistics import PLAIN, SCALED, distance, told_by_weights
from DualTrackCore.research.training import train
from DualTrackCore.research.training.initial import recipe_card
from DualTrackCore.sample import sample_sweep
from DualTrackCore.tracking import LiveTracker
from DualTrackCore.tracking.engine import TrackingWarning
from DualTrackCore.tracking.preprocessing import MOST_FRAMES, Preprocessor, examined, examined_on, frames_to_look_at

BOTH = pytest.mark.parametrize("normalisation", [PLAIN, SCALED], ids=["plain", "scaled"])
UNLIKE = "unlike those that the model was trained on"


@pytest.fixture(scope="module")
def clip():
    """What training did not see of the sample, read into memory."""
    sample = sample_sweep()
    return replace(sample, frames=np.array(sample.window(0, len(sample)))).slice(112, 168)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights of the small network after forty steps of the global stage on the sample, by normalisation."""
    folder, sample = tmp_path_factory.mktemp("training"), sample_sweep()
    lines = ["index,sweep_id,processed_sweep_path,split"]
    for i in range(4):
        save_sweep(sample.slice(28 * i, 28 * i + 28), folder / f"{i}.h5")
        lines.append(f"{i},{i},{i}.h5,{'train' if i < 3 else 'val'}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    weights = {}
    for mean, std in (PLAIN, SCALED):
        card = {"name": "tiny", "spacing_mm": [0.25, 0.25], "frame_size": [128, 160]}
        recipe = tiny_recipe(
            "global",
            folder / "table.csv",
            card={**card, "global_mean": mean, "global_std": std},
            sampling={"random_frames": 6, "windows_per_sweep": 14},
        )
        result = train(recipe, runs=folder / f"{mean}", say=lambda line: None)
        weights[mean, std] = result.weights
    return weights


def silent(path) -> Model:
    """The model with a card that does not state how whole frames are normalised."""
    model = load_model(path)
    return replace(model, card=replace(model.card, global_mean=None, global_std=None))


def changed(sweep, change):
    return replace(sweep, frames=np.clip(change(sweep.window(0, len(sweep)).astype(float)), 0, 255).astype(np.uint8))


@BOTH
def test_a_network_trained_either_way_tells_which_it_was(trained, clip, normalisation):
    model = silent(trained[normalisation])
    assert told_by_weights(model.network) == model.normalisation == normalisation
    found = estimate_trajectory(clip, model).provenance["model_input"]
    assert (found["global_mean"], found["global_std"], found["said_by"]) == (*normalisation, "clip")
    distances = {(d["mean"], d["std"]): d["distance"] for d in found["whole_distances"]}
    other = SCALED if normalisation == PLAIN else PLAIN
    assert distances[normalisation] + 1 < distances[other]
    assert all(f"{d:.2f} with" in found["sentence"] for d in distances.values())


@BOTH
def test_what_the_weights_tell_is_what_is_used(trained, clip, normalisation):
    told = estimate_trajectory(clip, silent(trained[normalisation])).poses
    np.testing.assert_array_equal(told, estimate_trajectory(clip, load_model(trained[normalisation])).poses)


@BOTH
@pytest.mark.parametrize("change", [lambda g: g / 2, lambda g: g / 4, lambda g: g + 60, lambda g: 255 * (g / 255) ** 2])
def test_gain_and_gamma_of_a_clip_do_not_turn_the_answer_round(trained, clip, normalisation, change):
    assert examined(silent(trained[normalisation]), changed(clip, change)).normalisation == normalisation


@BOTH
def test_a_card_that_the_statistics_contradict_is_obeyed_with_a_warning(trained, clip, normalisation):
    other = SCALED if normalisation == PLAIN else PLAIN
    model = load_model(trained[normalisation])
    wrong = replace(model, card=replace(model.card, global_mean=other[0], global_std=other[1]))
    with pytest.warns(TrackingWarning, match="smaller distance speaks for .*correct global_mean and global_std"):
        trajectory = estimate_trajectory(clip, wrong)
    assert trajectory.provenance["model_input"]["said_by"] == "card"
    assert Preprocessor.for_model(examined(wrong, clip), clip).global_std == other[1]
    right = examined(model, clip)
    assert (right.check.used, right.check.contradiction()) == (normalisation, None)


@pytest.mark.parametrize("seed", range(3))
def test_the_distance_is_symmetric_and_zero_between_equal_images(seed):
    generator = torch.Generator().manual_seed(seed)
    convolution = nn.Conv3d(1, 5, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False)
    images = [torch.rand(3, 32, 32, generator=generator) ** power * 0.9 for power in (1, 4)]

    def learnt(from_images):
        norm = nn.BatchNorm3d(5, momentum=1.0)
        norm(convolution(from_images[None, None]))
        norm.running_var *= 1 - 1 / (3 * 16 * 16)  # it keeps the unbiased variance
        return convolution, norm

    there, back = distance(learnt(images[0]), images[1]), distance(learnt(images[1]), images[0])
    assert there == pytest.approx(back, rel=1e-4)
    assert there > 0.5
    assert distance(learnt(images[0]), images[0]) == pytest.approx(0, abs=1e-4)


def test_mini_is_recognised_as_what_its_card_says():
    model, sweep = load_model("mini"), sample_sweep()
    assert model.card.normalisation == told_by_weights(model.network) == SCALED
    check = examined(replace(model, card=replace(model.card, global_mean=None, global_std=None)), sweep).check
    assert (check.used, check.said_by) == (SCALED, "clip")
    assert check.whole[SCALED] + 2 < check.whole[PLAIN]
    assert examined(model, sweep).check.warnings() == []


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda g: g / 2, "local crops"),
        (lambda g: g * 0 + 60, "whole frames"),
        (lambda g: g**0.5 * 4, "local crops"),
    ],
)
def test_a_clip_unlike_the_training_data_is_told_with_a_figure(clip, change, part):
    (warning,) = examined(load_model("mini"), changed(clip, change)).check.warnings()
    assert re.search(rf"{UNLIKE}.*\d\.\d\d for .*{part} \(limit", warning)


def test_recorded_sweeps_are_unlike_plain_simulated_ones_and_within_the_acquisitions_of_the_model_that_ships():
    model = load_model("mini")
    for name in ("real/ultrabones_leg_0138.h5", "real/ultrabones_leg_0221.h5"):
        sweep = load_sweep(shared_path(f"data/{name}"))
        assert examined(model, sweep).check.warnings() == []
        unmeasured = replace(model, card=replace(model.card, input_limits=None))
        assert UNLIKE in examined(unmeasured, sweep).check.warnings()[0]


def test_generated_and_untrained_weights_tell_nothing_and_nothing_is_normalised(oracle_model):
    for model in (oracle_model, tiny_model()):
        assert told_by_weights(model.network) is None
        assert model.normalisation == PLAIN
    check = examined(oracle_model, oracle_sweep(11, 20)).check
    assert (check.used, check.said_by, check.whole) == (PLAIN, "nobody", {})
    check = examined(tiny_model(), noise_sweep(20)).check
    assert (check.used, check.said_by, check.whole, check.crop) == (PLAIN, "nobody", {}, None)


@pytest.mark.parametrize("card", [None, SCALED])
def test_a_backbone_without_batch_norm_says_so_and_leaves_it_to_the_card(clip, card):
    arguments = {**TINY, "global_size": 64, "global_backbone": "vit_tiny_patch16_224"}
    mean, std = card or (None, None)
    model = Model(DualTrack(**arguments), ModelCard(spacing_mm=(0.25, 0.25), global_mean=mean, global_std=std))
    check = examined(model, clip).check
    assert (check.used, check.said_by) == ((card, "card") if card else (PLAIN, "nobody"))
    assert "no trained batch norm to compare with" in check.sentence()


@BOTH
def test_a_backbone_of_timm_with_batch_norm_tells_it_too(clip, normalisation):
    network = DualTrack(**{**TINY, "global_size": 64, "global_backbone": "resnet18"})
    prepared = Preprocessor(clip.frame_size, clip.spacing_mm, clip.spacing_mm, 64, 64, *normalisation)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0  # one step of training, as far as batch norm goes
    network.train().global_encoder.image_features(prepared.global_image(torch.from_numpy(clip.window(0, 8)))[None])
    model = Model(network, ModelCard(spacing_mm=clip.spacing_mm))
    assert model.normalisation == examined(model, clip).normalisation == normalisation


@BOTH
def test_a_live_tracker_takes_the_weights_word_and_ends_as_offline(trained, clip, normalisation):
    model = silent(trained[normalisation])
    with LiveTracker(model, clip.frame_size, clip.spacing_mm, simulated=True) as tracker:
        tracker.push(clip.window(0, len(clip)))
        live = tracker.finish()
    offline = estimate_trajectory(clip, model, chunk_frames=4)
    np.testing.assert_array_equal(live.poses, offline.poses)
    said = live.provenance["model_input"]
    assert said["said_by"] == "weights"
    assert said["whole_distances"] == offline.provenance["model_input"]["whole_distances"]


def test_a_live_tracker_that_the_clip_contradicts_says_so_in_the_end(trained, clip, monkeypatch):
    from DualTrackCore.network import model as model_module

    for module in (statistics_module, model_module):
        monkeypatch.setattr(module, "told_by_weights", lambda network: PLAIN)
    with LiveTracker(silent(trained[SCALED]), clip.frame_size, clip.spacing_mm) as tracker:
        tracker.push(clip.window(0, len(clip)))
        with pytest.warns(TrackingWarning, match="track the finished sweep, where its images decide"):
            tracker.finish()


@pytest.mark.parametrize("frames", [2, 16, 17, 256, 257, 1000, 5000])
def test_few_frames_are_looked_at_evenly_over_the_sweep_and_live_as_offline(frames):
    chosen = frames_to_look_at(frames, 16)
    assert chosen[0] == 0
    assert len(chosen) <= MOST_FRAMES
    assert len(chosen) > MOST_FRAMES // 2 or chosen.step == 16
    assert chosen[-1] + chosen.step >= frames


def test_a_live_tracker_looks_at_the_frames_that_are_looked_at_offline():
    frames, model = 200, tiny_model(positions=64, global_every=4)
    numbered = np.arange(frames, dtype=np.uint8)[:, None, None] * np.ones((1, 96, 128), np.uint8)
    with LiveTracker(model, (96, 128), PUBLISHED_SPACING_MM) as tracker:
        for start in range(0, frames, 7):
            tracker.push(numbered[start : start + 7])
        tracker.finish()
        assert [frame[0, 0] for frame in tracker._examined] == list(frames_to_look_at(frames, 4))


def test_frames_without_an_image_are_not_looked_at(trained, clip):
    frames, valid = clip.window(0, len(clip)).copy(), np.ones(len(clip), bool)
    frames[16:40], valid[16:40] = 0, False
    model = silent(trained[SCALED])
    whole = examined(model, replace(clip, frames=frames, frame_valid=valid)).check.whole
    assert whole == examined_on(model, clip, clip.window(0, len(clip))[[0, 48]]).check.whole
    assert examined(model, replace(clip, frame_valid=np.zeros(len(clip), bool))).check is None


def test_the_catalogue_states_neither_normalisation_nor_rounding_that_nobody_measured():
    for entry in published_models().values():
        assert (entry.card.normalisation, entry.card.bf16_error) == (None, None)
        assert ModelCard.from_json(entry.card.to_json(), "card") == entry.card


def test_training_states_the_normalisation_that_it_used():
    assert recipe_card(tiny_recipe("global")).normalisation == PLAIN
    assert recipe_card(tiny_recipe("global", card={"global_mean": 0.5})).normalisation == (0.5, 1.0)


def test_import_and_verify_say_what_the_weights_tell(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DUALTRACK_MODELS", str(tmp_path / "models"))
    model = silent(trained[SCALED])
    file = save_model(model.network, model.card, tmp_path / "own.safetensors")
    for command in (["import", "own", str(file)], ["verify", "own"]):
        assert main(["models", *command]) == 0
        said = capsys.readouterr().out
        assert "whole frames go in as (grey / 255 - 0.5) / 0.25, as the statistics in the weights say" in said
    assert main(["models", "verify", "own", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["input"]
    assert (found["global_mean"], found["global_std"], found["said_by"]) == (0.5, 0.25, "clip")
    wrong = replace(model.card, global_mean=0.0, global_std=1.0)
    file = save_model(model.network, wrong, tmp_path / "wrong.safetensors")
    assert main(["models", "import", "wrong", str(file)]) == 0
    assert "smaller distance speaks for (grey / 255 - 0.5) / 0.25" in capsys.readouterr().err


def test_a_run_says_what_decided_about_the_normalisation(trained, tmp_path, clip, capsys):
    model = silent(trained[SCALED])
    file = save_model(model.network, model.card, tmp_path / "own.safetensors")
    save_sweep(clip, tmp_path / "clip.igs.mha")
    options = ["-o", str(tmp_path / "out"), "--no-pictures", "--voxel", "2"]
    assert main(["run", str(tmp_path / "clip.igs.mha"), "--model", str(file), *options]) == 0
    assert "whole frames go in as (grey / 255 - 0.5) / 0.25" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["trajectory"]["source"]["model_input"]["global_std"] == 0.25
