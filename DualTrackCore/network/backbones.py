"""Image backbones for the global encoder: timm models for one grey channel, their pretrained weights, and adapters.

timm builds the models and resamples tables for other image sizes. Added here: the layouts in which projects publish
weights (a state dict alone, under a key such as `teacher` or a prefix such as `image_encoder.`; USFM's shared position
table), first layers that give for grey images exactly what they gave for RGB, and refusal of files that do not fit.

Adapters are low-rank (LoRA, Hu et al. 2021, arXiv 2106.09685), on the attention of a vision transformer: the weight
W [out, in] of a linear layer becomes W + (alpha / rank) B A, where A [rank, in] starts as random numbers and B [out,
rank] as zeros, so that nothing changes until B is trained; W itself stays as it is. The sum is a parametrization of the
layer's weight, so code that reads `layer.weight` itself, as timm's BEiT does, gets the sum too.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from DualTrackCore.errors import CheckpointError, InputError
from DualTrackCore.network.model import plain_state_dict, read_content, require_match, some_keys

#: Keys that state dicts lie under; of a teacher and a student the teacher, which is the average that projects publish.
_CONTAINERS = ("teacher", "state_dict", "model", "module", "student")
#: Names that wrap an image encoder in a larger model and are taken off.
_WRAPPERS = frozenset({"_orig_mod", "module", "model", "backbone", "encoder", "image_encoder", "teacher", "student"})
#: Parts of larger models that are no part of the image encoder: heads, decoders, and tokens of masked training.
_OTHER_PARTS = frozenset(
    {
        *("head", "fc", "classifier", "lm_head", "mask_token", "masked_embed", "decoder", "decoder_embed"),
        *("prompt_encoder", "mask_decoder", "dino_head", "ibot_head", "pixel_mean", "pixel_std"),
    }
)
_SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"
_OWN_TABLE = "attn.relative_position_bias_table"
_REMEDY = "; name the timm model that the file was made for"


#: (mean, std) of each of three channels, for a pretraining that turned values of 0 to 1 into (value - mean) / std.
Pixels = tuple[tuple[float, float, float], tuple[float, float, float]]
#: Mean and deviation of ImageNet's pixels: DINOv2, iBOT, SAM, torchvision's ResNets.
IMAGENET_PIXELS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: Values of 0 to 1 as they are: MedSAM.
UNIT_PIXELS = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def timm_backbone(name: str, image_size: int) -> tuple[nn.Module, int]:
    """A timm model as one-channel feature extractor with random weights, and the length of its pooled output.

    Args:
        name: timm's, such as "resnet18" or "vit_small_patch14_dinov2".
        image_size: pixels a side of the images; position tables are made for this size.

    Raises InputError: timm has no model of that name, or it cannot take that image size.
    """
    import timm

    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "see timm.list_models()"
        raise InputError(f"There is no timm model named {name!r}; near it: {near}.")
    options: dict[str, Any] = {"pretrained": False, "num_classes": 0, "in_chans": 1}
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    try:
        backbone = _slice_before_pointwise_strides(timm.create_model(name, **options))
        _require_whole_patches(backbone, name, image_size)
        with torch.inference_mode():  # what timm calls num_features is not the output's length for every family
            features = backbone.eval()(torch.zeros(1, 1, image_size, image_size)).shape[-1]
        return backbone.train(), features
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(
            f"The timm model {name!r} cannot be built for {image_size}-pixel grey images: {error}."
        ) from error


def _slice_before_pointwise_strides(backbone: nn.Module) -> nn.Module:
    """Let the 1x1 convolutions with a stride take every second pixel themselves; the numbers stay the same.

    Only where channels are no multiple of 8 (the stems of RepVGG and MobileOne, some blocks of RegNetY and GhostNetV3):
    there the weight gradient of oneDNN is wrong on processors without AVX-512 (torch 2.14.1).
    """
    for module in backbone.modules():
        if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1) or module.stride == (1, 1):
            continue
        if module.in_channels % 8 or module.out_channels % 8:
            module.register_forward_pre_hook(partial(_every_pixel_of_stride, stride=module.stride))
            module.stride = (1, 1)
    return backbone


def _every_pixel_of_stride(module: nn.Module, inputs: tuple[Tensor], stride: tuple[int, int]) -> tuple[Tensor]:
    """A forward hook: the pixels that the convolution looked at."""
    return (inputs[0][..., :: stride[0], :: stride[1]],)


def _require_whole_patches(backbone: nn.Module, name: str, image_size: int) -> None:
    """Refuse a size whose last rows and columns no patch would see."""
    size = getattr(getattr(backbone, "patch_embed", None), "patch_size", None)
    patch = max(size) if isinstance(size, tuple | list) else size
    if patch and image_size % patch:
        below, above = image_size // patch * patch, (image_size // patch + 1) * patch
        near = f"{below} or {above}" if below else f"{above}"
        raise InputError(
            f"The timm model {name!r} cuts images into patches of {patch} pixels, and {image_size} is no multiple of "
            f"that; set global_size to {near}."
        )


@dataclass(frozen=True)
class LoadedBackbone:
    """What was taken from a checkpoint, and what was not.

    Attributes:
        file: its name.
        place: where in it the encoder's tensors lay, such as "teacher, module.backbone."; empty for a plain state dict.
        loaded: number of tensors that were taken.
        resampled: tensors that were made for another size, each with both shapes.
        left_out: tensors of the file that are no part of an image encoder.
        as_built: tensors of the backbone that such files do not have; they keep their initial values.
    """

    file: str
    place: str
    loaded: int
    resampled: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    as_built: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """One sentence for each kind of thing that happened."""
        place = f", found under {self.place}" if self.place else ""
        lines = [f"{self.file} gives {self.loaded} tensors of the backbone{place}."]
        if self.resampled:
            kinds = Counter(re.sub(r"\.\d+\.", ".N.", entry) for entry in self.resampled)
            entries = "; ".join(f"{kind} ({count} times)" if count > 1 else kind for kind, count in kinds.items())
            lines.append(f"{self.file} was made for images of another size; resampled: {entries}.")
        if self.left_out:
            parts = Counter(_own_name(key)[0] for key in self.left_out)
            counts = ", ".join(f"{part} ({count})" for part, count in parts.items())
            lines.append(f"{self.file} holds parts that the backbone does not have; left out: {counts}.")
        if self.as_built:
            lines.append(f"{self.file} lacks {', '.join(self.as_built)}; they start as in a new network.")
        return lines


def load_backbone_weights(
    backbone: nn.Module, path: Path, *, pixels: Pixels = IMAGENET_PIXELS, grey: tuple[float, float] = (0.0, 1.0)
) -> LoadedBackbone:
    """Put pretrained weights into a backbone, in place.

    Weights for RGB images are changed so that a grey image gives what the RGB network gives for that image in all three
    channels (exactly where the first layer does not pad, as in vision transformers).

    Args:
        backbone: a timm model for one channel, or any module with those names.
        path: .safetensors or PyTorch file.
        pixels: what the pretraining turned RGB values of 0 to 1 into.
        grey: (mean, std) of the grey images that the backbone will see, as in the model card.

    Raises CheckpointError: no such file, unsafe, damaged, or not of this backbone; names the keys.
    """
    content, _ = read_content(path)
    tensors, levels = plain_state_dict(content, path, _CONTAINERS)
    stem = _first_convolution(backbone)
    prefix = _prefix(tensors, stem, backbone, path)
    expected = backbone.state_dict()
    inside = _renamed({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}, expected)
    converted = _resampled(backbone, expected, inside, path)
    resampled = [
        f"{k} {tuple(inside[k].shape)} to {tuple(v.shape)}"
        for k, v in converted.items()
        if k in expected and k in inside and inside[k].shape != v.shape
    ]
    left_out = [k for k in tensors if not k.startswith(prefix)]
    left_out += [prefix + k for k in converted if k not in expected]
    left_out += [prefix + k for k in inside if k not in converted and _is_other_part(k)]
    usable = {k: v for k, v in converted.items() if k in expected}
    usable = grey_stem(backbone, stem, usable, pixels, grey)
    as_built = [k for k in expected if k not in usable and not k.endswith("num_batches_tracked")]
    # BEiT pretrains with a norm before the pooling and is fine-tuned with a new one after it.
    new_norm = "fc_norm.weight" in as_built and "norm.weight" not in expected
    unknown = [k for k in left_out if not _is_other_part(k) and not (new_norm and _own_name(k)[0] == "norm")]
    missing = [k for k in as_built if not (new_norm and k.startswith("fc_norm."))]
    require_match(expected, usable, missing, unknown, path.name, _kind(backbone), _REMEDY)
    backbone.load_state_dict({**expected, **usable})
    place = ", ".join([*levels, *([prefix] if prefix else [])])
    return LoadedBackbone(path.name, place, len(usable), tuple(resampled), tuple(left_out), tuple(as_built))


def _kind(backbone: nn.Module) -> str:
    return f"the backbone ({type(backbone).__name__})"


def _first_convolution(backbone: nn.Module) -> str:
    """Name of the layer that sees the image."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            return name
    raise CheckpointError(f"{type(backbone).__name__} has no convolution that could take pretrained weights.")


def _prefix(tensors: Mapping[str, Tensor], stem: str, backbone: nn.Module, path: Path) -> str:
    """What stands before the names of the image encoder's tensors."""
    key = f"{stem}.weight"
    before = [name.removesuffix(key) for name in tensors if name == key or name.endswith(f".{key}")]
    prefixes = [prefix for prefix in before if _WRAPPERS.issuperset(prefix.split(".")[:-1])]
    if not prefixes:
        raise CheckpointError(
            f"{path.name} is not a checkpoint of {_kind(backbone)}: it has no {key}, plain or under names such as "
            f"image_encoder; it has {some_keys(list(tensors))}."
        )
    return min(prefixes, key=lambda prefix: ("student" in prefix.split("."), len(prefix)))


def _renamed(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """float32 tensors by timm's names: SAM's MLP renamed, and USFM's shared position table given to every block."""
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    named = {k.replace(".mlp.lin1.", ".mlp.fc1.").replace(".mlp.lin2.", ".mlp.fc2."): v for k, v in tensors.items()}
    tables = [k for k in expected if k.endswith(_OWN_TABLE)]
    if tables and _SHARED_TABLE in named and not any(k in named for k in tables):
        shared = named.pop(_SHARED_TABLE)
        named |= {k: shared.clone() for k in tables}
    return {k: v for k, v in named.items() if not k.endswith("relative_position_index")}


def _resampled(
    backbone: nn.Module, expected: Mapping[str, Tensor], tensors: dict[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Patch kernels and position tables for the backbone's sizes, by timm's rules for its family."""
    from timm.layers import resample_abs_pos_embed_nhwc

    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    try:
        converted = dict(tensors) if convert is None else convert(dict(tensors), backbone)
        for key, value in converted.items():  # the tables of SAM, which timm leaves as they are
            wanted = expected.get(key)
            if wanted is None or wanted.shape == value.shape or wanted.ndim != value.ndim:
                continue
            if key == "pos_embed" and value.ndim == 4:
                converted[key] = resample_abs_pos_embed_nhwc(value, list(wanted.shape[1:3]))
            elif key.endswith(("attn.rel_pos_h", "attn.rel_pos_w")):
                converted[key] = nn.functional.interpolate(value.T[None], size=len(wanted), mode="linear")[0].T
    except (RuntimeError, ValueError, KeyError, IndexError, AttributeError, AssertionError, TypeError) as error:
        raise CheckpointError(f"{path.name} cannot be made to fit {_kind(backbone)}: {error}{_REMEDY}.") from None
    return converted


def grey_stem(
    backbone: nn.Module, stem: str, tensors: Mapping[str, Tensor], pixels: Pixels, grey: tuple[float, float]
) -> dict[str, Tensor]:
    """The tensors with their first convolution for one channel in place of three.

    A grey value v, seen as g = (v - mean) / std, stands for the colours c = (v - mean_c) / std_c, so

        sum_c w_c c = (sum_c w_c std / std_c) g + sum_c w_c (mean - mean_c) / std_c

    The second term is a constant where the layer does not pad: it goes into the bias, or into the running mean of the
    BatchNorm that follows a convolution without one. With padding the outermost pixels differ, as zeros then stand for
    `mean` and not for `mean_c`.

    Args:
        backbone: that the tensors are for.
        stem: name of its first convolution.
        tensors: state dict; weights for one channel are left as they are.
        pixels, grey: what the network saw in pretraining, and (mean, std) of what it will see.

    Raises CheckpointError: neither one nor three channels, or nowhere to put the constant.
    """
    weight, layer = tensors.get(f"{stem}.weight"), backbone.get_submodule(stem)
    if weight is None or weight.ndim != 4 or weight.shape[1] == layer.in_channels:
        return dict(tensors)
    if weight.shape[1] != 3 or layer.in_channels != 1:
        raise CheckpointError(f"{stem}.weight is for {weight.shape[1]} channels; expected RGB or grey images.")
    mean, std = (torch.tensor(v, dtype=weight.dtype)[:, None, None] for v in pixels)
    scaled = (weight * grey[1] / std).sum(dim=1, keepdim=True)
    constant = (weight * (grey[0] - mean) / std).sum(dim=(1, 2, 3))
    if (bias := tensors.get(f"{stem}.bias")) is not None:
        return {**tensors, f"{stem}.weight": scaled, f"{stem}.bias": bias + constant}
    norm = next((n for n, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d)), None)
    running = tensors.get(f"{norm}.running_mean")
    if running is None or running.shape != constant.shape:
        raise CheckpointError(f"The first layer {stem} has neither bias nor BatchNorm to hold the scale of its input.")
    return {**tensors, f"{stem}.weight": scaled, f"{norm}.running_mean": running - constant}


def _own_name(key: str) -> list[str]:
    """The words of a key without the wrappers before them."""
    words = key.split(".")
    while len(words) > 1 and words[0] in _WRAPPERS:
        words = words[1:]
    return words


def _is_other_part(key: str) -> bool:
    return key.startswith("student.") or _own_name(key)[0] in _OTHER_PARTS


#: Ends of the names of the layers that are adapted: what makes queries, keys and values, and what follows the heads.
_ADAPTED = ("attn.qkv", "attn.proj")


class LowRankSum(nn.Module):
    """W -> W + (alpha / rank) up @ down.

    Args:
        weight: the weight to adapt, [out, in]; for its shape, type and device.
        rank: of the sum's second term; at most the smaller side of the weight.
        alpha: strength; the term is multiplied by alpha / rank.

    Raises InputError: a rank below 1 or above what the weight can have.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        if not 1 <= rank <= min(weight.shape):
            raise InputError(f"The LoRA rank is {rank}; it must be from 1 to {min(weight.shape)} for this backbone.")
        outputs, inputs = weight.shape
        self.down = nn.Parameter(weight.new_empty(rank, inputs))
        self.up = nn.Parameter(weight.new_zeros(outputs, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight, [out, in]."""
        return torch.addmm(weight, self.up, self.down, alpha=self.scale)


def add_lora(backbone: nn.Module, rank: int, alpha: float | None = None) -> list[str]:
    """Put adapters on the `attn.qkv` and `attn.proj` layers of a backbone; its output does not change at first.

    Args:
        backbone: changed in place; `requires_grad` of its own weights does not change.
        rank: of the adapters.
        alpha: strength; the rank by default, so that the added term is up @ down as it stands.

    Returns:
        Names of the adapted layers.

    Raises InputError: no such layers, adapters are there already, or the rank does not fit.
    """
    layers = {n: m for n, m in backbone.named_modules() if isinstance(m, nn.Linear) and n.endswith(_ADAPTED)}
    if not layers:
        raise InputError(
            f"LoRA adapts the attention of a vision transformer, and {type(backbone).__name__} has none; "
            "train it in full or leave it frozen."
        )
    if any(parametrize.is_parametrized(layer) for layer in layers.values()):
        raise InputError("The backbone has LoRA adapters already; merge them before new ones are added.")
    for layer in layers.values():
        parametrize.register_parametrization(layer, "weight", LowRankSum(layer.weight, rank, float(alpha or rank)))
    return list(layers)


def lora_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of all adapters in a module: down and up of each."""
    return [p for part in module.modules() if isinstance(part, LowRankSum) for p in part.parameters()]


def merge_lora(module: nn.Module) -> int:
    """Replace adapted weights by plain ones of the same value, so that the state dict has its plain names again.

    Returns:
        How many layers were merged.
    """
    adapted = [m for m in module.modules() if parametrize.is_parametrized(m, "weight")]
    for layer in adapted:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return len(adapted)
