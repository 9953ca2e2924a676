"""Small recipes and sweeps for the tests of training."""

from pathlib import Path

import numpy as np
from oracle import TINY

from DualTrackCore.io import save_sweep
from DualTrackCore.research.training.recipe import Recipe
from DualTrackCore.settings import build
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

SPACING_MM = (0.5, 0.4)


def tracked_sweep(seed: int, frames: int = 24, size: tuple[int, int] = (72, 80)) -> Sweep:
    """Random grey values on a random smooth path."""
    random = np.random.default_rng(seed)
    motions = random.normal(size=(frames - 1, 6)) * [0.3, 0.1, 0.3, 0.2, 0.2, 0.2]
    pixels = random.integers(0, 256, (frames, *size), dtype=np.uint8)
    return Sweep(pixels, SPACING_MM, tracked=Trajectory.from_parameters(motions, origin="measured"))


def write_sweeps(folder: Path, train: int = 4, val: int = 2, frames: int = 24) -> Path:
    """DualTrack files and their table; returns the table's path."""
    lines = ["index,sweep_id,processed_sweep_path,split"]
    for i in range(train + val):
        save_sweep(tracked_sweep(i, frames), folder / f"{i}.h5")
        lines.append(f"{i},sweep {i},{i}.h5,{'train' if i < train else 'val'}")
    table = folder / "metadata.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def tiny_values(stage: str, csv: Path | str, **changes) -> dict:
    """Values of a recipe that trains in seconds."""
    return {
        "stage": stage,
        "output": stage,
        "data": {"kind": "dualtrack_h5", "csv": str(csv)},
        "model": dict(TINY),
        "card": {"name": "tiny", "spacing_mm": list(SPACING_MM), "frame_size": [72, 80]},
        "sampling": {"window": 8, "random_frames": 6},
        "optimiser": {"lr": 1e-3, "weight_decay": 1e-2},
        "epochs": 2,
        "batch_size": 2,
        "accelerator": "cpu",
        "seed": 3,
        **changes,
    }


def tiny_recipe(stage: str, csv: Path | str = "none.csv", **changes) -> Recipe:
    """The recipe of :func:`tiny_values`."""
    return build(Recipe, tiny_values(stage, csv, **changes), "tiny.yaml")
