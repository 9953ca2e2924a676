"""The result of a training that a study needs, trained only if it has not been."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from DualTrackCore.research.training import Recipe, train


def finished_run(recipe: Recipe, runs: Path) -> dict[str, Any]:
    """The summary of a recipe's run; an interrupted one goes on first, one that is missing is trained.

    Args:
        recipe: of the run; its output folder lies below `runs`.
        runs: folder of all runs.
    """
    summary = runs / recipe.output / "summary.json"
    if not summary.is_file():
        interrupted = (runs / recipe.output / "checkpoints" / "last.ckpt").is_file()
        train(recipe, runs=runs, resume=interrupted)
    return json.loads(summary.read_text(encoding="utf-8"))
