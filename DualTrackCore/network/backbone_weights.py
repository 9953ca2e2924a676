"""Pretrained weights of image backbones, from a local checkpoint in the layout of the project that made it.

Read are plain state dicts (DINOv2, ResNets, USFM), those under a key (`teacher`, `student`, `model`, `state_dict`),
and those under a prefix (`module.backbone.` of iBOT and DINO, `image_encoder.` of SAM and MedSAM, `encoder.` of masked
image modelling). Position tables of another image size are resampled. A file is opened as tensors only.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from DualTrackCore.errors import CheckpointError
from DualTrackCore.network.backbone_stem import GREY_AS_IT_IS, IMAGENET_PIXELS, UNIT_PIXELS, Pixels, grey_stem
from DualTrackCore.network.checkpoint import read_content

__all__ = ["IMAGENET_PIXELS", "UNIT_PIXELS", "LoadedBackbone", "Pixels", "load_backbone_weights"]

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


@dataclass(frozen=True)
class LoadedBackbone:
    """What became of a checkpoint.

    Attributes:
        file: its name.
        place: where in it the encoder's tensors lay, such as "teacher, module.backbone."; empty for a plain state dict.
        loaded: tensors that were taken.
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
        found = f"{self.loaded} tensors of the backbone" + (f", found under {self.place}" if self.place else "")
        lines = [f"{self.file} gives {found}."]
        if self.resampled:
            lines.append(f"{self.file} was made for images of another size; resampled: {_grouped(self.resampled)}.")
        if self.left_out:
            lines.append(f"{self.file} holds parts that the backbone does not have; left out: {_parts(self.left_out)}.")
        if self.as_built:
            lines.append(f"{self.file} lacks {', '.join(self.as_built)}; they start as in a new network.")
        return lines


def load_backbone_weights(
    backbone: nn.Module, path: Path, *, pixels: Pixels = IMAGENET_PIXELS, grey: tuple[float, float] = GREY_AS_IT_IS
) -> LoadedBackbone:
    """Put pretrained weights into a backbone, in place.

    Weights for RGB images are changed so that a grey image gives what the RGB network gives for that image in all three
    channels (exactly where the first layer does not pad, as in vision transformers).

    Args:
        backbone: a timm model for one channel, or any module with those names.
        path: .safetensors or PyTorch file.
        pixels: what the pretraining turned RGB values of 0 to 1 into.
        grey: (mean, std) of the grey images that the backbone will see, as in the model card.

    Raises:
        CheckpointError: no such file, unsafe, damaged, or not of this backbone; names the keys.
    """
    content, _ = read_content(path)
    tensors, levels = _innermost_state_dict(content, path)
    stem = _first_convolution(backbone)
    prefix = _prefix(tensors, stem, backbone, path)
    inside = {k.removeprefix(prefix): _float(v) for k, v in tensors.items() if k.startswith(prefix)}
    outside = [k for k in tensors if not k.startswith(prefix)]
    expected = backbone.state_dict()
    usable = _resampled(backbone, expected, _renamed(inside, expected), path)
    resampled = _changed_shapes(inside, usable, expected)
    left_out = [*outside, *(prefix + k for k in usable if k not in expected)]
    left_out += [prefix + k for k in inside if k not in usable and _is_other_part(k)]
    usable = {k: v for k, v in usable.items() if k in expected}
    usable = grey_stem(backbone, stem, usable, pixels, grey)
    as_built = [k for k in expected if k not in usable and not k.endswith("num_batches_tracked")]
    _require_this_backbone(backbone, expected, usable, left_out, as_built, path)
    backbone.load_state_dict({**expected, **usable})
    place = ", ".join([*levels, *([prefix] if prefix else [])])
    return LoadedBackbone(path.name, place, len(usable), tuple(resampled), tuple(left_out), tuple(as_built))


def _innermost_state_dict(content: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict in what a file holds, and the keys that lead to it."""
    levels: list[str] = []
    while isinstance(content, Mapping):
        inner = next((key for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        levels.append(inner)
        content = content[inner]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"{path.name} holds no state dict; expected tensors by name, or those under {', '.join(_CONTAINERS)}."
        )
    if wrong := [str(key) for key, value in content.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(f"{path.name} is not a state dict: {_some(wrong)} hold no tensors.")
    return {str(key): value for key, value in content.items()}, levels


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
    found = [prefix for prefix in before if _WRAPPERS.issuperset(prefix.split(".")[:-1])]
    if not found:
        raise CheckpointError(
            f"{path.name} is no checkpoint of the backbone ({type(backbone).__name__}): it has no {key}, plain or "
            f"under names such as image_encoder; it has {_some(list(tensors))}."
        )
    return min(found, key=lambda prefix: ("student" in prefix.split("."), len(prefix)))


def _renamed(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SAM's names for the MLP as timm's, and USFM's relative position table, shared in pretraining, for every block."""
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
        found = dict(tensors) if convert is None else convert(dict(tensors), backbone)
        for key, value in found.items():
            wanted = expected.get(key)
            if wanted is None or wanted.shape == value.shape or wanted.ndim != value.ndim:
                continue
            if key == "pos_embed" and value.ndim == 4:
                found[key] = resample_abs_pos_embed_nhwc(value, list(wanted.shape[1:3]))
            elif key.endswith(("attn.rel_pos_h", "attn.rel_pos_w")):
                found[key] = nn.functional.interpolate(value.T[None], size=len(wanted), mode="linear")[0].T
    except (RuntimeError, ValueError, KeyError, IndexError, AttributeError, AssertionError, TypeError) as error:
        raise CheckpointError(
            f"{path.name} cannot be made to fit the backbone ({type(backbone).__name__}): {error}; name the timm model "
            "that the file was made for."
        ) from None
    return found


def _require_this_backbone(
    backbone: nn.Module,
    expected: Mapping[str, Tensor],
    usable: Mapping[str, Tensor],
    left_out: list[str],
    as_built: list[str],
    path: Path,
) -> None:
    """Refuse all differences but those that such files are known to have, and numbers that are none."""
    # BEiT pretrains with a norm before the pooling and is fine-tuned with a new one after it.
    before_pooling = "fc_norm.weight" in as_built and "norm.weight" not in expected
    unknown = [k for k in left_out if not _is_other_part(k) and not (before_pooling and _own_name(k)[:1] == ["norm"])]
    missing = [k for k in as_built if not (before_pooling and k.startswith("fc_norm."))]
    shapes = [
        f"{k} {tuple(v.shape)} instead of {tuple(expected[k].shape)}"
        for k, v in usable.items()
        if v.shape != expected[k].shape
    ]
    kinds = ((missing, "missing"), (unknown, "unknown"), (shapes, "of another shape"))
    if problems := [f"{len(keys)} {what} ({_some(keys)})" for keys, what in kinds if keys]:
        raise CheckpointError(
            f"{path.name} is no checkpoint of the backbone ({type(backbone).__name__}): tensors {'; '.join(problems)}; "
            "name the timm model that the file was made for."
        )
    if broken := [k for k, v in usable.items() if not torch.isfinite(v).all()]:
        raise CheckpointError(f"{path.name} holds numbers that are not finite in {_some(broken)}; fetch it again.")


def _own_name(key: str) -> list[str]:
    """The words of a key without the wrappers before them."""
    words = key.split(".")
    while len(words) > 1 and words[0] in _WRAPPERS:
        words = words[1:]
    return words


def _is_other_part(key: str) -> bool:
    return key.startswith("student.") or _own_name(key)[0] in _OTHER_PARTS


def _changed_shapes(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> list[str]:
    """Names and shapes of what was resampled; a table that all blocks shared counts for each of them."""
    changed = []
    for key, value in after.items():
        old = before.get(key, before.get(_SHARED_TABLE) if key.endswith(_OWN_TABLE) else None)
        if key in expected and old is not None and old.shape != value.shape:
            changed.append(f"{key} {tuple(old.shape)} to {tuple(value.shape)}")
    return changed


def _float(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _grouped(changes: Iterable[str]) -> str:
    """Changes of the blocks of a transformer in one entry a kind, the others as they are."""
    kinds = Counter(".".join("N" if word.isdigit() else word for word in change.split(".")) for change in changes)
    return "; ".join(f"{kind} ({count} times)" if count > 1 else kind for kind, count in kinds.items())


def _parts(keys: Iterable[str]) -> str:
    counts = Counter(_own_name(key)[0] for key in keys)
    return ", ".join(f"{part} ({count})" for part, count in counts.items())


def _some(keys: list[str], most: int = 3) -> str:
    return ", ".join(keys[:most]) + (", ..." if len(keys) > most else "")
