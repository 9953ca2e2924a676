"""Results of a comparison: rows, summaries by method with bootstrap intervals, and tests between methods."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from DualTrackCore.errors import OutputError
from DualTrackCore.evaluation import METRICS
from DualTrackCore.evaluation.definitions import PooledCorrelation
from DualTrackCore.path_error import ROUGH, UNUSABLE, USABLE, Trust
from DualTrackCore.research.comparison.measure import Outcome
from DualTrackCore.research.comparison.methods import Method, parameter_count
from DualTrackCore.research.comparison.result_files import Item, read_item

#: Figures of a method, in the order of tables; facts about the true path are none.
SHOWN = tuple(name for name, metric in METRICS.items() if metric.better != "neither")
#: Figures that are no metrics of a trajectory.
_COSTS = ("seconds_per_frame", "peak_mebibytes")
#: Facts of an item that its row has.
_FROM_ITEM = ("frames", "frames_used", "metrics", *_COSTS, "truth", "is_guess", "trust", "warnings")
#: Figures in which every two methods are tested against each other.
TESTED = ("gpe_mm", "lpe_mm", "fdr_percent", "max_drift_mm")


def heading(name: str) -> str:
    """Title with unit: "GPE (mm)"."""
    metric = METRICS[name]
    return f"{metric.title} ({metric.unit})" if metric.unit else metric.title


#: Resamples of the sweeps, part of them that an interval holds, and the seed of the draws.
RESAMPLES, LEVEL, SEED = 10_000, 0.95, 20_250_909
#: p from which on no difference is shown.
SIGNIFICANT = 0.05
#: Resamples per block, which bounds memory.
_BLOCK = 250


@dataclass(frozen=True)
class Pair:
    """Two methods on the sweeps where both have a figure.

    Attributes:
        metric: the figure.
        one, other: names of the methods.
        count: number of sweeps.
        median_difference: of `one` less `other`.
        p: of the two-sided Wilcoxon signed-rank test; 1 where the methods agree on every sweep, NaN without sweeps.
        p_holm: corrected by Holm's method for all pairs of this metric.
    """

    metric: str
    one: str
    other: str
    count: int
    median_difference: float
    p: float
    p_holm: float


def bootstrap_intervals(values: np.ndarray, resamples: int = RESAMPLES, level: float = LEVEL) -> np.ndarray:
    """Percentile intervals of the mean, by drawing sweeps with replacement (Efron and Tibshirani 1993, chapter 13).

    The same draws serve all columns, and the same seed every call: equal sweeps give equal intervals. scipy's bootstrap
    draws for every column anew and knows no gaps; with 768 sweeps of 28 figures it takes 2.8 times as long.

    Args:
        values: [sweeps, columns]; where a figure is NaN the sweep does not count for that column.

    Returns:
        [columns, 2] lower and upper end; NaN where fewer than two sweeps count.
    """
    values = np.asarray(values, dtype=np.float64)
    count, columns = values.shape
    defined = np.isfinite(values)
    filled = np.where(defined, values, 0.0)
    random = np.random.default_rng(SEED)
    means = np.full((resamples, columns), np.nan)
    for start in range(0, resamples if count else 0, _BLOCK):
        drawn = random.multinomial(count, np.full(count, 1 / count), min(_BLOCK, resamples - start)).astype(np.float64)
        weight = drawn @ defined
        np.divide(drawn @ filled, weight, out=means[start : start + len(drawn)], where=weight > 0)
    ends = np.full((columns, 2), np.nan)
    tail = (1 - level) / 2
    for column in np.flatnonzero(defined.sum(axis=0) >= 2):
        drawn_means = means[:, column]
        ends[column] = np.quantile(drawn_means[np.isfinite(drawn_means)], [tail, 1 - tail])
    return ends


def compare_pairs(metric: str, figures: Mapping[str, np.ndarray]) -> list[Pair]:
    """Test every two methods against each other.

    Args:
        metric: name of the figure.
        figures: [sweeps] by method, in one order of sweeps; NaN where a method has none.
    """
    pairs = []
    for one, other in combinations(figures, 2):
        difference = figures[one] - figures[other]
        difference = difference[np.isfinite(difference)]
        median = float(np.median(difference)) if len(difference) else math.nan
        pairs.append((one, other, len(difference), median, signed_rank(difference)))
    corrected = holm([pair[-1] for pair in pairs])
    return [Pair(metric, *pair, p_holm) for pair, p_holm in zip(pairs, corrected, strict=True)]


def signed_rank(difference: np.ndarray) -> float:
    """p of the two-sided Wilcoxon signed-rank test of [n] differences; those of 0 are left out (Wilcoxon 1945)."""
    if not len(difference):
        return math.nan
    if not difference.any():
        return 1.0
    return float(wilcoxon(difference, zero_method="wilcox", alternative="two-sided").pvalue)


def least_sweeps(pairs: int) -> int:
    """Fewest sweeps on which a difference between methods can be significant at :data:`SIGNIFICANT`.

    With n sweeps the smallest two-sided p of the signed-rank test is 2 / 2^n, and Holm multiplies it by the `pairs`.
    """
    return math.floor(math.log2(2 * pairs / SIGNIFICANT)) + 1


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979); NaN stays NaN and does not count."""
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: np.isfinite(p).sum()]  # NaN is sorted last
    scaled = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected.tolist()


@dataclass(frozen=True)
class Row:
    """One method on one sweep; `error` is the reason where there are no figures, `path` the file of the item.

    `truth`, `is_guess`, `trust` and `warnings` are those of the :class:`Item`.
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
    truth: str = ""
    is_guess: bool = False
    trust: str = ""
    warnings: Sequence[str] = ()

    def figure(self, name: str) -> float:
        """A metric, `seconds_per_frame` or `peak_mebibytes`; NaN where there is none."""
        return getattr(self, name) if name in _COSTS else self.metrics.get(name, math.nan)

    def item(self) -> Item | None:
        """Poses and errors along the sweep, read from the file; None where the method failed or the file is gone."""
        return None if self.path is None else read_item(self.path)


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
        method, uses, needs_truth: of the method.
        sweeps: how many sweeps the figures come from.
        failed: names of the sweeps on which the method failed; they are in none of its figures.
        figures: of :data:`SHOWN`, `seconds_per_frame` and `peak_mebibytes`.
        common: means over the sweeps on which no method failed; the figures of methods that failed on different
            sweeps compare only in these. NaN where there is no such sweep.
        pooled: correlation of each component over all steps of all sweeps together. Unlike the mean over sweeps it
            shows whether the sign of the motion is right, which differs between sweeps.
        parameter_count: learned parameters; None where unknown.
        guesses: number of sweeps of a kind that the model never saw.
        model: what :meth:`~DualTrackCore.network.Model.provenance` says; empty for methods without a model.
        trust: number of sweeps by what the estimate is good for, the worst first, and by each reason.
        warnings: number of sweeps by each warning of the estimates; one that differs in numbers alone is told once.
    """

    method: str
    uses: str
    needs_truth: bool
    sweeps: int
    failed: tuple[str, ...]
    figures: Mapping[str, Spread]
    common: Mapping[str, float]
    pooled: Mapping[str, float]
    parameter_count: int | None
    guesses: int = 0
    model: Mapping[str, Any] = field(default_factory=dict)
    trust: Mapping[str, int] = field(default_factory=dict)
    warnings: Mapping[str, int] = field(default_factory=dict)

    @property
    def worst_trust(self) -> str:
        """The worst that an estimate is good for, such as "do not measure (2 of 3)"; empty where nothing says it."""
        level = next(iter(self.trust), None)
        return "" if level is None else f"{level} ({self.trust[level]} of {self.sweeps})"

    @property
    def trust_text(self) -> str:
        """What the estimates are good for, and why no better, each with its number of sweeps."""
        return ", ".join(f"{said.rstrip('.')} ({count} of {self.sweeps})" for said, count in self.trust.items())


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

    @property
    def truths(self) -> dict[str, int]:
        """Number of sweeps by where their true poses are from, as far as any method has figures of them."""
        return dict(Counter({row.sweep: row.truth for row in self.rows if row.truth}.values()))

    @property
    def shown(self) -> list[str]:
        """Those of :data:`SHOWN` that any method has."""
        return [name for name in SHOWN if any(summary.figures[name].count for summary in self.summaries)]

    def of(self, method: str) -> dict[str, Row]:
        """The rows of one method by sweep."""
        return {row.sweep: row for row in self.rows if row.method == method}

    def pairs(self) -> list[Pair]:
        """Every two methods against each other in the figures that are tested."""
        rows = {summary.method: self.of(summary.method).values() for summary in self.summaries}
        pairs = []
        for metric in TESTED:
            figures = {name: np.array([row.figure(metric) for row in of_method]) for name, of_method in rows.items()}
            pairs += compare_pairs(metric, figures)
        return pairs


def comparison_of(methods: Sequence[Method], outcomes: Sequence[Outcome], files: Mapping[str, Path]) -> Comparison:
    """Build the comparison from the outcome of each sweep.

    Args:
        methods: in the order of the tables.
        outcomes: one a sweep, in the order of the tables.
        files: of the items by their keys.

    Raises OutputError: the file of an item was removed meanwhile.
    """
    rows: list[Row] = []
    pooled = {method.name: PooledCorrelation() for method in methods}
    for outcome in outcomes:
        if outcome.bad is not None:
            continue
        made = {name: Row(name, outcome.sweep, error=reason) for name, reason in outcome.failures.items()}
        for key in outcome.keys:
            path = files.get(key)
            if path is None or (item := read_item(path)) is None:
                raise OutputError(
                    f"A result of {outcome.sweep} was removed from its folder meanwhile; run the same again."
                )
            pooled[item.method].add(item.steps)
            facts = {name: getattr(item, name) for name in _FROM_ITEM}
            made[item.method] = Row(item.method, item.sweep, path=path, **facts)
        rows += [made[method.name] for method in methods]
    common = tuple(outcome.sweep for outcome in outcomes if outcome.bad is None and not outcome.failures)
    summaries = [
        _summary(method, [row for row in rows if row.method == method.name], set(common), pooled[method.name])
        for method in methods
    ]
    skipped = {outcome.sweep: outcome.bad for outcome in outcomes if outcome.bad is not None}
    return Comparison(tuple(rows), tuple(summaries), skipped, common)


def _summary(method: Method, rows: Sequence[Row], common: Collection[str], pooled: PooledCorrelation) -> Summary:
    names = (*SHOWN, *_COSTS)
    values = np.array([[row.figure(name) for name in names] for row in rows]).reshape(-1, len(names))
    in_common = np.array([row.sweep in common for row in rows], bool)
    figures, means = {name: Spread() for name in names}, dict.fromkeys(names, math.nan)
    for name, column, (low, high) in zip(names, values.T, bootstrap_intervals(values), strict=True):
        finite = np.isfinite(column)
        if finite.any():
            own = column[finite]
            figures[name] = Spread(float(own.mean()), float(np.median(own)), float(low), float(high), len(own))
        if (in_common & finite).any():
            means[name] = float(column[in_common & finite].mean())
    failed = tuple(row.sweep for row in rows if row.error is not None)
    return Summary(
        method.name,
        method.uses,
        getattr(method, "needs_truth", False),
        len(rows) - len(failed),
        failed,
        figures,
        means,
        pooled.values(),
        parameter_count(method),
        sum(row.is_guess for row in rows),
        model.provenance() if (model := getattr(method, "model", None)) is not None else {},
        _trust(rows),
        _warnings(rows),
    )


def _warnings(rows: Sequence[Row]) -> dict[str, int]:
    counts, told = Counter(), {}
    for row in rows:
        kinds = {re.sub(r"\d+(\.\d+)?", "N", text): text for text in row.warnings}
        counts.update(kinds.keys())
        told = {**kinds, **told}
    return {told[kind]: count for kind, count in counts.items()}


def _trust(rows: Sequence[Row]) -> dict[str, int]:
    found = [said for row in rows if (said := Trust.from_text(row.trust)) is not None]
    levels = Counter(said.level for said in found)
    # Percentages differ from sweep to sweep, and would make a reason of each.
    reasons = Counter(re.sub(r"\d+%", "much", reason) for said in found for reason in said.reasons)
    return {**{level: levels[level] for level in (UNUSABLE, ROUGH, USABLE) if levels[level]}, **reasons}
