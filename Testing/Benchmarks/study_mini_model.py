"""The study behind the size of the small model: variants of its recipes, trained with equal budgets, in one table.

    python Testing/Benchmarks/study_mini_model.py local  --runs RUNS -o study-local.md
    python Testing/Benchmarks/study_mini_model.py large  --runs RUNS -o study-large.md
    python Testing/Benchmarks/study_mini_model.py fusion --runs RUNS -o study-fusion.md

`local` trains the first stage anew for every variant; `large` and `fusion` start from the finished stages in the runs
folder.
Variants that have a result there are not trained again, so an interrupted study goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded, below

from finished_run import finished_run

from DualTrackCore.files import replacing
from DualTrackCore.network import DualTrack
from DualTrackCore.research.training import Recipe, load_recipe

_LOCAL_BUDGET = ["epochs=4", "end_epoch=null", "validation.every=4"]
_LARGE_BUDGET = ["epochs=2", "data.limit=210", "validation.every=2"]
_FUSION_BUDGET = ["epochs=4", "warmup_epochs=1", "validation.every=4"]
_WINDOWS_OF_16 = ["sampling.window=16", "sampling.windows_per_sweep=6"]
#: Folder and name of a variant, and what it changes in the recipe of the shipped model. All see equally many frames.
LOCAL = {
    ("local-windows-8", "as in mini/local1 (windows of 8)"): [],
    ("local-batches-4", "batches of 4"): ["batch_size=4"],
    ("local-random-crop", "crop drawn at random"): ["augmentation.crop=true"],
    ("local-windows-16", "windows of 16"): _WINDOWS_OF_16,
    ("local-windows-16-random-crop", "windows of 16, crop drawn at random"): [
        *_WINDOWS_OF_16,
        "augmentation.crop=true",
    ],
    ("local-crop-32", "windows of 16, crop of 32 pixels"): [*_WINDOWS_OF_16, "model.crop_size=32", "head_grid=2"],
    ("local-half-width", "windows of 16, half the width"): [
        *_WINDOWS_OF_16,
        "model.local_widths=[8,16,24,32]",
        "model.local_stem=6",
    ],
}
LARGE = {
    ("large-as-shipped", "as shipped (crop of 128, errors weighted by likelihood)"): [],
    ("large-equal", "crop of 128, errors of equal weight"): ["weighting=equal"],
    ("large-crop-64", "crop of 64, errors weighted by likelihood"): ["model.crop_size=64"],
    ("large-crop-64-equal", "crop of 64, errors of equal weight"): ["model.crop_size=64", "weighting=equal"],
}
FUSION = {
    ("fusion-crop-128", "as shipped (3 layers)"): [],
    ("fusion-crop-128-equal", "3 layers, errors of equal weight"): ["weighting=equal"],
    ("fusion-crop-128-1-layer", "1 fusion layer"): ["model.fusion_layers=1"],
}
_COMPONENTS = ["tx", "ty", "tz", "rz"]
_COLUMNS = ["loss", "lpe_five_point_mm", "gpe_five_point_mm", *(f"correlation_{name}" for name in _COMPONENTS)]
_TITLES = ["variant", "parameters", "items", "seconds", "loss", "LPE mm", "GPE mm", *(f"r({c})" for c in _COMPONENTS)]


def recipes(study: str) -> dict[str, Recipe]:
    """Recipe of every variant, each with a folder of its own."""
    base, budget, variants = {
        "local": ("mini/local1", _LOCAL_BUDGET, LOCAL),
        "large": ("mini/local1-large", _LARGE_BUDGET, LARGE),
        "fusion": ("mini/fusion", _FUSION_BUDGET, FUSION),
    }[study]
    return {
        name: load_recipe(base, [*budget, *changes, f"output=study/{place}"])
        for (place, name), changes in variants.items()
    }


def parameters(recipe: Recipe) -> int:
    """Parameters of what the stage trains: the local trunk, or the whole network."""
    network = DualTrack(**recipe.model)
    part = network.local.trunk if recipe.stage == "local1" else network
    return sum(value.numel() for value in part.parameters())


def row(name: str, recipe: Recipe, runs: Path) -> list[str]:
    """Train one variant unless it has been, and describe it."""
    result = finished_run(recipe, runs)
    last = result["validations"][-1]
    figures = [f"{last['val_' + column]:.4f}" for column in _COLUMNS]
    return [name, f"{parameters(recipe):,}", str(result["items"]), f"{result['seconds']:.0f}", *figures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=["local", "large", "fusion"])
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
