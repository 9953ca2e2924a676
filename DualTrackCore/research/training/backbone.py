"""The global encoder's backbone at the start of a stage: pretrained weights put in, adapters added, the rest frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from DualTrackCore.errors import InputError
from DualTrackCore.network import DualTrack
from DualTrackCore.network.backbones import IMAGENET_PIXELS, UNIT_PIXELS, load_backbone_weights
from DualTrackCore.network.lora import add_lora, lora_parameters
from DualTrackCore.research.training.recipe import Recipe


def prepare_backbone(recipe: Recipe, network: DualTrack, say: Callable[[str], None] | None = None) -> None:
    """Load the recipe's pretrained weights into the backbone and put adapters on it where it learns by LoRA.

    Args:
        recipe: its `backbone`, and `global_mean` and `global_std` of its card.
        network: changed in place.
        say: receives sentences on what was loaded.

    Raises:
        InputError: no such file, or a backbone without attention that is to learn by LoRA.
        CheckpointError: a file that is damaged, holds code, or belongs to another backbone.
    """
    settings = recipe.backbone
    if settings.weights is None and settings.train != "lora":
        return
    backbone = network.global_encoder.backbone[0]
    if settings.weights is not None:
        path = Path(settings.weights)
        if not path.is_file():
            raise InputError(
                f"backbone.weights in the recipe names {path}, and there is no such file; nothing is downloaded here: "
                "fetch the checkpoint from its project and name the file (--set backbone.weights=FILE)."
            )
        card = recipe.card
        grey = (float(card.get("global_mean", 0.0)), float(card.get("global_std", 1.0)))
        pixels = {"imagenet": IMAGENET_PIXELS, "unit": UNIT_PIXELS}[settings.pixels]
        loaded = load_backbone_weights(backbone, path, pixels=pixels, grey=grey)
        for sentence in loaded.sentences() if say else ():
            say(sentence)
    if settings.train == "lora":
        add_lora(backbone, settings.rank)


def restrict_backbone(network: DualTrack) -> None:
    """Freeze the backbone but for its adapters, if it has any."""
    backbone = network.global_encoder.backbone
    learns = any(p.requires_grad for p in backbone.parameters())
    backbone.requires_grad_(False)
    for parameter in lora_parameters(backbone):
        parameter.requires_grad_(learns)
