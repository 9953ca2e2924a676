"""Correlation over the steps of many sweeps, from moments that can be added up sweep by sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from DualTrackCore.evaluation import COMPONENTS


class PooledCorrelation:
    """Pearson's r of each component of the motion over the steps of many sweeps together.

    Unlike the mean over sweeps it shows whether the sign of the motion is found, which differs between sweeps.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = np.zeros((2, 6))
        self._products = np.zeros((3, 6))  # of deviations: own squares, true squares, mixed

    @classmethod
    def of(cls, predicted: np.ndarray, true: np.ndarray) -> PooledCorrelation:
        """Of the steps [n, 6] of one sweep; those not finite in either are left out."""
        pooled = cls()
        known = np.isfinite(predicted).all(axis=1) & np.isfinite(true).all(axis=1)
        values = np.stack([predicted[known], true[known]])
        pooled._count = values.shape[1]
        if pooled._count:
            pooled._mean = values.mean(axis=1)
            own, other = values - pooled._mean[:, None]
            pooled._products = np.stack([(a * b).sum(axis=0) for a, b in ((own, own), (other, other), (own, other))])
        return pooled

    def add(self, more: PooledCorrelation) -> None:
        """Take the steps of another sweep in."""
        total = self._count + more._count
        if not total:
            return
        shift = more._mean - self._mean
        share = self._count * more._count / total
        mixed = np.stack([shift[0] * shift[0], shift[1] * shift[1], shift[0] * shift[1]])
        self._products = self._products + more._products + share * mixed
        self._mean = self._mean + shift * more._count / total
        self._count = total

    def values(self) -> dict[str, float]:
        """r by component; NaN where one side does not vary."""
        own, true, mixed = self._products
        # A component that is constant up to rounding has nothing to correlate.
        varies = np.minimum(own, true) > 1e-18 * max(self._count, 1)
        r = np.where(varies, mixed / np.sqrt(np.where(varies, own * true, 1)), np.nan)
        return {name: float(np.clip(value, -1, 1)) for name, value in zip(COMPONENTS, r, strict=True)}

    def as_dict(self) -> dict[str, Any]:
        """The moments as plain values for JSON."""
        return {"count": self._count, "mean": self._mean.tolist(), "products": self._products.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PooledCorrelation:
        """The inverse of :meth:`as_dict`."""
        pooled = cls()
        pooled._count = int(values["count"])
        pooled._mean = np.array(values["mean"], dtype=np.float64).reshape(2, 6)
        pooled._products = np.array(values["products"], dtype=np.float64).reshape(3, 6)
        return pooled
