"""The sweeps of a recipe: simulated by seed, TUS-REC folders, or a table of DualTrack files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from DualTrackCore.errors import DatasetError, InputError
from DualTrackCore.network.catalogue import ModelCard
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.research.datasets import Dataset, open_dataset
from DualTrackCore.research.simulation.simulator import Simulation, stored_sweeps
from DualTrackCore.research.training.recipe import Data
from DualTrackCore.sweep import Sweep


@dataclass(frozen=True)
class SweepSet:
    """Tracked sweeps with names; frames stay in their files unless they were taken into memory."""

    names: tuple[str, ...]
    sweeps: tuple[Sweep, ...]

    def __len__(self) -> int:
        return len(self.sweeps)

    def in_memory(self, budget_bytes: float) -> SweepSet:
        """The same with the frames of as many sweeps as fit the budget read into memory, the first ones first."""
        kept = []
        for sweep in self.sweeps:
            size = int(np.prod(sweep.frames.shape))
            if not isinstance(sweep.frames, np.ndarray) and size <= budget_bytes:
                budget_bytes -= size
                sweep = replace(sweep, frames=np.ascontiguousarray(sweep.window(0, len(sweep))))
            kept.append(sweep)
        return SweepSet(self.names, tuple(kept))


def training_sweeps(
    data: Data, card: ModelCard, cache: Path, workers: int, reporter: Reporter
) -> tuple[SweepSet, SweepSet]:
    """Sweeps to train on and sweeps to validate on.

    Args:
        data: the recipe's.
        card: gives frame size and spacing of simulated sweeps.
        cache: folder in which simulated sweeps are kept.
        workers: processes that simulate.
        reporter: told of stage "sweeps".

    Raises:
        DatasetError: a folder or file is missing, no sweeps in it, or a sweep without images, poses or spacing.
        InputError: the recipe asks for no sweeps.
    """
    if data.kind == "simulated":
        sets = [
            _simulated(data, card, seeds, cache, workers, reporter) for seeds in (data.seeds, data.validation_seeds)
        ]
    else:
        limits = (data.limit, data.validation_limit)
        sets = [_loaded(dataset, limit, reporter) for dataset, limit in zip(_listed(data), limits, strict=True)]
    for part, what in zip(sets, ("training", "validation"), strict=True):
        _require_some(part, what)
    memory = data.memory_gb * 1e9
    validation = sets[1].in_memory(memory / 4)
    return sets[0].in_memory(memory * 3 / 4), validation


def _simulated(
    data: Data, card: ModelCard, seeds: tuple[int, int], cache: Path, workers: int, reporter: Reporter
) -> SweepSet:
    limit = data.limit if seeds == data.seeds else data.validation_limit
    chosen = list(range(*seeds))[:limit]
    jobs = [_simulation(data, card, seed) for seed in chosen]
    names = tuple(f"seed {seed}" for seed in chosen)
    if not data.store:
        sweeps = []
        for done, job in enumerate(jobs):
            reporter.report(Stage.SWEEPS, done, len(jobs))
            sweeps.append(job.sweep())
        return SweepSet(names, tuple(sweeps))
    return SweepSet(names, stored_sweeps(jobs, cache, workers, reporter))


def _simulation(data: Data, card: ModelCard, seed: int) -> Simulation:
    """What the recipe simulates for a seed; validation sweeps never share speckle with training sweeps."""
    family = None if data.families is None else data.families[seed % len(data.families)]
    speckle_seed = None
    if data.speckles is not None:
        training = data.seeds[0] <= seed < data.seeds[1]
        speckle_seed = seed % data.speckles + (0 if training else data.speckles)
    return Simulation(seed, data.frames, family, speckle_seed, card.frame_size, card.spacing_mm)


def _listed(data: Data) -> tuple[Dataset, Dataset]:
    """The data sets that a recipe names by folders or by a table."""
    if data.kind == "tusrec":
        return _opened("folder", data.folder), _opened("validation_folder", data.validation_folder)
    return _opened("csv", data.csv, "train"), _opened("csv", data.csv, "val")


def _opened(key: str, place: str, split: str | None = None) -> Dataset:
    try:
        return open_dataset(Path(place), split=split)
    except DatasetError as error:
        raise DatasetError(f"data.{key} of the recipe is {place}: {error}") from None


def _loaded(dataset: Dataset, limit: int | None, reporter: Reporter) -> SweepSet:
    entries = list(dataset)[:limit]
    sweeps = []
    for done, entry in enumerate(entries):
        reporter.report(Stage.SWEEPS, done, len(entries))
        sweeps.append(entry.load())
    return SweepSet(tuple(str(entry.path) for entry in entries), tuple(sweeps))


def _require_some(part: SweepSet, what: str) -> None:
    if not len(part):
        raise InputError(f"There are no {what} sweeps; look at data in the recipe.")
