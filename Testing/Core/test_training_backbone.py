"""Backbones in recipes: what of them learns, where their weights come from, and what a stage leaves."""

from pathlib import Path

import pytest
import timm
import torch
from oracle import TINY
from training_data import tiny_recipe, tracked_sweep, write_sweeps

from DualTrackCore.errors import CheckpointError, InputError
from DualTrackCore.io import load_sweep
from DualTrackCore.network import DualTrack, load_model
from DualTrackCore.network.model import read_weights
from DualTrackCore.research.training import load_recipe, train
from DualTrackCore.research.training.initial import initial_network, recipe_card
from DualTrackCore.research.training.lightning_task import LightningTask
from DualTrackCore.research.training.samples import SweepItems, collate
from DualTrackCore.research.training.sweeps import SweepSet
from DualTrackCore.tracking import estimate_trajectory

BACKBONE = "network.global_encoder.backbone.0."
VIT = "test_vit"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_sweeps(tmp_path_factory.mktemp("sweeps"), train=2, val=1)


def one_step(stage, tmp_path, **backbone):
    recipe = tiny_recipe(stage, backbone=backbone)
    task = LightningTask(recipe, initial_network(recipe, tmp_path), torch.zeros(6), torch.ones(6)).train()
    items = SweepItems(recipe, SweepSet(("0",), (tracked_sweep(0),)), task.task.network, recipe_card(recipe))
    before = {name: value.clone() for name, value in task.task.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=1.0)
    task.component_losses(collate([items[(0, 0)]])).mean().backward()
    optimiser.step()
    return {name for name, value in task.task.state_dict().items() if not torch.equal(before[name], value)}


@pytest.mark.parametrize("stage", ["global", "fusion"])
def test_by_lora_only_adapters_of_the_backbone_learn_beside_the_transformers(stage, tmp_path):
    changed = one_step(stage, tmp_path, name=VIT, train="lora", rank=2)
    inside = {name for name in changed if name.startswith(BACKBONE)}
    assert inside
    assert all(name.endswith(".up") for name in inside)  # `down` follows from the second step on
    assert "network.global_encoder.proj.weight" in changed
    assert any(name.startswith("network.global_encoder.bert.") for name in changed)


def test_a_frozen_backbone_keeps_weights_and_statistics(tmp_path):
    changed = one_step("global", tmp_path, name="test_resnet", train="frozen")
    assert "network.global_encoder.proj.weight" in changed
    assert not any(name.startswith(BACKBONE) for name in changed)


def test_a_backbone_trained_in_full_changes_weights_and_statistics(tmp_path):
    changed = one_step("global", tmp_path, name="test_resnet", train="full")
    assert f"{BACKBONE}conv1.0.weight" in changed
    assert any(name.startswith(BACKBONE) and name.endswith("running_mean") for name in changed)


def test_an_interrupted_lora_run_goes_on_to_the_same_plain_weights(table, tmp_path):
    torch.manual_seed(8)
    pretrained = timm.create_model(VIT, num_classes=0, img_size=48)
    torch.save({"teacher": {f"module.backbone.{k}": v for k, v in pretrained.state_dict().items()}}, tmp_path / "t.pth")
    backbone = {"name": VIT, "weights": str(tmp_path / "t.pth"), "train": "lora", "rank": 2}
    recipe = tiny_recipe("global", table, backbone=backbone, epochs=3, standardise=True)
    lines = []
    whole = train(recipe, runs=tmp_path / "whole", say=lines.append)
    assert "found under teacher, module.backbone." in lines[0]

    def die(line):
        if line.startswith("epoch 2/3"):
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(recipe, runs=tmp_path / "cut", say=die)
    rest = train(recipe, runs=tmp_path / "cut", resume=True, say=lambda line: None)
    first, second = read_weights(whole.weights)[0], read_weights(rest.weights)[0]
    assert first.keys() == second.keys() == DualTrack(**TINY, global_backbone=VIT).state_dict().keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    inner = {key.removeprefix("global_encoder.backbone.0."): value for key, value in first.items()}
    moved = {k for k, v in pretrained.state_dict().items() if k in inner and not torch.equal(inner[k], v)}
    stem = {"patch_embed.proj.weight", "patch_embed.proj.bias"}  # turned from RGB to grey
    assert moved - stem
    assert all(key.endswith(("attn.qkv.weight", "attn.proj.weight")) for key in moved - stem)
    model = load_model(whole.weights)
    assert model.card.architecture["global_backbone"] == VIT
    assert len(estimate_trajectory(load_sweep(table.parent / "0.h5"), model)) == 24


def test_a_later_stage_takes_the_backbone_over_and_adapts_it_anew(tmp_path, table):
    made = train(tiny_recipe("global", table, backbone={"name": VIT}, epochs=1), runs=tmp_path, say=lambda line: None)
    later = tiny_recipe(
        "fusion",
        table,
        backbone={"name": VIT, "train": "lora", "rank": 2},
        initial={"global_encoder": "global"},
    )
    network = initial_network(later, tmp_path)
    qkv = network.global_encoder.backbone[0].blocks[0].attn.qkv
    key = "global_encoder.backbone.0.blocks.0.attn.qkv.weight"
    assert torch.equal(qkv.weight, read_weights(made.weights)[0][key])
    assert qkv.parametrizations.weight[0].up.shape[1] == 2


REFUSED = {
    "weights that are not there": ({"name": VIT, "weights": "none.pth"}, "global", r"none\.pth.*nothing is downloaded"),
    "LoRA without attention": ({"name": "test_resnet", "train": "lora"}, "global", "ResNet has none; train it in full"),
    "LoRA on the published trunk": ({"train": "lora"}, "global", "PooledTrunk has none; train it in full"),
    "a rank above the width": ({"name": VIT, "train": "lora", "rank": 500}, "global", "rank is 500; it must be from 1"),
    "a stage without the encoder": ({"name": VIT, "train": "lora"}, "local2", "stage local2 does not train the global"),
    "another way": ({"train": "half"}, "global", "train.* is 'half'; expected one of frozen, full, lora"),
    "other pixels": ({"pixels": "grey"}, "global", "pixels.* is 'grey'; expected one of imagenet, unit"),
    "no rank": ({"rank": 0}, "global", "rank.* is 0; expected a whole number of at least 1"),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_a_backbone_that_cannot_be_had_is_refused(wrong, tmp_path):
    backbone, stage, message = REFUSED[wrong]
    with pytest.raises(InputError, match=message):
        initial_network(tiny_recipe(stage, backbone=backbone), tmp_path)


def test_two_sources_of_weights_and_two_names_are_refused():
    with pytest.raises(InputError, match=r"backbone\.weights and initial \(global\) both give"):
        tiny_recipe("fusion", backbone={"weights": "x.pth"}, initial={"global_encoder": "global"})
    with pytest.raises(InputError, match=r"backbone\.name is test_vit and model\.global_backbone is test_resnet"):
        tiny_recipe("global", backbone={"name": VIT}, model={**TINY, "global_backbone": "test_resnet"})


def test_weights_of_another_backbone_name_the_file(tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "resnet.pth")
    recipe = tiny_recipe("global", backbone={"name": VIT, "weights": str(tmp_path / "resnet.pth")})
    with pytest.raises(CheckpointError, match=r"resnet\.pth is not a checkpoint of the backbone \(VisionTransformer\)"):
        initial_network(recipe, tmp_path)


#: Recipe: timm's name, how it learns, and parameters of the backbone in millions.
SHIPPED = {
    "resnet18": ("resnet18", "full", 11.17),
    "vits14-dinov2": ("vit_small_patch14_dinov2", "full", 21.48),
    "ibot": ("vit_small_patch16_224", "full", 21.47),
    "medsam": ("samvit_base_patch16", "lora", 86.23),
    "usfm": ("beit_base_patch16_224", "lora", 85.37),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_takes_a_file_and_trains_what_it_says(name):
    timm_name, way, millions = SHIPPED[name]
    recipe = load_recipe(f"backbones/{name}", ["backbone.weights=FILE"])
    assert recipe.backbone.weights == "FILE"
    assert recipe.stage == "global"
    recipe = load_recipe(f"backbones/{name}")
    assert (recipe.model["global_backbone"], recipe.backbone.train) == (timm_name, way)
    with torch.device("meta"):  # no memory and no time for 90 million numbers
        task = LightningTask(recipe, initial_network(recipe, Path()), torch.zeros(6), torch.ones(6)).task
    backbone = dict(task.network.global_encoder.backbone.named_parameters())
    learning = sum(p.numel() for p in backbone.values() if p.requires_grad)
    count = sum(p.numel() for n, p in backbone.items() if not n.endswith((".down", ".up")))
    assert count / 1e6 == pytest.approx(millions, abs=0.01)
    # Rank 32 on 12 blocks of width 768: (768 + 2304) numbers a rank for qkv, 2 x 768 for proj.
    assert learning == (count if way == "full" else 12 * 32 * (768 + 2304 + 2 * 768))
