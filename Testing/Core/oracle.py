"""The reference weights, sweeps and outputs in Testing/Data/oracle, and small models for quick tests."""

import importlib.util
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch

from DualTrackCore.network import DualTrack, Model, ModelCard
from DualTrackCore.network.catalogue import PUBLISHED_SPACING_MM
from DualTrackCore.network.model import load_weights, save_model
from DualTrackCore.sweep import Sweep

ORACLE = Path(__file__).resolve().parents[1] / "Data" / "oracle"

#: A network of the same classes that runs in milliseconds.
TINY = {
    "crop_size": 64,
    "global_size": 48,
    "positions": 64,
    "local_widths": [4, 6, 8, 8],
    "local_stem": 3,
    "local_hidden": 16,
    "spatial_layers": 1,
    "temporal_layers": 1,
    "global_widths": [4, 6, 8, 8],
    "global_stem": 3,
    "hidden": 32,
    "heads": 4,
    "mlp": 48,
    "global_layers": 1,
    "fusion_layers": 2,
}


def recipe(name: str):
    """The module make_weights or make_sweep."""
    spec = importlib.util.spec_from_file_location(name, ORACLE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def oracle_weights(positions: int = 1024, seed: int = 1) -> dict[str, torch.Tensor]:
    """The reference weights as tensors."""
    arrays = recipe("make_weights").state_dict(str(ORACLE / f"manifest_{positions}.json"), seed)
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


def published_model(positions: int = 1024) -> Model:
    """The published network with the reference weights of seed 1, for 1024 or 4096 frames at a time."""
    network = DualTrack(positions=positions)
    load_weights(network, oracle_weights(positions), "the reference weights")
    card = ModelCard(
        name="oracle",
        title="Reference weights by recipe, seed 1",
        version="1",
        trained=False,
        training_data="none: numbers by recipe",
        licence="none",
        expected_error="meaningless",
    )
    return Model(network, card)


def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of a golden file."""
    with np.load(ORACLE / f"golden_shared_{name}.npz") as file:
        return dict(file)


def oracle_sweep(seed: int, frames: int, height: int = 480, width: int = 640) -> Sweep:
    """A reference sweep at the published spacing."""
    return Sweep(recipe("make_sweep").sweep(seed, frames, height, width), PUBLISHED_SPACING_MM)


def tiny_model(**changes) -> Model:
    """A small random network with lively output, at the published spacing, the same at every call."""
    torch.manual_seed(0)
    network = DualTrack(**{**TINY, **changes})
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "distance_embedding" in name or "query" in name or "key" in name:
                parameter.mul_(3)
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    card = ModelCard(name="tiny", trained=False, architecture={**TINY, **changes}, frame_size=(96, 128))
    return Model(network, card)


def anatomical_model(**changes) -> Model:
    """:func:`tiny_model` with a global branch that matters: other pictures of noise move its motions by 0.01 mm.

    In the plain one they move them by 3e-5 mm, which no comparison notices.
    """
    model = tiny_model(**changes)
    with torch.no_grad():
        model.network.global_encoder.proj.weight.mul_(300)
    return model


def noise_sweep(frames: int, height: int = 96, width: int = 128, **changes) -> Sweep:
    """A sweep of random grey values at the published spacing."""
    pixels = np.random.default_rng(frames).integers(0, 256, (frames, height, width), dtype=np.uint8)
    return Sweep(pixels, **{"spacing_mm": PUBLISHED_SPACING_MM, **changes})


if __name__ == "__main__":
    # python Testing/Core/oracle.py FILE.safetensors: the published network with untrained reference weights.
    reference = published_model()
    save_model(reference.network, reference.card, sys.argv[1])
