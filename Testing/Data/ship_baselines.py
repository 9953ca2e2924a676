"""Put the trained baselines into the package, where `baseline:NAME` finds them, as float16.

    python Testing/Data/ship_baselines.py RUNS [NAME ...]

RUNS holds the finished stages mini/baseline-NAME. The effect of float16 is printed: the
largest difference of a motion on the sample sweep, mm or degrees. The card is that of the recipe, with the error on the
sweeps that chose the epoch.
"""

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from DualTrackCore.network.model import save_model
from DualTrackCore.research.baselines import ARCHITECTURES, load_baseline
from DualTrackCore.research.baselines.method import SHIPPED_FOLDER
from DualTrackCore.research.comparison.methods import parameter_count
from DualTrackCore.sample import sample_sweep
from DualTrackCore.research.training import load_recipe
from DualTrackCore.research.training.initial import recipe_card

runs, names = Path(sys.argv[1]), sys.argv[2:] or list(ARCHITECTURES)
for name in names:
    folder, recipe = runs / "mini" / f"baseline-{name}", load_recipe(f"mini/baseline-{name}")
    trained = load_baseline(folder / "model.safetensors")
    best = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["best"]
    error = (
        f"GPE {best['val_gpe_five_point_mm']:.1f} mm and LPE {best['val_lpe_five_point_mm']:.3f} mm at five points "
        "on the simulated sweeps that chose the epoch; unknown on recorded ones."
    )
    card = replace(recipe_card(recipe), name=name, expected_error=error)
    target = SHIPPED_FOLDER / f"{name}.safetensors"
    save_model(copy.deepcopy(trained.network).to(torch.float16), card, target)
    sweep = sample_sweep()
    motions = [method.estimate(sweep).parameters for method in (trained, load_baseline(target))]
    change = np.abs(motions[1] - motions[0]).max(axis=0)
    print(
        f"{target.name}: {target.stat().st_size / 1e6:.2f} MB, {parameter_count(trained):,} parameters; float16 changes "
        f"motions by at most {change[:3].max():.1e} mm and {change[3:].max():.1e} degrees"
    )
