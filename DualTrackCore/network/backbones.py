"""Image backbones for the global encoder: timm models by name, for one grey channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from DualTrackCore.errors import InputError


def timm_backbone(name: str, image_size: int) -> tuple[nn.Module, int]:
    """A timm model as one-channel feature extractor with random weights, and the length of its pooled output.

    Args:
        name: timm's, such as "resnet18" or "vit_small_patch14_dinov2".
        image_size: pixels a side of the images; position tables are made for this size.

    Raises:
        InputError: timm has no model of that name, or it cannot take that image size.
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
        backbone = timm.create_model(name, **options)
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


def patch_size_of(backbone: nn.Module) -> int | None:
    """Pixels a side of the patches that a vision transformer cuts an image into; None for other networks."""
    size = getattr(getattr(backbone, "patch_embed", None), "patch_size", None)
    return max(size) if isinstance(size, tuple | list) else size


def _require_whole_patches(backbone: nn.Module, name: str, image_size: int) -> None:
    """Refuse a size whose last rows and columns no patch would see."""
    patch = patch_size_of(backbone)
    if patch and image_size % patch:
        below, above = image_size // patch * patch, (image_size // patch + 1) * patch
        near = f"{below} or {above}" if below else f"{above}"
        raise InputError(
            f"The timm model {name!r} cuts images into patches of {patch} pixels, and {image_size} is no multiple of "
            f"that; set global_size to {near}."
        )
