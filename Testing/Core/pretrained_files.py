"""Checkpoints of pretrained backbones in the layouts of their projects, made from small timm networks."""

from functools import partial

import torch
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import nn

_SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}
_SAM = {"window_size": 3, "global_attn_indexes": (1,), "use_rel_pos": True, "neck_chans": 16}
_BEIT = {"use_abs_pos_emb": False, "use_rel_pos_bias": True, "init_values": 0.1}

#: Family: small network of it, of an image size and a number of channels; patches of 14 or 16 pixels.
FAMILIES = {
    "dinov2": partial(VisionTransformer, patch_size=14, init_values=1e-5, **_SMALL),
    "ibot": partial(VisionTransformer, patch_size=16, **_SMALL),
    "sam": partial(VisionTransformerSAM, patch_size=16, **_SMALL, **_SAM),
    "beit": partial(Beit, patch_size=16, **_SMALL, **_BEIT),
}
PATCH = {"dinov2": 14, "ibot": 16, "sam": 16, "beit": 16}


def network(family: str, patches: int, channels: int, seed: int = 0) -> nn.Module:
    """A network for `patches` x `patches` patches; every weight is a random number, also those that start as zero."""
    torch.manual_seed(seed)
    made = FAMILIES[family](img_size=patches * PATCH[family], in_chans=channels).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def dinov2(state: dict) -> dict:
    """A plain state dict with the token of masked patches."""
    return {**state, "mask_token": torch.zeros(1, 32)}


def ibot(state: dict) -> dict:
    """The file of a finished pretraining: the teacher beside a student of other values, heads and a masked token."""
    backbone = {f"module.backbone.{k}": v for k, v in state.items()} | {"module.head.mlp.0.weight": torch.ones(2, 2)}
    student = {k: v + 1 for k, v in backbone.items()} | {"module.backbone.masked_embed": torch.zeros(1, 32)}
    return {"student": student, "teacher": backbone, "epoch": 800}


def extracted(state: dict) -> dict:
    """A backbone alone under state_dict, as iBOT publishes it beside the full file."""
    return {"state_dict": state}


def sam(state: dict) -> dict:
    """SAM's whole model: the image encoder with the makers' names, prompt encoder, mask decoder."""
    renamed = {k.replace("mlp.fc", "mlp.lin"): v for k, v in state.items()}
    others = {"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": torch.ones(2, 8)}
    others |= {f"mask_decoder.transformer.layers.{i}.norm1.weight": torch.ones(4) for i in range(2)}
    return {f"image_encoder.{k}": v for k, v in renamed.items()} | others


def fine_tuned_beit(state: dict) -> dict:
    """A fine-tuned BEiT: a table for every block with its index, a head, under `model`."""
    index = {f"blocks.{i}.attn.relative_position_index": torch.zeros(5, 5, dtype=torch.long) for i in range(2)}
    return {"model": {**state, **index, "head.weight": torch.ones(3, 32), "head.bias": torch.ones(3)}}


def usfm(state: dict) -> dict:
    """A BEiT as masked image modelling leaves it, USFM among them: one table for all blocks, a norm before pooling."""
    own = {k: v for k, v in state.items() if "relative_position" not in k and not k.startswith("fc_norm")}
    own["rel_pos_bias.relative_position_bias_table"] = state["blocks.0.attn.relative_position_bias_table"]
    return {
        **own,
        "norm.weight": torch.full((32,), 3.0),
        "norm.bias": torch.ones(32),
        "mask_token": torch.ones(1, 1, 32),
    }


def masked_modelling(state: dict) -> dict:
    """The same inside the model of a masked pretraining, under `model` and `encoder.`, with its decoder."""
    inside = {f"encoder.{k}": v for k, v in usfm(state).items()}
    return {"model": inside | {"decoder.0.weight": torch.ones(2, 2), "decoder.0.bias": torch.ones(2)}}


#: Layout: family, what writes it, what `LoadedBackbone.place` says, parts that are left out.
LAYOUTS = {
    "DINOv2": ("dinov2", dinov2, "", {"mask_token"}),
    "iBOT and DINO": ("ibot", ibot, "teacher, module.backbone.", {"module.head.mlp.0.weight"}),
    "iBOT's backbone alone": ("ibot", extracted, "state_dict", set()),
    "SAM": (
        "sam",
        sam,
        "image_encoder.",
        {
            "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
            "mask_decoder.transformer.layers.0.norm1.weight",
            "mask_decoder.transformer.layers.1.norm1.weight",
        },
    ),
    "BEiT": ("beit", fine_tuned_beit, "model", {"head.weight", "head.bias"}),
    "USFM": ("beit", usfm, "", {"norm.weight", "norm.bias", "mask_token"}),
    "masked modelling": (
        "beit",
        masked_modelling,
        "model, encoder.",
        {"encoder.norm.weight", "encoder.norm.bias", "encoder.mask_token", "decoder.0.weight", "decoder.0.bias"},
    ),
}
#: Layouts that have one table for all blocks and no norm after pooling.
SHARED_TABLE = ("USFM", "masked modelling")


def write_layout(layout: str, source: nn.Module, path) -> None:
    """Write the weights of a network as the project of that layout does."""
    if layout in SHARED_TABLE:
        with torch.no_grad():
            source.blocks[1].attn.relative_position_bias_table.copy_(source.blocks[0].attn.relative_position_bias_table)
            source.fc_norm.weight.fill_(1)
            source.fc_norm.bias.zero_()
    torch.save(LAYOUTS[layout][1](source.state_dict()), path)
