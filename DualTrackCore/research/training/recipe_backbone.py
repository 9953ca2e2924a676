"""The part of a recipe that says which image backbone the global encoder has, and how much of it learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from DualTrackCore.errors import InputError
from DualTrackCore.settings import check_settings, setting


@dataclass(frozen=True)
class Backbone:
    """The global encoder's image backbone.

    Attributes:
        name: a timm model; None leaves `model.global_backbone` as it is (the published trunk, where that is not set).
        weights: a local checkpoint of the project that pretrained the backbone, .safetensors or PyTorch.
        train: "full"; "frozen"; or "lora": adapters on the attention learn and are merged into the result.
        rank: of the adapters.
        pixels: what the pretraining turned RGB images into: "imagenet" (mean and deviation of ImageNet) or "unit"
            (0 to 1, as MedSAM).
    """

    name: str | None = None
    weights: str | None = None
    train: Literal["frozen", "full", "lora"] = "full"
    rank: int = setting(32, at_least=1)
    pixels: Literal["imagenet", "unit"] = "imagenet"

    def __post_init__(self) -> None:
        check_settings(self)

    def model_arguments(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the network with this backbone's name among them.

        Raises:
            InputError: they name another backbone.
        """
        named = model.get("global_backbone", self.name)
        if named != self.name:
            raise InputError(f"backbone.name is {self.name} and model.global_backbone is {named}; give one of them.")
        return {**model, "global_backbone": self.name}

    def require_fit(self, stage: str, trains_backbone: bool, other_weights: str | None) -> None:
        """Refuse settings that the stage would ignore or contradict.

        Args:
            stage: of the recipe.
            trains_backbone: whether the stage trains the global encoder at all.
            other_weights: what `initial` names for the global encoder or the whole network.
        """
        if not trains_backbone and (self.weights is not None or self.train != "full"):
            raise InputError(
                f"stage {stage} does not train the global encoder; backbone.weights and backbone.train have no effect "
                "there, so leave them out."
            )
        if self.weights is not None and other_weights is not None:
            raise InputError(
                f"backbone.weights and initial ({other_weights}) both give the backbone its weights; leave one out: a "
                "stage that follows `global` starts from what that stage made of them."
            )
