"""Recipes: what ships says what the paper says, and what is wrong is refused in one sentence."""

from pathlib import Path

import pytest
from training_data import tiny_values

from DualTrackCore.errors import InputError
from DualTrackCore.research.training import load_recipe, recipe_names
from DualTrackCore.research.training.recipe import Recipe
from DualTrackCore.research.training.trainer import build_trainer
from DualTrackCore.settings import build

#: Stage: lr, weight decay, warm-up, epochs, batch, validation cadence, flip, reverse, crop, drop.
PAPER = {
    "local1": (1e-4, 1e-3, 0, 5000, 16, 100, 0.5, 0.5, True, 0),
    "local2": (1e-3, 0, 0, 500, 16, 10, 0.5, 0.5, True, 0),
    "local3": (1e-4, 0, 0, 500, 1, 10, 0.5, 0.5, True, 0),
    "global": (1e-4, 1e-3, 0, 5000, 16, 100, 0.5, 0.5, False, 0),
    "fusion": (1e-4, 0, 10, 500, 1, 10, 0, 0, False, 0),
    "finetune1": (1e-4, 0, 1, 200, 4, 1, 0.5, 0.5, True, 0.5),
    "finetune2": (1e-4, 0, 1, 200, 4, 1, 0.5, 0.5, True, 0.5),
}


@pytest.mark.parametrize("stage", PAPER)
def test_a_paper_recipe_holds_the_published_settings(stage):
    recipe = load_recipe(f"paper/{stage}")
    optimiser, changes = recipe.optimiser, recipe.augmentation
    assert (
        optimiser.lr,
        optimiser.weight_decay,
        recipe.warmup_epochs,
        recipe.epochs,
        recipe.batch_size,
        recipe.validation.every,
        changes.hflip,
        changes.reverse,
        changes.crop,
        changes.drop,
    ) == PAPER[stage]
    assert optimiser.betas == (0.9, 0.999)
    assert recipe.stage == stage
    assert recipe.precision == "fp16"
    assert recipe.validation.metric == "gpe_five_point_mm"
    assert not recipe.standardise
    assert dict(recipe.model) == ({"positions": 4096} if stage.startswith("finetune") else {})
    assert (recipe.sampling.window, recipe.sampling.random_frames) == (16, 64)
    assert (recipe.devices, recipe.at_once) == (1, 1 if stage.startswith("finetune") else None)


@pytest.mark.parametrize("name", recipe_names())
def test_a_stage_writes_at_most_some_hundred_checkpoints(name):
    recipe = load_recipe(name)
    epochs = recipe.end_epoch or recipe.epochs
    last = build_trainer(recipe, Path("nowhere"), [], 1, False).checkpoint_callbacks[1]
    assert epochs / last._every_n_epochs <= 100
    assert epochs / recipe.validation.every <= 200


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_ships_can_be_read(name):
    assert load_recipe(name).output == name


def test_no_recipe_that_ships_claims_an_error_that_only_its_own_weights_could_have():
    claims = {"expected_error", "bf16_error", "fp16_error"}
    assert not {(name, claim) for name in recipe_names() for claim in claims & set(load_recipe(name).card)}


def test_all_stages_ship_at_full_size_and_a_small_chain_leads_to_a_joint_stage():
    names = recipe_names()
    assert {f"paper/{stage}" for stage in PAPER} <= set(names)
    chain = ("local1", "local2", "local3", "global", "fusion", "finetune2")
    assert {f"mini/{stage}" for stage in chain} <= set(names)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"bacth_size": 4}, "bacth_size in r.yaml is no known key"),
        ({"optimiser": {"lr": 1e-3, "momentum": 1}}, "optimiser.momentum in r.yaml is no known key"),
        ({"optimiser": {}}, "optimiser.lr in r.yaml is missing"),
        ({"weighting": "best"}, "weighting in r.yaml is 'best'; expected one of equal, likelihood"),
        ({"component_weights": [1, 2]}, "component_weights in r.yaml is [1, 2]; expected 6 numbers of at least 0"),
        ({"component_weights": [0] * 6}, "component_weights are all 0, so nothing would be trained"),
        ({"drift": -1}, "drift in r.yaml is -1; expected a number of at least 0"),
        ({"epochs": "many"}, "epochs in r.yaml is 'many'; expected a whole number"),
        ({"epochs": 2.5}, "epochs in r.yaml is 2.5; expected a whole number"),
        ({"epochs": True}, "epochs in r.yaml is True; expected a whole number"),
        ({"standardise": 1}, "standardise in r.yaml is 1; expected true or false"),
        ({"sampling": [1]}, "sampling in r.yaml is [1]; expected a mapping"),
        ({"stage": "local4"}, "stage in r.yaml is 'local4'; expected one of local1"),
        ({"batch_size": 0}, "batch_size in r.yaml is 0; expected a whole number of at least 1"),
        ({"warmup_epochs": 2}, "warmup_epochs is 2; it must be below epochs (2)"),
        ({"end_epoch": 3}, "end_epoch is 3; it must lie between 1 and epochs (2)"),
        ({"augmentation": {"hflip": 2}}, "augmentation.hflip in r.yaml is 2; expected a number from 0 to 1"),
        (
            {"optimiser": {"lr": 1e-3, "betas": [0.9]}},
            "optimiser.betas in r.yaml is [0.9]; expected 2 numbers",
        ),
        ({"data": {"kind": "tusrec", "folder": "x"}}, "needs validation_folder"),
        ({"data": {"kind": "simulated", "seeds": [0, 9], "validation_seeds": [8, 10]}}, "overlap"),
        ({"sampling": {"stored_crops": 1}}, "stored_crops needs a frozen trunk"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_file(change, part):
    with pytest.raises(InputError) as caught:
        build(Recipe, tiny_values("local1", "x.csv") | change, "r.yaml")
    assert part in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_a_recipe_that_is_nowhere_is_refused_with_those_that_ship():
    with pytest.raises(InputError, match=r"no recipe mini/loca1.*mini/local1"):
        load_recipe("mini/loca1")


def test_text_that_is_no_yaml_is_refused_with_the_file(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("stage: [local1", encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.yaml is not YAML"):
        load_recipe(path)


def test_a_base_gives_what_the_file_leaves_out(tmp_path):
    (tmp_path / "base.yaml").write_text("optimiser: {lr: 1e-3, weight_decay: 0.1}\nepochs: 9\n", encoding="utf-8")
    text = "base: base.yaml\nstage: global\noutput: o\noptimiser: {lr: 2e-3}\nbatch_size: 2\n"
    text += "data: {kind: dualtrack_h5, csv: x.csv}\n"
    (tmp_path / "top.yaml").write_text(text, encoding="utf-8")
    recipe = load_recipe(tmp_path / "top.yaml")
    assert (recipe.optimiser.lr, recipe.optimiser.weight_decay, recipe.epochs) == (2e-3, 0.1, 9)


def test_a_base_that_leads_back_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\nepochs: 1\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("base: a.yaml\nepochs: 1\n", encoding="utf-8")
    with pytest.raises(InputError, match="leads back"):
        load_recipe(tmp_path / "a.yaml")


def test_changes_are_put_over_the_file():
    recipe = load_recipe("mini/global", ["optimiser.lr=5e-4", "data.seeds=[3, 7]", "epochs=11"])
    assert (recipe.optimiser.lr, recipe.data.seeds, recipe.epochs) == (5e-4, (3, 7), 11)
    assert recipe.optimiser.weight_decay == load_recipe("mini/global").optimiser.weight_decay


def test_a_change_without_a_value_is_refused():
    with pytest.raises(InputError, match="KEY=VALUE"):
        load_recipe("mini/local1", ["epochs"])
