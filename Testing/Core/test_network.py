"""The network's parts, with small random weights."""

import numpy as np
import pytest
import torch
from oracle import TINY, tiny_model

from DualTrackCore.errors import InputError
from DualTrackCore.network import DualTrack, blocks
from DualTrackCore.network.blocks import QUERY_BLOCK, RelativeAttention


def explicit_attention(layer: RelativeAttention, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
    """The formula of the specification, entry by entry, in float64."""
    context = x if context is None else context
    q, k, v = (
        m(source).double().unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        for m, source in ((layer.query, x), (layer.key, context), (layer.value, context))
    )
    n, d = q.shape[2:]
    distance = torch.arange(n)[:, None] - torch.arange(k.shape[2])[None, :] + layer.positions - 1
    relative = torch.einsum("bhld,lrd->bhlr", q, layer.distance_embedding.weight.double()[distance])
    weights = torch.softmax((q @ k.transpose(-1, -2) + relative) / d**0.5, dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("frames", [1, 5, QUERY_BLOCK, QUERY_BLOCK + 3])
def test_blocked_relative_attention_equals_the_formula(frames):
    torch.manual_seed(0)
    layer = RelativeAttention(16, 2, 0.0, positions=QUERY_BLOCK + 3)
    x = torch.randn(2, frames, 16)
    torch.testing.assert_close(layer(x, x).double(), explicit_attention(layer, x), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("queries", "keys"), [(37, 37), (40, 29), (3, 40)])
def test_blocks_of_few_rows_equal_the_formula(monkeypatch, queries, keys):
    monkeypatch.setattr(blocks, "SCORE_BYTES", 4 * 4 * (keys + QUERY_BLOCK) * 7)
    assert blocks.query_rows(keys, 4) == 7
    torch.manual_seed(0)
    layer = RelativeAttention(16, 2, 0.0, positions=40)
    x, context = torch.randn(2, queries, 16), torch.randn(2, keys, 16)
    expected = explicit_attention(layer, x, context)
    torch.testing.assert_close(layer(x, context).double(), expected, atol=2e-6, rtol=1e-5)


def test_gradients_through_blocks_equal_those_of_the_formula(monkeypatch):
    monkeypatch.setattr(blocks, "SCORE_BYTES", 4 * 4 * (21 + QUERY_BLOCK) * 8)
    torch.manual_seed(0)
    layer = RelativeAttention(16, 2, 0.0, positions=30)
    x, target = torch.randn(2, 21, 16), torch.randn(2, 21, 16)
    gradients = []
    for attend in (lambda: layer(x, x), lambda: explicit_attention(layer, x)):
        layer.zero_grad()
        (attend() * target).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in layer.parameters()])
    for own, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(own, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("keys", [200, 2048, 4096])
def test_scores_stay_within_their_memory_at_any_length(keys):
    rows, heads = blocks.query_rows(keys, 8), 8
    assert 4 * heads * rows * (rows + keys - 1) <= blocks.SCORE_BYTES
    assert rows >= 128


def test_attention_over_more_frames_than_the_table_holds_is_refused():
    layer = RelativeAttention(16, 2, 0.0, positions=8)
    with pytest.raises(InputError, match="9 frames at a time are more than the 8"):
        layer(torch.zeros(1, 9, 16), torch.zeros(1, 9, 16))


def test_relative_attention_passes_gradients_to_its_table():
    layer = RelativeAttention(8, 2, 0.0, positions=4)
    layer(torch.randn(1, 4, 8), torch.randn(1, 4, 8)).sum().backward()
    assert (layer.distance_embedding.weight.grad.abs().sum(dim=1) > 0).all()


def test_a_batch_gives_what_its_members_give_alone():
    network = tiny_model().network
    local, whole = torch.rand(2, 20, 64, 64), torch.rand(2, 2, 48, 48)
    with torch.inference_mode():
        together = network(local, whole)
        alone = torch.cat([network(local[i : i + 1], whole[i : i + 1]) for i in range(2)])
    assert together.shape == (2, 19, 6)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_both_encoders_reach_the_poses():
    network = tiny_model().network
    local, whole = torch.rand(1, 20, 64, 64), torch.rand(1, 2, 48, 48)
    with torch.inference_mode():
        base, other_local, other_whole = network(local, whole), network(local.flip(1), whole), network(local, 1 - whole)
    assert (base - other_local).abs().max() > 1e-4
    assert (base - other_whole).abs().max() > 1e-6


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_a_timm_model_serves_as_global_backbone(backbone):
    torch.manual_seed(0)
    network = DualTrack(**TINY, global_backbone=backbone).eval()
    with torch.inference_mode():
        poses = network(torch.rand(1, 17, 64, 64), torch.rand(1, 2, 48, 48))
    assert poses.shape == (1, 16, 6)
    assert torch.isfinite(poses).all()
    assert any(key.startswith("global_encoder.backbone.0.") for key in network.state_dict())


def test_an_unknown_timm_model_is_refused_with_names_near_it():
    with pytest.raises(InputError, match=r"no timm model named 'resnet_of_tomorrow'; near it: .*resnet"):
        DualTrack(**TINY, global_backbone="resnet_of_tomorrow")


def test_more_frames_than_positions_are_refused():
    with pytest.raises(InputError, match="65 frames at a time are more than the 64"):
        tiny_model().network.poses_from_features(torch.zeros(1, 65, 16), torch.zeros(1, 5, 8))


def test_a_crop_that_the_trunk_cannot_halve_is_refused():
    with pytest.raises(InputError, match="multiple of 32"):
        DualTrack(**{**TINY, "crop_size": 48})


def test_one_frame_gives_no_motion_at_all():
    with torch.inference_mode():
        assert tiny_model().network(torch.rand(1, 1, 64, 64), torch.rand(1, 1, 48, 48)).shape == (1, 0, 6)


def test_the_trunk_reaches_17_frames_to_either_side():
    assert DualTrack(**TINY).local.trunk.reach_frames == 17
    trunk = tiny_model().network.local.trunk
    frames = torch.rand(1, 1, 40, 32, 32)
    changed = frames.clone()
    changed[:, :, 0] = 0
    with torch.inference_mode():
        difference = (trunk(frames) - trunk(changed)).abs().amax(dim=(0, 1, 3, 4)).numpy()
    assert np.flatnonzero(difference).max() == 17
