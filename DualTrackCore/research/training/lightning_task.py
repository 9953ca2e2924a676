"""Lightning around tasks and samples: loaders, optimiser, precision, schedule."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from DualTrackCore.network import DualTrack, ModelCard
from DualTrackCore.network.blocks import Trunk
from DualTrackCore.research.baselines import MotionNetwork
from DualTrackCore.research.training.recipe import Recipe
from DualTrackCore.research.training.reporting import ValidationSums
from DualTrackCore.research.training.samples import Item, ItemOrder, SweepItems, collate
from DualTrackCore.research.training.sweeps import SweepSet
from DualTrackCore.research.training.tasks import build_task
from DualTrackCore.research.training.token_store import store_tokens

#: Share of the newest step in the mean of recent errors, and the least error that a component is divided by.
_RECENT_SHARE, _LEAST_ERROR = 0.01, 1e-3


class LightningItems(lightning.LightningDataModule):
    """Training and validation items of one stage.

    Args:
        recipe: batch size, workers, sampling.
        sweeps: training and validation sweeps.
        network: its frozen trunk and ViT give the stored tokens.
        card: spacing and normalisation.
        cache: folder for stored tokens.
    """

    def __init__(
        self,
        recipe: Recipe,
        sweeps: tuple[SweepSet, SweepSet],
        network: DualTrack | MotionNetwork,
        card: ModelCard,
        cache: Path,
    ) -> None:
        super().__init__()
        self.recipe, self.cache, self._network = recipe, cache, network
        self.training_items = SweepItems(recipe, sweeps[0], network, card)
        self.validation_items = SweepItems(recipe, sweeps[1], network, card, validating=True)

    def setup(self, stage: str) -> None:
        """Store class tokens before the first step; each process does its share."""
        del stage
        if not self.recipe.sampling.stored_crops or self.training_items.token_files is not None:
            return
        trainer = self.trainer
        for items in (self.training_items, self.validation_items):
            items.token_files = store_tokens(
                items, self._network, self.cache, trainer.strategy.root_device, trainer.global_rank, trainer.world_size
            )
        trainer.strategy.barrier("tokens")

    def train_dataloader(self) -> DataLoader:
        """Shuffled items; what does not fill a batch waits for another epoch."""
        return self._loader(self.training_items, self.recipe.batch_size, shuffled=True)

    def val_dataloader(self) -> DataLoader:
        """Whole sweeps, one at a time."""
        return self._loader(self.validation_items, 1, shuffled=False)

    def _loader(self, items: SweepItems, batch_size: int, shuffled: bool) -> DataLoader:
        rank, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        order = ItemOrder(len(items), self.recipe.seed, rank, processes, shuffled)
        workers = self.recipe.workers
        return DataLoader(
            items,
            batch_size=batch_size,
            sampler=order,
            drop_last=shuffled and len(order) >= batch_size,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class LightningTask(lightning.LightningModule):
    """One stage of training.

    Args:
        recipe: the stage and its settings.
        network: with its initial weights; trained in place.
        target_mean, target_std: [6] what the head's output is multiplied by and shifted to, mm and degrees. A head that
            was trained before is re-expressed in these units, so its predictions stay what they were.
    """

    def __init__(
        self, recipe: Recipe, network: DualTrack | MotionNetwork, target_mean: Tensor, target_std: Tensor
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.task = build_task(network, recipe)
        for module in self.task.modules():
            if isinstance(module, Trunk):  # its 3D convolutions are about twice as fast on CPUs with channels last
                module.to(memory_format=torch.channels_last_3d)
        self.register_buffer("target_mean", target_mean.float())
        self.register_buffer("target_std", target_std.float())
        if self.task.continues:
            unfold_scale(self.task.head, self.target_mean, self.target_std)
        #: Squared error of each component in the head's units, averaged over the last hundred steps or so.
        self.register_buffer("component_errors", torch.ones(6))
        self._sums = ValidationSums()

    def forward(self, batch: Item) -> Tensor:
        """Relative motions [B, n - 1, 6], mm and degrees."""
        return self.task(batch).float() * self.target_std + self.target_mean

    def component_losses(self, batch: Item) -> Tensor:
        """[6] mean squared errors in the head's units over the motions that are known."""
        targets, mask = self.task.wanted(batch)
        wanted = (targets - self.target_mean) / self.target_std
        squares = (self.task(batch).float() - wanted).square() * mask[..., None]
        return squares.sum(dim=(0, 1)) / mask.sum().clamp(min=1)

    def loss(self, batch: Item) -> Tensor:
        """Mean of :meth:`component_losses`."""
        return self.component_losses(batch).mean()

    def weighted(self, losses: Tensor) -> Tensor:
        """One number to follow downhill, of [6] :meth:`component_losses`, by the recipe's weighting.

        Weighted by likelihood, each error is divided by its recent mean: what six Gaussians of unknown, slowly
        changing width would make of it. A component whose errors are tiny then is not drowned by one that cannot be
        found at all. Several processes share one mean.
        """
        if self.recipe.weighting == "equal":
            return losses.mean()
        with torch.no_grad():
            step = losses.detach().clone()  # the sum over processes is made in place
            if self._trainer is not None:
                step = self.trainer.strategy.reduce(step, reduce_op="mean")
            if torch.isfinite(step).all():  # half precision may overflow; the optimiser leaves such a step out
                self.component_errors.lerp_(step, _RECENT_SHARE)
        return (losses / self.component_errors.clamp(min=_LEAST_ERROR)).mean()

    def on_train_batch_start(self, batch: Item, batch_index: int) -> None:
        """Make dropout a function of seed, epoch, batch and process, so that a resumed run repeats it."""
        del batch
        state = np.random.SeedSequence([self.recipe.seed, self.current_epoch, batch_index, self.global_rank])
        torch.manual_seed(int(state.generate_state(1)[0]))

    def training_step(self, batch: Item, batch_index: int) -> Tensor:
        del batch_index
        losses = self.component_losses(batch)
        plain = losses.detach().mean()
        self.log("train_loss", plain, on_step=False, on_epoch=True, batch_size=len(batch["frames"]), sync_dist=True)
        return self.weighted(losses)

    def validation_step(self, batch: Item, batch_index: int) -> None:
        del batch_index
        predicted = self(batch).double().cpu().numpy()
        mask = batch["mask"].cpu().numpy()
        true = np.where(mask[..., None], batch["targets"].double().cpu().numpy(), np.nan)
        scale = self.target_std.double().cpu().numpy()
        for row, frames in enumerate(batch["frames"].tolist()):
            points = batch["points"][row].cpu().numpy()
            self._sums.add(predicted[row, : frames - 1], true[row, : frames - 1], points, scale)

    def on_validation_epoch_end(self) -> None:
        sums = torch.from_numpy(self._sums.values).to(self.device if self.device.type != "mps" else "cpu")
        sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        for name, value in ValidationSums(sums.cpu().numpy()).figures().items():
            self.log(f"val_{name}", value, rank_zero_only=False)
        self._sums = ValidationSums()

    def configure_optimizers(self) -> dict[str, Any]:
        settings = self.recipe.optimiser
        optimiser = torch.optim.AdamW(
            [p for p in self.task.parameters() if p.requires_grad],
            lr=settings.lr,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
        epochs = self.recipe.epochs
        total = int(self.trainer.estimated_stepping_batches) * epochs // (self.recipe.end_epoch or epochs)
        warm_up = total * self.recipe.warmup_epochs // epochs
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_factor(step, warm_up, total))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate_factor(step: int, warm_up: int, total: int) -> float:
    """Learning rate of a step as a part of the highest: a line up over `warm_up` steps, then a cosine to zero."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * min((step - warm_up) / max(total - warm_up, 1), 1.0)))


def fold_scale(head: nn.Linear, mean: Tensor, std: Tensor) -> None:
    """Change a head of standardised outputs into one of mm and degrees."""
    with torch.no_grad():
        head.weight.mul_(std[:, None])
        head.bias.mul_(std).add_(mean)


def unfold_scale(head: nn.Linear, mean: Tensor, std: Tensor) -> None:
    """The inverse of :func:`fold_scale`."""
    with torch.no_grad():
        head.weight.div_(std[:, None])
        head.bias.sub_(mean).div_(std)
