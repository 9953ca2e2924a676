"""What a stage starts from before it has learned anything."""

import pytest
import torch
from oracle import tiny_model
from training_data import tiny_recipe

from DualTrackCore.errors import CheckpointError, InputError
from DualTrackCore.network.model import save_model
from DualTrackCore.research.training.initial import initial_network


def position_table(tmp_path, **initial):
    network = initial_network(tiny_recipe("global", initial=initial), tmp_path)
    return network.global_encoder.pos_emb.weight.detach()


def test_waves_put_neighbouring_positions_near_each_other_and_random_numbers_do_not(tmp_path):
    nearness = {}
    for kind in ("waves", "random"):
        distance = torch.cdist(*[position_table(tmp_path, positions=kind)] * 2)
        nearness[kind] = distance.diagonal(1).mean() / distance.diagonal(20).mean()
    assert nearness["waves"] < 0.6
    assert nearness["random"] > 0.9


def test_waves_tell_every_position_from_every_other(tmp_path):
    table = position_table(tmp_path, positions="waves")
    distance = torch.cdist(table, table) + torch.eye(len(table))
    assert distance.min() > 0.05


def test_weights_that_are_given_replace_the_waves(tmp_path):
    model = tiny_model()
    save_model(model.network, model.card, tmp_path / "m.safetensors")
    table = position_table(tmp_path, positions="waves", all="m.safetensors")
    assert torch.equal(table, model.network.global_encoder.pos_emb.weight)


def test_another_kind_of_position_table_is_refused():
    with pytest.raises(InputError, match=r"positions.* is 'zeros'; expected one of random, waves"):
        tiny_recipe("global", initial={"positions": "zeros"})


def test_a_trunk_fits_a_crop_of_another_size_and_brings_nothing_else(tmp_path):
    model = tiny_model()
    save_model(model.network, model.card, tmp_path / "m.safetensors")
    larger = {**model.card.architecture, "crop_size": model.network.crop_size * 2}
    network = initial_network(tiny_recipe("local1", initial={"local_trunk": "m.safetensors"}, model=larger), tmp_path)
    untouched = initial_network(tiny_recipe("local1", model=larger), tmp_path)
    state, given, plain = (n.state_dict() for n in (network, model.network, untouched))
    trunk = {k for k in state if k.startswith("local_encoder.0.backbone.module.backbone.")}
    assert all(torch.equal(state[k], given[k]) for k in trunk)
    assert any(not torch.equal(state[k], plain[k]) for k in trunk)
    assert all(torch.equal(state[k], plain[k]) for k in set(state) - trunk)


def test_a_whole_local_encoder_does_not_fit_a_crop_of_another_size(tmp_path):
    model = tiny_model()
    save_model(model.network, model.card, tmp_path / "m.safetensors")
    larger = {**model.card.architecture, "crop_size": model.network.crop_size * 2}
    recipe = tiny_recipe("local2", initial={"local_encoder": "m.safetensors"}, model=larger)
    with pytest.raises(CheckpointError, match="of another shape"):
        initial_network(recipe, tmp_path)
