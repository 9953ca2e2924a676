"""The model zoo: the published weights that are known, those that ship or are installed, and how they get there.

The makers of the published weights give no checksum. A file is therefore checked by loading it strictly (the `check`
that callers pass), and its SHA-256 is recorded beside it when it arrives, so that :func:`verify` sees later damage.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from DualTrackCore.errors import CheckpointError, InputError, OutputError
from DualTrackCore.files import file_sha256, replacing
from DualTrackCore.network.card import (
    ModelCard,
    card_path,
    read_card_beside,
    read_card_inside,
    write_card_beside,
)
from DualTrackCore.network.download import Opener, download, forget, size_text
from DualTrackCore.network.shipped import SHIPPED_MODELS, shipped_folder
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter

#: Environment variable that names the folder of installed models.
FOLDER_VARIABLE = "DUALTRACK_MODELS"
#: Suffixes of installed weights.
SUFFIXES = (".pt", ".safetensors")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NON_COMMERCIAL = ("CC BY-NC-SA 4.0", "https://creativecommons.org/licenses/by-nc-sa/4.0/")
#: Measured with generated weights of the published size on the recorded sweeps: 0.029 (white noise: 0.037).
_BF16_ERROR = 0.03

#: Looks at a weights file and raises if it is not one; called before a file is installed.
Check = Callable[[Path], object]


@dataclass(frozen=True)
class ModelEntry:
    """One set of weights in the catalogue.

    Attributes:
        name: short name, as in `load_model(name)`.
        title: one line for a list.
        url: where the file is.
        size_bytes: exact size, or None where the makers do not state it.
        about_bytes: rough size for people, or None where not even that is known.
        sha256: hexadecimal, or None where the makers do not state it.
        card: what the weights expect, and their licence.
        description: one or two sentences for a person who chooses.
    """

    name: str
    title: str
    url: str
    card: ModelCard
    description: str
    size_bytes: int | None = None
    about_bytes: int | None = None
    sha256: str | None = None

    @property
    def licence(self) -> str:
        """Name of the licence of the weights."""
        return self.card.licence

    @property
    def licence_url(self) -> str:
        """Address of the licence text."""
        return self.card.licence_url

    @property
    def size_text(self) -> str:
        """The size as far as it is known: exact, rough, or that it is unknown."""
        if self.size_bytes is not None:
            return size_text(self.size_bytes)
        return "size unknown" if self.about_bytes is None else f"about {size_text(self.about_bytes)}"


@dataclass(frozen=True)
class InstalledModel:
    """A weights file that ships with the package or lies in the models folder.

    Attributes:
        name: as in `load_model(name)`.
        path: of the weights.
        size_bytes: of the file.
        sha256: recorded when the file arrived, or shipped beside it; None without a record.
        ships: whether it is part of the package.
    """

    name: str
    path: Path
    size_bytes: int
    sha256: str | None
    ships: bool = False


def catalogue() -> tuple[ModelEntry, ...]:
    """The published weights that can be fetched, the more general first."""
    licence, licence_url = _NON_COMMERCIAL
    tusrec2024 = ModelCard(
        name="dualtrack-tusrec2024",
        title="DualTrack, TUS-REC 2024",
        version="2024",
        global_mean=0.5,
        global_std=0.25,
        training_data="TUS-REC 2024: healthy forearms, one linear probe, 250 to 710 frames a sweep at 20 frames/s.",
        licence=licence,
        licence_url=licence_url,
        expected_error="4.9 mm five-point global error on the TUS-REC 2024 validation sweeps, as published.",
        bf16_error=_BF16_ERROR,
    )
    tusrec2025 = ModelCard(
        name="dualtrack-tusrec2025",
        title="DualTrack, TUS-REC 2025 challenge",
        version="2025",
        training_data="TUS-REC 2024, then TUS-REC 2025: healthy forearms, one linear probe, about 1500 frames a sweep.",
        licence=licence,
        licence_url=licence_url,
        expected_error="9.25 mm all-pixel global error on the hidden TUS-REC 2025 test sweeps, as published.",
        bf16_error=_BF16_ERROR,
    )
    return (
        ModelEntry(
            tusrec2024.name,
            tusrec2024.title,
            "https://downloads.imfusion.com/DualTrack/dualtrack_final.pt",
            tusrec2024,
            "The weights of the paper, for sweeps of up to 1024 frames.",
            about_bytes=408_000_000,
        ),
        ModelEntry(
            tusrec2025.name,
            tusrec2025.title,
            "https://downloads.imfusion.com/DualTrack/dualtrack_ft_tus_rec_2025_v3_best.pt",
            tusrec2025,
            "The weights that won the 2025 challenge, for long and rotating sweeps of up to 4096 frames.",
        ),
    )


def find_entry(name: str) -> ModelEntry:
    """The catalogue's entry of that name.

    Raises:
        InputError: no such entry; names those there are.
    """
    for entry in catalogue():
        if entry.name == name:
            return entry
    names = ", ".join(entry.name for entry in catalogue())
    raise InputError(f"There is no model {name!r} to fetch; the catalogue has {names}.")


def models_folder() -> Path:
    """Where models are installed: the folder that DUALTRACK_MODELS names, else one of the user's data folders."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "DualTrack" / "models"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "DualTrack" / "models"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "dualtrack" / "models"


def installed(folder: Path | None = None) -> list[InstalledModel]:
    """The models that ship with the package and those in the folder, by name."""
    folder = folder or models_folder()
    found = [path for path in folder.glob("*") if path.suffix in SUFFIXES and _NAME.fullmatch(path.stem)]
    own = [path for path in found if path.stem not in SHIPPED_MODELS]
    shipped = [path for path in map(_shipped_path, SHIPPED_MODELS) if path.is_file()]
    return [
        InstalledModel(p.stem, p, p.stat().st_size, _recorded_sha256(p), ships=p in shipped)
        for p in sorted([*own, *shipped], key=lambda p: p.name)
    ]


def installed_path(name: str, folder: Path | None = None) -> tuple[Path, ModelCard | None]:
    """Weights file of a model that ships or is installed, and the card that the catalogue has for it.

    Raises:
        CheckpointError: not installed; says how to get it.
    """
    cards = {entry.name: entry.card for entry in catalogue()}
    for model in installed(folder):
        if model.name == name:
            return model.path, cards.get(name)
    if name in SHIPPED_MODELS:
        raise CheckpointError(
            f"The model {name} ships with DualTrack, but this installation lacks its file {_shipped_path(name)}; "
            "install DualTrack again, or name another model."
        )
    if name in cards:
        how = f"`dualtrack models fetch {name}` downloads it, `dualtrack models import {name} FILE` takes a file"
        raise CheckpointError(f"The model {name} is not installed: {how}.")
    known = ", ".join(sorted({*cards, *(model.name for model in installed(folder))}))
    raise CheckpointError(f"There is no file and no model {name!r}; models are {known}.")


def installed_card(model: InstalledModel) -> ModelCard | None:
    """The card of a model: inside its file, else beside it, else the catalogue's; None where there is none.

    Raises:
        CheckpointError: the card cannot be read.
    """
    own = read_card_inside(model.path) or read_card_beside(model.path)
    return own or next((entry.card for entry in catalogue() if entry.name == model.name), None)


def fetch(
    entry: ModelEntry,
    *,
    consent: bool,
    folder: Path | None = None,
    check: Check | None = None,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
    opener: Opener = urllib.request.urlopen,
) -> Path:
    """Download a model, check it and install it; an interrupted download is continued by the next call.

    A model that is installed and undamaged is left as it is.

    Args:
        entry: what to fetch.
        consent: that the user has seen and accepted size and licence.
        folder: where to; the models folder by default.
        check: raises if the file is not loadable; without it only size and checksum are checked, where known.
        progress: told the bytes so far, stage `download`.
        cancelled: asked between blocks.
        opener: opens a request; the one of urllib by default.

    Returns:
        The installed file.

    Raises:
        InputError: no consent.
        DownloadError: the network failed.
        CheckpointError: what arrived is not the model; it is deleted.
        OutputError: no room, or the folder cannot be written.
        Cancelled: what has arrived is kept.
    """
    if not consent:
        raise InputError(
            f"The weights {entry.name} ({entry.size_text}) are licensed under {entry.licence} ({entry.licence_url}); "
            "they are downloaded only after you agree (consent=True, --yes)."
        )
    folder = folder or models_folder()
    if (present := _undamaged(entry.name, folder)) is not None:
        return present
    _make_folder(folder)
    part = folder / f"{entry.name}.part"
    remedy = (
        f"On a machine without network, copy the file {entry.url} there by other means and run "
        f"`dualtrack models import {entry.name} FILE`."
    )
    download(entry.url, part, remedy=remedy, reporter=Reporter(progress, cancelled), opener=opener)
    try:
        digest = _require_as_stated(entry, part)
        if check is not None:
            check(part)
    except InputError as error:
        forget(part)
        raise CheckpointError(f"What {entry.url} sent is not the model and was deleted: {error}") from error
    target = folder / (entry.name + SUFFIXES[0])
    os.replace(part, target)
    forget(part)
    _record(target, digest, entry.card)
    return target


def import_file(entry_or_name: ModelEntry | str, path: str | Path, *, check: Check, folder: Path | None = None) -> Path:
    """Install a local weights file under a name: the way for machines without network, and for own models.

    The card beside the file comes along; without one, a name of the catalogue brings the catalogue's card.

    Args:
        entry_or_name: an entry or name of the catalogue, or a new name of lower-case letters, digits, `.`, `_`, `-`.
        path: the file; it is copied.
        check: raises if the file cannot be loaded.
        folder: where to; the models folder by default.

    Raises:
        InputError: no such file, a name that cannot be used, or what `check` raises.
        OutputError: the folder cannot be written; an installed model of that name is then untouched.
    """
    name = entry_or_name if isinstance(entry_or_name, str) else entry_or_name.name
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no weights file {path} to import.")
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot name a model; use lower-case letters, digits, '.', '_' and '-', at most 64.")
    if name in SHIPPED_MODELS:
        raise InputError(f"{name} is the name of a model that ships with DualTrack; import {path.name} under another.")
    entry = next((e for e in catalogue() if e.name == name), None)
    check(path)
    card = read_card_beside(path) or (None if entry is None else entry.card)
    if entry is not None:
        _require_as_stated(entry, path)
    suffix = path.suffix if path.suffix in SUFFIXES else SUFFIXES[0]
    target = (folder or models_folder()) / (name + suffix)
    if target.exists() and target.samefile(path):
        raise InputError(f"{path} is the installed model {name} already.")
    with replacing(target) as temporary:
        shutil.copyfile(path, temporary)
    _record(target, file_sha256(target), card)
    return target


def verify(name: str, folder: Path | None = None) -> InstalledModel:
    """Read an installed model again and compare it with the stated or recorded checksum.

    Returns:
        The model, with the SHA-256 of what is on the disk now.

    Raises:
        CheckpointError: not installed, no checksum to compare with, or the file has changed since it arrived.
    """
    path, _ = installed_path(name, folder)
    stated = next((entry.sha256 for entry in catalogue() if entry.name == name), None)
    expected = stated or _recorded_sha256(path)
    if expected is None:
        raise CheckpointError(f"No checksum was recorded for {path}; {_repair(name, 'import the file again')}.")
    digest = file_sha256(path)
    if digest != expected:
        remedy = _repair(name, "fetch or import it again")
        raise CheckpointError(f"{path} has changed since it was installed (SHA-256 differs); {remedy}.")
    return InstalledModel(name, path, path.stat().st_size, digest, ships=name in SHIPPED_MODELS)


def _shipped_path(name: str) -> Path:
    return shipped_folder() / f"{name}.safetensors"


def _repair(name: str, otherwise: str) -> str:
    return "install DualTrack again" if name in SHIPPED_MODELS else otherwise


def _undamaged(name: str, folder: Path) -> Path | None:
    try:
        return verify(name, folder).path
    except CheckpointError:
        return None


def _require_as_stated(entry: ModelEntry, path: Path) -> str:
    """The SHA-256 of the file, after comparing size and checksum with what the makers state, where they do."""
    size = path.stat().st_size
    if entry.size_bytes is not None and size != entry.size_bytes:
        raise CheckpointError(f"{path.name} has {size} bytes; the model {entry.name} has {entry.size_bytes}.")
    digest = file_sha256(path)
    if entry.sha256 is not None and digest != entry.sha256:
        raise CheckpointError(f"The checksum (SHA-256) of {path.name} is not that of the model {entry.name}.")
    return digest


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The models folder {folder} cannot be made: {error.strerror}; name another one in {FOLDER_VARIABLE}."
        ) from error


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _record(path: Path, digest: str, card: ModelCard | None) -> None:
    """Write the checksum (as `sha256sum --check` reads it) and the card beside new weights; drop older ones."""
    with replacing(_record_path(path)) as temporary:
        temporary.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    for suffix in SUFFIXES:
        if suffix != path.suffix:
            other = path.with_suffix(suffix)
            other.unlink(missing_ok=True)
            _record_path(other).unlink(missing_ok=True)
    if card is None:
        card_path(path).unlink(missing_ok=True)
    else:
        write_card_beside(card, path)


def _recorded_sha256(path: Path) -> str | None:
    try:
        words = _record_path(path).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return None
    return words[0] if words and re.fullmatch(r"[0-9a-f]{64}", words[0]) else None
