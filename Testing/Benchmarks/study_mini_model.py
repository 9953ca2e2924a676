"""The study behind the size of the small model: variants of its recipes, trained with equal budgets, in one table.

    python Testing/Benchmarks/study_mini_model.py local  --runs RUNS -o study-local.md
    python Testing/Benchmarks/study_mini_model.py fusion --runs RUNS -o study-fusion.md

`local` trains the first stage anew for every variant; `fusion` starts from the finished stages in the runs folder.
Variants that have a result there are not trained again, so an interrupted study goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded, below

from DualTrackCore.files import replacing
from DualTrackCore.network import DualTrack
from DualTrackCore.training import Recipe, load_recipe, train

_LOCAL_BUDGET = ["epochs=4", "validation.every=4"]
_FUSION_BUDGET = ["epochs=4", "warmup_epochs=1", "validation.every=4"]
#: Name of a variant and what it changes in the recipe of the shipped model.
LOCAL = {
    "as shipped": [],
    "crop drawn at random": ["augmentation.crop=true"],
    "crop of 32 pixels": ["model.crop_size=32", "head_grid=2"],
    "half the width": ["model.local_widths=[8,16,24,32]", "model.local_stem=6"],
    "windows of 8 frames": ["sampling.window=8", "sampling.windows_per_sweep=12"],
    "windows of 32 frames": ["sampling.window=32", "sampling.windows_per_sweep=3", "batch_size=4"],
    "one and a half times the width": ["model.local_widths=[24,48,72,96]", "model.local_stem=18"],
    "crop of 96 pixels": ["model.crop_size=96", "head_grid=6"],
}
FUSION = {
    "as shipped (3 layers)": [],
    "1 fusion layer": ["model.fusion_layers=1"],
    "5 fusion layers": ["model.fusion_layers=5"],
    "every 8th frame to the global encoder": ["model.global_every=8"],
    "every 32nd frame to the global encoder": ["model.global_every=32"],
}
_COLUMNS = ["loss", "lpe_five_point_mm", "gpe_five_point_mm", "correlation_tx", "correlation_ty", "correlation_tz"]
_TITLES = ["variant", "parameters", "items", "seconds", "loss", "LPE mm", "GPE mm", "r(tx)", "r(ty)", "r(tz)"]


def recipes(study: str) -> dict[str, Recipe]:
    """Recipe of every variant, each with a folder of its own."""
    base, budget, variants = {
        "local": ("mini/local1", _LOCAL_BUDGET, LOCAL),
        "fusion": ("mini/fusion", _FUSION_BUDGET, FUSION),
    }[study]
    return {
        name: load_recipe(base, [*budget, *changes, f"output=study/{study}-{place}"])
        for place, (name, changes) in enumerate(variants.items())
    }


def parameters(recipe: Recipe) -> int:
    """Parameters of what the stage trains: the local trunk, or the whole network."""
    network = DualTrack(**recipe.model)
    part = network.local.trunk if recipe.stage == "local1" else network
    return sum(value.numel() for value in part.parameters())


def row(name: str, recipe: Recipe, runs: Path) -> list[str]:
    """Train one variant unless it has been, and describe it."""
    summary = runs / recipe.output / "summary.json"
    if not summary.is_file():
        interrupted = (runs / recipe.output / "checkpoints" / "last.ckpt").is_file()
        train(recipe, runs=runs, resume=interrupted)
    result = json.loads(summary.read_text(encoding="utf-8"))
    last = result["validations"][-1]
    figures = [f"{last['val_' + column]:.3f}" for column in _COLUMNS]
    return [name, f"{parameters(recipe):,}", str(result["items"]), f"{result['seconds']:.0f}", *figures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=["local", "fusion"])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("-o", "--output", type=Path, required=True, help="Markdown table; written after every variant")
    options = parser.parse_args()
    lines = ["| " + " | ".join(_TITLES) + " |", "|" + " --- |" * len(_TITLES)]
    for name, recipe in recipes(options.study).items():
        print(name)
        lines.append("| " + " | ".join(row(name, recipe, options.runs)) + " |")
        with replacing(options.output) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
