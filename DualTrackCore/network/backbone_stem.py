"""First layers pretrained on RGB images, turned into ones for a single grey channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from DualTrackCore.errors import CheckpointError


@dataclass(frozen=True)
class Pixels:
    """What a pretraining turned RGB values of 0 to 1 into: (value - mean) / std, channel by channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


#: Mean and deviation of ImageNet's pixels: DINOv2, iBOT, SAM, torchvision's ResNets.
IMAGENET_PIXELS = Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: Values of 0 to 1 as they are: MedSAM.
UNIT_PIXELS = Pixels((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
#: (mean, std) of grey images of 0 to 1 that nothing is done to.
GREY_AS_IT_IS = (0.0, 1.0)


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

    Raises:
        CheckpointError: neither one nor three channels, or nowhere to put the constant.
    """
    weight, layer = tensors.get(f"{stem}.weight"), backbone.get_submodule(stem)
    if weight is None or weight.ndim != 4 or weight.shape[1] == layer.in_channels:
        return dict(tensors)
    if weight.shape[1] != 3 or layer.in_channels != 1:
        raise CheckpointError(f"{stem}.weight is for {weight.shape[1]} channels; expected RGB or grey images.")
    mean, std = (torch.tensor(v, dtype=weight.dtype)[:, None, None] for v in (pixels.mean, pixels.std))
    converted = dict(tensors)
    converted[f"{stem}.weight"] = (weight * grey[1] / std).sum(dim=1, keepdim=True)
    constant = (weight * (grey[0] - mean) / std).sum(dim=(1, 2, 3))
    if (bias := tensors.get(f"{stem}.bias")) is not None:
        converted[f"{stem}.bias"] = bias + constant
        return converted
    norm = next((n for n, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d)), None)
    running = None if norm is None else tensors.get(f"{norm}.running_mean")
    if running is None or running.shape != constant.shape:
        raise CheckpointError(
            f"The first layer {stem} has neither bias nor BatchNorm to take up the scale of its input."
        )
    converted[f"{norm}.running_mean"] = running - constant
    return converted
