"""Runs one stage of training: data, network, trainer, and the resulting weights."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.fabric.strategies import DDPStrategy as FabricDDP
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from DualTrackCore.errors import Cancelled, CheckpointError, InputError, named, reason_of
from DualTrackCore.files import json_text, replacing, require_apart, staged_folder
from DualTrackCore.io.hdf5_frames import close_kept_files
from DualTrackCore.network import ModelCard
from DualTrackCore.network.backbones import merge_lora
from DualTrackCore.network.model import require_safe_torch, save_model
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter
from DualTrackCore.research.training import initial
from DualTrackCore.research.training.callbacks import EpochLines, StopWhenCancelled, ValidateLast
from DualTrackCore.research.training.fingerprint import fingerprint, fingerprint_text, unlike
from DualTrackCore.research.training.image_store import ready_sweeps
from DualTrackCore.research.training.lightning_task import LightningItems, LightningTask, fold_scale
from DualTrackCore.research.training.recipe import PRECISIONS, Recipe
from DualTrackCore.research.training.samples import SweepItems

#: Items for mean and scale of the targets, and the least scale of a component (mm or degrees).
_STATISTICS_ITEMS, _LEAST_SCALE = 1000, 1e-3
#: Settings that may change when a run is resumed, because the weights do not depend on them.
_FREE_TO_CHANGE = {"workers", "accelerator", "save_every", "data.memory_gb"}
#: Free, too, unless the batch grows with them.
_SHARING = {"devices", "nodes", "at_once"}
#: Most checkpoints of a stage for an interrupted run, and how long processes wait for each other.
_CHECKPOINTS, _TIMEOUT = 100, timedelta(days=7)
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
            resized, `Stage.TOKENS` while class tokens are computed, and without `bars` `Stage.TRAINING` after batches.
        cancelled: asked after every batch, and often while any of these is made.

    Raises:
        InputError: the recipe's data or weights are missing, do not fit or would be overwritten by results; the folder
            holds another run, or there is nothing to resume; or no epoch could be validated.
        CheckpointError: the checkpoint to resume from is damaged or holds more than tensors, or torch is too old to
            read it safely.
        Cancelled: the caller asked to stop, or Ctrl-C came while it trained; the checkpoints stay.
    """
    runs = Path(runs)
    output = runs / recipe.output
    require_apart([output, *(output / name for name in ("recipe.json", *_RESULTS))], initial.input_paths(recipe, runs))
    processes = _joined(recipe)
    checkpoint = _prepare_output(recipe, output, resume)
    tell = say if processes.is_global_zero else None
    card, network = initial.recipe_card(recipe), initial.initial_network(recipe, runs, tell)
    cache, reporter = runs / "cache", Reporter(progress, cancelled)
    with processes.rank_zero_first():  # it makes what is missing; the others find it
        sweeps = ready_sweeps(recipe, network, card, cache, reporter, tell)
    items = LightningItems(recipe, sweeps, network, card, cache / "tokens", reporter)
    for line in _opening_lines(recipe, items, card, network.positions) if tell else ():
        tell(line)
    task = LightningTask(recipe, network, *target_statistics(recipe, items.training_items)).train()
    lines = EpochLines(say, None if bars else progress)  # after all processes agreed to go on: progress may raise
    callbacks = [ValidateLast(), StopWhenCancelled(cancelled), lines]
    trainer = build_trainer(recipe, output, callbacks, items.shares.steps, bars)
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
    figures = _load_best(recipe, task, output, lines.validations)
    if recipe.start_share:
        figures = _towards_start(recipe, runs, task, items)
    card = initial.trained_card(recipe, runs, *sweeps)
    return _export(recipe, card, task, trainer, output, lines, figures)


def _joined(recipe: Recipe) -> lightning.Fabric:
    """The processes of a training, which can wait for each other from now on; those that are missing are started."""
    try:
        with _quiet():
            processes = lightning.Fabric(**_where(recipe, FabricDDP))
            processes.launch()
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        raise InputError(
            f"{recipe.devices} devices on each of {recipe.nodes} machines ({recipe.accelerator}) cannot be used; "
            f"change devices, nodes or accelerator. Lightning says: {reason_of(error)}."
        ) from None
    return processes


def _where(recipe: Recipe, shared: type) -> dict[str, Any]:
    """On what a recipe is computed, for Lightning; `shared` is its strategy for several processes."""
    return {
        "accelerator": recipe.accelerator,
        "devices": recipe.devices,
        "num_nodes": recipe.nodes,
        "strategy": shared(timeout=_TIMEOUT) if recipe.devices * recipe.nodes > 1 else "auto",
        "precision": PRECISIONS[recipe.precision],
    }


def _opening_lines(recipe: Recipe, items: LightningItems, card: ModelCard, positions: int) -> list[str]:
    """What a user should know before a stage takes its hours."""
    found = fingerprint(items.training_items.sweeps.sweeps)
    lines = [fingerprint_text(found), *unlike(found, card, positions), items.shares.text(recipe)]
    return [line for line in lines if line]


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
    recipe: Recipe, output: Path, callbacks: Sequence[lightning.Callback], steps: int, bars: bool
) -> lightning.Trainer:
    """Lightning's trainer for a recipe.

    It keeps two checkpoints: the best weights, and the last state to go on from, at most a hundred times in a stage.
    """
    kept = functools.partial(ModelCheckpoint, output / "checkpoints", enable_version_counter=False)
    epochs, several = recipe.end_epoch or recipe.epochs, recipe.devices * recipe.nodes > 1
    monitor = f"val_{recipe.metric}"
    # A moving average goes into a checkpoint only with the whole state.
    best = {"save_top_k": 1, "save_weights_only": not recipe.average, "save_on_train_epoch_end": False}
    every = recipe.save_every or -(-epochs // _CHECKPOINTS)
    checkpoints = [
        kept("best", monitor=monitor, mode="min", **best),
        kept("last", every_n_epochs=every, save_on_train_epoch_end=True),
    ]
    averages = [EMAWeightAveraging(decay=recipe.average)] if recipe.average else []
    with _quiet():
        return lightning.Trainer(
            **_where(recipe, DDPStrategy),
            # On CPUs there is no BatchNorm over processes; each takes the statistics of its own items.
            sync_batchnorm=several and recipe.accelerator != "cpu" and torch.cuda.is_available(),
            max_epochs=epochs,
            accumulate_grad_batches=steps,
            check_val_every_n_epoch=recipe.validation.every,
            num_sanity_val_steps=0,
            callbacks=[*averages, *callbacks, *checkpoints],
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
    free = _FREE_TO_CHANGE if recipe.grow_batch else _FREE_TO_CHANGE | _SHARING
    changed = sorted(k for k in {*before, *now} - free if before.get(k) != now.get(k))
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


def _load_best(
    recipe: Recipe, task: LightningTask, output: Path, validations: Sequence[Mapping[str, float]]
) -> Mapping[str, float]:
    """Put the weights of the best epoch into the task; gives their validation figures.

    Raises InputError: no epoch has figures, so nothing says what its weights are worth.
    """
    best, metric = _best_checkpoint(output), f"val_{recipe.metric}"
    saved = torch.load(best, map_location="cpu", weights_only=True) if best.is_file() else {"epoch": -1}
    figures = next((v for v in validations if v["epoch"] == saved["epoch"] + 1), {})
    if not math.isfinite(figures.get(metric, math.nan)):
        raise InputError(
            f"No epoch of {recipe.output} has a finite {recipe.metric} on the validation sweeps, so no "
            "weights were written; check their poses (dualtrack dataset check), or lower optimiser.lr if the loss grew."
        )
    task.load_state_dict(saved["state_dict"])
    return figures


def _towards_start(recipe: Recipe, runs: Path, task: LightningTask, items: LightningItems) -> Mapping[str, float]:
    """Move the weights by `start_share` towards those that the stage began with; gives the figures of the mean."""
    start = LightningTask(recipe, initial.initial_network(recipe, runs), task.target_mean.cpu(), task.target_std.cpu())
    before = start.state_dict()
    with torch.no_grad():
        for name, value in task.state_dict().items():
            if value.is_floating_point() and name not in ("target_mean", "target_std", "component_errors"):
                value.lerp_(before[name].to(value), recipe.start_share)
    with _quiet():
        trainer = lightning.Trainer(
            **_where(recipe, DDPStrategy),
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
        )
        (found,) = trainer.validate(task, items, verbose=False)
    return {"start_share": recipe.start_share, **found}


def _export(
    recipe: Recipe,
    card: ModelCard,
    task: LightningTask,
    trainer: lightning.Trainer,
    output: Path,
    lines: EpochLines,
    figures: Mapping[str, float],
) -> TrainingResult:
    """Write the weights and the summary, in the first process."""
    task.to("cpu")
    fold_scale(task.task.head, task.target_mean, task.target_std)
    merge_lora(task.task.network)
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
    """Context that hides Lightning's advice on loaders, devices and clouds, and torch's on gradients."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
            logging.getLogger(name).setLevel(logging.ERROR)
