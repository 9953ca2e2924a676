"""Lightning modules for tasks and samples: loaders, loss, optimiser, schedule and validation figures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from DualTrackCore.evaluation.definitions import COMPONENTS, mean_point_error, pearson
from DualTrackCore.network import DualTrack, ModelCard
from DualTrackCore.network.blocks import Trunk
from DualTrackCore.network.dualtrack import NetworkOutput
from DualTrackCore.progress import Reporter
from DualTrackCore.research.baselines import MotionNetwork
from DualTrackCore.research.training.recipe import HEAD_STAGES, WINDOW_STAGES, Recipe
from DualTrackCore.research.training.samples import Item, SweepItems, collate
from DualTrackCore.research.training.shares import ItemOrder, Shares
from DualTrackCore.research.training.sweeps import SweepSet
from DualTrackCore.research.training.tasks import build_task
from DualTrackCore.research.training.token_store import store_tokens
from DualTrackCore.trajectory import accumulate, matrices_from_parameters

#: Weight of the newest step in the running mean of errors, and the smallest divisor of a component's error.
_RECENT_SHARE, _LEAST_ERROR = 0.01, 1e-3
#: The size of a motion is that of a point so far from the axes, and a least one, about which in-plane errors are.
_LEVER_MM, _LEAST_MOTION_MM = 20.0, 0.1
#: Least elevational displacement of a sweep whose direction is trained, as a part of the path.
_LEAST_THROUGH = 0.2


class LightningItems(lightning.LightningDataModule):
    """Training and validation items of one stage.

    Args:
        recipe: batch size, workers, sampling.
        sweeps: training and validation sweeps.
        network: its frozen trunk and ViT give the stored tokens.
        card: spacing and normalisation.
        cache: folder for stored tokens.
        reporter: receives `Stage.TOKENS` (passes over a sweep) while tokens are computed.

    Attributes:
        shares: who computes what of the items of one change of the weights.
    """

    def __init__(
        self,
        recipe: Recipe,
        sweeps: tuple[SweepSet, SweepSet],
        network: DualTrack | MotionNetwork,
        card: ModelCard,
        cache: Path,
        reporter: Reporter | None = None,
    ) -> None:
        super().__init__()
        self.recipe, self.cache, self._network = recipe, cache, network
        self._reporter = reporter or Reporter()
        self.training_items = SweepItems(recipe, sweeps[0], network, card)
        self.validation_items = SweepItems(recipe, sweeps[1], network, card, validating=True)
        self.shares = Shares.of(recipe, len(self.training_items))

    def setup(self, stage: str) -> None:
        """Store class tokens before the first step; each process computes some of the sweeps."""
        del stage
        sampling = self.recipe.sampling
        if not (sampling.stored_crops or sampling.stored_draws) or self.training_items.token_files is not None:
            return
        trainer = self.trainer
        for items in (self.training_items, self.validation_items):
            place = self.cache, trainer.strategy.root_device
            processes = trainer.global_rank, trainer.world_size
            items.token_files = store_tokens(items, self._network, *place, *processes, self._reporter)
        trainer.strategy.barrier("tokens")

    def train_dataloader(self) -> DataLoader:
        """This process's shuffled items, as many at a time as it computes at once."""
        return self._loader(self.training_items, self.shares)

    def val_dataloader(self) -> DataLoader:
        """Whole sweeps, one at a time."""
        return self._loader(self.validation_items, None)

    def _loader(self, items: SweepItems, shares: Shares | None) -> DataLoader:
        rank, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        workers, whole = self.recipe.workers, self.recipe.stage not in (*WINDOW_STAGES, "global")
        length = items.length if whole and shares is not None else None
        return DataLoader(
            items,
            batch_size=1 if shares is None else shares.at_once,
            sampler=ItemOrder(len(items), self.recipe.seed, rank, processes, shares, length),
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
        target_mean, target_std: [6] offset and scale of the head's output, mm and degrees. A head that was trained
            before is rescaled so that its predictions stay the same.
    """

    def __init__(
        self, recipe: Recipe, network: DualTrack | MotionNetwork, target_mean: Tensor, target_std: Tensor
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.task = build_task(network, recipe)
        for module in self.task.modules():
            if isinstance(module, Trunk):  # with channels last, 3D convolutions are about twice as fast on CPUs
                module.to(memory_format=torch.channels_last_3d)
        self.register_buffer("target_mean", target_mean.float())
        self.register_buffer("target_std", target_std.float())
        if self.task.continues:
            unfold_scale(self.task.head, self.target_mean, self.target_std)
        #: Running mean of :meth:`component_losses` over about a hundred steps.
        self.register_buffer("component_errors", torch.ones((2, 6) if recipe.drift else 6))
        self.register_buffer("loss_shares", _shares(recipe), persistent=False)
        self._step_losses: list[Tensor] = []
        self._sums = ValidationSums()

    def forward(self, batch: Item) -> Tensor:
        """Relative motions [B, n - 1, 6], mm and degrees."""
        return self._millimetres(self.task(batch).motions)

    def _millimetres(self, motions: Tensor) -> Tensor:
        return motions.float() * self.target_std + self.target_mean

    def component_losses(self, batch: Item, motions: Tensor | None = None) -> Tensor:
        """[6] mean squared errors in the head's units, over an item's motions with known targets, then over items.

        So it does not matter which items are computed together, and on which device. Those of an item are
        divided by the power `relative` of the size of its motions, mm. With the recipe's `drift`: [2, 6], below them
        the squares of an item's mean errors, that is, of how far it drifts a motion.
        """
        targets, mask = self.task.wanted(batch)
        wanted = (targets - self.target_mean) / self.target_std
        motions = self.task(batch).motions if motions is None else motions
        known = mask.sum(dim=1).clamp(min=1)[:, None]
        apart = (motions.float() - wanted) * mask[..., None]
        errors = apart.square().sum(dim=1) / known
        if self.recipe.drift:
            errors = torch.stack([errors, (apart.sum(dim=1) / known).square()], dim=1)
        if self.recipe.relative:
            parts = targets * targets.new_tensor([1, 1, 1, *[math.radians(_LEVER_MM)] * 3])
            squares = (parts.square() * mask[..., None]).sum(dim=(1, 2)) / known[:, 0]
            sizes = (squares + _LEAST_MOTION_MM**2) ** (self.recipe.relative / 2)
            errors = errors / sizes.view(-1, *[1] * (errors.ndim - 1))
        return errors.mean(dim=0)

    def head_loss(self, batch: Item, output: NetworkOutput) -> Tensor:
        """Loss of the variance or direction head.

        Variance: negative log-likelihood of the errors as Gaussians. Direction: cross entropy over the sweeps whose
        elevational displacement is at least a fifth of the path.
        """
        targets, mask = self.task.wanted(batch)
        if self.recipe.stage == "heads":
            variance = output.log_variance.float()
            errors = (self._millimetres(output.motions) - targets).square()
            likelihood = 0.5 * (variance + errors * torch.exp(-variance)) * mask[..., None]
            return (likelihood.sum(dim=(1, 2)) / mask.sum(dim=1).clamp(min=1)).mean() / 6
        up, counts = self._directions(batch)
        entropy = F.binary_cross_entropy_with_logits(
            output.direction_logit.float(), up.float(), counts.float(), reduction="sum"
        )
        return entropy / len(counts)

    def _directions(self, batch: Item) -> tuple[Tensor, Tensor]:
        """[B] whether each sweep runs towards +z, and whether its elevational displacement is large enough to count."""
        targets, mask = self.task.wanted(batch)
        through = batch["through_mm"][:, 0]
        path = (targets[..., :3].norm(dim=-1) * mask).sum(dim=1)
        return through > 0, through.abs() > _LEAST_THROUGH * path

    def weighted(self, losses: Tensor) -> Tensor:
        """The loss from :meth:`component_losses`, by the recipe's weighting, component weights and drift.

        With "likelihood", each error is divided by its running mean over the steps before, as for Gaussians of
        slowly changing width, so that components with small errors count as much as others.
        """
        if self.recipe.weighting == "likelihood":
            self._step_losses.append(losses.detach())
            losses = losses / self.component_errors.clamp(min=_LEAST_ERROR)
        return (losses * self.loss_shares).sum()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the errors of all items of this step, on all devices, into the running mean."""
        del optimizer
        if self._step_losses:
            step = self.trainer.strategy.reduce(torch.stack(self._step_losses).mean(dim=0), reduce_op="mean")
            self._step_losses.clear()
            if torch.isfinite(step).all():  # half precision may overflow; the optimiser skips such a step
                self.component_errors.lerp_(step, _RECENT_SHARE)

    def on_train_batch_start(self, batch: Item, batch_index: int) -> None:
        """Seed dropout by recipe, epoch, batch and share, so that a resumed run repeats it."""
        del batch
        share = self.global_rank % self.trainer.datamodule.shares.groups
        state = np.random.SeedSequence([self.recipe.seed, self.current_epoch, batch_index, share])
        torch.manual_seed(int(state.generate_state(1)[0]))

    def training_step(self, batch: Item, batch_index: int) -> Tensor:
        del batch_index
        output = self.task(batch)
        if self.recipe.stage in HEAD_STAGES:
            loss = plain = self.head_loss(batch, output)
        else:
            losses = self.component_losses(batch, output.motions)
            loss, plain = self.weighted(losses), (losses[0] if self.recipe.drift else losses).mean()
        sizes = {"batch_size": len(batch["frames"]), "sync_dist": True}
        self.log("train_loss", plain.detach(), on_step=False, on_epoch=True, **sizes)
        return loss

    def validation_step(self, batch: Item, batch_index: int) -> None:
        del batch_index
        output = self.task(batch)
        if self.recipe.stage in HEAD_STAGES:
            self.log("val_loss", self.head_loss(batch, output), batch_size=len(batch["frames"]), sync_dist=True)
        if self.recipe.stage == "direction":
            up, counts = self._directions(batch)
            right = ((output.direction_logit > 0) == up)[counts].float()
            self.log("val_direction_right", right.sum() / max(len(right), 1), batch_size=len(right), sync_dist=True)
        predicted = self._millimetres(output.motions).double().cpu().numpy()
        mask = batch["mask"].cpu().numpy()
        true = np.where(mask[..., None], batch["targets"].double().cpu().numpy(), np.nan)
        scale = self.target_std.double().cpu().numpy()
        for row, frames in enumerate(batch["frames"].tolist()):
            points = batch["points"][row].cpu().numpy()
            self._sums.add(predicted[row, : frames - 1], true[row, : frames - 1], points, scale)

    def on_validation_epoch_start(self) -> None:
        """Measure on all devices what the first one will write: statistics of BatchNorm may differ between them."""
        if self.trainer.world_size > 1:
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, 0)

    def on_validation_epoch_end(self) -> None:
        if self.global_rank >= len(self.trainer.datamodule.validation_items):
            self._sums = ValidationSums()  # its item is another process's, too
        sums = torch.from_numpy(self._sums.values).to(self.device if self.device.type != "mps" else "cpu")
        sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        for name, value in ValidationSums(sums.cpu().numpy()).figures().items():
            if name == "loss" and self.recipe.stage in HEAD_STAGES:
                continue  # that of the head is logged already; the motions stay as they are
            self.log(f"val_{name}", value, rank_zero_only=False)
        self._sums = ValidationSums()

    def configure_optimizers(self) -> dict[str, Any]:
        settings = self.recipe.optimiser
        optimiser = torch.optim.AdamW(
            [p for p in self.task.parameters() if p.requires_grad],
            lr=settings.lr * self.trainer.datamodule.shares.rate_factor,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
        epochs = self.recipe.epochs
        total = int(self.trainer.estimated_stepping_batches) * epochs // (self.recipe.end_epoch or epochs)
        warm_up = total * self.recipe.warmup_epochs // epochs
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_factor(step, warm_up, total))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _shares(recipe: Recipe) -> Tensor:
    """What each of :meth:`LightningTask.component_losses` counts in the loss; those of steps are 1 together."""
    shares = torch.tensor(recipe.component_weights) / sum(recipe.component_weights)
    return torch.stack([shares, recipe.drift * shares]) if recipe.drift else shares


def rate_factor(step: int, warm_up: int, total: int) -> float:
    """Learning rate of a step as a part of the maximum: linear over `warm_up` steps, then a cosine to zero."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * min((step - warm_up) / max(total - warm_up, 1), 1.0)))


def fold_scale(head: nn.Linear, mean: Tensor, std: Tensor) -> None:
    """Change a head with standardised outputs into one with outputs in mm and degrees; `mean`, `std` are [6]."""
    with torch.no_grad():
        head.weight.mul_(std[:, None])
        head.bias.mul_(std).add_(mean)


def unfold_scale(head: nn.Linear, mean: Tensor, std: Tensor) -> None:
    """The inverse of :func:`fold_scale`."""
    with torch.no_grad():
        head.weight.div_(std[:, None])
        head.bias.sub_(mean).div_(std)


#: Sums and counts of the errors of poses, of motions and of the loss; then for each component the count, sums, squares
#: and product.
_ERRORS, _MOMENTS = 6, (6, 6)


class ValidationSums:
    """Sums over sweeps for the validation figures.

    Args:
        values: sums of other objects, added up; None starts from zero.

    Attributes:
        values: [42] float64, which processes add up.
    """

    def __init__(self, values: np.ndarray | None = None) -> None:
        self.values = np.zeros(_ERRORS + math.prod(_MOMENTS)) if values is None else values
        self._errors, self._moments = self.values[:_ERRORS], self.values[_ERRORS:].reshape(_MOMENTS)

    def add(self, predicted: np.ndarray, true: np.ndarray, five_points_mm: np.ndarray, scale: np.ndarray) -> None:
        """Add one sweep.

        Args:
            predicted, true: [n, 6] relative motions, mm and degrees; rows of `true` may be NaN.
            five_points_mm: [4, 5] homogeneous image points, mm.
            scale: [6] divisor of the components in the loss, mm and degrees.
        """
        known = np.isfinite(true).all(axis=1)
        if not known.any():
            return
        local = mean_point_error(
            matrices_from_parameters(predicted[known]), matrices_from_parameters(true[known]), five_points_mm
        )
        squares = (((predicted - true) / scale)[known] ** 2).mean(axis=1)
        # Poses are known only up to the first unknown motion.
        reach = len(known) if known.all() else int(np.argmin(known))
        paths = [accumulate(matrices_from_parameters(values[:reach]))[1:] for values in (predicted, true)]
        everywhere = mean_point_error(*paths, five_points_mm)
        if reach:
            self._errors[:2] += everywhere.mean(), 1
        self._errors[2:4] += local.mean(), 1
        self._errors[4:] += squares.sum(), len(squares)
        x, y = predicted[known], true[known]
        ones = np.ones_like(x)
        self._moments += np.stack([v.sum(axis=0) for v in (ones, x, y, x * x, y * y, x * y)])

    def figures(self) -> dict[str, float]:
        """`gpe_five_point_mm`, `lpe_five_point_mm` (means over sweeps), `loss`, `correlation_tx` ... `correlation_rz`.

        A correlation with a constant is NaN.
        """
        names, sums, counts = ("gpe_five_point_mm", "lpe_five_point_mm", "loss"), self._errors[::2], self._errors[1::2]
        figures = {
            name: float(total / count) if count else math.nan
            for name, total, count in zip(names, sums, counts, strict=True)
        }
        n, x, y, xx, yy, xy = self._moments
        steps = np.maximum(n, 1)
        r = pearson(n, xx - x * x / steps, yy - y * y / steps, xy - x * y / steps)
        return figures | {f"correlation_{name}": float(value) for name, value in zip(COMPONENTS, r, strict=True)}
