"""Metrics of training and validation, and how they are reported."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import lightning
import numpy as np

from DualTrackCore.evaluation.definitions import COMPONENTS, mean_point_error
from DualTrackCore.progress import CancelledCallback, Reporter
from DualTrackCore.research.training.recipe import Recipe
from DualTrackCore.trajectory import accumulate, matrices_from_parameters

#: Sums of the errors over sweeps with their counts (of poses, motions, the loss), then of each component: count, sums,
#: squares and product.
_ERRORS, _MOMENTS = 6, (6, 6)


class ValidationSums:
    """Sums over sweeps from which the figures follow.

    Args:
        values: all sums of earlier objects, added up; None starts from zero.

    Attributes:
        values: [42] float64, so that processes can add theirs up.
    """

    def __init__(self, values: np.ndarray | None = None) -> None:
        self.values = np.zeros(_ERRORS + math.prod(_MOMENTS)) if values is None else values
        self._errors, self._moments = self.values[:_ERRORS], self.values[_ERRORS:].reshape(_MOMENTS)

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

    def figures(self) -> dict[str, float]:
        """`gpe_five_point_mm`, `lpe_five_point_mm` (means over sweeps), `loss`, `correlation_tx` ... `correlation_rz`.

        A correlation with a constant is NaN.
        """
        names, sums, counts = ("gpe_five_point_mm", "lpe_five_point_mm", "loss"), self._errors[::2], self._errors[1::2]
        figures = {
            name: float(total / count) if count else math.nan
            for name, total, count in zip(names, sums, counts, strict=True)
        }
        n, x, y, xx, yy, xy = self._moments
        for i, name in enumerate(COMPONENTS):
            spread = (n[i] * xx[i] - x[i] ** 2) * (n[i] * yy[i] - y[i] ** 2)
            covariance = n[i] * xy[i] - x[i] * y[i]
            figures[f"correlation_{name}"] = float(covariance / math.sqrt(spread)) if spread > 0 else math.nan
        return figures


class EpochLines(lightning.Callback):
    """One line after every epoch: where it stands, loss, learning rate, time, new validation figures.

    Args:
        recipe: for the number of items that were seen.
        say: called with the line, in the first process only.
    """

    def __init__(self, recipe: Recipe, say: Callable[[str], None]) -> None:
        self._recipe, self._say = recipe, say
        self._started = self._before = time.monotonic()
        self.validations: list[dict[str, float]] = []
        self._validated = False
        self._earlier_seconds = 0.0

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Keep the figures for the line and for the summary."""
        del module
        self._validated = True
        figures = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val_")}
        self.validations.append({"epoch": trainer.current_epoch + 1, **figures})

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Say the line."""
        del module
        now = time.monotonic()
        parts = [
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            f"items {self.items_seen(trainer)}",
            f"loss {float(trainer.callback_metrics.get('train_loss', math.nan)):.4f}",
            f"lr {trainer.optimizers[0].param_groups[0]['lr']:.2e}",
        ]
        if self._validated:
            figures = self.validations[-1]
            correlations = (figures.get(f"val_correlation_{name}", math.nan) for name in COMPONENTS)
            parts.append(
                f"validation loss {figures['val_loss']:.4f} GPE {figures['val_gpe_five_point_mm']:.3f} mm "
                f"LPE {figures['val_lpe_five_point_mm']:.4f} mm correlation "
                + " ".join("--" if math.isnan(value) else f"{value:.2f}" for value in correlations)
            )
        parts.append(f"{now - self._before:.0f} s, {self.seconds:.0f} s in all")
        self._before, self._validated = now, False
        if trainer.is_global_zero:
            self._say("  ".join(parts))

    def items_seen(self, trainer: lightning.Trainer) -> int:
        """Training items that entered the loss so far, over all processes."""
        batches = trainer.fit_loop.epoch_loop.batch_progress.total.completed
        return batches * self._recipe.batch_size * trainer.world_size

    @property
    def seconds(self) -> float:
        """Wall time of training, interrupted runs included."""
        return self._earlier_seconds + time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on counting from."""
        return {"seconds": self.seconds, "validations": self.validations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the count of an interrupted run."""
        self._earlier_seconds, self.validations = float(state["seconds"]), list(state["validations"])


class StopWhenCancelled(lightning.Callback):
    """Asks after every batch whether to stop. Raises Cancelled: yes."""

    def __init__(self, cancelled: CancelledCallback | None) -> None:
        self._reporter = Reporter(None, cancelled)

    def on_train_batch_end(self, *_: object) -> None:
        """Stop where nothing is half done."""
        self._reporter.check()

    on_validation_batch_end = on_train_batch_end
