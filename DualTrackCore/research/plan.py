"""A whole training: the stages of a plan one after the other, gone on with wherever an earlier run stopped.

At the end the model learns how far to trust itself: on clips of kinds that training never drew, the errors that it
states are scaled to hold what they promise, and the direction head gets the log-odds from which it is mostly right.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from DualTrackCore.errors import InputError
from DualTrackCore.network import Model, load_model
from DualTrackCore.network.model import save_model
from DualTrackCore.network.statistics import CROP_LIMIT, WHOLE_LIMIT
from DualTrackCore.path_error import turned_over
from DualTrackCore.progress import CancelledCallback, ProgressCallback
from DualTrackCore.research.comparison.step_errors import calibrate
from DualTrackCore.research.datasets.entries import simulated_dataset
from DualTrackCore.research.training.recipe import RECIPES, Recipe, load_recipe
from DualTrackCore.research.training.trainer import TrainingResult, has_checkpoint, is_finished, train
from DualTrackCore.tracking import estimate_trajectory


@dataclass(frozen=True)
class Plan:
    """The stages that make a model, in their order.

    Attributes:
        name: of the plan: "mini".
        recipes: of the stages.
        calibration: clips on which the errors and the direction of the result are calibrated; 0 for none.
    """

    name: str
    recipes: tuple[Recipe, ...]
    calibration: int = 0


def plan_names() -> list[str]:
    """Names of the plans that ship."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_plan(name: str, changes: Sequence[str] = ()) -> Plan:
    """Read a plan and its recipes.

    Args:
        name: one of :func:`plan_names`.
        changes: put over every recipe, see :func:`~DualTrackCore.research.training.load_recipe`.

    Raises InputError: no such plan, or a recipe that does not fit.
    """
    if name not in plan_names():
        raise InputError(f"There is no plan {name}; choose one of {', '.join(plan_names())}.")
    values = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    return Plan(name, tuple(load_recipe(stage, changes) for stage in values["stages"]), values["calibration"])


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

    Args:
        plan: from :func:`load_plan`.
        runs, say, bars, progress, cancelled: as for :func:`~DualTrackCore.research.training.train`.

    Returns:
        The weights in `runs / plan.name`, calibrated, and what the last stage left; `items` and `seconds` are sums over
        the stages.

    Raises InputError, CheckpointError, Cancelled: as :func:`~DualTrackCore.research.training.train`.
    """
    runs, items, seconds = Path(runs), 0, 0.0
    result = None
    for place, recipe in enumerate(plan.recipes, 1):
        output, told = runs / recipe.output, f"Stage {place} of {len(plan.recipes)}, {recipe.output}"
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
    model = load_model(str(result.weights))
    if plan.calibration:
        say(f"Calibrating what the model says of itself on {plan.calibration} clips.")
        model = calibrated(model, plan.calibration, runs / "cache" / "sweeps")
    save_model(model.network, model.card, weights)
    return TrainingResult(weights, result.best, items, seconds)


#: Share of the directions beyond the threshold of a sure one that must be right, and of how many clips at least.
_SURE, _LEAST_CLIPS = 0.95, 20
#: Share of the clips that lie within the limits of the input; the farthest of many would only say how many there were.
_WITHIN = 0.96


def calibrated(model: Model, count: int, folder: Path, frames: int = 112) -> Model:
    """A model with heads for variance and direction whose statements hold on clips that training never draws.

    Args:
        model: its network is changed in place.
        count, frames: how many clips, and frames of each.
        folder: where they are kept.
    """
    estimates, truths, log_odds, right, distances = [], [], [], [], []
    for entry in simulated_dataset("calibration", count=count, frames=frames, folder=folder):
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
