"""Runs one stage of training: data, network, trainer, and the resulting weights."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from DualTrackCore.errors import Cancelled, CheckpointError, InputError, named
from DualTrackCore.files import json_text, replacing, require_apart, staged_folder
from DualTrackCore.io.hdf5_frames import close_kept_files
from DualTrackCore.network import ModelCard
from DualTrackCore.network.backbones import merge_lora
from DualTrackCore.network.model import require_safe_torch, save_model
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter
from DualTrackCore.research.training import initial
from DualTrackCore.research.training.image_store import ready_sweeps
from DualTrackCore.research.training.lightning_task import (
    EpochLines,
    LightningItems,
    LightningTask,
    StopWhenCancelled,
    fold_scale,
)
from DualTrackCore.research.training.recipe import PRECISIONS, Recipe
from DualTrackCore.research.training.samples import SweepItems

#: Items for mean and scale of the targets, and the least scale of a component (mm or degrees).
_STATISTICS_ITEMS, _LEAST_SCALE = 1000, 1e-3
#: Settings that may change when a run is resumed, because the weights do not depend on them.
_FREE_TO_CHANGE = {"workers", "accelerator", "save_every", "data.memory_gb"}
#: Result files of a finished stage.
_RESULTS = (initial.WEIGHTS_NAME, "summary.json")
#: Of recipe.json and summary.json.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TrainingResult:
    """Results of a finished stage.

    Attributes:
        weights: file of the best epoch's weights, .safetensors with its card.
        best: validation figures of that epoch.
        items: number of training items.
        seconds: wall time.
    """

    weights: Path
    best: Mapping[str, float]
    items: int
    seconds: float

    @classmethod
    def read(cls, output: Path) -> TrainingResult:
        """Read the results from the folder of a finished stage."""
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
        return cls(output / initial.WEIGHTS_NAME, summary["best"], summary["items"], summary["seconds"])


def has_checkpoint(output: Path) -> bool:
    """Whether a folder holds a checkpoint to resume from."""
    return _last_checkpoint(output).is_file()


def is_finished(recipe: Recipe, output: Path) -> bool:
    """Whether a folder holds all results of a stage.

    Raises InputError: the results are of another recipe.
    """
    if not all((output / name).is_file() for name in _RESULTS):
        return False
    _require_same(recipe, output / "recipe.json")
    return True


def train(
    recipe: Recipe,
    *,
    runs: str | Path = "runs",
    resume: bool = False,
    say: Callable[[str], None] = print,
    bars: bool = False,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> TrainingResult:
    """Train one stage.

    Args:
        recipe: from :func:`~DualTrackCore.research.training.load_recipe`.
        runs: folder of all runs; results go to `runs / recipe.output`, stored sweeps and tokens to `runs / "cache"`.
        resume: continue from the last checkpoint of an interrupted run, with the same weights at the end.
        say: receives a line after every epoch, in the first process.
        bars: show Lightning's progress bars.
        progress: receives `Stage.SWEEPS` while sweeps are made or opened, `Stage.IMAGES` while their frames are
            resized, and `Stage.TOKENS` while class tokens are computed.
        cancelled: asked after every batch, and often while any of these is made.

    Raises:
        InputError: the recipe's data or weights are missing, do not fit or would be overwritten by results; the folder
            holds another run, or there is nothing to resume.
        CheckpointError: the checkpoint to resume from is damaged or holds more than tensors, or torch is too old to
            read it safely.
        Cancelled: the caller asked to stop, or Ctrl-C came while it trained; the checkpoints stay.
    """
    runs = Path(runs)
    output = runs / recipe.output
    require_apart([output, *(output / name for name in ("recipe.json", *_RESULTS))], initial.input_paths(recipe, runs))
    checkpoint = _prepare_output(recipe, output, resume)
    tell = say if rank_zero_only.rank == 0 else None
    card, network = initial.recipe_card(recipe), initial.initial_network(recipe, runs, tell)
    cache = runs / "cache"
    reporter = Reporter(progress, cancelled)
    sweeps = ready_sweeps(recipe, network, card, cache, reporter, tell)
    items = LightningItems(recipe, sweeps, network, card, cache / "tokens", reporter)
    task = LightningTask(recipe, network, *target_statistics(recipe, items.training_items)).train()
    lines = EpochLines(recipe, say)
    trainer = build_trainer(recipe, output, [lines, StopWhenCancelled(cancelled)], bars)
    try:
        with _quiet():
            # Checkpoints are read as tensors and plain values only; _prepare_output refuses unsafe ones.
            trainer.fit(task, items, ckpt_path=checkpoint, weights_only=True)
    except (Cancelled, SystemExit):  # Lightning turns a KeyboardInterrupt into SystemExit
        if not _last_checkpoint(output).is_file():
            raise Cancelled("Cancelled before there was a checkpoint; start it again.") from None
        kept = f"the checkpoints stay in {output}, and {named('resume', True)} goes on from the last"
        raise Cancelled(f"Cancelled; {kept}.") from None
    finally:
        close_kept_files()
    card = initial.trained_card(recipe, runs, *sweeps)
    return _export(recipe, card, task, trainer, output, lines)


def target_statistics(recipe: Recipe, items: SweepItems) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [6] of the training targets, mm and degrees; 0 and 1 without standardisation.

    Raises InputError: no sweep has two neighbouring frames with valid poses.
    """
    if not recipe.standardise:
        return torch.zeros(6), torch.ones(6)
    chosen = np.linspace(0, len(items) - 1, min(len(items), _STATISTICS_ITEMS)).astype(int)
    values = np.concatenate([items.targets(0, int(item)) for item in chosen])
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        raise InputError("No training sweep has two neighbouring frames with valid poses; there is nothing to learn.")
    std = np.maximum(values.std(axis=0), _LEAST_SCALE)
    return torch.from_numpy(values.mean(axis=0)), torch.from_numpy(std)


def build_trainer(
    recipe: Recipe, output: Path, callbacks: Sequence[lightning.Callback], bars: bool
) -> lightning.Trainer:
    """Lightning's trainer for a recipe; stores the best and the last checkpoint."""
    kept = functools.partial(ModelCheckpoint, output / "checkpoints", enable_version_counter=False)
    monitor = f"val_{recipe.validation.metric}"
    best = kept("best", monitor=monitor, mode="min", save_top_k=1, save_on_train_epoch_end=False)
    last = kept("last", every_n_epochs=recipe.save_every, save_on_train_epoch_end=True)
    averages = [EMAWeightAveraging(decay=recipe.average)] if recipe.average else []
    with _quiet():
        return lightning.Trainer(
            accelerator=recipe.accelerator,
            devices=recipe.devices,
            num_nodes=recipe.nodes,
            strategy="ddp" if recipe.devices * recipe.nodes > 1 else "auto",
            precision=PRECISIONS[recipe.precision],
            max_epochs=recipe.end_epoch or recipe.epochs,
            accumulate_grad_batches=recipe.accumulate,
            check_val_every_n_epoch=recipe.validation.every,
            num_sanity_val_steps=0,
            callbacks=[*averages, *callbacks, best, last],
            logger=[CSVLogger(output, "csv"), TensorBoardLogger(output, "tensorboard")],
            log_every_n_steps=1,
            enable_progress_bar=bars,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=output,
        )


def _prepare_output(recipe: Recipe, output: Path, resume: bool) -> Path | None:
    """Check that the folder holds no other run, and write the settings; returns the checkpoint to resume from."""
    last, settings = _last_checkpoint(output), output / "recipe.json"
    if resume:
        if not last.is_file():
            raise InputError(
                f"{output} holds no checkpoint of an interrupted run; start it without {named('resume', True)}."
            )
        _require_same(recipe, settings)
        require_safe_torch(last.name)
        try:
            torch.load(last, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # damaged files raise many types, from EOFError to RuntimeError
            raise CheckpointError(
                f"The checkpoint {last} is damaged, or holds more than tensors and was not opened "
                f"({type(error).__name__}); start the stage anew."
            ) from None
        return last
    if rank_zero_only.rank == 0:
        if last.is_file():
            raise InputError(
                f"{output} holds a run already; go on with {named('resume', True)}, or choose another output."
            )
        # Remove the best checkpoint of an earlier run: this run reads its own at the end.
        _best_checkpoint(output).unlink(missing_ok=True)
        _write_json(_flat(recipe), settings)
    return None


def _write_json(values: Mapping[str, Any], path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text(_versioned(values), encoding="utf-8")


def _versioned(values: Mapping[str, Any]) -> str:
    return json_text({"schema_version": SCHEMA_VERSION, **values})


def _last_checkpoint(output: Path) -> Path:
    return output / "checkpoints" / "last.ckpt"


def _best_checkpoint(output: Path) -> Path:
    return output / "checkpoints" / "best.ckpt"


def _require_same(recipe: Recipe, settings: Path) -> None:
    try:
        before = json.loads(settings.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{settings} of the interrupted run cannot be read: {error}.") from None
    now = json.loads(_versioned(_flat(recipe)))  # tuples become lists, as in the file
    before.setdefault("schema_version", SCHEMA_VERSION)  # missing in older runs
    changed = sorted(k for k in {*before, *now} - _FREE_TO_CHANGE if before.get(k) != now.get(k))
    if changed:
        raise InputError(
            f"The recipe differs from that of the interrupted run in {', '.join(changed)}; resume it with the same one."
        )


def _flat(values: object, prefix: str = "") -> dict[str, Any]:
    """Dotted keys to plain values."""
    if dataclasses.is_dataclass(values):
        values = {f.name: getattr(values, f.name) for f in dataclasses.fields(values)}
    if not isinstance(values, Mapping):
        return {prefix: values}
    return {k: v for key, value in values.items() for k, v in _flat(value, f"{prefix}.{key}".lstrip(".")).items()}


def _export(
    recipe: Recipe, card: ModelCard, task: LightningTask, trainer: lightning.Trainer, output: Path, lines: EpochLines
) -> TrainingResult:
    """Write the best epoch's weights and the summary, in the first process."""
    best, epoch = _best_checkpoint(output), None
    if best.is_file():
        saved = torch.load(best, map_location="cpu", weights_only=True)
        task.load_state_dict(saved["state_dict"])
        epoch = saved["epoch"] + 1
    task.to("cpu")
    fold_scale(task.task.head, task.target_mean, task.target_std)
    merge_lora(task.task.network)
    figures = next((v for v in lines.validations if v["epoch"] == epoch), {})
    items, seconds = lines.items_seen(trainer), lines.seconds
    weights = output / initial.WEIGHTS_NAME
    if trainer.is_global_zero:
        summary = {"stage": recipe.stage, "best": figures, "items": items, "seconds": round(seconds, 1)}
        with staged_folder(output, _RESULTS) as folder:
            save_model(task.task.network, card, folder / initial.WEIGHTS_NAME)
            text = _versioned(summary | {"validations": lines.validations})
            (folder / "summary.json").write_text(text, encoding="utf-8")
    trainer.strategy.barrier("exported")
    return TrainingResult(weights, figures, items, seconds)


class _quiet(warnings.catch_warnings):
    """Context that hides Lightning's advice on loaders, devices and cloud services."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
            logging.getLogger(name).setLevel(logging.ERROR)
