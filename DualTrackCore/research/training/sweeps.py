"""The sweeps of a recipe: simulated by seed, TUS-REC folders, or a table of DualTrack files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from DualTrackCore.errors import DatasetError, InputError
from DualTrackCore.network.catalogue import ModelCard
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.research.datasets import Entry, open_dataset, with_said_splits
from DualTrackCore.research.datasets.check import content_of
from DualTrackCore.research.datasets.dataset import overlaps
from DualTrackCore.research.simulation.acquisition import Acquisition
from DualTrackCore.research.simulation.simulator import Simulation, stored_sweeps
from DualTrackCore.research.training.recipe import Data, Recipe
from DualTrackCore.sweep import Sweep
from DualTrackCore.threads import free_cores


@dataclass(frozen=True)
class SweepSet:
    """Tracked sweeps with names; frames stay in their files unless they were taken into memory.

    Attributes:
        names, sweeps: one each.
        acquisitions: one each if frames are codes of echo levels before a scanner; else empty.
        subjects: how many people or phantoms; 0 where nothing says it.
        image_files: one each if whole frames are stored, resized (:mod:`~DualTrackCore.research.training.image_store`).
    """

    names: tuple[str, ...]
    sweeps: tuple[Sweep, ...]
    acquisitions: tuple[Acquisition, ...] = ()
    subjects: int = 0
    image_files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.sweeps)

    @property
    def text(self) -> str:
        """What there is: "8 sweeps of 2 subjects (480 frames)"."""
        of = f" of {self.subjects} subject{'s' * (self.subjects != 1)}" if self.subjects else ""
        frames = sum(map(len, self.sweeps))
        return f"{len(self)} sweep{'s' * (len(self) != 1)}{of} ({frames} frames)"

    def in_memory(self, budget_bytes: float, reporter: Reporter) -> SweepSet:
        """The same set with the frames of the first sweeps in memory, as many as fit the budget."""
        kept = []
        for sweep in self.sweeps:
            reporter.report(Stage.SWEEPS, len(kept), len(self))
            size = int(np.prod(sweep.frames.shape))
            if not isinstance(sweep.frames, np.ndarray) and size <= budget_bytes:
                budget_bytes -= size
                sweep = replace(sweep, frames=np.ascontiguousarray(sweep.window(0, len(sweep))))
            kept.append(sweep)
        return replace(self, sweeps=tuple(kept))


def training_sweeps(
    data: Data, card: ModelCard, cache: Path, workers: int, reporter: Reporter
) -> tuple[SweepSet, SweepSet]:
    """Sweeps to train on and sweeps to validate on; their frames stay in files.

    Args:
        data: the recipe's.
        card: gives frame size and spacing of simulated sweeps.
        cache: folder for simulated sweeps.
        workers: processes that simulate.
        reporter: receives `Stage.SWEEPS`.

    Raises:
        DatasetError: a folder or file is missing or has no sweeps, a sweep has no images, poses or spacing, or a sweep
            or a subject is on both sides.
        InputError: the recipe gives no sweeps.
    """
    if data.kind == "simulated":
        sets = [_simulated(data, card, is_training, cache, workers, reporter) for is_training in (True, False)]
    else:
        lists = [listed(data, is_training) for is_training in (True, False)]
        sides = [replace(e, split=side) for side, part in zip(("train", "val"), lists, strict=True) for e in part]
        for finding in overlaps(sides):
            raise DatasetError(str(finding))
        sets = [
            SweepSet(
                tuple(str(entry.path) for entry in entries),
                _made([entry.load for entry in entries], reporter),
                subjects=len({entry.subject for entry in entries} - {None}),
            )
            for entries in lists
        ]
        _require_apart(*sets)
    for part, what in zip(sets, ("training", "validation"), strict=True):
        if not len(part):
            raise InputError(f"There are no {what} sweeps; look at data in the recipe.")
    return sets[0], sets[1]


def simulating_processes(recipe: Recipe) -> int:
    """How many processes may simulate: one a core, as the other processes of a training wait meanwhile."""
    return max(recipe.workers, free_cores() * recipe.devices)


def _require_apart(training: SweepSet, validation: SweepSet) -> None:
    """Refuse a copy of a training sweep among those of validation."""
    seen = {content_of(sweep): name for name, sweep in zip(training.names, training.sweeps, strict=True)}
    for name, sweep in zip(validation.names, validation.sweeps, strict=True):
        if (other := seen.get(content_of(sweep))) is not None:
            raise DatasetError(f"{name}, for validation, is a copy of {other}, for training; keep one of the two.")


def _simulated(
    data: Data, card: ModelCard, is_training: bool, cache: Path, workers: int, reporter: Reporter
) -> SweepSet:
    seeds, limit = (data.seeds, data.limit) if is_training else (data.validation_seeds, data.validation_limit)
    jobs: list[Simulation] = []
    chosen = range(*seeds)[:limit]
    plain = data.plain if is_training else -(-data.plain // 10)
    for seed in (*chosen, *range(chosen[-1] + 1, chosen[-1] + 1 + plain)):
        family = None if data.families is None else data.families[seed % len(data.families)]
        speckle_seed = None
        if data.speckles is not None:  # validation sweeps never share speckle with training sweeps
            speckle_seed = seed % data.speckles + (0 if is_training else data.speckles)
        acquisition, frames = None, data.frames if seed in chosen else data.plain_frames
        if data.acquisitions:
            acquisition = Acquisition.of_seed(seed) if seed in chosen else Acquisition.plain_of_seed(seed)
        size = card.frame_size
        jobs.append(Simulation(seed, frames, family, speckle_seed, size, card.spacing_mm, acquisition))
    names = tuple(f"seed {job.seed}" for job in jobs)
    acquisitions = tuple(job.acquisition for job in jobs if job.acquisition is not None)
    if data.store:
        return SweepSet(names, stored_sweeps(jobs, cache, workers, reporter), acquisitions)
    return SweepSet(names, _made([job.sweep for job in jobs], reporter), acquisitions)


def listed(data: Data, is_training: bool) -> list[Entry]:
    """The sweeps of a recipe's folder or table."""
    if data.kind == "tusrec":
        key, split = "folder" if is_training or data.splits is not None else "validation_folder", None
    else:
        key, split = "csv", "train" if is_training else "val"
    place, limit = getattr(data, key), data.limit if is_training else data.validation_limit
    try:
        if data.splits is not None:
            dataset = with_said_splits(open_dataset(Path(place), poses_are=data.poses_are), data.splits)
            return list(dataset.of_split("train" if is_training else "val"))[:limit]
        return list(open_dataset(Path(place), split=split, poses_are=data.poses_are))[:limit]
    except DatasetError as error:
        raise DatasetError(f"data.{key} of the recipe is {place}: {error}") from None


def _made(makers: Sequence[Callable[[], Sweep]], reporter: Reporter) -> tuple[Sweep, ...]:
    sweeps = []
    for done, make in enumerate(makers):
        reporter.report(Stage.SWEEPS, done, len(makers))
        sweeps.append(make())
    return tuple(sweeps)
