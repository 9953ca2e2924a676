"""Validation figures that add up over sweeps and over processes: five-point errors and correlations."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from DualTrackCore.evaluation.definitions import COMPONENTS, mean_point_error
from DualTrackCore.trajectory import accumulate, matrices_from_parameters

#: Errors, squared errors, counts, then count, sums, squares and products of the six components.
_ERRORS, _MOMENTS = 6, 6


class ValidationSums:
    """Sums over sweeps from which the figures follow; one vector, so that processes can add theirs up."""

    def __init__(self) -> None:
        self._errors = np.zeros(_ERRORS)
        self._moments = np.zeros((_MOMENTS, 6))

    def add(self, predicted: np.ndarray, true: np.ndarray, five_points_mm: np.ndarray, scale: np.ndarray) -> None:
        """One sweep.

        Args:
            predicted, true: [n, 6] relative motions, mm and degrees; rows of `true` may be NaN.
            five_points_mm: [4, 5] homogeneous image points.
            scale: [6] what the loss divides components by.
        """
        known = np.isfinite(true).all(axis=1)
        if not known.any():
            return
        local = mean_point_error(
            matrices_from_parameters(predicted[known]), matrices_from_parameters(true[known]), five_points_mm
        )
        squares = (((predicted - true) / scale)[known] ** 2).mean(axis=1)
        # Poses follow from motions only up to the first one that is not known.
        reach = len(known) if known.all() else int(np.argmin(known))
        paths = [accumulate(matrices_from_parameters(values[:reach]))[1:] for values in (predicted, true)]
        everywhere = mean_point_error(*paths, five_points_mm)
        if reach:
            self._errors[:2] += everywhere.mean(), 1
        self._errors[2:4] += local.mean(), 1
        self._errors[4:] += squares.sum(), len(squares)
        x, y = predicted[known], true[known]
        ones = np.ones_like(x)
        self._moments += np.stack([v.sum(axis=0) for v in (ones, x, y, x * x, y * y, x * y)])

    def to_tensor(self) -> Tensor:
        """All sums, float64."""
        return torch.from_numpy(np.concatenate([self._errors, self._moments.ravel()]))

    @classmethod
    def from_tensor(cls, values: Tensor) -> ValidationSums:
        """The inverse of :meth:`to_tensor`."""
        sums = cls()
        array = values.double().cpu().numpy()
        sums._errors, sums._moments = array[:_ERRORS].copy(), array[_ERRORS:].reshape(_MOMENTS, 6).copy()
        return sums

    def figures(self) -> dict[str, float]:
        """`gpe_five_point_mm`, `lpe_five_point_mm` (means over sweeps), `loss`, `correlation_tx` ... `correlation_rz`.

        A correlation with a constant is NaN.
        """
        gpe, gpe_count, lpe, lpe_count, squares, count = self._errors
        figures = {
            "gpe_five_point_mm": _ratio(gpe, gpe_count),
            "lpe_five_point_mm": _ratio(lpe, lpe_count),
            "loss": _ratio(squares, count),
        }
        n, x, y, xx, yy, xy = self._moments
        for i, name in enumerate(COMPONENTS):
            spread = (n[i] * xx[i] - x[i] ** 2) * (n[i] * yy[i] - y[i] ** 2)
            covariance = n[i] * xy[i] - x[i] * y[i]
            figures[f"correlation_{name}"] = float(covariance / math.sqrt(spread)) if spread > 0 else math.nan
        return figures


def _ratio(total: float, count: float) -> float:
    return float(total / count) if count else math.nan
