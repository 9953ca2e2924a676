"""Both encoders of the small model, each trained to estimate motion by its own head, in one file for the ablation.

    python Testing/Data/mini/make_ablation.py RUNS

RUNS holds the finished stages mini/local-only and mini/global-more. Fusion and pose head are not used, and zero.
"""

import sys
from pathlib import Path

import torch

from DualTrackCore.network.model import save_model
from DualTrackCore.research.training import load_recipe
from DualTrackCore.research.training.initial import initial_network, recipe_card

recipe = load_recipe("mini/fusion", ["initial.local_encoder=mini/local-only", "card.name=mini-ablation"])
network = initial_network(recipe, Path(sys.argv[1]))
for part in (network.fusion_module, network.head):
    for parameter in part.parameters():
        torch.nn.init.zeros_(parameter)
print(save_model(network, recipe_card(recipe), Path(__file__).with_name("ablation.safetensors")))
