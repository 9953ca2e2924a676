"""The Lightning data module: items in batches, divided among processes, with class tokens stored where wanted."""

from __future__ import annotations

from pathlib import Path

import lightning
import torch
from torch.utils.data import DataLoader

from DualTrackCore.network import DualTrack, ModelCard
from DualTrackCore.research.baselines import MotionNetwork
from DualTrackCore.research.training.items import ItemOrder, SweepItems, collate
from DualTrackCore.research.training.recipe import Recipe
from DualTrackCore.research.training.sweeps import SweepSet
from DualTrackCore.research.training.token_store import store_tokens


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
