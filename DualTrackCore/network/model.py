"""A network with its weights and its card, and how it is loaded by name or from a file."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from DualTrackCore.errors import CheckpointError, DualTrackError
from DualTrackCore.files import file_sha256
from DualTrackCore.network.card import ModelCard, read_card, read_card_beside
from DualTrackCore.network.catalogue import DEFAULT_MODEL, installed_path, published_card
from DualTrackCore.network.checkpoint import load_weights, positions_of, read_weights, resize_positions
from DualTrackCore.network.dualtrack import DualTrack


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its weights loaded, in evaluation mode, and its card.

    Attributes:
        network: on the CPU until tracking moves it.
        card: what the weights expect.
        sha256: of the weights file; None for a network made in memory.
    """

    network: DualTrack
    card: ModelCard
    sha256: str | None = None

    def __post_init__(self) -> None:
        self.network.eval()

    def provenance(self) -> dict[str, Any]:
        """Plain values for a report."""
        return {
            "model": self.card.name,
            "model_title": self.card.title,
            "model_version": self.card.version,
            "model_trained": self.card.trained,
            "model_simulated_only": self.card.simulated_only,
            "model_training_data": self.card.training_data,
            "model_expected_error": self.card.expected_error,
            "model_licence": self.card.licence,
            "weights_sha256": self.sha256,
        }


def load_model(
    name_or_path: str | Path = DEFAULT_MODEL,
    *,
    card: ModelCard | str | Path | None = None,
    positions: int | None = None,
) -> Model:
    """Load a model by the name of one that ships or is installed, or from a weights file.

    Args:
        name_or_path: a name of `dualtrack models list`, or a .safetensors or PyTorch file; without it the small model
            that ships with the package, which was trained on simulated sweeps only.
        card: the card or its JSON file; by default the one inside the file, else the one beside it, else that of
            unknown weights of the published network.
        positions: resize the tables to this many frames at a time (exact for sweeps that fit before and after).

    Raises:
        CheckpointError: not installed, damaged, unsafe, or of another network.
    """
    if os.path.isfile(name_or_path):  # unlike Path.is_file it takes names that no file can have
        return load_file(Path(name_or_path), card=card, positions=positions)
    name = str(name_or_path)
    return load_file(installed_path(name), card=card, fallback=published_card(name), positions=positions)


def load_file(
    path: Path,
    *,
    card: ModelCard | str | Path | None = None,
    fallback: ModelCard | None = None,
    positions: int | None = None,
) -> Model:
    """:func:`load_model` of a file; `fallback` is the card where none is given, inside or beside the file."""
    tensors, inner_card = read_weights(path)
    if isinstance(card, str | Path):
        card = read_card(Path(card))
    card = card or inner_card or read_card_beside(path) or fallback or ModelCard(name=path.stem)
    card = replace(card, architecture={**card.architecture, "positions": positions_of(tensors) or 1024})
    if positions is not None:
        tensors = resize_positions(tensors, positions)
        card = replace(card, architecture={**card.architecture, "positions": positions})
    network = build_network(card)
    load_weights(network, tensors, path.name)
    return Model(network, card, file_sha256(path))


def build_network(card: ModelCard) -> DualTrack:
    """The network that a card describes, with random weights.

    Raises:
        CheckpointError: the card's architecture has an argument that the network does not know, or an impossible value.
    """
    try:
        return DualTrack(**card.architecture)
    except (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
        if isinstance(error, DualTrackError):
            raise
        raise CheckpointError(f"The model card {card.name!r} describes no network of this version: {error}.") from None
