"""Files with every tensor of the published backbones, at their real size: what is taken of them, and is it right."""

import pytest
import timm
import torch
from published_layouts import dinov2, ibot_student, ibot_teacher, sam, usfm
from timm.models.vision_transformer import checkpoint_filter_fn

from DualTrackCore.network.backbones import IMAGENET_PIXELS, load_backbone_weights

SIZE = 224


def grey_backbone(name):
    """timm's model as the global encoder takes it; with one number in place of every tensor of random ones."""
    with torch.device("meta"):
        made = timm.create_model(name, num_classes=0, in_chans=1, img_size=SIZE)
    return made.to_empty(device="cpu").eval()


def flat(shapes):
    """A number in the place of each tensor: a file of all names and shapes that takes next to no room."""
    return {
        name: torch.zeros(1, dtype=torch.long if name.endswith("index") else torch.float32).expand(shape)
        for name, shape in shapes.items()
    }


def ibot():
    return {"student": flat(ibot_student()), "teacher": flat(ibot_teacher()), "epoch": 800}


#: By layout: model of timm, content, number of tensors in the file and of those taken, kinds that are resampled.
LAYOUTS = {
    "DINOv2": ("vit_small_patch14_dinov2", lambda: flat(dinov2()), 175, 174, {"pos_embed"}),
    "iBOT": ("vit_small_patch16_224", ibot, 160, 150, set()),
    "SAM and MedSAM": ("samvit_base_patch16", lambda: flat(sam()), 314, 177, {"pos_embed", "rel_pos_h", "rel_pos_w"}),
    "USFM": ("beit_base_patch16_224", lambda: flat(usfm()), 188, 195, set()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_of_a_published_file_is_taken_or_known_to_be_no_part_of_the_encoder(layout, tmp_path):
    name, content, tensors, taken, resampled = LAYOUTS[layout]
    content = content()
    assert len(content.get("teacher", content)) == tensors
    torch.save(content, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").stat().st_size < 1e6
    loaded = load_backbone_weights(grey_backbone(name), tmp_path / "file.pth", grey=(0.5, 0.25))
    assert loaded.loaded == taken
    assert {entry.split()[0].rpartition(".")[2] for entry in loaded.resampled} == resampled
    assert loaded.as_built == (("fc_norm.weight", "fc_norm.bias") if layout == "USFM" else ())
    if layout == "SAM and MedSAM":
        assert {key.partition(".")[0] for key in loaded.left_out} == {"prompt_encoder", "mask_decoder"}
        assert len(loaded.left_out) == 314 - 177


@pytest.mark.parametrize("layout", ["DINOv2", "iBOT"])
def test_tokens_are_those_of_timms_own_model_from_the_same_file(layout, tmp_path):
    torch.manual_seed(0)
    shapes = dinov2() if layout == "DINOv2" else {k[9:]: v for k, v in ibot_teacher().items() if "backbone" in k}
    state = {key: 0.05 * torch.randn(shape) + key.endswith("norm1.weight") for key, shape in shapes.items()}
    torch.save(state, tmp_path / "file.pth")
    name = LAYOUTS[layout][0]
    ours, theirs = grey_backbone(name), timm.create_model(name, num_classes=0, img_size=SIZE).eval()
    load_backbone_weights(ours, tmp_path / "file.pth", grey=(0.5, 0.25))
    theirs.load_state_dict(checkpoint_filter_fn(state, theirs))
    grey = torch.rand(1, 1, SIZE, SIZE)
    mean, std = (torch.tensor(values)[:, None, None] for values in IMAGENET_PIXELS)
    with torch.no_grad():
        found = ours.forward_features((grey - 0.5) / 0.25)
        wanted = theirs.forward_features((grey.expand(-1, 3, -1, -1) - mean) / std)
    assert found.shape[1] == 1 + (SIZE // (14 if layout == "DINOv2" else 16)) ** 2
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
