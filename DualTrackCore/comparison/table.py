"""Running methods over sweeps and gathering their errors: rows for each sweep, and one summary a method."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from DualTrackCore.comparison.methods import Method
from DualTrackCore.errors import Cancelled, DualTrackError, InputError
from DualTrackCore.evaluation import evaluate
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

COMPONENTS = ("tx", "ty", "tz", "rx", "ry", "rz")
#: Figures of a sweep that are averaged over sweeps, as `evaluate` names them.
METRICS = (
    "gpe_mm",
    "lpe_mm",
    "gpe_five_point_mm",
    "lpe_five_point_mm",
    "fdr_percent",
    "fdr_path_percent",
    "max_drift_mm",
    *(f"correlation_{name}" for name in COMPONENTS),
)


@dataclass(frozen=True)
class Row:
    """One method on one sweep; `error` says why there are no figures."""

    method: str
    sweep: str
    frames: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds_per_frame: float = math.nan
    error: str | None = None


@dataclass(frozen=True)
class Summary:
    """One method over all sweeps.

    Attributes:
        method, uses: of the method.
        sweeps, failed: how many sweeps the figures come from, and how many the method failed on.
        means: of :data:`METRICS` over the sweeps where each is defined, and of `seconds_per_frame`.
        defined: on how many sweeps each is defined: a correlation needs something that varies.
        pooled: correlation of each component over all steps of all sweeps together. Unlike the mean over sweeps it
            shows whether the sign of the motion is found, which differs between sweeps.
    """

    method: str
    uses: str
    sweeps: int
    failed: int
    means: Mapping[str, float]
    defined: Mapping[str, int]
    pooled: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """All rows, sweep after sweep, and the summaries in the order of the methods."""

    rows: tuple[Row, ...]
    summaries: tuple[Summary, ...]

    @property
    def failures(self) -> list[Row]:
        """The rows that have no figures."""
        return [row for row in self.rows if row.error is not None]


def compare(
    methods: Sequence[Method],
    sweeps: Sequence[tuple[str, Callable[[], Sweep]]],
    *,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> Comparison:
    """Run every method on every sweep; one sweep is open at a time.

    A method that fails on a sweep, and a sweep that cannot be used, get rows that say so, and enter no mean.

    Args:
        methods: with different names.
        sweeps: name and how to open it; tracked, since errors are measured against the tracking.
        progress: told of one stage a sweep and method, in frames.

    Raises:
        InputError: no methods, no sweeps, or two methods or sweeps of one name.
        Cancelled: the caller asked to stop.
    """
    for what, names in (("method", [m.name for m in methods]), ("sweep", [name for name, _ in sweeps])):
        if not names:
            raise InputError(f"There is no {what} to compare; give at least one.")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"The {what} {twice[0]!r} is given twice; every {what} needs a name of its own.")
    reporter = Reporter(progress, cancelled)
    rows: list[Row] = []
    pooled = {method.name: PooledCorrelation() for method in methods}
    for number, (name, open_sweep) in enumerate(sweeps, 1):
        reporter.check()
        try:
            sweep = _usable(open_sweep())
        except Cancelled:
            raise
        except Exception as error:
            rows += [Row(method.name, name, 0, error=_reason(error)) for method in methods]
            continue
        for method in methods:
            stage = f"sweep {number}/{len(sweeps)}, {method.name}"
            rows.append(_run(method, name, sweep, pooled[method.name], _renamed(reporter, stage), cancelled))
    summaries = [_summary(method, [r for r in rows if r.method == method.name], pooled) for method in methods]
    return Comparison(tuple(rows), tuple(summaries))


class PooledCorrelation:
    """Pearson's r of each component over the steps of many sweeps, from running moments."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = np.zeros((2, 6))
        self._products = np.zeros((3, 6))  # of deviations: own squares, true squares, mixed

    def add(self, predicted: np.ndarray, true: np.ndarray) -> None:
        """Steps [n, 6] of a sweep; those not finite in either are left out."""
        known = np.isfinite(predicted).all(axis=1) & np.isfinite(true).all(axis=1)
        values = np.stack([predicted[known], true[known]])
        count = values.shape[1]
        if not count:
            return
        mean = values.mean(axis=1)
        own, other = values - mean[:, None]
        shift, total = mean - self._mean, self._count + count
        share = self._count * count / total
        self._products += [
            (a * b).sum(axis=0) + share * c * d
            for a, b, c, d in (
                (own, own, shift[0], shift[0]),
                (other, other, shift[1], shift[1]),
                (own, other, shift[0], shift[1]),
            )
        ]
        self._mean += shift * count / total
        self._count = total

    def values(self) -> dict[str, float]:
        """r by component; NaN where one side does not vary."""
        own, true, mixed = self._products
        # A component that is constant up to rounding has nothing to correlate.
        varies = np.minimum(own, true) > 1e-18 * max(self._count, 1)
        r = np.where(varies, mixed / np.sqrt(np.where(varies, own * true, 1)), np.nan)
        return {name: float(np.clip(value, -1, 1)) for name, value in zip(COMPONENTS, r, strict=True)}


def _usable(sweep: Sweep) -> Sweep:
    sweep.require_images()
    sweep.require_spacing()
    if sweep.tracked is None:
        raise InputError("The sweep has no tracking to compare with; choose a tracked sweep.")
    if sweep.tracked.estimated_by is not None:
        raise InputError("The poses of this sweep were estimated, not measured; they are nothing to compare with.")
    return sweep


def _run(
    method: Method,
    name: str,
    sweep: Sweep,
    pooled: PooledCorrelation,
    progress: ProgressCallback,
    cancelled: CancelledCallback | None,
) -> Row:
    try:
        start = time.perf_counter()
        trajectory = method.estimate(sweep, progress=progress, cancelled=cancelled)
        seconds = time.perf_counter() - start
        metrics = dict(evaluate(trajectory, sweep, cancelled=cancelled).metrics)
    except Cancelled:
        raise
    except Exception as error:  # whatever it is, the other methods and sweeps still count
        return Row(method.name, name, len(sweep), error=_reason(error))
    pooled.add(*_steps(trajectory, sweep.tracked))
    return Row(method.name, name, len(sweep), metrics, seconds / len(sweep))


def _steps(predicted: Trajectory, true: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    return predicted.parameters, true.parameters


def _summary(method: Method, rows: Sequence[Row], pooled: Mapping[str, PooledCorrelation]) -> Summary:
    good = [row for row in rows if row.error is None]
    columns = {name: np.array([row.metrics[name] for row in good]) for name in METRICS}
    columns["seconds_per_frame"] = np.array([row.seconds_per_frame for row in good])
    finite = {name: values[np.isfinite(values)] for name, values in columns.items()}
    return Summary(
        method.name,
        method.uses,
        len(good),
        len(rows) - len(good),
        {name: float(values.mean()) if len(values) else math.nan for name, values in finite.items()},
        {name: len(values) for name, values in finite.items()},
        pooled[method.name].values(),
    )


def _renamed(reporter: Reporter, stage: str) -> ProgressCallback:
    return lambda report: reporter.report(f"{stage}: {report.stage}", report.done, report.total)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, DualTrackError) else f"{type(error).__name__}: {error}"
