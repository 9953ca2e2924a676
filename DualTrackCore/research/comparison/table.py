"""The rows of a comparison, one a method and sweep, and their summaries, built from the files of the items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from DualTrackCore.errors import OutputError
from DualTrackCore.research.comparison.figures import SHOWN, TESTED
from DualTrackCore.research.comparison.items import read_item
from DualTrackCore.research.comparison.measure import Outcome
from DualTrackCore.research.comparison.methods import Method, parameter_count
from DualTrackCore.research.comparison.moments import PooledCorrelation
from DualTrackCore.research.comparison.statistics import Pair, bootstrap_intervals, compare_pairs


@dataclass(frozen=True)
class Row:
    """One method on one sweep; `error` says why there are no figures.

    `path` is the file of the item, which also holds the estimated poses and the error along the sweep.
    """

    method: str
    sweep: str
    frames: int = 0
    frames_used: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds_per_frame: float = math.nan
    peak_mebibytes: float = math.nan
    path: Path | None = None
    error: str | None = None


@dataclass(frozen=True)
class Spread:
    """One figure of one method over sweeps.

    Attributes:
        mean, median: over the sweeps where it is defined.
        low, high: 95 % interval of the mean, from drawing sweeps with replacement.
        count: number of those sweeps.
    """

    mean: float = math.nan
    median: float = math.nan
    low: float = math.nan
    high: float = math.nan
    count: int = 0


@dataclass(frozen=True)
class Summary:
    """One method over all sweeps.

    Attributes:
        method, uses: of the method.
        sweeps: how many sweeps the figures come from.
        failed: names of the sweeps on which the method failed; they are in none of its figures.
        figures: of :data:`~DualTrackCore.research.comparison.figures.SHOWN`, `seconds_per_frame` and `peak_mebibytes`.
        common: means over the sweeps on which no method failed; the figures of methods that failed on different
            sweeps compare only in these. NaN where there is no such sweep.
        pooled: correlation of each component over all steps of all sweeps together. Unlike the mean over sweeps it
            shows whether the sign of the motion is found, which differs between sweeps.
        parameter_count: numbers that the method learned; None where it does not say.
    """

    method: str
    uses: str
    sweeps: int
    failed: tuple[str, ...]
    figures: Mapping[str, Spread]
    common: Mapping[str, float]
    pooled: Mapping[str, float]
    parameter_count: int | None


@dataclass(frozen=True)
class Comparison:
    """Methods on a data set.

    Attributes:
        rows: sweep after sweep, the methods of each in their order.
        summaries: in the order of the methods.
        skipped: reason by name of the sweeps that cannot be used; they have no rows.
        common: names of the sweeps on which no method failed.
    """

    rows: tuple[Row, ...]
    summaries: tuple[Summary, ...]
    skipped: Mapping[str, str]
    common: tuple[str, ...]

    @property
    def failures(self) -> list[Row]:
        """The rows that have no figures."""
        return [row for row in self.rows if row.error is not None]

    @property
    def sweeps(self) -> list[str]:
        """Names of the sweeps that can be used, in order."""
        return list(dict.fromkeys(row.sweep for row in self.rows))

    def of(self, method: str) -> dict[str, Row]:
        """The rows of one method by sweep."""
        return {row.sweep: row for row in self.rows if row.method == method}

    def pairs(self) -> list[Pair]:
        """Every two methods against each other in the figures that are tested; MissingDependencyError without scipy."""
        names = [summary.method for summary in self.summaries]
        columns = {name: self.of(name) for name in names}
        return [
            pair
            for metric in TESTED
            for pair in compare_pairs(
                metric, {name: np.array([_metric(row, metric) for row in columns[name].values()]) for name in names}
            )
        ]


def comparison_of(methods: Sequence[Method], outcomes: Sequence[Outcome], files: Mapping[str, Path]) -> Comparison:
    """The comparison from what came of each sweep.

    Args:
        methods: in the order of the tables.
        outcomes: one a sweep, in the order of the tables.
        files: of the items by their keys.

    Raises:
        OutputError: the file of an item has gone meanwhile.
    """
    rows: list[Row] = []
    pooled = {method.name: PooledCorrelation() for method in methods}
    for outcome in outcomes:
        if outcome.bad is not None:
            continue
        made: dict[str, Row] = {}
        for key in outcome.keys:
            path = files.get(key)
            item = None if path is None else read_item(path)
            if item is None:
                raise OutputError(
                    f"A result of {outcome.sweep} has gone from its folder meanwhile; run the same again."
                )
            pooled[item.method].add(item.steps)
            made[item.method] = Row(
                item.method,
                item.sweep,
                item.frames,
                item.frames_used,
                item.metrics,
                item.seconds_per_frame,
                item.peak_mebibytes,
                path,
            )
        for name, reason in outcome.failures.items():
            made[name] = Row(name, outcome.sweep, error=reason)
        rows += [made[method.name] for method in methods]
    failed = {row.sweep for row in rows if row.error is not None}
    common = tuple(name for name in dict.fromkeys(row.sweep for row in rows) if name not in failed)
    summaries = [
        _summary(method, [row for row in rows if row.method == method.name], common, pooled[method.name])
        for method in methods
    ]
    skipped = {outcome.sweep: outcome.bad for outcome in outcomes if outcome.bad is not None}
    return Comparison(tuple(rows), tuple(summaries), skipped, common)


def _summary(method: Method, rows: Sequence[Row], common: Sequence[str], pooled: PooledCorrelation) -> Summary:
    names = (*SHOWN, "seconds_per_frame", "peak_mebibytes")
    good = [row for row in rows if row.error is None]
    values = np.array([[_metric(row, name) for name in names] for row in rows]).reshape(-1, len(names))
    in_common = np.array([row.sweep in set(common) for row in rows], bool)
    intervals = bootstrap_intervals(values)
    figures, means = {}, {}
    for name, column, (low, high) in zip(names, values.T, intervals, strict=True):
        known = column[np.isfinite(column)]
        if len(known):
            figures[name] = Spread(float(known.mean()), float(np.median(known)), float(low), float(high), len(known))
        else:
            figures[name] = Spread()
        shared = column[in_common & np.isfinite(column)]
        means[name] = float(shared.mean()) if len(shared) else math.nan
    failed = tuple(row.sweep for row in rows if row.error is not None)
    return Summary(
        method.name, method.uses, len(good), failed, figures, means, pooled.values(), parameter_count(method)
    )


def _metric(row: Row, name: str) -> float:
    if name in ("seconds_per_frame", "peak_mebibytes"):
        return getattr(row, name)
    return row.metrics.get(name, math.nan)
