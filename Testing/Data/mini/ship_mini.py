"""Put the mean of the weights of finished stages of the small model into the package, with the recipe's card as it is now.

    python Testing/Data/mini/ship_mini.py RUNS mini/fusion mini/finetune2

The error that the card names is measured after training, on held-out sweeps: hence the card is written anew here.
"""

import sys
from pathlib import Path

import torch

from DualTrackCore.files import file_sha256, replacing
from DualTrackCore.network.model import save_model
from DualTrackCore.network.catalogue import shipped_folder
from DualTrackCore.research.training import load_recipe
from DualTrackCore.research.training.initial import initial_network, recipe_card

runs, stages = Path(sys.argv[1]), sys.argv[2:]
networks = [initial_network(load_recipe("mini/fusion", [f"initial={{all: {stage}}}"]), runs) for stage in stages]
weights = [network.state_dict() for network in networks]
mean = {
    key: torch.stack([each[key] for each in weights]).mean(0) if value.is_floating_point() else value
    for key, value in weights[0].items()
}
networks[0].load_state_dict(mean)
card = recipe_card(load_recipe("mini/fusion"))
target = save_model(networks[0], card, shipped_folder() / "mini.safetensors")
with replacing(target.with_name(target.name + ".sha256")) as temporary:
    temporary.write_text(f"{file_sha256(target)}  {target.name}\n", encoding="utf-8")
print(target, f"{target.stat().st_size / 1e6:.1f} MB")
