"""Staged training of the network on tracked sweeps, from recipes; needs the extra `train`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from DualTrackCore.errors import MissingDependencyError
from DualTrackCore.research.training.recipe import Recipe, load_recipe, recipe_names

if TYPE_CHECKING:
    from DualTrackCore.research.training.run import TrainingResult, train

__all__ = ["Recipe", "TrainingResult", "load_recipe", "recipe_names", "train"]


def __getattr__(name: str) -> object:
    if name not in ("TrainingResult", "train"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from DualTrackCore.research.training import run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("DualTrackCore"):
            raise
        raise MissingDependencyError(
            f"Training needs the package {error.name}: pip install 'dualtrack[train]'."
        ) from None
    return getattr(run, name)
