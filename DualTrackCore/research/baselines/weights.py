"""Weights files of the baselines: safetensors with the card, whose architecture names the network and its sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from DualTrackCore.errors import CheckpointError, InputError
from DualTrackCore.files import replacing
from DualTrackCore.network.card import CARD_KEY, ModelCard
from DualTrackCore.network.checkpoint import read_weights
from DualTrackCore.research.baselines.architectures import ARCHITECTURES, build_baseline
from DualTrackCore.research.baselines.motion_network import MotionNetwork

#: Key of the network's name in the card's architecture, beside its sizes.
KIND_KEY = "baseline"


def save_baseline(
    network: MotionNetwork, card: ModelCard, path: str | Path, *, number_type: torch.dtype = torch.float32
) -> Path:
    """Write weights and card into one safetensors file, atomically; returns its path.

    Args:
        network: its architecture replaces the card's, so that the file can always be loaded again.
        card: spacing, origin and expected error.
        path: ends in .safetensors.
        number_type: that weights are stored in; float16 halves the file and rounds them to eleven bits.
    """
    path = Path(path)
    card = replace(card, architecture={KIND_KEY: network.architecture, **network.arguments})
    tensors = {key: _stored(value, number_type) for key, value in network.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, str(temporary), metadata={CARD_KEY: card.to_json()})
        temporary.chmod(0o644)  # safetensors makes files that only their owner can read
    return path


def read_baseline(path: str | Path) -> tuple[MotionNetwork, ModelCard]:
    """Network in evaluation mode and card from a file; it is read as tensors and text, so it can never run code.

    Raises:
        CheckpointError: no such file, damaged, of another network, or with numbers that are not finite.
    """
    path = Path(path)
    tensors, card = read_weights(path)
    kind = None if card is None else card.architecture.get(KIND_KEY)
    if kind not in ARCHITECTURES:
        raise CheckpointError(
            f"{path.name} holds no baseline: its card names none of {', '.join(ARCHITECTURES)}; give a file that the "
            "training stage baseline has written."
        )
    sizes = {key: value for key, value in card.architecture.items() if key != KIND_KEY}
    try:
        network = build_baseline(kind, **sizes)
    except InputError as error:
        raise CheckpointError(f"The card inside {path.name} describes no network of this version: {error}") from None
    _load(network, tensors, path.name)
    return network.eval(), card


def _load(network: MotionNetwork, tensors: dict[str, Tensor], name: str) -> None:
    expected = network.state_dict()
    wrong = sorted(
        {*expected} ^ {*tensors} | {k for k in {*expected} & {*tensors} if expected[k].shape != tensors[k].shape}
    )
    if wrong:
        raise CheckpointError(
            f"{name} is not a checkpoint of the network that its card describes: {len(wrong)} tensors are missing, "
            f"unknown or of another shape, such as {wrong[0]}."
        )
    if broken := [key for key, value in tensors.items() if not torch.isfinite(value).all()]:
        raise CheckpointError(f"{name} holds numbers that are not finite in {broken[0]}; train or fetch it again.")
    network.load_state_dict({key: tensors[key].to(value.dtype) for key, value in expected.items()})


def _stored(value: Tensor, number_type: torch.dtype) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.to(number_type) if value.is_floating_point() else value
