"""`dualtrack train`: one stage of training from a recipe."""

from __future__ import annotations

import os
import sys
from argparse import Namespace

from DualTrackCore.cli.console import Console, columns
from DualTrackCore.research.training import load_recipe


def train(options: Namespace, console: Console) -> None:
    """Train the stage that the recipe describes."""
    # Threads that wait for each other by spinning slow a step down fourfold when another program has one of the cores.
    # The setting is read when torch is loaded, which happens below.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from DualTrackCore.research.training import train as train_stage

    recipe = load_recipe(options.recipe, options.set or ())
    if recipe.devices * recipe.nodes == 1:
        console.say(f"Training stage {recipe.stage}; results go to {options.runs}/{recipe.output}.")

    def say(line: str) -> None:
        console.say(line)
        sys.stdout.flush()  # a log file must show the line now, not when the buffer is full

    result = train_stage(
        recipe,
        runs=options.runs,
        resume=options.resume,
        say=say,
        bars=sys.stderr.isatty() and not options.quiet,
        progress=console.progress,
        cancelled=console.cancelled,
    )
    weights, items = str(result.weights), result.items
    rows = [("weights", weights), ("items seen", str(items)), ("wall time", f"{result.seconds:.0f} s")]
    console.say(columns(rows))
    console.result({"weights": weights, "items": items, "seconds": result.seconds})
