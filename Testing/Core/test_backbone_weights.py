"""Pretrained backbones from local files: the layouts of their projects, other image sizes, files that do not fit."""

import argparse
from functools import partial

import pytest
import torch
from pretrained_files import LAYOUTS, PATCH, SHARED_TABLE, network, write_layout
from safetensors.torch import save_file
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer

from DualTrackCore.errors import CheckpointError, InputError
from DualTrackCore.network.backbones import IMAGENET_PIXELS, UNIT_PIXELS, load_backbone_weights, timm_backbone

GREY = (0.4, 0.3)


def features(backbone, grey_values, pixels=None):
    """What an RGB network makes of grey images, or a grey network of the same."""
    if pixels is None:
        images = (grey_values - GREY[0]) / GREY[1]
    else:
        mean, std = (torch.tensor(values)[:, None, None] for values in pixels)
        images = (grey_values.expand(-1, 3, -1, -1) - mean) / std
    with torch.no_grad():
        return backbone.eval()(images)


def grey_images(family, patches):
    torch.manual_seed(5)
    return torch.rand(2, 1, patches * PATCH[family], patches * PATCH[family])


def new_network(layout, patches):
    """A network to load into; the norm that BEiT adds after pretraining is as timm makes it."""
    made = network(LAYOUTS[layout][0], patches, 1, seed=9)
    if layout in SHARED_TABLE:
        torch.nn.init.ones_(made.fc_norm.weight)
        torch.nn.init.zeros_(made.fc_norm.bias)
    return made


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_gives_the_features_of_the_network_it_was_written_from(layout, tmp_path):
    family, _, place, left_out = LAYOUTS[layout]
    source, target = network(family, 3, 3), new_network(layout, 3)
    write_layout(layout, source, tmp_path / "file.pth")
    loaded = load_backbone_weights(target, tmp_path / "file.pth", grey=GREY)
    images = grey_images(family, 3)
    torch.testing.assert_close(
        features(target, images), features(source, images, IMAGENET_PIXELS), atol=2e-4, rtol=1e-4
    )
    assert (loaded.place, set(loaded.left_out), loaded.resampled) == (place, left_out, ())
    assert loaded.as_built == (("fc_norm.weight", "fc_norm.bias") if layout in SHARED_TABLE else ())
    assert loaded.loaded + len(loaded.as_built) == len(target.state_dict())


def test_a_file_of_images_between_0_and_1_is_taken_as_such(tmp_path):
    source, target = network("sam", 3, 3), network("sam", 3, 1, seed=9)
    write_layout("SAM", source, tmp_path / "medsam.pth")
    load_backbone_weights(target, tmp_path / "medsam.pth", pixels=UNIT_PIXELS, grey=GREY)
    images = grey_images("sam", 3)
    torch.testing.assert_close(features(target, images), features(source, images, UNIT_PIXELS), atol=2e-4, rtol=1e-4)


def test_a_resnet_of_rgb_images_gives_its_features_but_for_the_padded_border(tmp_path):
    torch.manual_seed(0)
    make = partial(ResNet, BasicBlock, (1, 1, 1, 1), channels=(8, 8, 8, 8))
    source = make(num_classes=5)
    for module in source.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
    target = make(num_classes=0, in_chans=1)
    torch.save({f"module.{k}": v for k, v in source.state_dict().items()}, tmp_path / "resnet.pth")
    loaded = load_backbone_weights(target, tmp_path / "resnet.pth", grey=GREY)
    assert loaded.place == "module."
    assert set(loaded.left_out) == {"module.fc.weight", "module.fc.bias"}
    grey = torch.rand(2, 1, 32, 32)
    maps = []
    for backbone, pixels in ((target, None), (source, IMAGENET_PIXELS)):
        stem = torch.nn.Sequential(*list(backbone.children())[:2])
        maps.append(features(stem, grey, pixels)[:, :, 2:-2, 2:-2])
    torch.testing.assert_close(*maps, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", ["DINOv2", "iBOT and DINO", "SAM", "BEiT", "USFM"])
@pytest.mark.parametrize("patches", [2, 5])
def test_tables_of_another_image_size_are_resampled_and_said_to_be(layout, patches, tmp_path):
    family = LAYOUTS[layout][0]
    source, target = network(family, 3, 3), new_network(layout, patches)
    tables = [n for n, _ in source.named_parameters() if "pos_embed" in n or "rel_pos" in n or "relative_pos" in n]
    with torch.no_grad():
        for name in tables:  # a table that is the same everywhere must stay so
            source.get_parameter(name).fill_(0.7)
    write_layout(layout, source, tmp_path / "file.pth")
    loaded = load_backbone_weights(target, tmp_path / "file.pth", grey=GREY)
    shapes = {n: (source.get_parameter(n).shape, target.get_parameter(n).shape) for n in tables}
    changed = {n for n, (old, new) in shapes.items() if old != new}
    assert changed
    assert {entry.split()[0] for entry in loaded.resampled} == changed
    for name in changed:
        torch.testing.assert_close(target.get_parameter(name), torch.full(shapes[name][1], 0.7), atol=1e-5, rtol=0)
    assert any("resampled" in sentence and "another size" in sentence for sentence in loaded.sentences())
    assert torch.isfinite(features(target, grey_images(family, patches))).all()


def test_patches_of_another_size_are_resampled(tmp_path):
    make = partial(VisionTransformer, embed_dim=32, depth=1, num_heads=2, num_classes=0)
    source, target = make(img_size=48, patch_size=16, in_chans=3), make(img_size=42, patch_size=14, in_chans=1)
    torch.save(source.state_dict(), tmp_path / "file.pth")
    loaded = load_backbone_weights(target, tmp_path / "file.pth")
    assert [entry.split()[0] for entry in loaded.resampled] == ["patch_embed.proj.weight"]


def test_a_file_of_safetensors_and_one_for_grey_images_are_taken_as_they_are(tmp_path):
    source, target = network("ibot", 2, 1), network("ibot", 2, 1, seed=9)
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    load_backbone_weights(target, tmp_path / "own.safetensors", grey=GREY)
    assert all(torch.equal(v, target.state_dict()[k]) for k, v in source.state_dict().items())


def test_sentences_name_what_was_taken_left_out_and_kept(tmp_path):
    write_layout("USFM", network("beit", 3, 3), tmp_path / "USFM_latest.pth")
    found = load_backbone_weights(new_network("USFM", 2), tmp_path / "USFM_latest.pth").sentences()
    assert found[0].startswith("USFM_latest.pth gives ")
    assert "blocks.N.attn.relative_position_bias_table (28, 2) to (12, 2) (2 times)" in found[1]
    assert "left out: norm (2), mask_token (1)" in found[2]
    assert "lacks fc_norm.weight, fc_norm.bias" in found[3]


def without(state, *parts):
    return {k: v for k, v in state.items() if not any(part in k for part in parts)}


WRONG = {
    "a block too few": (lambda s: without(s, "blocks.1."), r"12 missing \(blocks\.1\.norm1\.weight"),
    "a block too many": (
        lambda s: s | {"blocks.2.norm1.weight": torch.ones(32)},
        r"1 unknown \(blocks\.2\.norm1\.weight\)",
    ),
    "another width": (
        lambda s: s | {"norm.weight": torch.ones(33)},
        r"1 of another shape \(norm\.weight \(33,\) instead of \(32,\)\)",
    ),
    "something beside the encoder": (
        lambda s: {f"encoder.{k}": v for k, v in s.items()} | {"momentum_queue": torch.ones(2)},
        r"1 unknown \(momentum_queue\)",
    ),
    "an unknown wrapper": (
        lambda s: {f"text_tower.{k}": v for k, v in s.items()},
        r"has no patch_embed\.proj\.weight, plain or under names such as image_encoder",
    ),
    "not numbers": (lambda s: s | {"norm.bias": torch.full((32,), float("nan"))}, r"not finite in norm\.bias"),
    "nothing": (lambda s: {}, "holds no state dict"),
    "numbers that are no tensors": (lambda s: {"model": {**s, "lr": 0.1}}, "lr hold no tensors"),
    "four channels": (
        lambda s: s | {"patch_embed.proj.weight": torch.ones(32, 4, 16, 16)},
        "is for 4 channels; expected RGB or grey",
    ),
    "a position table of no square": (lambda s: s | {"pos_embed": torch.ones(1, 8, 32)}, "cannot be made to fit|shape"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_of_another_network_is_refused_and_the_backbone_left_alone(wrong, tmp_path):
    change, message = WRONG[wrong]
    torch.save(change(network("ibot", 3, 3).state_dict()), tmp_path / "wrong.pth")
    target = network("ibot", 3, 1, seed=9)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        load_backbone_weights(target, tmp_path / "wrong.pth")
    assert "wrong.pth" in str(caught.value) or wrong == "four channels"
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


def test_medsam_for_a_backbone_without_position_table_and_neck_is_refused(tmp_path):
    source = network("sam", 3, 3)
    write_layout("SAM", source, tmp_path / "medsam.pth")
    target = network("sam", 3, 1)
    target.pos_embed, target.neck = None, torch.nn.LayerNorm(32)
    with pytest.raises(CheckpointError, match=r"2 missing \(neck\.weight.*name the timm model that the file was made"):
        load_backbone_weights(target, tmp_path / "medsam.pth")


def test_a_file_with_more_than_tensors_is_not_opened(tmp_path):
    torch.save({"teacher": {}, "args": argparse.Namespace(lr=1)}, tmp_path / "full.pth")
    with pytest.raises(CheckpointError, match=r"full\.pth holds more than tensors \(argparse\.Namespace\)"):
        load_backbone_weights(network("ibot", 2, 1), tmp_path / "full.pth")
    (tmp_path / "text.pth").write_text("<!DOCTYPE html> not found", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"text\.pth is not a weights file"):
        load_backbone_weights(network("ibot", 2, 1), tmp_path / "text.pth")


def test_an_image_size_that_patches_do_not_divide_is_refused_with_those_near():
    message = r"patches of 14 pixels, and 64 is no multiple.*set global_size to 56 or 70"
    with pytest.raises(InputError, match=message), torch.device("meta"):
        timm_backbone("vit_small_patch14_dinov2", 64)
