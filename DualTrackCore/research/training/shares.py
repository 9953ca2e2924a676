"""How the processes of a training share its items, so that the same ones change the weights whatever their number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from DualTrackCore.research.training.recipe import Recipe


@dataclass(frozen=True)
class Shares:
    """Who computes what of the items of one change of the weights.

    Attributes:
        batch: items of one change.
        groups: of processes that have items of their own. Where there are more processes than groups, several compute
            the same, which changes nothing: gradients are means over processes.
        at_once: items that a process computes at a time.
        rate_factor: of the learning rate, where the batch has grown.
    """

    batch: int
    groups: int
    at_once: int
    rate_factor: float = 1.0

    @classmethod
    def of(cls, recipe: Recipe, items: int) -> Shares:
        """The shares of a recipe's processes in an epoch of so many items, at least 1."""
        processes = recipe.devices * recipe.nodes
        stated = batch = min(recipe.batch_size, items)
        if recipe.grow_batch and batch % processes and processes <= items:
            batch = min(-(-batch // processes) * processes, items // processes * processes)
        groups = math.gcd(batch, processes)
        share = batch // groups
        most = min(recipe.at_once or share, share)
        at_once = next(count for count in range(most, 0, -1) if share % count == 0)
        return cls(batch, groups, at_once, math.sqrt(batch / stated))

    @property
    def steps(self) -> int:
        """How often a process computes before the weights change."""
        return self.batch // (self.groups * self.at_once)

    def text(self, recipe: Recipe) -> str:
        """A sentence on them; empty for one process."""
        processes = recipe.devices * recipe.nodes
        if processes == 1:
            return ""
        own = self.batch // self.groups
        said = f"{self.batch} items a change of the weights on {processes} devices, {own} on each"
        if self.rate_factor != 1:
            said += f" (grown from {recipe.batch_size}; learning rate times {self.rate_factor:.3g})"
        if self.groups < processes:
            said += (
                f"; {processes} devices cannot share {self.batch} equally, so each item is computed "
                f"{processes // self.groups} times: take another number of devices, or set grow_batch to true"
            )
        return f"{said}."


class ItemOrder(Sampler):
    """Indices (epoch, item) of one process.

    In training, shuffled by seed and epoch; the last items of an epoch, too few for a change of the weights, are left
    out of it. In validation each item comes once; a process that would have none gets one that counts nowhere.

    Args:
        items: how many there are.
        seed: of the order.
        rank, processes: number of this process, and of all.
        shares: of training; None for validation.
        length: frames of (epoch, item), where they differ: items of one change of the weights then have about the same
            number, so that no process waits long for the others.
    """

    def __init__(
        self,
        items: int,
        seed: int,
        rank: int,
        processes: int,
        shares: Shares | None,
        length: Callable[[int, int], int] | None = None,
    ) -> None:
        self._items, self._seed, self._shares, self._epoch = items, seed, shares, 0
        self._length = length
        if shares is None:
            self._mine = slice(rank % items, items, max(processes, items if rank >= items else 1))
        else:
            self._mine = slice(rank % shares.groups, items // shares.batch * shares.batch, shares.groups)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(range(self._items)[self._mine])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self._items)
        if self._shares is not None:
            random = np.random.default_rng([self._seed, self._epoch])
            order = random.permutation(self._items)
            if self._length is not None and self._shares.batch > 1:
                order = self._of_like_length(order, random)
        return iter([(self._epoch, int(item)) for item in order[self._mine]])

    def _of_like_length(self, order: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """The items of whole batches, neighbours by length together, batches in random order."""
        batch = self._shares.batch
        chosen = order[: len(order) // batch * batch]
        lengths = [self._length(self._epoch, int(item)) for item in chosen]
        return random.permutation(chosen[np.argsort(lengths, kind="stable")].reshape(-1, batch)).ravel()
