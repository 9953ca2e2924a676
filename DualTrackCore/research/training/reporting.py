"""What a run says while it trains: one line an epoch, and a summary at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning

from DualTrackCore.evaluation.definitions import COMPONENTS
from DualTrackCore.progress import CancelledCallback, Reporter
from DualTrackCore.research.training.recipe import Recipe


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
            parts.append(_validation_text(self.validations[-1]))
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
    """Asks after every batch whether to stop.

    Raises:
        Cancelled: yes.
    """

    def __init__(self, cancelled: CancelledCallback | None) -> None:
        self._reporter = Reporter(None, cancelled)

    def on_train_batch_end(self, *_: object) -> None:
        """Stop where nothing is half done."""
        self._reporter.check()

    on_validation_batch_end = on_train_batch_end


def _validation_text(figures: Mapping[str, float]) -> str:
    correlations = " ".join(_two_digits(figures.get(f"val_correlation_{name}", math.nan)) for name in COMPONENTS)
    return (
        f"validation loss {figures['val_loss']:.4f} GPE {figures['val_gpe_five_point_mm']:.3f} mm "
        f"LPE {figures['val_lpe_five_point_mm']:.4f} mm correlation {correlations}"
    )


def _two_digits(value: float) -> str:
    return "--" if math.isnan(value) else f"{value:.2f}"
