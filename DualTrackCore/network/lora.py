"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) on the attention of a vision transformer.

The weight W [out, in] of a linear layer becomes W + (alpha / rank) B A, where A [rank, in] starts as random numbers
and B [out, rank] as zeros, so that nothing changes until B is trained; W itself stays as it is. The sum is a
parametrization of the layer's weight, so code that reads `layer.weight` itself, as timm's BEiT does, gets the sum too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from DualTrackCore.errors import InputError

#: Ends of the names of the layers that are adapted: what makes queries, keys and values, and what follows the heads.
_ADAPTED = ("attn.qkv", "attn.proj")


class LowRankSum(nn.Module):
    """W -> W + (alpha / rank) up @ down.

    Args:
        weight: the weight to adapt, [out, in]; for its shape, type and device.
        rank: of the sum's second term; at most the smaller side of the weight.
        alpha: strength; the term is multiplied by alpha / rank.

    Raises:
        InputError: a rank below 1 or above what the weight can have.
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

    Raises:
        InputError: no such layers, adapters are there already, or the rank does not fit.
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
