"""What runs beside a training: its lines, the validation of the last epoch, and the end that a user asks for."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

import lightning

from DualTrackCore.errors import Cancelled
from DualTrackCore.evaluation.definitions import COMPONENTS
from DualTrackCore.progress import CancelledCallback, Progress, ProgressCallback, Reporter, Stage

#: The process that started this one.
_PARENT = os.getppid()


class EpochLines(lightning.Callback):
    """One line after every epoch: epoch, items, loss, learning rate, new validation figures, time.

    Args:
        say: receives the line, in the first process only.
        progress: receives `Stage.TRAINING` after every batch, in the first process only.
    """

    def __init__(self, say: Callable[[str], None], progress: ProgressCallback | None = None) -> None:
        self._say, self._progress = say, progress
        self._started = self._before = time.monotonic()
        self.validations: list[dict[str, float]] = []
        self._validated = False
        self._earlier_seconds = 0.0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Report how far the epoch is."""
        del module, outputs, batch
        if self._progress is not None and trainer.is_global_zero:
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, batches"
            self._progress(Progress(Stage.TRAINING, batch_index + 1, int(trainer.num_training_batches), epoch))

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Store the figures for the line and for the summary."""
        del module
        self._validated = True
        figures = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val_")}
        self.validations.append({"epoch": trainer.current_epoch + 1, **figures})

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Write the line."""
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
            if "val_direction_right" in figures:
                parts.append(f"direction right {figures['val_direction_right']:.0%}")
        parts.append(f"{now - self._before:.0f} s, {self.seconds:.0f} s in all")
        self._before, self._validated = now, False
        if trainer.is_global_zero:
            self._say("  ".join(parts))

    def items_seen(self, trainer: lightning.Trainer) -> int:
        """Number of training items so far, over all processes."""
        return trainer.global_step * trainer.datamodule.shares.batch

    @property
    def seconds(self) -> float:
        """Wall time of training, interrupted runs included."""
        return self._earlier_seconds + time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        """Time and figures for a resumed run."""
        return {"seconds": self.seconds, "validations": self.validations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with time and figures of an interrupted run."""
        self._earlier_seconds, self.validations = float(state["seconds"]), list(state["validations"])


class ValidateLast(lightning.Callback):
    """Has the last epoch validated, whatever the number of epochs between validations."""

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Validate this epoch if it is the last."""
        del module
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


class StopWhenCancelled(lightning.Callback):
    """Stops training, all processes after the same batch, if the caller of one asked to. Raises Cancelled."""

    def __init__(self, cancelled: CancelledCallback | None) -> None:
        self._reporter = Reporter(None, cancelled)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Check after a whole batch."""
        stops = self._reporter.cancelled()
        if trainer.world_size > 1:
            orphaned = os.getppid() != _PARENT  # nobody is left who would end this process with the others
            stops = trainer.strategy.reduce_boolean_decision(stops or orphaned, all=False)
        if stops:
            raise Cancelled("Cancelled.")

    def on_validation_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Check, too, where no other process waits."""
        if trainer.world_size == 1:
            self._reporter.check()
