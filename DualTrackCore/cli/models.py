"""`dualtrack models`: list, fetch, verify, import, remove."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DualTrackCore.cli.console import Console, columns
from DualTrackCore.errors import CheckpointError
from DualTrackCore.memory import format_bytes
from DualTrackCore.network import catalogue, installation
from DualTrackCore.network.catalogue import DEFAULT_MODEL, InstalledModel, ModelEntry

if TYPE_CHECKING:
    from DualTrackCore.network import Model


def list_models(options: Namespace, console: Console) -> None:
    """Models that ship, published ones and installed ones."""
    installed = {model.name: model for model in catalogue.installed_models()}
    published, used = catalogue.published_models(), installation.removable()
    for name in sorted({*installed, *published, *used}):
        _say_model(name, published.get(name), installed.get(name), used.get(name), console)
    total = format_bytes(sum(used.values()))
    console.say(
        f"\nModels are kept in {catalogue.models_folder()}: {total}. `dualtrack models remove NAME` deletes one."
    )
    console.result(
        {
            "folder": str(catalogue.models_folder()),
            "published": [
                {**_facts(entry, "name", "url", "size_bytes", "sha256"), "card": entry.card.as_dict()}
                for entry in published.values()
            ],
            "installed": [
                _facts(model, "name", "path", "sha256", "original_sha256", "ships") for model in installed.values()
            ],
            "disk_bytes": used,
        }
    )


def _facts(model: ModelEntry | InstalledModel, *names: str) -> dict[str, Any]:
    return {name: getattr(model, name) for name in names}


def _say_model(
    name: str, entry: ModelEntry | None, model: InstalledModel | None, used: int | None, console: Console
) -> None:
    state = "not installed" if model is None else "ships with the package" if model.ships else "installed"
    console.say(f"{name}: {state}{', the default' if name == DEFAULT_MODEL else ''}")
    rows = []
    try:
        card = entry.card if entry is not None else model and catalogue.installed_card(model)
    except CheckpointError as error:
        card, rows = None, [("card", str(error))]
    if card is not None:
        rows += [
            ("what", card.title if entry is None else f"{card.title}. {entry.description}"),
            ("expected error", card.expected_error),
            ("trained on", card.training_data),
            ("licence", f"{card.licence} ({card.licence_url})" if card.licence_url else card.licence),
        ]
    if entry is not None:
        rows += [("size", entry.size_text), ("from", entry.url)]
    if model is not None:
        rows += [("file", str(model.path)), ("SHA-256", model.sha256 or "not recorded")]
        if entry is not None:
            rows.append(("checksum", installation.checksum_sentence(entry, model)))
        elif model.original_sha256 is not None:
            rows.append(("made of", f"a PyTorch file with the SHA-256 {model.original_sha256}"))
    if used is not None:
        unfinished = " of an unfinished download" if model is None else ""
        rows.append(("disk used", f"{format_bytes(used)}{unfinished}"))
    console.say(columns(rows))


def fetch(options: Namespace, console: Console) -> None:
    """Download published weights, after the user has seen size and licence and agreed."""
    entry = catalogue.find_entry(options.name)
    console.say(f"{entry.card.title}: {entry.size_text} from {entry.url}")
    console.say(f"Licence of the weights: {entry.card.licence} ({entry.card.licence_url}); non-commercial use only.")
    consent = options.yes or console.confirm("Do you agree to this licence and want to download the file?")
    loaded: list[Model] = []
    check = partial(_load_as, entry.name, loaded)
    path = installation.fetch(entry, consent=consent, check=check, progress=console.progress)
    _say_installed(entry.name, path, loaded, console)


def verify(options: Namespace, console: Console) -> None:
    """Compare an installed model with its checksum, and load it."""
    model = installation.verify(options.name)
    loaded: list[Model] = []
    _load_as(options.name, loaded, model.path)
    console.say(f"{model.name} is undamaged and loads: {model.path} (SHA-256 {model.sha256}).")
    if (entry := catalogue.published_models().get(model.name)) is not None:
        console.say(installation.checksum_sentence(entry, model))
    found = {"name": model.name, "path": str(model.path), "sha256": model.sha256, "intact": True}
    found["original_sha256"] = model.original_sha256
    console.result({**found, **_input_on_sample(loaded, console)})


def import_model(options: Namespace, console: Console) -> None:
    """Install a local weights file."""
    loaded: list[Model] = []
    path = installation.import_file(options.name, options.file, check=partial(_load_as, options.name, loaded))
    _say_installed(options.name, path, loaded, console)


def remove(options: Namespace, console: Console) -> None:
    """Delete a downloaded or imported model."""
    freed = installation.remove(options.name)
    folder = catalogue.models_folder()
    console.say(f"Removed {options.name} from {folder}: {format_bytes(freed)} are free again.")
    console.result({"name": options.name, "folder": str(folder), "freed_bytes": freed})


def _say_installed(name: str, path: Path, loaded: Sequence[Model], console: Console) -> None:
    console.say(f"Installed {name} as {path}.")
    model = next(m for m in catalogue.installed_models() if m.name == name)
    if (entry := catalogue.published_models().get(name)) is not None:
        console.say(installation.checksum_sentence(entry, model))
    elif model.original_sha256 is not None:
        console.say(f"It was made of a PyTorch file with the SHA-256 {model.original_sha256}.")
    found = {"name": name, "path": str(path), "original_sha256": model.original_sha256}
    console.result({**found, **_input_on_sample(loaded, console)})


def _load_as(name: str, loaded: list[Model], path: Path) -> None:
    """Check that a file loads as the model of that name, and keep it."""
    from DualTrackCore.network.model import load_model

    loaded.append(load_model(path, fallback=catalogue.published_card(name)))


def _input_on_sample(loaded: Sequence[Model], console: Console) -> dict[str, Any]:
    """Say what the weights tell, beside the sample sweep, of how whole frames go in; the same for the JSON result."""
    from DualTrackCore.sample import sample_sweep
    from DualTrackCore.tracking.preprocessing import examined

    if not loaded:  # the model was installed already
        return {}
    check = examined(loaded[0], sample_sweep()).check
    console.say(f"On the sample sweep: {check.sentence()}")
    if (contradiction := check.contradiction()) is not None:
        console.warn(contradiction)
    return {"input": check.as_dict()}
