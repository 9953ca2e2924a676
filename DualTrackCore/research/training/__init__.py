"""Staged training of the network on tracked sweeps, from recipes; needs the extra `train`."""

from typing import TYPE_CHECKING

from DualTrackCore import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.research.training.recipe import Recipe as Recipe
    from DualTrackCore.research.training.recipe_files import load_recipe as load_recipe
    from DualTrackCore.research.training.recipe_files import recipe_names as recipe_names
    from DualTrackCore.research.training.trainer import TrainingResult as TrainingResult
    from DualTrackCore.research.training.trainer import train as train

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "recipe": ["Recipe"],
        "recipe_files": ["load_recipe", "recipe_names"],
        "trainer": ["TrainingResult", "train"],
    },
    extra="train",
)
