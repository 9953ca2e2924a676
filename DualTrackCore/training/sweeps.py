"""The sweeps of a recipe: simulated by seed, TUS-REC folders, or a table of DualTrack files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.io import load_sweep
from DualTrackCore.network.card import ModelCard
from DualTrackCore.progress import Reporter
from DualTrackCore.simulation.stored import Simulation, stored_sweeps
from DualTrackCore.sweep import Sweep
from DualTrackCore.training.recipe import Data


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
        InputError: a folder or file is missing, no sweeps in it, or a sweep without tracking or spacing.
    """
    if data.kind == "simulated":
        sets = [
            _simulated(data, card, seeds, cache, workers, reporter) for seeds in (data.seeds, data.validation_seeds)
        ]
    else:
        listed = _tusrec(data) if data.kind == "tusrec" else _dualtrack_h5(data)
        limits = (data.limit, data.validation_limit)
        sets = [_loaded(paths[:limit], reporter) for paths, limit in zip(listed, limits, strict=True)]
    for part, what in zip(sets, ("training", "validation"), strict=True):
        _require_usable(part, what)
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
            reporter.report("sweeps", done, len(jobs))
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


def _tusrec(data: Data) -> tuple[list[Path], list[Path]]:
    return _h5_below(data.folder, "data.folder"), _h5_below(data.validation_folder, "data.validation_folder")


def _h5_below(folder: str, key: str) -> list[Path]:
    """Sweep files of a TUS-REC folder: under `frames_transfs`, or under `frames` where the two are apart."""
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{key} is {folder}, and there is no such folder.")
    apart = {"transfs", "landmark", "landmarks"}
    found = sorted(p for p in root.rglob("*.h5") if not apart & set(p.relative_to(root).parts[:-1]))
    if not found:
        raise InputError(f"{key} is {folder}, which holds no .h5 sweeps.")
    return found


def _dualtrack_h5(data: Data) -> tuple[list[Path], list[Path]]:
    table = Path(data.csv)
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"data.csv is {data.csv}, which cannot be read: {error}.") from None
    if missing := {"processed_sweep_path", "split"} - set(rows[0] if rows else ()):
        raise InputError(f"{table.name} lacks the columns {', '.join(sorted(missing))}.")
    splits = {"train": [], "val": []}
    for row in rows:
        if row["split"] in splits:
            splits[row["split"]].append(table.parent / row["processed_sweep_path"])
    for split, paths in splits.items():
        if not paths:
            raise InputError(f"{table.name} lists no sweep whose split is {split}.")
    return splits["train"], splits["val"]


def _loaded(paths: Sequence[Path], reporter: Reporter) -> SweepSet:
    sweeps = []
    for done, path in enumerate(paths):
        reporter.report("sweeps", done, len(paths))
        sweeps.append(load_sweep(path))
    return SweepSet(tuple(str(path) for path in paths), tuple(sweeps))


def _require_usable(part: SweepSet, what: str) -> None:
    if not len(part):
        raise InputError(f"There are no {what} sweeps; look at data in the recipe.")
    for name, sweep in zip(part.names, part.sweeps, strict=True):
        sweep.require_images()
        if sweep.tracked is None or sweep.spacing_mm is None:
            lacking = "tracking" if sweep.tracked is None else "pixel spacing"
            raise InputError(f"The {what} sweep {name} has no {lacking}; training needs both images and poses in mm.")
