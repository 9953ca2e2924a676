"""Low-rank adapters: the same network at first, the stated formula after training, plain weights after merging."""

import pytest
import torch
from pretrained_files import PATCH, network

from DualTrackCore.errors import InputError
from DualTrackCore.network.backbones import add_lora, lora_parameters, merge_lora

ADAPTED = {f"blocks.{i}.attn.{part}" for i in range(2) for part in ("qkv", "proj")}


def images(family):
    torch.manual_seed(4)
    return torch.rand(3, 1, 2 * PATCH[family], 2 * PATCH[family])


def trained_adapters(backbone):
    """As after training: `up` is not zero any more."""
    torch.manual_seed(6)
    with torch.no_grad():
        for parameter in lora_parameters(backbone):
            parameter.copy_(0.3 * torch.randn_like(parameter))


@pytest.mark.parametrize("family", ["ibot", "dinov2", "sam", "beit"])
def test_merged_weights_give_what_the_adapters_gave_under_their_plain_names(family):
    backbone = network(family, 2, 1)
    plain = {k: v.clone() for k, v in backbone.state_dict().items()}
    with torch.no_grad():
        before = backbone(images(family))
        assert set(add_lora(backbone, 4)) == ADAPTED
        assert torch.equal(backbone(images(family)), before)
        trained_adapters(backbone)
        adapted = backbone(images(family))
        assert (adapted - before).abs().max() > 1e-2
        assert merge_lora(backbone) == 4
        assert torch.equal(backbone(images(family)), adapted)
    merged = backbone.state_dict()
    assert merged.keys() == plain.keys()
    changed = {k for k in plain if not torch.equal(plain[k], merged[k])}
    assert changed == {f"{name}.weight" for name in ADAPTED}
    assert lora_parameters(backbone) == []
    assert merge_lora(backbone) == 0


def test_an_adapted_layer_adds_alpha_over_rank_times_up_down():
    backbone = network("ibot", 2, 1)
    layer = backbone.blocks[0].attn.qkv
    weight, bias = layer.weight.detach().clone(), layer.bias
    add_lora(backbone, 3, alpha=12)
    trained_adapters(backbone)
    low = layer.parametrizations.weight[0]
    x = torch.randn(5, 32)
    wanted = x @ weight.T + bias + (12 / 3) * (x @ low.down.T) @ low.up.T
    torch.testing.assert_close(layer(x), wanted, atol=1e-5, rtol=1e-5)


def test_the_gradient_of_every_adapter_is_that_of_the_formula():
    backbone = network("beit", 2, 1)
    add_lora(backbone, 2)
    backbone.requires_grad_(False)
    for parameter in lora_parameters(backbone):
        parameter.requires_grad_(True)
    backbone(images("beit")).square().sum().backward()
    with_gradient = {n for n, p in backbone.named_parameters() if p.grad is not None}
    assert with_gradient == {f"{n}.parametrizations.weight.0.{part}" for n in ADAPTED for part in ("down", "up")}
    # `down` has no gradient before `up` has left zero; `up` has one at once.
    assert all(p.grad.abs().max() > 0 for n, p in backbone.named_parameters() if n.endswith(".up"))


def test_what_cannot_be_adapted_is_refused():
    backbone = network("ibot", 2, 1)
    with pytest.raises(InputError, match="LoRA rank is 33; it must be from 1 to 32"):
        add_lora(backbone, 33)
    assert lora_parameters(backbone) == []
    add_lora(backbone, 2)
    with pytest.raises(InputError, match="has LoRA adapters already; merge them"):
        add_lora(backbone, 2)
    with pytest.raises(InputError, match="Sequential has none; train it in full or leave it frozen"):
        add_lora(torch.nn.Sequential(torch.nn.Linear(3, 3)), 2)
