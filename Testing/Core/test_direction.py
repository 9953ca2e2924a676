"""Two heads beside the motions: which way the sweep runs, and how sure each motion is; and what is made of them."""

import warnings
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from all_knowing import all_knowing, numbered_sweep, random_poses
from oracle import TINY, noise_sweep, tiny_model

from DualTrackCore.errors import InputError
from DualTrackCore.network import DualTrack, Model, ModelCard, load_model
from DualTrackCore.network.catalogue import installed_path, read_card_inside
from DualTrackCore.network.dualtrack import NetworkOutput
from DualTrackCore.network.model import save_model
from DualTrackCore.network.session import InferenceSession
from DualTrackCore.progress import Reporter
from DualTrackCore.repeats import Repeats
from DualTrackCore.tracking import (
    Estimate,
    LiveTracker,
    directed,
    engine,
    estimate_in_windows,
    estimate_trajectory,
    window_starts,
)
from DualTrackCore.trajectory import Trajectory, accumulate, matrices_from_parameters

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")

HEADS = {"direction": True, "uncertainty": True}


def model_with_heads(logit: float | None = None, sure: float | None = 2.0) -> Model:
    """A small model whose heads say something else of every sweep; or of all the same direction."""
    model = tiny_model(**HEADS)
    network = model.network
    with torch.no_grad():
        network.uncertainty.fc.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
        if logit is not None:
            network.direction.fc.weight.zero_()
            network.direction.fc.bias.fill_(logit)
    return replace(model, card=replace(model.card, direction_sure_logit=sure))


@cache
def features(frames: int, network_positions: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(frames, 16, generator=generator), torch.randn(-(-frames // 16), 8, generator=generator)


def test_networks_without_the_heads_keep_their_weights_and_their_cards():
    plain, with_heads = tiny_model().network, tiny_model(**HEADS).network
    for name in HEADS:
        assert name not in plain.arguments
        assert with_heads.arguments[name] is True
        assert name not in DualTrack(**TINY, **{name: False}).arguments
    added = [key for key in with_heads.state_dict() if key not in plain.state_dict()]
    assert {key.split(".")[0] for key in added} == set(HEADS)
    assert added[-2:] == ["uncertainty.fc.weight", "uncertainty.fc.bias"]
    mini = load_model("mini")
    assert mini.network.arguments == dict(read_card_inside(installed_path("mini")).architecture)
    assert not any(name in ModelCard().to_json() for name in (*HEADS, "step_error_correlation"))
    assert ModelCard.from_json(ModelCard(direction_sure_logit=1.5).to_json(), "a card").direction_sure_logit == 1.5


@pytest.mark.parametrize("value", [1, 0, None, "yes", [True]])
@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_there_or_not_and_nothing_between(name, value):
    with pytest.raises(InputError, match=f"{name} is .*; expected true or false"):
        DualTrack(**{**TINY, name: value})


def test_the_heads_read_the_features_and_leave_the_motions_as_they_are():
    model = model_with_heads()
    network, (tokens, pooled) = model.network, features(40)
    plain = DualTrack(**TINY).eval()
    plain.load_state_dict({key: value for key, value in network.state_dict().items() if key in plain.state_dict()})
    with torch.inference_mode():
        found = network.output_from_features(tokens[None], pooled[None])
        queries = network.local_encoder[1](network.local.temporal(tokens[None]))
        context = network.global_encoder(pooled[None], torch.arange(0, 40, 16))
        fused = network.fusion_module.module(queries, context)
        logit = network.direction(pooled[None], torch.arange(0, 40, 16))
        other = network.output_from_features(torch.randn_like(tokens)[None], pooled[None])
        assert torch.equal(found.motions, plain.poses_from_features(tokens[None], pooled[None]))
        assert torch.equal(found.motions, network.poses_from_features(tokens[None], pooled[None]))
        assert torch.equal(found.direction_logit, logit)
        assert torch.equal(found.direction_logit, other.direction_logit)  # speckle does not tell the side
        assert not torch.equal(network.direction(pooled.flip(0)[None], torch.arange(0, 40, 16)), logit)
        torch.testing.assert_close(found.log_variance, network.uncertainty.fc(fused)[:, 1:])
        nothing = plain.output_from_features(tokens[None], pooled[None])
    assert (nothing.log_variance, nothing.direction_logit) == (None, None)
    assert found.log_variance.std() > 0.1


def test_a_new_head_of_variances_says_the_same_of_every_motion():
    found = estimate_trajectory(noise_sweep(20), tiny_model(**HEADS), device="cpu")
    np.testing.assert_allclose(found.sigma, 0.1, rtol=1e-6)
    assert found.sigma.shape == (19, 6)
    assert estimate_trajectory(noise_sweep(20), tiny_model(), device="cpu").sigma is None


def test_a_model_with_heads_is_written_and_read_whole(tmp_path):
    model = model_with_heads()
    loaded = load_model(save_model(model.network, model.card, tmp_path / "heads.safetensors"))
    own, other = (estimate_trajectory(noise_sweep(20), one, device="cpu") for one in (model, loaded))
    np.testing.assert_array_equal(own.poses, other.poses)
    np.testing.assert_array_equal(own.sigma, other.sigma)
    assert loaded.card.direction_sure_logit == 2.0


@pytest.mark.parametrize("frames", [64, 65, 150])
def test_windows_of_a_long_sweep_are_averaged_in_variance_and_in_direction(frames):
    network, (tokens, pooled) = model_with_heads().network, features(frames)
    with torch.inference_mode():
        found = estimate_in_windows(InferenceSession(network, CPU), tokens, pooled, Reporter())
        total, weight, logits, lengths = np.zeros((frames - 1, 6)), np.zeros((frames - 1, 1)), [], []
        for start in window_starts(frames, 64, 16):
            stop = min(start + 64, frames)
            part = network.output_from_features(tokens[None, start:stop], pooled[None, start // 16 : -(-stop // 16)])
            ramp = np.minimum(np.arange(1, stop - start), np.arange(1, stop - start)[::-1])[:, None]
            total[start : stop - 1] += ramp * np.exp(part.log_variance[0].double().numpy())
            weight[start : stop - 1] += ramp
            logits.append(float(part.direction_logit))
            lengths.append(stop - start - 1)
    np.testing.assert_allclose(found.variance, total / weight, rtol=1e-5)
    assert found.log_odds == pytest.approx(np.average(logits, weights=lengths), rel=1e-5)
    assert len(set(logits)) == len(logits)


@pytest.mark.parametrize("logits", [[9, -9], [9, 9, -20], [1, 1]])
def test_windows_that_contradict_each_other_are_not_sure_together(monkeypatch, logits):
    network = tiny_model(**HEADS).network
    said = iter(logits)

    def output(tokens, _):
        motions = torch.zeros(1, tokens.shape[1] - 1, 6)
        return NetworkOutput(motions, None, torch.tensor([float(next(said))]))

    monkeypatch.setattr(network, "output_from_features", output)
    frames = {2: 112, 3: 160}[len(logits)]
    found = estimate_in_windows(InferenceSession(network, CPU), *features(frames), Reporter())
    assert found.log_odds == pytest.approx(np.mean(logits), abs=1e-6)
    assert (
        directed(found, "auto", ModelCard(direction_sure_logit=2.0), {"warnings": []}).provenance["direction"]
        == "unsure"
    )


def test_weights_of_simulated_sweeps_alone_are_not_asked_for_the_side_of_a_recorded_one():
    found = Estimate(np.tile([0.0, 0, 1, 0, 0, 0], (3, 1)), None, -9.0)
    trained = {"warnings": [], "model_simulated_only": True}
    simulated = directed(found, "auto", ModelCard(direction_sure_logit=2.0), {**trained, "guess": False})
    recorded = directed(found, "auto", ModelCard(direction_sure_logit=2.0), {**trained, "guess": True})
    assert (simulated.provenance["direction"], simulated.provenance["direction_mirrored"]) == ("sure", True)
    assert (recorded.provenance["direction"], recorded.provenance["direction_mirrored"]) == ("unsure", False)
    np.testing.assert_allclose(simulated.poses[-1, 2, 3], -recorded.poses[-1, 2, 3])


@pytest.mark.parametrize(
    ("logit", "sure_from", "said"),
    [(5, 2, "sure"), (-5, 2, "sure"), (1, 2, "unsure"), (-1, 2, "unsure"), (5, None, "unsure"), (2, 2, "sure")],
)
def test_a_run_follows_the_head_and_says_how_sure_it_is(logit, sure_from, said):
    model, sweep = model_with_heads(logit, sure_from), noise_sweep(20)
    with torch.inference_mode(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = estimate_trajectory(sweep, model, device="cpu")
    told = {way: estimate_trajectory(sweep, model, device="cpu", direction=way) for way in ("as-found", "other-way")}
    way = "as-found" if logit > 0 else "other-way"
    np.testing.assert_array_equal(found.poses, told[way].poses)
    np.testing.assert_array_equal(found.sigma, told[way].sigma)
    assert found.provenance["direction"] == said
    assert found.provenance["direction_log_odds"] == abs(logit)
    assert any("unsure which way" in str(one.message) for one in caught) == (said == "unsure")
    assert all(one.provenance["direction"] == "told by the user" for one in told.values())
    mirror = np.diag([1.0, 1, -1, 1])
    expected = mirror @ told["as-found"].relative @ mirror
    np.testing.assert_allclose(told["other-way"].relative, expected, atol=1e-12)
    assert np.abs(told["as-found"].parameters[:, [2, 3, 4]]).min() > 1e-6


def test_weights_without_the_head_run_as_they_say_and_the_other_way_when_told():
    found = {
        way: estimate_trajectory(noise_sweep(20), tiny_model(), device="cpu", direction=way)
        for way in ("auto", "as-found", "other-way")
    }
    assert [one.provenance["direction"] for one in found.values()] == ["as the weights say", *["told by the user"] * 2]
    np.testing.assert_array_equal(found["auto"].poses, found["as-found"].poses)
    signs = np.array([1, 1, -1, -1, -1, 1])
    np.testing.assert_allclose(found["other-way"].parameters, found["auto"].parameters * signs, atol=1e-9)
    assert "unsure" not in str(found["auto"].provenance["warnings"])


def test_a_direction_that_there_is_not_is_refused():
    for find in (
        lambda: estimate_trajectory(noise_sweep(6), tiny_model(), direction="left"),
        lambda: LiveTracker(tiny_model(), (96, 128), 0.2, direction="left"),
    ):
        with pytest.raises(InputError, match="'left'; choose auto, as-found, other-way"):
            find()


@pytest.mark.parametrize("runs", [1, 2, 4])
@pytest.mark.parametrize("way", [1, -1])
def test_views_backwards_speak_for_the_same_way(monkeypatch, runs, way):
    """A network that knows all, says it of every view as if it ran towards +z, and how likely that is."""
    poses = random_poses(scale=0.2)
    poses = accumulate(matrices_from_parameters(Trajectory(poses).parameters * np.array([1, 1, way, way, way, 1])))
    know = all_knowing(poses)

    def run(*arguments, **options):
        found, provenance = know(*arguments, **options)
        towards = np.sign(found.motions[:, 2].mean())
        found = Estimate(found.motions, np.arange(48.0).reshape(8, 6), 3.0)
        return (found if towards > 0 else replace(found.mirrored(), log_odds=-3.0)), provenance

    monkeypatch.setattr(engine, "run_network", run)
    found = estimate_trajectory(numbered_sweep(), model_with_heads(), test_time_augmentation=runs)
    np.testing.assert_allclose(found.poses, poses, atol=1e-9)
    assert (found.provenance["direction"], found.provenance["direction_log_odds"]) == ("sure", 3.0)
    expected = np.arange(48.0).reshape(8, 6)
    if runs == 4:
        expected = (expected + expected[::-1]) / 2
    np.testing.assert_allclose(found.sigma, np.sqrt(expected))


def test_a_live_tracker_ends_in_the_same_direction_with_the_same_sigma():
    model, sweep = model_with_heads(-5), noise_sweep(30)
    offline = estimate_trajectory(sweep, model, device="cpu", chunk_frames=4)
    with LiveTracker(model, sweep.frame_size, sweep.spacing_mm, device="cpu") as tracker:
        tracker.push(sweep.window(0, 30))
        live = tracker.finish()
    np.testing.assert_array_equal(live.poses, offline.poses)
    np.testing.assert_array_equal(live.sigma, offline.sigma)
    assert live.provenance["direction"] == "sure"


def test_the_errors_of_an_estimate_grow_as_the_card_says():
    random = np.random.default_rng(2)
    motions, variance = random.normal(0, 0.5, (9, 6)), random.uniform(0.01, 0.2, (9, 6))
    found, mean_mm = Estimate(motions, variance), np.linalg.norm(motions[:, :3], axis=1).mean()
    stated = directed(found, "auto", ModelCard(), {}).sigma
    np.testing.assert_array_equal(stated, np.sqrt(variance))
    powers, growth = (0.5, 1.0, 0.8, 0.9, 1.1, 0.3), (0.7, 0.0, -0.2, 0.1, 0.0, 1.0)
    grown = directed(found, "other-way", ModelCard(step_error_powers=powers, step_error_growth=growth), {}).sigma
    np.testing.assert_allclose(grown, stated**powers * mean_mm ** np.array(growth))


def test_a_repeated_frame_has_no_motion_and_no_uncertainty():
    sweep = noise_sweep(20)
    shown = np.array([0, 1, 1, 2, 3, 3, 3, 4])
    repeats = Repeats(np.array([0, 1, 1, 3, 4, 4, 4, 7]))
    longer = sweep.chosen(shown)
    found = estimate_trajectory(longer, model_with_heads(), device="cpu", repeats=repeats)
    pictures = estimate_trajectory(sweep.slice(0, 5), model_with_heads(), device="cpu")
    for step, (before, after) in enumerate(pairwise(shown)):
        expected = pictures.sigma[before] if after > before else np.zeros(6)
        np.testing.assert_array_equal(found.sigma[step], expected)
