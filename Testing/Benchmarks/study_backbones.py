"""Backbones of the global encoder: small ones trained with equal budgets, all of them timed, in two tables.

    python Testing/Benchmarks/study_backbones.py train --runs RUNS -o trained.md
    python Testing/Benchmarks/study_backbones.py time -o timed.md

`train` runs the global stage of the small model's recipe, shortened, with one backbone after the other, from random
weights; what adapters can add is shown from the state that the vision transformer's training left. Rows that have a
result in the runs folder are not trained again. `time` builds the networks of the recipes at 224 pixels and passes
frames through each backbone in turn, several times over; the best time counts.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded, below

import torch
from finished_run import finished_run
from torch import nn

from DualTrackCore.files import replacing
from DualTrackCore.network.backbones import timm_backbone
from DualTrackCore.network.blocks import Trunk
from DualTrackCore.network.dualtrack import PooledTrunk
from DualTrackCore.research.training import Recipe, load_recipe

#: The same for every row: 420 sweeps, one item of 6 frames each, two epochs.
_BUDGET = [
    "data.seeds=[0, 420]",
    "data.speckles=12",
    "sampling={random_frames: 6, windows_per_sweep: 1}",
    "batch_size=8",
    "epochs=2",
    "warmup_epochs=0",
    "validation.every=2",
]
_VIT = ["backbone.name=vit_small_patch14_dinov2", "model.global_size=56", "optimiser.lr=3.0e-4"]
#: Row, folder of its results, and what it changes; a row may start from the result of one before it.
TRAINED = {
    "the small model's trunk, 64 px": ("trunk", []),
    "ResNet-18, 64 px": ("resnet18", ["backbone.name=resnet18"]),
    "ViT-S/14, 56 px": ("vits14", _VIT),
    "ViT-S/14 from that, LoRA rank 8": (
        "vits14-lora",
        [*_VIT, "backbone.train=lora", "backbone.rank=8", "initial.all=study/backbones/vits14"],
    ),
    "ViT-S/14 from that, frozen": (
        "vits14-frozen",
        [*_VIT, "backbone.train=frozen", "initial.all=study/backbones/vits14"],
    ),
}
_FIGURES = ["loss", "lpe_five_point_mm", "gpe_five_point_mm", "correlation_tx", "correlation_ty", "correlation_tz"]
_TITLES = ["backbone", "parameters", "of these learn", "items", "loss", "LPE mm", "GPE mm", "r(tx)", "r(ty)", "r(tz)"]
#: Recipe or size of trunk, and the timm name.
TIMED = {
    "published trunk": None,
    "ResNet-18": "resnet18",
    "ViT-S/14 (DINOv2)": "vit_small_patch14_dinov2",
    "ViT-S/16 (iBOT)": "vit_small_patch16_224",
    "ViT-B/16 (iBOT)": "vit_base_patch16_224",
    "BEiT-B/16 (USFM)": "beit_base_patch16_224",
    "SAM ViT-B (MedSAM)": "samvit_base_patch16",
}


def recipe_of(place: str, changes: list[str]) -> Recipe:
    """The shortened recipe of one row."""
    return load_recipe("mini/global", [*_BUDGET, *changes, f"output=study/backbones/{place}"])


def parameter_counts(recipe: Recipe, runs: Path) -> tuple[int, int]:
    """Parameters of the global encoder (without adapters), and how many numbers learn (with them)."""
    from DualTrackCore.research.training.initial import initial_network
    from DualTrackCore.research.training.tasks import build_task

    task = build_task(initial_network(recipe, runs), recipe)
    learning = sum(p.numel() for p in task.parameters() if p.requires_grad)
    adapters = sum(p.numel() for n, p in task.named_parameters() if n.endswith((".down", ".up")))
    return sum(p.numel() for p in task.network.global_encoder.parameters()) - adapters, learning


def trained_row(name: str, recipe: Recipe, runs: Path) -> list[str]:
    """Train one row unless it has been, and describe it by its last validation."""
    result = finished_run(recipe, runs)
    last = result["validations"][-1]
    counts = [f"{count:,}" for count in parameter_counts(recipe, runs)]
    return [name, *counts, str(result["items"]), *(f"{last['val_' + figure]:.3f}" for figure in _FIGURES)]


def timed_backbone(name: str | None, size: int) -> nn.Module:
    """A backbone of the published size in evaluation mode."""
    if name is None:
        return PooledTrunk(Trunk((64, 128, 256, 512), 45, 2, temporal=False)).eval()
    return timm_backbone(name, size)[0].eval()


def timed_rows(size: int, frames: int, rounds: int) -> list[list[str]]:
    """Seconds a frame, parameters and weights' memory of every backbone; each round runs all of them."""
    networks = {title: timed_backbone(name, size) for title, name in TIMED.items()}
    images = torch.rand(frames, 1, size, size)
    best = dict.fromkeys(networks, float("inf"))
    for _ in range(rounds):
        for title, network in networks.items():
            best[title] = min(best[title], _seconds(lambda network=network: network(images)) / frames)
    reference = best["published trunk"]
    rows = []
    for title, network in networks.items():
        count = sum(p.numel() for p in network.parameters())
        megabytes = sum(t.numel() * t.element_size() for t in network.state_dict().values()) / 1e6
        times = [f"{1000 * best[title]:.0f}", f"{best[title] / reference:.2f}"]
        rows.append([title, f"{count / 1e6:.1f} million", f"{megabytes:.0f}", *times])
    return rows


def _seconds(call: Callable[[], object]) -> float:
    """Processor seconds of one call: other programs on the machine do not count."""
    with torch.inference_mode():
        started = time.process_time()
        call()
        return time.process_time() - started


def write_table(titles: list[str], rows: list[list[str]], output: Path) -> None:
    """Write the table as it stands."""
    lines = ["| " + " | ".join(row) + " |" for row in [titles, ["---"] * len(titles), *rows]]
    with replacing(output) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "time"])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--size", type=int, default=224, help="pixels a side when timing")
    parser.add_argument("--frames", type=int, default=2, help="frames a pass when timing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, required=True, help="Markdown table; written after every row")
    options = parser.parse_args()
    if options.what == "time":
        titles = ["backbone", "parameters", "weights, MB", "ms a frame", "against the published trunk"]
        write_table(titles, timed_rows(options.size, options.frames, options.rounds), options.output)
        return
    rows = []
    for name, (place, changes) in TRAINED.items():
        print(name, flush=True)
        rows.append(trained_row(name, recipe_of(place, changes), options.runs))
        write_table(_TITLES, rows, options.output)


if __name__ == "__main__":
    main()
