"""A small untrained model in the place of the one that ships with the package."""

from dataclasses import replace
from pathlib import Path

from oracle import tiny_model

from DualTrackCore.files import file_sha256
from DualTrackCore.network import catalogue, save_model
from DualTrackCore.network.catalogue import DEFAULT_MODEL


def ship_stand_in(folder: Path, monkeypatch) -> Path:
    """Make `folder` the place of shipped weights, with one small model and its checksum; returns the weights file."""
    folder.mkdir()
    tiny = tiny_model()
    card = replace(tiny.card, name=DEFAULT_MODEL, title="A stand-in", trained=True, simulated_only=True)
    path = save_model(tiny.network, card, folder / f"{DEFAULT_MODEL}.safetensors")
    (folder / f"{path.name}.sha256").write_text(f"{file_sha256(path)}  {path.name}\n")
    monkeypatch.setattr(catalogue, "shipped_folder", lambda: folder)
    monkeypatch.setenv(catalogue.FOLDER_VARIABLE, str(folder.parent / "models"))
    return path
