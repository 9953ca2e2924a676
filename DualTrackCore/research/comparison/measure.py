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
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter
from DualTrackCore.research.comparison.fingerprint import sweep_fingerprint
from DualTrackCore.research.comparison.methods import Method, parameter_count
from DualTrackCore.research.comparison.result_files import Item, PooledCorrelation, item_key, poses_of
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

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
    """

    methods: tuple[tuple[Method, str], ...]
    dataset: Dataset
    finished: frozenset[str]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Result of one sweep.

    Attributes:
        sweep: its name.
        keys: of the items that were finished before or are now.
        items: those that are new.
        failures: method and reason.
        bad: why the sweep cannot be used, else None.
    """

    sweep: str
    keys: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)
    bad: str | None = None


def measure_sweep(
    work: Work,
    name: str,
    *,
    save: Callable[[Item], object] | None = None,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> Outcome:
    """Run the methods that have no finished item on one sweep.

    Args:
        work: methods and data set.
        name: of the sweep in the data set.
        save: called with every new item at once.

    Raises:
        Cancelled: the caller asked to stop.
    """
    try:
        sweep = require_usable(work.dataset.load(name))
        landmarks = work.dataset.landmarks(name)
        content = sweep_fingerprint(sweep, landmarks)
    except Cancelled:
        raise
    except Exception as error:  # any fault of one sweep is reported and the others go on
        return Outcome(name, bad=_reason(error))
    keys, items, failures = [], [], {}
    for method, identity in work.methods:
        key = item_key(method.name, identity, name, content)
        if key not in work.finished:
            try:
                item = _measure(method, key, name, sweep, landmarks, _renamed(progress, name, method), cancelled)
            except Cancelled:
                raise
            except Exception as error:
                failures[method.name] = _reason(error)
                continue
            if save is not None:
                save(item)
            items.append(item)
        keys.append(key)
    return Outcome(name, tuple(keys), tuple(items), failures)


def require_usable(sweep: Sweep) -> Sweep:
    """Return the sweep, or raise :class:`InputError` if methods cannot be measured on it."""
    sweep.require_images()
    sweep.require_spacing()
    if sweep.tracked is None:
        raise InputError("The sweep has no tracking to compare with; choose a tracked sweep.")
    if sweep.tracked.estimated_by is not None:
        raise InputError("The poses of this sweep were estimated, not measured; an evaluation needs tracked poses.")
    if (valid := int(sweep.tracked.valid.sum())) < 2:
        raise InputError(f"Only {valid} of {len(sweep)} tracked poses are valid; at least 2 are needed.")
    return sweep


def _measure(
    method: Method,
    key: str,
    name: str,
    sweep: Sweep,
    landmarks: Landmarks | None,
    progress: ProgressCallback | None,
    cancelled: CancelledCallback | None,
) -> Item:
    with PeakMemory() as peak:
        start = time.perf_counter()
        trajectory = method.estimate(sweep, progress=progress, cancelled=cancelled)
        seconds = time.perf_counter() - start
    evaluation = evaluate(trajectory, sweep, landmarks=landmarks, cancelled=cancelled)
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
        PooledCorrelation.of(trajectory.parameters, sweep.tracked.parameters),
        _path_mm(sweep.tracked),
        evaluation.global_error_mm,
        poses_of(trajectory),
    )


def _path_mm(tracked: Trajectory) -> np.ndarray:
    """[N] length of the path of image centres up to each frame; NaN where the pose is invalid."""
    path = np.full(len(tracked), np.nan)
    centres = tracked.centres_mm[tracked.valid]
    path[tracked.valid] = np.concatenate([[0.0], np.linalg.norm(np.diff(centres, axis=0), axis=1).cumsum()])
    return path


def _renamed(progress: ProgressCallback | None, sweep: str, method: Method) -> ProgressCallback | None:
    if progress is None:
        return None
    return Reporter(progress, detail=f"{sweep}, {method.name}").forward


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, DualTrackError) else f"{type(error).__name__}: {error}"
