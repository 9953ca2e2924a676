"""Names and shapes of every tensor in published backbone files, as papers and code of their projects define them.

Facts, written down from these sources; no file was at hand:

- DINOv2 (arXiv 2304.07193): `dinov2_vits14_pretrain.pth`, which timm names as the source of `vit_small_patch14_dinov2`.
- iBOT (arXiv 2111.07832): `checkpoint.pth` as `main_ibot.py` saves it, ViT-S/16 with the shared head of its commands.
- SAM (arXiv 2304.02643): `sam_vit_b_01ec64.pth`; MedSAM (arXiv 2304.12306) loads its own file into the same model.
- USFM (Med. Image Anal. 96: 103202): `USFM_latest.pth` as `remap_pretrained_keys_vit` of its code takes it: a plain
  state dict of a BEiT whose blocks share one table.
"""

from collections.abc import Iterable

Shapes = dict[str, tuple[int, ...]]


def _linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _convolution(name: str, inputs: int, outputs: int, size: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, size, size)} | ({f"{name}.bias": (outputs,)} if bias else {})


def _block(name: str, width: int, mlp: tuple[str, str] = ("fc1", "fc2"), bias: bool = True) -> Shapes:
    return {
        **_norm(f"{name}.norm1", width),
        **_linear(f"{name}.attn.qkv", width, 3 * width, bias),
        **_linear(f"{name}.attn.proj", width, width),
        **_norm(f"{name}.norm2", width),
        **_linear(f"{name}.mlp.{mlp[0]}", width, 4 * width),
        **_linear(f"{name}.mlp.{mlp[1]}", 4 * width, width),
    }


def _under(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def _joined(parts: Iterable[Shapes]) -> Shapes:
    return {name: shape for part in parts for name, shape in part.items()}


def _plain_vit(patch: int, tokens: int) -> Shapes:
    return {
        "cls_token": (1, 1, 384),
        "pos_embed": (1, tokens, 384),
        **_convolution("patch_embed.proj", 3, 384, patch),
        **_joined(_block(f"blocks.{i}", 384) for i in range(12)),
        **_norm("norm", 384),
    }


def dinov2() -> Shapes:
    """175 tensors for images of 518 pixels: 37 x 37 patches of 14, and the class token."""
    scales = {f"blocks.{i}.ls{k}.gamma": (384,) for i in range(12) for k in (1, 2)}
    return {**_plain_vit(14, 1 + 37 * 37), **scales, "mask_token": (1, 384)}


def ibot_teacher() -> Shapes:
    """Backbone and head of the teacher, which no DistributedDataParallel wraps for a ViT."""
    head = {
        **_linear("mlp.0", 384, 2048),
        **_linear("mlp.2", 2048, 2048),
        **_linear("mlp.4", 2048, 256),
    }
    for layer in ("last_layer", "last_layer2"):  # one layer by two names
        head |= {f"{layer}.weight_g": (8192, 1), f"{layer}.weight_v": (8192, 256)}
    return {**_under("backbone.", _plain_vit(16, 1 + 14 * 14)), **_under("head.", head)}


def ibot_student() -> Shapes:
    """The same inside its wrapper, with the token of masked patches."""
    return _under("module.", {**ibot_teacher(), "backbone.masked_embed": (1, 384)})


def sam() -> Shapes:
    """314 tensors of the whole model; 177 of them make the image encoder, for images of 1024 pixels."""
    encoder = {"pos_embed": (1, 64, 64, 768), **_convolution("patch_embed.proj", 3, 768, 16)}
    for i in range(12):
        encoder |= _block(f"blocks.{i}", 768, ("lin1", "lin2"))
        length = 2 * (64 if i in (2, 5, 8, 11) else 14) - 1
        encoder |= {f"blocks.{i}.attn.rel_pos_{axis}": (length, 64) for axis in "hw"}
    encoder |= _convolution("neck.0", 768, 256, 1, False) | _norm("neck.1", 256)
    encoder |= _convolution("neck.2", 256, 256, 3, False) | _norm("neck.3", 256)
    prompt = {"pe_layer.positional_encoding_gaussian_matrix": (2, 128)}
    prompt |= {f"point_embeddings.{i}.weight": (1, 256) for i in range(4)}
    prompt |= {f"{name}.weight": (1, 256) for name in ("not_a_point_embed", "no_mask_embed")}
    prompt |= _convolution("mask_downscaling.0", 1, 4, 2) | _norm("mask_downscaling.1", 4)
    prompt |= _convolution("mask_downscaling.3", 4, 16, 2) | _norm("mask_downscaling.4", 16)
    prompt |= _convolution("mask_downscaling.6", 16, 256, 1)
    decoder = {"iou_token.weight": (1, 256), "mask_tokens.weight": (4, 256)} | _norm("transformer.norm_final_attn", 256)
    for i in range(2):
        layer = f"transformer.layers.{i}"
        decoder |= _attention(f"{layer}.self_attn", 256) | _attention(f"{layer}.cross_attn_token_to_image", 128)
        decoder |= _attention(f"{layer}.cross_attn_image_to_token", 128)
        decoder |= _joined(_norm(f"{layer}.norm{k}", 256) for k in range(1, 5))
        decoder |= _linear(f"{layer}.mlp.lin1", 256, 2048) | _linear(f"{layer}.mlp.lin2", 2048, 256)
    decoder |= _attention("transformer.final_attn_token_to_image", 128)
    decoder |= {"output_upscaling.0.weight": (256, 64, 2, 2), "output_upscaling.0.bias": (64,)}
    decoder |= _norm("output_upscaling.1", 64)
    decoder |= {"output_upscaling.3.weight": (64, 32, 2, 2), "output_upscaling.3.bias": (32,)}
    decoder |= _joined(_three_layers(f"output_hypernetworks_mlps.{i}", 32) for i in range(4))
    decoder |= _three_layers("iou_prediction_head", 4)
    parts = {"image_encoder.": encoder, "prompt_encoder.": prompt, "mask_decoder.": decoder}
    return _joined(_under(prefix, shapes) for prefix, shapes in parts.items())


def _attention(name: str, inner: int) -> Shapes:
    inwards = _joined(_linear(f"{name}.{part}_proj", 256, inner) for part in "qkv")
    return inwards | _linear(f"{name}.out_proj", inner, 256)


def _three_layers(name: str, outputs: int) -> Shapes:
    return _joined(_linear(f"{name}.layers.{i}", 256, 256 if i < 2 else outputs) for i in range(3))


def usfm() -> Shapes:
    """A BEiT-B/16 for 224 pixels as masked modelling leaves it: one table and its index for all blocks."""
    blocks = {}
    for i in range(12):
        blocks |= _block(f"blocks.{i}", 768, bias=False)
        blocks |= {f"blocks.{i}.{name}": (768,) for name in ("gamma_1", "gamma_2", "attn.q_bias", "attn.v_bias")}
    return {
        "cls_token": (1, 1, 768),
        "mask_token": (1, 1, 768),
        **_convolution("patch_embed.proj", 3, 768, 16),
        **blocks,
        **_norm("norm", 768),
        "rel_pos_bias.relative_position_bias_table": (27 * 27 + 3, 12),
        "rel_pos_bias.relative_position_index": (197, 197),
    }
