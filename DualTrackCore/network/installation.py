"""Bringing models into the models folder: download, import, verify.

The makers of the published weights give no checksum. A file is therefore checked by loading it strictly (the `check`
that callers pass), and its SHA-256 is recorded beside it when it arrives, so that :func:`verify` finds later damage.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from DualTrackCore.errors import CheckpointError, InputError, OutputError
from DualTrackCore.files import file_sha256, replacing
from DualTrackCore.network.catalogue import (
    FOLDER_VARIABLE,
    MODEL_NAME,
    SHIPPED_MODELS,
    SUFFIXES,
    InstalledModel,
    ModelCard,
    ModelEntry,
    card_path,
    installed_path,
    models_folder,
    published_card,
    published_models,
    read_card_beside,
    record_path,
    recorded_sha256,
    write_card_beside,
)
from DualTrackCore.network.download import DownloadError, delete_part, download
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter

#: Raises if a file is not a loadable model; called before the file is installed.
Check = Callable[[Path], object]


def fetch(
    entry: ModelEntry,
    *,
    consent: bool,
    folder: Path | None = None,
    check: Check | None = None,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> Path:
    """Download a model, check it and install it; an interrupted download is continued by the next call.

    A model that is installed and undamaged is left as it is.

    Args:
        entry: what to fetch.
        consent: whether the user has read and accepted size and licence.
        folder: to install in; the models folder by default.
        check: raises if the file is not loadable; without it only stated size and checksum are checked.
        progress: receives the bytes so far.
        cancelled: called between blocks; true stops the download.

    Returns:
        The installed file.

    Raises:
        InputError: no consent.
        DownloadError: the network failed.
        CheckpointError: what arrived is not the model; it is deleted.
        OutputError: too little room, or the folder cannot be written.
        Cancelled: what has arrived is kept.
    """
    if not consent:
        raise InputError(
            f"The weights {entry.name} ({entry.size_text}) are licensed under {entry.card.licence} "
            f"({entry.card.licence_url}); they are downloaded only after you agree (consent=True, --yes)."
        )
    folder = folder or models_folder()
    with contextlib.suppress(CheckpointError):
        return verify(entry.name, folder).path
    _make_folder(folder)
    part = folder / f"{entry.name}.part"
    try:
        download(entry.url, part, Reporter(progress, cancelled))
    except DownloadError as error:
        raise DownloadError(
            f"{error} On a machine without network, copy the file {entry.url} there by other means and run "
            f"`dualtrack models import {entry.name} FILE`."
        ) from error
    try:
        digest = _require_as_stated(entry, part)
        if check is not None:
            check(part)
    except InputError as error:
        delete_part(part)
        raise CheckpointError(f"The file from {entry.url} is not the model and was deleted: {error}") from error
    target = folder / (entry.name + SUFFIXES[0])
    os.replace(part, target)
    delete_part(part)
    _record(target, digest, entry.card)
    return target


def import_file(name: str, path: str | Path, *, check: Check, folder: Path | None = None) -> Path:
    """Install a local weights file under a name: the way for machines without network, and for own models.

    The card beside the file is copied too; without one, the name of a published model brings that model's card.

    Args:
        name: of a published model, or a new one of lower-case letters, digits, `.`, `_`, `-`.
        path: the file; it is copied.
        check: raises if the file cannot be loaded.
        folder: to install in; the models folder by default.

    Raises:
        InputError: no such file, a name that cannot be used, or what `check` raises.
        OutputError: the folder cannot be written; an installed model of that name is then untouched.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no weights file {path} to import.")
    if not MODEL_NAME.fullmatch(name):
        raise InputError(f"{name!r} is not a valid model name; use up to 64 of a to z, 0 to 9, '.', '_', '-'.")
    if name in SHIPPED_MODELS:
        raise InputError(f"{name} is the name of a model that ships with DualTrack; import {path.name} under another.")
    check(path)
    card = read_card_beside(path) or published_card(name)
    if (entry := published_models().get(name)) is not None:
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
    path, entry = installed_path(name, folder), published_models().get(name)
    expected = (entry and entry.sha256) or recorded_sha256(path)
    if expected is None:
        raise CheckpointError(f"No checksum was recorded for {path}; {_repair(name, 'import the file again')}.")
    digest = file_sha256(path)
    if digest != expected:
        remedy = _repair(name, "fetch or import it again")
        raise CheckpointError(f"{path} has changed since it was installed (SHA-256 differs); {remedy}.")
    return InstalledModel(name, path, path.stat().st_size, digest, ships=name in SHIPPED_MODELS)


def _repair(name: str, otherwise: str) -> str:
    return "install DualTrack again" if name in SHIPPED_MODELS else otherwise


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


def _record(path: Path, digest: str, card: ModelCard | None) -> None:
    """Write the checksum (as `sha256sum --check` reads it) and the card beside new weights; drop older ones."""
    with replacing(record_path(path)) as temporary:
        temporary.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    for suffix in SUFFIXES:
        if suffix != path.suffix:
            other = path.with_suffix(suffix)
            other.unlink(missing_ok=True)
            record_path(other).unlink(missing_ok=True)
    if card is None:
        card_path(path).unlink(missing_ok=True)
    else:
        write_card_beside(card, path)
