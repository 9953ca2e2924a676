"""Bringing models into the models folder and out of it again: download, import, verify, remove.

The makers of the published weights give no checksum. A file is therefore checked by loading it strictly (the `check`
that callers pass), and its SHA-256 is recorded beside it when it arrives, so that :func:`verify` finds later damage.

What is installed is a safetensors file. A PyTorch file is converted once, and the SHA-256 that it had stands in the
metadata of what was made of it.

pooch sends the request and receives the file. What it lacks is here: continuing a part if the server still has the
same content, looking at the answer before anything is written, and cancelling.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from DualTrackCore.errors import Cancelled, CheckpointError, DualTrackError, InputError, OutputError, named
from DualTrackCore.files import file_sha256, json_text, require_apart, staged_folder
from DualTrackCore.memory import format_bytes
from DualTrackCore.network import catalogue
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage

if TYPE_CHECKING:
    from requests import RequestException, Response

#: Raises if a file is not a loadable model; called before the file is installed.
Check = Callable[[Path], object]
_BLOCK_BYTES = 1 << 16
_TIMEOUT_S = 30.0
#: Left free on the disk beyond the file itself.
_SPARE_BYTES = 64 << 20


class DownloadError(DualTrackError, OSError):
    """The file could not be fetched."""


def fetch(
    entry: catalogue.ModelEntry,
    *,
    consent: bool,
    folder: Path | None = None,
    check: Check | None = None,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> Path:
    """Download a model, check and install it, and return its path; one that is installed and undamaged stays.

    A PyTorch file is converted to safetensors, one that an earlier version of this program has installed too.

    Args:
        entry: what to fetch.
        consent: whether the user has read and accepted size and licence.
        folder: to install in; the models folder by default.
        check: raises if the file is not loadable; without it only stated size and checksum are checked.
        progress: receives the bytes so far.
        cancelled: called between blocks; true stops the download, and the next call continues it.

    Raises:
        InputError: no consent.
        DownloadError: the network failed.
        CheckpointError: what arrived is not the model; it is deleted. Or torch is too old to read the file safely;
            nothing is then downloaded.
        OutputError: too little room, or the folder cannot be written.
        Cancelled: what has arrived is kept.
    """
    if not consent:
        raise InputError(
            f"The weights {entry.name} ({entry.size_text}) are licensed under {entry.card.licence} "
            f"({entry.card.licence_url}); they are downloaded only after you agree ({named('consent', True)})."
        )
    folder = folder or catalogue.models_folder()
    if (path := _installed(entry.name, folder)) is not None:
        return path
    if not entry.url.endswith(catalogue.SUFFIXES[0]):
        from DualTrackCore.network.model import require_safe_torch

        require_safe_torch(Path(entry.url).name)
    part = folder / f"{entry.name}.part"
    try:
        _Download(entry.url, part, Reporter(progress, cancelled)).run()
    except DownloadError as error:
        raise DownloadError(
            f"{error} On a machine without network, copy the file {entry.url} there by other means and run "
            f"`dualtrack models import {entry.name} FILE`."
        ) from error
    try:
        digest = _require_as_stated(entry, part)
        if check is not None:
            check(part)
        target = _install(part, folder / (entry.name + catalogue.SUFFIXES[0]), digest, entry.card)
    except InputError as error:
        _delete_part(part)
        raise CheckpointError(f"The file from {entry.url} is not the model and was deleted: {error}") from error
    _delete_part(part)
    return target


def _installed(name: str, folder: Path) -> Path | None:
    """The undamaged model of that name, a PyTorch file of an earlier version converted now; None without one."""
    try:
        installed = verify(name, folder)
    except CheckpointError:
        return None
    path, target = installed.path, installed.path.with_suffix(catalogue.SUFFIXES[0])
    return path if path == target else _install(path, target, installed.sha256, catalogue.read_card_beside(path))


def import_file(name: str, path: str | Path, *, check: Check, folder: Path | None = None) -> Path:
    """Install a local weights file under a name: the way for machines without network, and for own models.

    The card beside the file is copied too; without one, the name of a published model brings that model's card. A
    PyTorch file is converted to safetensors; the file itself stays.

    Args:
        name: of a published model, or a new one of lower-case letters, digits, `.`, `_`, `-`.
        path: the file.
        check: raises if the file cannot be loaded.
        folder: to install in; the models folder by default.

    Raises:
        InputError: no such file, a name that cannot be used, or what `check` raises.
        OutputError: the folder cannot be written; an installed model of that name is then untouched.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no weights file {path} to import.")
    if not catalogue.MODEL_NAME.fullmatch(name):
        raise InputError(f"{name!r} is not a valid model name; use up to 64 of a to z, 0 to 9, '.', '_', '-'.")
    if name in catalogue.SHIPPED_MODELS:
        raise InputError(f"{name} is the name of a model that ships with DualTrack; import {path.name} under another.")
    target = (folder or catalogue.models_folder()) / (name + catalogue.SUFFIXES[0])
    if target.exists() and target.samefile(path):
        raise InputError(f"{path} is the installed model {name} already.")
    require_apart([file for file in _files_of(target) if file.suffix not in catalogue.SUFFIXES], [path])
    check(path)
    card = catalogue.read_card_beside(path) or catalogue.published_card(name)
    entry = catalogue.published_models().get(name)
    digest = file_sha256(path) if entry is None else _require_as_stated(entry, path)
    return _install(path, target, digest, card)


def verify(name: str, folder: Path | None = None) -> catalogue.InstalledModel:
    """Read an installed model again and compare it with the stated or recorded checksum.

    Returns:
        The model, with the SHA-256 of what is on the disk now.

    Raises:
        CheckpointError: not installed, no checksum to compare with, the file has changed since it arrived, or it is not
            the one that the makers state.
    """
    path, entry = catalogue.installed_path(name, folder), catalogue.published_models().get(name)
    ships, original = name in catalogue.SHIPPED_MODELS, catalogue.original_sha256(path)
    expected = catalogue.recorded_sha256(path) or (entry and entry.sha256)
    if expected is None:
        remedy = "install DualTrack again" if ships else "import the file again"
        raise CheckpointError(f"No checksum was recorded for {path}; {remedy}.")
    digest = file_sha256(path)
    if digest != expected:
        remedy = "install DualTrack again" if ships else "fetch or import it again"
        raise CheckpointError(f"{path} has changed since it was installed (SHA-256 differs); {remedy}.")
    if entry is not None:
        _require_stated_checksum(entry, original or digest, path.name)
    return catalogue.InstalledModel(name, path, path.stat().st_size, digest, ships, original)


def removable(folder: Path | None = None) -> dict[str, int]:
    """Bytes on the disk by name of each model that was downloaded or imported, unfinished downloads too."""
    folder = folder or catalogue.models_folder()
    names = {model.name for model in catalogue.installed_models(folder) if not model.ships}
    names |= {path.stem for path in folder.glob("*.part") if catalogue.MODEL_NAME.fullmatch(path.stem)}
    return {name: sum(path.stat().st_size for path in _present(name, folder)) for name in sorted(names)}


def remove(name: str, folder: Path | None = None) -> int:
    """Delete a downloaded or imported model with its card, its checksum and what is left of unfinished downloads.

    Args:
        name: of the model.
        folder: where it is installed; the models folder by default.

    Returns:
        The bytes of disk that are free again.

    Raises:
        InputError: the model ships with the package, or nothing of that name is there.
        OutputError: a file cannot be deleted.
    """
    folder = folder or catalogue.models_folder()
    if name in catalogue.SHIPPED_MODELS:
        raise InputError(f"The model {name} ships with DualTrack and stays; only downloaded and imported ones can go.")
    known = removable(folder)
    if name not in known:
        raise InputError(f"There is no model {name!r} in {folder} to remove; there are: {', '.join(known) or 'none'}.")
    for path in _present(name, folder):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(
                f"Cannot delete {path}: {reason}; end the programs that use it, and try again."
            ) from error
    return known[name]


def _present(name: str, folder: Path) -> list[Path]:
    """The files of a model that are there, its weights last: while they are there, it can be removed again."""
    target, part = folder / (name + catalogue.SUFFIXES[0]), folder / f"{name}.part"
    return [path for path in (*reversed(_files_of(target)), _part_record(part), part) if path.is_file()]


def checksum_sentence(entry: catalogue.ModelEntry, model: catalogue.InstalledModel) -> str:
    """What is known about the checksum of a published model that is installed, for a person."""
    what = "this file" if model.original_sha256 is None else "the PyTorch file that this one was made of"
    digest = model.original_sha256 or model.sha256 or "not recorded"
    if entry.sha256 is None:
        return f"The makers state no checksum; the SHA-256 of {what} is {digest}."
    return f"The SHA-256 of {what} is the one that the makers state, {digest}."


def _require_as_stated(entry: catalogue.ModelEntry, path: Path) -> str:
    """The SHA-256 of the file, after comparing size and checksum with what the makers state, where they do."""
    size = path.stat().st_size
    if entry.size_bytes is not None and size != entry.size_bytes:
        raise CheckpointError(f"{path.name} has {size} bytes; the model {entry.name} has {entry.size_bytes}.")
    digest = file_sha256(path)
    # A safetensors file that was made of the makers' file elsewhere says of which.
    _require_stated_checksum(entry, catalogue.original_sha256(path) or digest, path.name)
    return digest


def _require_stated_checksum(entry: catalogue.ModelEntry, digest: str, name: str) -> None:
    if entry.sha256 is not None and digest != entry.sha256:
        raise CheckpointError(f"The checksum (SHA-256) of {name} is not that of the model {entry.name}.")


def _install(source: Path, target: Path, digest: str, card: catalogue.ModelCard | None) -> Path:
    """Put a checked file with its card and checksum at `target`, as safetensors and all at once.

    The source, whose SHA-256 is `digest`, stays, unless it is the same model as an earlier version has installed it.
    """
    with source.open("rb") as file:
        is_pickle = file.read(4).startswith(catalogue.PICKLE_HEADS)
    with staged_folder(target.parent, [path.name for path in _files_of(target)]) as folder:
        weights = folder / target.name
        if is_pickle:
            from DualTrackCore.network.model import convert_weights

            convert_weights(source, weights, digest)
            digest = file_sha256(weights)
        else:
            shutil.copyfile(source, weights)
        # As `sha256sum --check` reads it.
        catalogue.record_path(weights).write_text(f"{digest}  {weights.name}\n", encoding="utf-8")
        if card is not None:
            catalogue.card_path(weights).write_text(card.to_json() + "\n", encoding="utf-8")
    return target


def _files_of(target: Path) -> list[Path]:
    """Weights of either suffix, checksums and card of a model, whether they are there or not."""
    weights = [target.with_name(target.stem + suffix) for suffix in catalogue.SUFFIXES]
    return [*weights, *map(catalogue.record_path, weights), catalogue.card_path(target)]


@dataclass(frozen=True)
class _Source:
    """The content behind an address; `validator` is the value of If-Range that only the same content answers to."""

    url: str
    validator: str | None = None
    total: int | None = None


class _Download:
    """One file on its way into `part`; what an earlier call left there is continued.

    Whatever goes wrong, `part` keeps what has arrived, and a small file beside it records where that came from. pooch
    takes the object for a progress bar.
    """

    file: BinaryIO

    def __init__(self, url: str, part: Path, reporter: Reporter) -> None:
        self._source, self._part, self._reporter = _Source(url), part, reporter
        self._has_begun = False

    def run(self) -> None:
        """Fetch the file; the part is complete when this returns. Raises as :func:`fetch`."""
        start = self._resume()
        if start == self._source.total:
            return
        try:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            with self._part.open("r+b" if start else "wb") as self.file:
                self.file.seek(start)
                self._receive(start)
        except DualTrackError:
            raise
        except OSError as error:
            raise OutputError(
                f"Cannot write {self._part}: {error.strerror or error}; free some space or name another folder in "
                f"{catalogue.FOLDER_VARIABLE}."
            ) from error
        finally:
            if self._part.is_file() and not self._part.stat().st_size:
                _delete_part(self._part)

    def _resume(self) -> int:
        """The bytes of the part; 0 if it cannot be continued: another address, no validator, no length."""
        with contextlib.suppress(OSError, ValueError, TypeError):  # none, damaged, or a file of unknown length
            source = _Source(**json.loads(_part_record(self._part).read_text(encoding="utf-8")))
            size = self._part.stat().st_size
            if source.url == self._source.url and source.validator and size <= source.total:
                self._source = source
                return size
        return 0

    def _receive(self, start: int) -> None:
        from pooch import HTTPDownloader
        from requests import RequestException

        headers = {"User-Agent": "dualtrack", "Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": str(self._source.validator)}
        options = {"headers": headers, "hooks": {"response": self._check}, "timeout": _TIMEOUT_S}
        try:
            HTTPDownloader(progressbar=self, chunk_size=_BLOCK_BYTES, **options)(self._source.url, self.file, None)
        except Cancelled:
            arrived = f"the {format_bytes(self.file.tell())} that have arrived are kept"
            raise Cancelled(f"Cancelled; {arrived}, and the same command continues from there.") from None
        except RequestException as error:
            raise DownloadError(self._problem(error)) from error

    def _check(self, response: Response, **_options: object) -> None:
        """Refuse what is not the file or does not fit on the disk; start again where the part is not continued."""
        url, total, headers = self._source.url, self._source.total, response.headers
        if response.is_redirect or not response.ok:
            return  # requests follows redirects, pooch raises errors
        if headers.get("Content-Type", "").startswith("text/html"):
            raise DownloadError(f"{url} answered with a web page instead of a file.")
        if response.status_code != 206:
            self.file.seek(0)
            self.file.truncate()
            etag, length = headers.get("ETag", ""), headers.get("Content-Length", "")
            # Weak entity tags are not allowed in If-Range (RFC 9110, 13.1.5).
            validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
            self._source = _Source(url, validator, int(length) if length.isdigit() else None)
        elif total and headers.get("Content-Range") != f"bytes {self.file.tell()}-{total - 1}/{total}":
            self.file.truncate(0)
            raise DownloadError(f"{url} sent another part of the file than requested; run the command again.")
        needed = (self._source.total or 0) - self.file.tell() + _SPARE_BYTES
        if (free := shutil.disk_usage(self._part.parent).free) < needed:
            raise OutputError(
                f"The folder {self._part.parent} has {format_bytes(free)} free and the download needs "
                f"{format_bytes(needed)}; free some space or name another folder in {catalogue.FOLDER_VARIABLE}."
            )
        _part_record(self._part).write_text(json_text(self._source), encoding="utf-8")
        self._has_begun = True
        self.update()

    def _problem(self, error: RequestException) -> str:
        """What went wrong, in a sentence."""
        url, total = self._source.url, self._source.total
        if self._has_begun:
            arrived = format_bytes(self.file.tell()) + (f" of {format_bytes(total)}" if total else "")
            return f"The connection ended after {arrived}; run the same command again to continue."
        if error.response is not None:
            if error.response.status_code == 416:  # the part is longer than the file has become
                self.file.truncate(0)
            return f"{url} could not be fetched: the server answered {error.response.status_code}."
        reason = getattr(next(iter(error.args), None), "reason", error)
        return f"{url} could not be fetched: no connection to the server ({reason})."

    def update(self, _count: int = 0) -> None:
        """Report the bytes so far."""
        self._reporter.report(Stage.DOWNLOADING, self.file.tell(), self._source.total or self.file.tell())

    def close(self) -> None:
        """Do nothing at the end; pooch calls it, and `reset` before it."""

    reset = close


def _part_record(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _delete_part(part: Path) -> None:
    """Delete a part and its record, so that the next download starts from the beginning."""
    for path in (part, _part_record(part)):
        path.unlink(missing_ok=True)
