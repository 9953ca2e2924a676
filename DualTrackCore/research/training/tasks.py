"""Tasks: what each stage of training computes, and which modules it trains.

A task maps a batch to relative motions [B, n - 1, 6] in the units of its head, and to the outputs of the variance and
direction heads. It names its head, the trained modules, and those of them that stay in evaluation mode (fixed BatchNorm
statistics, no dropout). Row i is the motion of frame i + 1 in frame i, from the output at frame i + 1, as in inference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from DualTrackCore.errors import InputError
from DualTrackCore.network import DualTrack
from DualTrackCore.network.backbones import lora_parameters
from DualTrackCore.network.dualtrack import NetworkOutput
from DualTrackCore.network.statistics import PLAIN
from DualTrackCore.research.baselines import MotionNetwork, motions_in_pieces
from DualTrackCore.research.training.initial import recipe_card
from DualTrackCore.research.training.recipe import Recipe
from DualTrackCore.research.training.samples import Item, trunk_in_chunks
from DualTrackCore.tracking.preprocessing import as_grey, unit_grey


class Task(nn.Module, ABC):
    """Base of the stages' tasks.

    Attributes:
        network: the whole network, trained or not.
    """

    #: Name of the linear layer to 6 numbers that this stage trains.
    head_name: ClassVar[str]
    #: Names of the modules that are trained, and of those of them that stay in evaluation mode.
    trained_names: tuple[str, ...]
    still_names: ClassVar[tuple[str, ...]] = ()
    #: Whether an earlier stage has trained the head.
    continues = False

    def __init__(self, network: DualTrack, recipe: Recipe) -> None:
        super().__init__()
        self.network = network
        self.chunk_frames = recipe.sampling.chunk_frames
        self._whole_backbone = recipe.backbone.train == "full"
        self._mean, self._std = recipe_card(recipe).normalisation or PLAIN

    @property
    def head(self) -> nn.Linear:
        """The last layer of this stage."""
        return self.get_submodule(self.head_name)

    def modules_named(self, names: Sequence[str]) -> list[nn.Module]:
        """Parts of the task by their dotted names."""
        return [self.get_submodule(name) for name in names]

    def train(self, mode: bool = True) -> Task:
        """Set training mode for the trained modules; frozen ones stay in evaluation mode."""
        super().train(False)
        self.training = mode
        for module in self.modules_named(self.trained_names):
            module.train(mode)
        for module in self.modules_named(self.still_names):
            module.eval()
        if not self._whole_backbone:  # pretrained BatchNorm statistics stay as they are
            self.network.global_encoder.backbone.eval()
        return self

    @abstractmethod
    def outputs(self, batch: Item) -> Tensor:
        """[B, n - 1, 6] in the head's units, for items of equal length."""

    def wanted(self, batch: Item) -> tuple[Tensor, Tensor]:
        """Targets of the outputs [B, n - 1, 6] in mm and degrees, and where they are known [B, n - 1] bool."""
        return batch["targets"], batch["mask"]

    def output(self, batch: Item) -> NetworkOutput:
        """:meth:`outputs` with the outputs of the other heads."""
        return NetworkOutput(self.outputs(batch))

    def forward(self, batch: Item) -> NetworkOutput:
        """The output for a batch; items of different length run one by one, without their padding."""
        if (batch["frames"] == batch["frames"][0]).all():
            return self.output(batch)
        rows = []
        for row, frames in enumerate(batch["frames"].tolist()):
            whole = frames if "frame_index" in batch else -(-frames // self.network.global_every)
            lengths = {"local": frames, "tokens": frames, "frame_index": frames, "whole": whole}
            single = {"frames": batch["frames"][row : row + 1]} | {
                name: batch[name][row : row + 1, : lengths[name]] for name in lengths if name in batch
            }
            rows.append(self.output(single))
        motions, log_variance, logit = zip(*rows, strict=True)
        return NetworkOutput(
            nn.utils.rnn.pad_sequence([part[0] for part in motions], batch_first=True),
            None if log_variance[0] is None else nn.utils.rnn.pad_sequence([p[0] for p in log_variance], True),
            None if logit[0] is None else torch.cat(logit),
        )

    def _whole(self, batch: Item) -> Tensor:
        """Whole frames [B, k, size, size] float32, normalised here if they come as uint8."""
        whole = batch["whole"]
        return whole if whole.dtype != torch.uint8 else (unit_grey(whole) - self._mean) / self._std

    def _tokens(self, batch: Item) -> Tensor:
        """Class tokens [B, n, C]: stored ones, or computed from the crops in pieces."""
        if "tokens" in batch:
            return batch["tokens"]
        return self._in_chunks(batch["local"], self.network.local.frame_features)

    def _in_chunks(self, crops: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
        local = self.network.local
        trains = self.training and any(p.requires_grad for p in local.trunk.parameters())
        with torch.set_grad_enabled(trains):
            return trunk_in_chunks(local, lambda a, b: crops[:, a:b], crops.shape[1], self.chunk_frames, head)


class TrunkTask(Task):
    """local1: the 3D trunk, with a temporary head that only training uses."""

    head_name = "temporary_head"
    trained_names = ("network.local.trunk", "temporary_head")

    def __init__(self, network: DualTrack, recipe: Recipe) -> None:
        super().__init__(network, recipe)
        self.grid = min(recipe.head_grid, network.crop_size // 16)
        self.temporary_head = nn.Linear(network.local.trunk.width * self.grid**2, 6)

    def outputs(self, batch: Item) -> Tensor:
        if self.training:
            maps = self.network.local.trunk(as_grey(batch["local"])[:, None])
            return self._pooled(maps)[:, 1:]
        return self._in_chunks(batch["local"], self._pooled)[:, 1:]

    def _pooled(self, maps: Tensor) -> Tensor:
        frames = nn.functional.adaptive_avg_pool3d(maps, (None, self.grid, self.grid))
        return self.temporary_head(frames.transpose(1, 2).flatten(2))


class SpatialTask(Task):
    """local2: the ViT on the feature maps of the frozen trunk."""

    head_name = "network.local.backbone.module.fc"
    trained_names = ("network.local.spatial", "network.local.backbone.module.fc")

    def outputs(self, batch: Item) -> Tensor:
        local = self.network.local
        if not self.training:
            return self.head(self._tokens(batch))[:, 1:]
        with torch.no_grad():
            maps = local.trunk(as_grey(batch["local"])[:, None])
        return self.head(local.frame_features(maps))[:, 1:]


class TemporalTask(Task):
    """local3: the transformer on the class tokens of a whole sweep."""

    head_name = "network.local.temporal_encoder.fc"
    trained_names = ("network.local.temporal_encoder",)

    def outputs(self, batch: Item) -> Tensor:
        return self.head(self.network.local.temporal(self._tokens(batch)))[:, 1:]


class GlobalTask(Task):
    """global: backbone and transformer on frames drawn from the sweep, with their indices."""

    head_name = "network.global_encoder.fc"
    trained_names = ("network.global_encoder",)

    def outputs(self, batch: Item) -> Tensor:
        encoder = self.network.global_encoder
        return self.head(encoder(encoder.image_features(self._whole(batch)), batch["frame_index"]))[:, 1:]


class FusionTask(Task):
    """fusion and finetune1: everything but the local trunk and ViT."""

    head_name = "network.head.fc"
    trained_names = (
        "network.local.temporal",
        "network.local_encoder.1",
        "network.global_encoder.backbone",
        "network.global_encoder.proj",
        "network.global_encoder.pos_emb",
        "network.global_encoder.bert",
        "network.fusion_module",
        "network.head",
    )

    def outputs(self, batch: Item) -> Tensor:
        return self.output(batch).motions

    def output(self, batch: Item) -> NetworkOutput:
        whole = self.network.global_encoder.image_features(self._whole(batch))
        return self.network.output_from_features(self._tokens(batch), whole)


class FineTuneTask(FusionTask):
    """finetune1: the fusion task, continued from a trained head."""

    continues = True


class JointTask(FineTuneTask):
    """finetune2: also the local trunk and ViT, in evaluation mode."""

    still_names = ("network.local.trunk", "network.local.spatial")
    trained_names = (*FusionTask.trained_names, *still_names)


class DirectionTask(Task):
    """direction: only the direction head, on frames of whole sweeps that run both ways; its motions are zeros."""

    head_name = "network.head.fc"
    trained_names = ("network.direction",)
    continues = True

    def __init__(self, network: DualTrack, recipe: Recipe) -> None:
        if network.direction is None:
            raise InputError("The stage direction trains the head for direction; set model.direction to true.")
        super().__init__(network, recipe)

    def outputs(self, batch: Item) -> Tensor:
        return torch.zeros(len(batch["frames"]), int(batch["frames"][0]) - 1, 6, device=batch["whole"].device)

    def output(self, batch: Item) -> NetworkOutput:
        whole, every = self._whole(batch), self.network.global_every
        index = torch.arange(0, whole.shape[1] * every, every, device=whole.device)
        features = self.network.global_encoder.image_features(whole)
        return NetworkOutput(self.outputs(batch), direction_logit=self.network.direction(features, index))


class HeadsTask(FineTuneTask):
    """heads: only the variance head, after the motions are trained."""

    trained_names = ("network.uncertainty",)

    def __init__(self, network: DualTrack, recipe: Recipe) -> None:
        if network.uncertainty is None:
            raise InputError("The stage heads trains the head for variance; set model.uncertainty to true.")
        super().__init__(network, recipe)


class BaselineTask(Task):
    """baseline: the whole network of an earlier method; in training its outputs may be means over windows."""

    head_name = "network.head"
    trained_names = ("network",)

    network: MotionNetwork

    def __init__(self, network: MotionNetwork, recipe: Recipe) -> None:
        super().__init__(network, recipe)
        if recipe.sampling.window < network.window_frames:
            raise InputError(
                f"sampling.window is {recipe.sampling.window}; the {network.architecture} network looks at "
                f"{network.window_frames} frames at a time."
            )

    def outputs(self, batch: Item) -> Tensor:
        crops = batch["local"]
        if self.training:
            return self.network.outputs(as_grey(crops))[0]
        return motions_in_pieces(self.network, lambda a, b: as_grey(crops[:, a:b]), crops.shape[1], self.chunk_frames)

    def wanted(self, batch: Item) -> tuple[Tensor, Tensor]:
        if self.training:
            return self.network.wanted(batch["targets"], batch["mask"])
        return super().wanted(batch)


_TASKS: dict[str, type[Task]] = {
    "local1": TrunkTask,
    "local2": SpatialTask,
    "local3": TemporalTask,
    "global": GlobalTask,
    "fusion": FusionTask,
    "finetune1": FineTuneTask,
    "finetune2": JointTask,
    "direction": DirectionTask,
    "heads": HeadsTask,
    "baseline": BaselineTask,
}


def build_task(network: DualTrack | MotionNetwork, recipe: Recipe) -> Task:
    """The task of the recipe's stage, with everything else frozen."""
    task = _TASKS[recipe.stage](network, recipe)
    task.requires_grad_(False)
    for module in task.modules_named(task.trained_names):
        module.requires_grad_(True)
    if recipe.backbone.train != "full":  # only its adapters are trained, if it has any
        backbone = network.global_encoder.backbone
        learns = any(parameter.requires_grad for parameter in backbone.parameters())
        backbone.requires_grad_(False)
        for parameter in lora_parameters(backbone):
            parameter.requires_grad_(learns)
    return task
