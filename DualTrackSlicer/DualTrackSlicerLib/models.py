"""The models that the panel offers, read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from DualTrackCore.errors import DualTrackError
from DualTrackCore.network.card import ModelCard, card_path, read_card_beside, read_card_inside
from DualTrackCore.network.catalogue import (
    InstalledModel,
    ModelEntry,
    installed_card,
    installed_models,
    models_folder,
    published_models,
    record_path,
)


@dataclass(frozen=True)
class ModelChoice:
    """One line of the model chooser.

    Attributes:
        name: as a run takes it.
        title: one line for people.
        card: what it was trained on and what to expect of it; None where nothing is known.
        installed: its file, or None where it has to be downloaded first.
        entry: of the catalogue, or None for models that ship and for own ones.
    """

    name: str
    title: str
    card: ModelCard | None
    installed: InstalledModel | None
    entry: ModelEntry | None = None


def modelChoices(folder: Path | None = None) -> list[ModelChoice]:
    """Models that ship first, then published ones, then those of the user."""
    entries = published_models()
    installed = {model.name: model for model in installed_models(folder)}
    names = sorted(
        {*installed, *entries},
        key=lambda name: (not (name in installed and installed[name].ships), name not in entries, name),
    )
    return [_choice(name, installed.get(name), entries.get(name)) for name in names]


def fileCard(path: Path) -> ModelCard | None:
    """The card inside or beside a weights file, or None where there is none that can be read."""
    try:
        return read_card_inside(path) or read_card_beside(path)
    except (DualTrackError, OSError):
        return None


def deleteDownloaded(folder: Path | None = None) -> int:
    """Delete the models in the folder, not those that ship; returns how many bytes became free."""
    freed = 0
    for model in installed_models(folder):
        if model.ships:
            continue
        freed += model.size_bytes
        for path in (model.path, record_path(model.path), card_path(model.path)):
            path.unlink(missing_ok=True)
    for part in (folder or models_folder()).glob("*.part*"):
        freed += part.stat().st_size
        part.unlink()
    return freed


def _choice(name: str, model: InstalledModel | None, entry: ModelEntry | None) -> ModelChoice:
    card = None if entry is None else entry.card
    if model is not None:
        try:
            card = installed_card(model) or card
        except DualTrackError:
            card = None
    title = name if card is None or not card.title else card.title
    return ModelChoice(name, title, card, model, entry)
