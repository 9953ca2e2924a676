"""A whole training: the stages of a plan one after the other, gone on with wherever an earlier run stopped.

At the end the model learns how far to trust itself: on clips of kinds that training never drew, the errors that it
states are scaled to hold what they promise, and the direction head gets the log-odds from which it is mostly right.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from DualTrackCore.files import recorded_files, staged_folder
from DualTrackCore.network import Model, load_model
from DualTrackCore.network.model import save_model
from DualTrackCore.network.statistics import CROP_LIMIT, WHOLE_LIMIT
from DualTrackCore.path_error import turned_over
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter
from DualTrackCore.research.comparison import make_methods, run_methods
from DualTrackCore.research.comparison.step_errors import calibrate
from DualTrackCore.research.comparison.table_files import text_table, write_tables
from DualTrackCore.research.datasets import Dataset
from DualTrackCore.research.datasets.entries import Entry, SimulatedEntry, simulated_dataset
from DualTrackCore.research.simulation.simulator import store_missing
from DualTrackCore.research.training.recipe_files import Plan
from DualTrackCore.research.training.sweeps import listed, simulating_processes
from DualTrackCore.research.training.trainer import TrainingResult, has_checkpoint, is_finished, train
from DualTrackCore.tracking import estimate_trajectory


def train_plan(
    plan: Plan,
    *,
    runs: str | Path = "runs",
    say: Callable[[str], None] = print,
    bars: bool = False,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> TrainingResult:
    """Train all stages of a plan; those that are finished stay, and one that was interrupted goes on.

    At the end the result is measured (:func:`evaluated`). Of several processes, the first one does what comes after the
    stages.

    Args:
        plan: from :func:`~DualTrackCore.research.training.recipe_files.load_plan`.
        runs, say, bars, progress, cancelled: as for :func:`~DualTrackCore.research.training.train`.

    Returns:
        The weights in `runs / plan.name`, calibrated, and what the last stage left; `items` and `seconds` are sums over
        the stages.

    Raises InputError, CheckpointError, Cancelled: as :func:`~DualTrackCore.research.training.train`.
    """
    runs, items, seconds, result = Path(runs), 0, 0.0, None
    speaks = rank_zero_only.rank == 0
    say = say if speaks else lambda line: None
    for place, recipe in enumerate(plan.stages, 1):
        output, told = runs / recipe.output, f"Stage {place} of {len(plan.stages)}, {recipe.output}"
        if is_finished(recipe, output):
            say(f"{told}: finished before.")
            result = TrainingResult.read(output)
        else:
            resume = has_checkpoint(output)
            say(f"{told}: {'goes on' if resume else 'starts'}.")
            stage = {"say": say, "bars": bars, "progress": progress, "cancelled": cancelled}
            result = train(recipe, runs=runs, resume=resume, **stage)
        items, seconds = items + result.items, seconds + result.seconds
    weights = runs / plan.name / "model.safetensors"
    if speaks:
        model = load_model(str(result.weights))
        if plan.calibration:
            say(f"Calibrating what the model says of itself on {plan.calibration} clips.")
            clips = simulated_dataset(
                "calibration", count=plan.calibration, frames=112, folder=runs / "cache" / "sweeps"
            )
            _simulated(clips, plan, progress, cancelled)
            model = calibrated(model, clips)
        save_model(model.network, model.card, weights)
        say(evaluated(plan, weights, runs, progress, cancelled))
    return TrainingResult(weights, result.best, items, seconds)


def evaluated(
    plan: Plan,
    weights: Path,
    runs: Path,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> str:
    """Measure the weights of a plan beside no motion at all; tables go to `runs / plan.name / "evaluation"`.

    Results of single sweeps are kept there, so that an interrupted evaluation goes on.

    Returns:
        The table as text.
    """
    dataset = evaluation_sweeps(plan, runs)
    _simulated(dataset, plan, progress, cancelled)
    methods = make_methods(["identity", f"model:{weights}"], lambda: dataset, progress=progress)
    folder = weights.parent / "evaluation"
    with warnings.catch_warnings():  # the tables carry what is to be said of each method
        warnings.simplefilter("ignore")
        found = run_methods(methods, dataset, folder / "items", progress=progress, cancelled=cancelled)
    about = {"data_set": dataset.name, "sweeps_compared": f"{len(found.sweeps)} of {plan.evaluation}"}
    with staged_folder(folder, recorded_files(folder / "evaluation.json", _TABLES)) as place:
        write_tables(found, found.pairs(), place, about)
    return f"{text_table(found)}\nMeans over {len(found.sweeps)} sweeps of {plan.evaluation}; tables in {folder}."


def evaluation_sweeps(plan: Plan, runs: Path) -> Dataset:
    """The sweeps that a plan's result is measured on at its end."""
    if plan.evaluation == "acquisitions":
        return simulated_dataset("acquisitions", folder=runs / "cache" / "sweeps")
    return Dataset("the validation sweeps", listed(plan.stages[-1].data, is_training=False))


#: Files of the evaluation.
_TABLES = ("evaluation.json", "pairs.csv", "summary.csv", "sweeps.csv", "table.md")
#: Share of the directions beyond the threshold of a sure one that must be right, and of how many clips at least.
_SURE, _LEAST_CLIPS = 0.95, 20
#: Share of the clips that lie within the limits of the input; the farthest of many would only say how many there were.
_WITHIN = 0.96


def _simulated(
    clips: Dataset, plan: Plan, progress: ProgressCallback | None, cancelled: CancelledCallback | None
) -> None:
    """Store the simulated clips of a data set that are missing, on all cores."""
    jobs = [(clip.simulation, clip.path) for clip in clips if isinstance(clip, SimulatedEntry)]
    store_missing(jobs, simulating_processes(plan.stages[0]), Reporter(progress, cancelled))


def calibrated(model: Model, clips: Iterable[Entry]) -> Model:
    """A model with heads for variance and direction whose statements hold on clips that training never draws.

    Args:
        model: its network is changed in place.
        clips: "calibration" clips of :func:`~DualTrackCore.research.datasets.simulated_dataset`.
    """
    estimates, truths, log_odds, right, distances = [], [], [], [], []
    for entry in clips:
        sweep = entry.load()
        true = sweep.require_truth()
        with warnings.catch_warnings():  # about clips that are unlike each other, as they are meant to be
            warnings.simplefilter("ignore")
            found = estimate_trajectory(sweep, model, device="cpu")
        right.append(bool(np.nansum(found.parameters[:, 2]) * np.nansum(true.parameters[:, 2]) > 0))
        log_odds.append(float(found.provenance["direction_log_odds"] or 0.0))
        estimates.append(found if right[-1] else turned_over(found))
        truths.append(true)
        distances.append(input_distances(found.provenance["model_input"]))
    measured = calibrate(estimates, truths)
    with torch.no_grad():
        shift = 2 * np.log(measured.factors) / measured.powers[0]
        model.network.uncertainty.fc.bias += torch.from_numpy(shift).float()
    card = replace(
        model.card,
        step_error_correlation=tuple(measured.correlation.tolist()),
        step_error_freedom=measured.freedom,
        step_error_powers=tuple(measured.powers[0].tolist()),
        step_error_growth=tuple(measured.powers[1].tolist()),
        input_limits=tuple((np.ceil(np.quantile(distances, _WITHIN, axis=0) * 10) / 10).tolist()),
        direction_sure_logit=sure_log_odds(np.array(log_odds), np.array(right)),
    )
    return replace(model, card=card)


def input_distances(said: Mapping[str, Any]) -> tuple[float, float]:
    """Distances of a clip from the training images, on whole frames and on local crops, of `model_input`."""
    used = said["global_mean"], said["global_std"]
    whole = [one["distance"] for one in said["whole_distances"] if (one["mean"], one["std"]) == used]
    return (whole[0] if whole else WHOLE_LIMIT), (
        CROP_LIMIT if said["crop_distance"] is None else said["crop_distance"]
    )


def sure_log_odds(log_odds: np.ndarray, right: np.ndarray) -> float:
    """The least log-odds from which at least 95 % of the directions are right, of 20 clips or more.

    Args:
        log_odds: [n] of the direction that was found, 0 or more.
        right: [n] whether each was right.

    Returns:
        A little above the greatest of all where no threshold does.
    """
    order = np.argsort(-log_odds)
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero((shares >= _SURE) & (np.arange(1, len(order) + 1) >= _LEAST_CLIPS))
    sizes = log_odds[order]
    return float(sizes[good[-1]]) if len(good) else float(sizes[0] + 1.0)
