"""The model card: what a set of weights expects, where it comes from, and what error to expect of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from DualTrackCore.errors import CheckpointError, InputError
from DualTrackCore.files import replacing
from DualTrackCore.settings import build, check_settings, setting

#: Key of the card in a safetensors file's metadata.
CARD_KEY = "dualtrack_card"
#: Longer safetensors headers than this belong to no weights of this network.
_MAX_HEADER_BYTES = 1 << 24
#: Pixel spacing that the millimetres of the published weights are baked in at, mm (columns, rows).
PUBLISHED_SPACING_MM = (0.22938919, 0.22097969)
#: Frame size of the published weights, pixels (rows, columns).
PUBLISHED_FRAME_SIZE = (480, 640)
#: Frames a second of the data that the published weights were trained on.
PUBLISHED_FRAME_RATE_HZ = 20.0


@dataclass(frozen=True)
class ModelCard:
    """Facts about a set of weights; the defaults are those of unknown weights of the published network.

    Attributes:
        name: short name, as in `load_model(name)`.
        title: one line for a list.
        version: version of the weights.
        trained: whether the weights come from training; random weights give motions that mean nothing.
        simulated_only: whether the training saw nothing but simulated sweeps.
        architecture: arguments of :class:`~DualTrackCore.network.dualtrack.DualTrack`.
        spacing_mm: pixel spacing (columns, rows) that the millimetres are tied to.
        frame_size: (rows, columns) of the training frames at that spacing.
        frame_rate_hz: frame rate of the training sweeps, or None.
        global_mean, global_std: the global image is normalised as (grey / 255 - mean) / std.
        training_data: one sentence.
        licence, licence_url: of the weights.
        expected_error: one sentence, with the metric and the data it was measured on.
        bf16_error: largest change of a motion (mm or degrees) on sweeps of speckle when the trunks ran in bfloat16;
            None where nobody measured, and then bfloat16 is never chosen unasked.
    """

    name: str = "unknown"
    title: str = "Weights without a model card"
    version: str = "unknown"
    trained: bool = True
    simulated_only: bool = False
    architecture: Mapping[str, Any] = field(default_factory=dict)
    spacing_mm: tuple[float, float] = setting(PUBLISHED_SPACING_MM, above=0)
    frame_size: tuple[int, int] = setting(PUBLISHED_FRAME_SIZE, at_least=1)
    frame_rate_hz: float | None = setting(PUBLISHED_FRAME_RATE_HZ, above=0)
    global_mean: float = 0.0
    global_std: float = setting(1.0, above=0)
    training_data: str = "unknown"
    licence: str = "unknown"
    licence_url: str = ""
    expected_error: str = "unknown"
    bf16_error: float | None = setting(None, above=0)

    def __post_init__(self) -> None:
        try:
            check_settings(self, "The model card's")
        except InputError as error:
            raise CheckpointError(str(error)) from None

    def __reduce__(self) -> tuple[object, tuple]:
        # A mapping proxy cannot be pickled, and networks go to worker processes with their card.
        return partial(ModelCard, **self.as_dict()), ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as written to JSON."""
        return {**vars(self), "architecture": dict(self.architecture)}

    def to_json(self) -> str:
        """The card as JSON text."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, where: str) -> ModelCard:
        """Read a card.

        Args:
            text: JSON.
            where: name of the source for error messages.

        Raises:
            CheckpointError: not JSON, an unknown field, or a value of the wrong kind.
        """
        try:
            return build(cls, json.loads(text), f"the model card {where}")
        except InputError as error:
            raise CheckpointError(str(error)) from None
        except ValueError as error:
            raise CheckpointError(f"The model card {where} is not JSON: {error}.") from None


def card_path(weights: Path) -> Path:
    """Where the card of a weights file lies: the same name with the suffix .json."""
    return weights.with_suffix(".json")


def read_card_beside(weights: Path) -> ModelCard | None:
    """The card beside a weights file, or None where there is none."""
    path = card_path(weights)
    return read_card(path) if path.is_file() else None


def read_card_inside(weights: Path) -> ModelCard | None:
    """The card inside a safetensors file, read without torch; None for another file or one without a card.

    Raises:
        CheckpointError: the card in the file is none.
    """
    try:
        with weights.open("rb") as file:
            # Eight bytes give the length of the JSON header that follows them.
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= _MAX_HEADER_BYTES else None
    except (OSError, ValueError):
        return None
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    text = metadata.get(CARD_KEY) if isinstance(metadata, dict) else None
    return ModelCard.from_json(text, weights.name) if isinstance(text, str) else None


def read_card(path: Path) -> ModelCard:
    """The card in a JSON file.

    Raises:
        CheckpointError: the file cannot be read, or is no card.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"The model card {path} cannot be read: {error}.") from None
    return ModelCard.from_json(text, path.name)


def write_card_beside(card: ModelCard, weights: Path) -> Path:
    """Write the card beside a weights file; returns its path."""
    path = card_path(weights)
    with replacing(path) as temporary:
        temporary.write_text(card.to_json() + "\n", encoding="utf-8")
    return path
