"""Put the weights of a finished stage of the small model into the package, with the card of the recipe as it is now.

    python Testing/Data/mini/ship_mini.py RUNS mini/fusion

The error that the card names is measured after training, on held-out sweeps: hence the card is written anew here.
"""

import sys
from pathlib import Path

from DualTrackCore.files import file_sha256, replacing
from DualTrackCore.network.checkpoint import save_model
from DualTrackCore.network.shipped import shipped_folder
from DualTrackCore.training import load_recipe
from DualTrackCore.training.initial import initial_network, recipe_card

runs, stage = Path(sys.argv[1]), sys.argv[2]
recipe = load_recipe("mini/finetune2", [f"initial.all={stage}"])
target = save_model(initial_network(recipe, runs), recipe_card(recipe), shipped_folder() / "mini.safetensors")
with replacing(target.with_name(target.name + ".sha256")) as temporary:
    temporary.write_text(f"{file_sha256(target)}  {target.name}\n", encoding="utf-8")
print(target, f"{target.stat().st_size / 1e6:.1f} MB")
