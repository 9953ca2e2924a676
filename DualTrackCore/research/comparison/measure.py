"""Run the methods on one sweep of a data set: what every process and every machine does."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.errors import Cancelled, DualTrackError, InputError
from DualTrackCore.evaluation import evaluate
from DualTrackCore.evaluation.definitions import PooledCorrelation
from DualTrackCore.files import plain_values
from DualTrackCore.memory import memory_limit, naming_memory
from DualTrackCore.path_error import direction_warnings, trust_in
from DualTrackCore.progress import Reporter
from DualTrackCore.repeats import find_repeats, find_turns
from DualTrackCore.research.comparison.methods import Method, parameter_count
from DualTrackCore.research.comparison.result_files import Item, item_key, sweep_fingerprint
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import parameters_from_matrices

if TYPE_CHECKING:
    from DualTrackCore.landmarks import Landmarks
    from DualTrackCore.research.datasets import Dataset

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Context that measures the peak resident memory of this process; Linux only.

    The figure is of the whole process with its libraries.

    Attributes:
        mebibytes: after the context; NaN where unknown.
    """

    mebibytes = math.nan

    def __enter__(self) -> PeakMemory:
        self._watched = False
        with contextlib.suppress(OSError):
            _RESET.write_text("5")  # start the peak anew at what is resident now (man 5 proc)
            self._watched = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._watched:
            with contextlib.suppress(OSError, ValueError, StopIteration):
                line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
                self.mebibytes = int(line.split()[1]) / 1024


@dataclass(frozen=True, eq=False)
class Work:
    """Input of a worker; it can be pickled if its methods and its data set can.

    Attributes:
        methods: with the fingerprint of each, in the order of the tables.
        dataset: opened; the files must lie at the same place for every worker.
        finished: keys of the items that exist already.
        memory_gb: most memory that each process may hold; None for what its machine has.
        tus_rec_pixels: as in :func:`~DualTrackCore.evaluation.evaluate`.
    """

    methods: tuple[tuple[Method, str], ...]
    dataset: Dataset
    finished: frozenset[str]
    memory_gb: float | None = None
    tus_rec_pixels: bool = False


@dataclass(frozen=True, eq=False)
class Outcome:
    """Result of one sweep.

    Attributes:
        sweep: its name.
        keys: of the items that were finished before or are now.
        items: those that are new and not saved yet.
        failures: method and reason.
        bad: why the sweep cannot be used, else None.
    """

    sweep: str
    keys: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    bad: str | None = None


def measure_sweep(
    name: str, work: Work, reporter: Reporter | None = None, save: Callable[[Item], None] | None = None
) -> Outcome:
    """Run the methods that have no finished item on one sweep.

    Args:
        name: of the sweep in the data set.
        work: methods and data set.
        save: called with every new item at once; without it they are in the outcome.

    Raises Cancelled: the caller asked to stop.
    """
    with memory_limit(work.memory_gb):
        return _measure_all(name, work, reporter or Reporter(), save)


def _measure_all(name: str, work: Work, reporter: Reporter, save: Callable[[Item], None] | None) -> Outcome:
    try:
        with naming_memory(name):
            sweep = work.dataset.load(name)
            _require_usable(sweep)
            landmarks = work.dataset.landmarks(name)
            content = sweep_fingerprint(sweep, landmarks)
    except Cancelled:
        raise
    except Exception as error:  # any fault of one sweep is reported and the others go on
        return Outcome(name, bad=_reason(error))
    keys, items, failures = [], [], {}
    for method, identity in work.methods:
        key = item_key(method.name, identity, name, content, work.tus_rec_pixels)
        if key not in work.finished:
            try:
                with naming_memory(name):
                    told = reporter.with_detail(f"{name}, {method.name}")
                    item = _measure(method, key, name, sweep, landmarks, work.tus_rec_pixels, told)
            except Cancelled:
                raise
            except Exception as error:
                failures[method.name] = _reason(error)
                continue
            if save is None:
                items.append(item)
            else:
                save(item)
        keys.append(key)
    return Outcome(name, tuple(keys), tuple(items), failures)


def _require_usable(sweep: Sweep) -> None:
    """Raise :class:`InputError` if methods cannot be measured on a sweep."""
    sweep.require_images()
    sweep.require_spacing()
    if (valid := int(sweep.require_truth().valid.sum())) < 2:
        raise InputError(f"Only {valid} of {len(sweep)} tracked poses are valid; at least 2 are needed.")


def _measure(
    method: Method,
    key: str,
    name: str,
    sweep: Sweep,
    landmarks: Landmarks | None,
    tus_rec_pixels: bool,
    reporter: Reporter,
) -> Item:
    with PeakMemory() as peak:
        start = time.perf_counter()
        repeats = find_repeats(sweep, reporter)
        pictures = repeats.left_out(sweep)
        estimated = method.estimate(pictures, progress=reporter.forward, cancelled=reporter.cancelled)
        trajectory = repeats.shown_again(estimated)
        seconds = time.perf_counter() - start
    grid = {"landmarks": landmarks, "tus_rec_pixels": tus_rec_pixels}
    evaluation = evaluate(trajectory, sweep, **grid, cancelled=reporter.cancelled)
    trust = None
    if trajectory.estimated_by is not None:
        trust = trust_in(trajectory, find_turns(pictures, reporter), plain_values(evaluation.as_dict()))
    tracked = sweep.tracked
    poses = np.where(trajectory.valid[:, None, None], trajectory.poses, np.nan)
    return Item(
        key,
        method.name,
        method.uses,
        name,
        len(sweep),
        evaluation.frames_used,
        dict(evaluation.metrics),
        seconds,
        peak.mebibytes,
        parameter_count(method),
        tracked.lengths_mm,
        evaluation.global_error_mm,
        parameters_from_matrices(poses),
        PooledCorrelation.of(trajectory.parameters, tracked.parameters),
        tracked.origin.value,
        trajectory.is_guess,
        "" if trust is None else trust.text,
        [str(text) for text in trajectory.provenance.get("warnings", ())] + direction_warnings(trajectory.provenance),
    )


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, DualTrackError) else f"{type(error).__name__}: {error}"
