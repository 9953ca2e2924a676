"""A whole training by one command: stages in their order, gone on with where it stopped, calibrated at the end."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from oracle import TINY
from training_data import tiny_values, write_sweeps

from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.network import DualTrack, ModelCard, load_model
from DualTrackCore.network.model import save_model
from DualTrackCore.research import plan as plans
from DualTrackCore.research.comparison.step_errors import calibrate
from DualTrackCore.research.datasets.entries import simulated_dataset
from DualTrackCore.research.plan import sure_log_odds, train_plan
from DualTrackCore.research.training import recipe_files
from DualTrackCore.research.training.recipe_files import RECIPES, load_plan, plan_names
from DualTrackCore.tracking import TrackingWarning

HEADS = {**TINY, "uncertainty": True, "direction": True}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A plan of two tiny stages in a folder of its own."""
    place = tmp_path_factory.mktemp("plan")
    folder, table = place / "recipes", write_sweeps(place / "sweeps")
    folder.mkdir()
    for name, changes in {
        "first": {"stage": "fusion", "epochs": 3, "output": "first"},
        "second": {"stage": "heads", "epochs": 2, "output": "second", "initial": {"all": "first"}},
    }.items():
        values = {**tiny_values(changes["stage"], table, model=HEADS), **changes, "one_way": True}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    text = {"stages": [str(folder / "first.yaml"), str(folder / "second.yaml")], "calibration": 0}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe_files, "RECIPES", folder)
        yield place


@pytest.fixture(scope="module")
def whole(folder):
    """(what came out, lines) of a training that nothing stopped."""
    lines = []
    return train_plan(load_plan("tiny"), runs=folder / "whole", say=lines.append), lines


def weights(result):
    return load_model(str(result.weights)).network.state_dict()


def test_one_call_trains_all_stages_and_a_second_one_trains_nothing_again(whole, folder):
    first, lines = whole
    assert [line for line in lines if line.startswith("Stage")] == [
        "Stage 1 of 2, first: starts.",
        "Stage 2 of 2, second: starts.",
    ]
    before, told = first.weights.read_bytes(), []
    again = train_plan(load_plan("tiny"), runs=folder / "whole", say=told.append)
    assert told[:-1] == ["Stage 1 of 2, first: finished before.", "Stage 2 of 2, second: finished before."]
    assert again.weights.read_bytes() == before
    assert (again.items, again.best) == (first.items, first.best)


def test_the_result_is_measured_on_the_validation_sweeps_beside_no_motion(whole, folder):
    _, lines = whole
    place = folder / "whole" / "tiny" / "evaluation"
    rows = list(csv.DictReader((place / "sweeps.csv").open(encoding="utf-8")))
    assert {row["sweep"] for row in rows} == {"sweep 4", "sweep 5"}
    methods = {row["method"] for row in rows}
    assert len(methods) == 2
    assert "identity" in methods
    assert lines[-1].endswith(f"Means over 2 sweeps of validation; tables in {place}.")


@pytest.mark.parametrize("stop_at", ["epoch 2/3", "epoch 1/2"])
def test_a_plan_that_was_stopped_anywhere_goes_on_to_the_same_weights(whole, tmp_path, stop_at):
    stopped = []
    with pytest.raises(Cancelled):
        train_plan(
            load_plan("tiny"),
            runs=tmp_path,
            say=lambda line: stopped.append(line.startswith(stop_at)),
            cancelled=lambda: any(stopped),
        )
    rest = train_plan(load_plan("tiny"), runs=tmp_path, say=lambda line: None)
    found = weights(rest)
    for name, value in weights(whole[0]).items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_a_changed_recipe_is_not_mixed_with_what_an_earlier_one_left(whole, folder):
    with pytest.raises(InputError, match=r"optimiser\.lr"):
        train_plan(load_plan("tiny", ["optimiser.lr=0.1"]), runs=folder / "whole", say=lambda line: None)


@pytest.mark.parametrize("name", ["mini", "mini-long", "paper"])
def test_a_plan_that_ships_names_recipes_that_lead_from_one_to_the_next(monkeypatch, name):
    monkeypatch.setattr(recipe_files, "RECIPES", RECIPES)
    assert plan_names() == ["mini", "mini-long", "own", "paper"]
    assert [recipe.initial.all for recipe in load_plan("own").stages] == ["mini", "own/finetune"]
    made = load_plan(name)
    done = set()
    for recipe in made.stages:
        given = recipe.initial
        named = {given.all, given.local_encoder, given.global_encoder, given.local_trunk} - {None}
        assert named <= done, recipe.output
        done.add(recipe.output)
    with pytest.raises(InputError, match="no plan"):
        load_plan("maxi")


def test_a_mean_of_weights_is_what_comes_out_and_what_a_resumed_run_goes_on_with(whole, tmp_path):
    made, stopped = load_plan("tiny", ["average=0.9"]), []
    averaged = train_plan(made, runs=tmp_path / "mean", say=lambda line: None)
    with pytest.raises(Cancelled):
        train_plan(
            made,
            runs=tmp_path / "cut",
            say=lambda line: stopped.append(line.startswith("epoch 2/3")),
            cancelled=lambda: any(stopped),
        )
    resumed = train_plan(made, runs=tmp_path / "cut", say=lambda line: None)
    last, mean, rest = (weights(result)["head.fc.weight"] for result in (whole[0], averaged, resumed))
    assert not torch.equal(last, mean)
    torch.testing.assert_close(rest, mean, rtol=0, atol=0)


def test_a_direction_is_sure_from_where_nineteen_of_twenty_are_right():
    log_odds = np.arange(100) / 10
    assert sure_log_odds(log_odds, np.ones(100, bool)) == 0
    right = log_odds >= 5  # 50 right ones above; with 2 of those below, 50 of 52 are right
    assert sure_log_odds(log_odds, right) == pytest.approx(4.8)
    assert sure_log_odds(log_odds, np.zeros(100, bool)) > 9.9
    assert sure_log_odds(log_odds[:19], np.ones(19, bool)) > 1.8  # so few show nothing


def test_missing_clips_of_the_calibration_are_simulated_together_beforehand(whole, folder, monkeypatch):
    done = []
    monkeypatch.setattr(plans, "store_missing", lambda jobs, workers, reporter: done.append([path for _, path in jobs]))
    monkeypatch.setattr(plans, "calibrated", lambda model, clips: done.append([clip.path for clip in clips]) or model)
    train_plan(replace(load_plan("tiny"), calibration=2), runs=folder / "whole", say=lambda line: None)
    assert done[0] == done[1]
    assert len(done[0]) == 2
    assert {path.parent for path in done[0]} == {folder / "whole" / "cache" / "sweeps"}


def test_a_calibrated_model_states_errors_of_the_size_that_it_makes(tmp_path):
    torch.manual_seed(0)
    network = DualTrack(**HEADS).eval()
    card = ModelCard(name="tiny", architecture=network.arguments, spacing_mm=(0.5, 0.5))
    path = save_model(network, card, tmp_path / "tiny.safetensors")
    clips = simulated_dataset("calibration", count=3, frames=12, folder=tmp_path / "clips")
    model = plans.calibrated(load_model(str(path)), clips)
    assert model.card.step_error_correlation is not None
    assert model.card.direction_sure_logit is not None
    json.loads(model.card.to_json())
    with pytest.warns(TrackingWarning):  # the clips are unlike each other
        found = [plans.estimate_trajectory(entry.load(), model, device="cpu") for entry in clips]
    truths = [entry.load().tracked for entry in clips]
    turned = [
        one if np.nansum(one.parameters[:, 2]) * np.nansum(true.parameters[:, 2]) > 0 else plans.turned_over(one)
        for one, true in zip(found, truths, strict=True)
    ]
    again = calibrate(turned, truths)
    assert (model.card.step_error_freedom is None) == (again.freedom is None)
    np.testing.assert_allclose(again.factors, 1, rtol=0.02)
