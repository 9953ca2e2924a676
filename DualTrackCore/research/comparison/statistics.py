"""How sure a mean over sweeps is, and whether two methods differ: bootstrap, signed-rank test, correction for many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from DualTrackCore.errors import MissingDependencyError

#: Resamples of the sweeps, part of them that an interval holds, and the seed of the draws.
RESAMPLES, LEVEL, SEED = 10_000, 0.95, 20_250_909
#: Resamples that are worked on at once.
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

    The same draws serve all columns, and the same seed every call: equal sweeps give equal intervals.

    Args:
        values: [sweeps, columns]; where a figure is NaN the sweep does not count for that column.

    Returns:
        [columns, 2] lower and upper end; NaN where fewer than two sweeps count.
    """
    values = np.asarray(values, dtype=np.float64)
    count, columns = values.shape
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    random = np.random.default_rng(SEED)
    means = np.full((resamples, columns), np.nan)
    for start in range(0, resamples if count else 0, _BLOCK):
        drawn = random.multinomial(count, np.full(count, 1 / count), min(_BLOCK, resamples - start)).astype(np.float64)
        weight = drawn @ known
        total = drawn @ filled
        block = means[start : start + len(drawn)]
        np.divide(total, weight, out=block, where=weight > 0)
    ends = np.full((columns, 2), np.nan)
    tail = (1 - level) / 2
    for column in np.flatnonzero(known.sum(axis=0) >= 2):
        drawn_means = means[:, column]
        ends[column] = np.quantile(drawn_means[np.isfinite(drawn_means)], [tail, 1 - tail])
    return ends


def compare_pairs(metric: str, figures: Mapping[str, np.ndarray]) -> list[Pair]:
    """Every two methods against each other.

    Args:
        metric: name of the figure.
        figures: [sweeps] by method, in one order of sweeps; NaN where a method has none.

    Raises:
        MissingDependencyError: scipy is not installed.
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
    try:
        from scipy.stats import wilcoxon
    except ImportError as error:
        raise MissingDependencyError(
            'Tests between methods need scipy, which is not installed; get it with pip install "dualtrack[report]".'
        ) from error
    if not len(difference):
        return math.nan
    if not difference.any():
        return 1.0
    return float(wilcoxon(difference, zero_method="wilcox", alternative="two-sided").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979); NaN stays NaN and does not count."""
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected.tolist()
