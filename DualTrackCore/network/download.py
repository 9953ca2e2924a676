"""Download one large file; an interrupted download is continued by the next call.

pooch sends the request and receives the file. What it lacks is here: continuing a part if the server still has the
same content, looking at the answer before anything is written, and cancelling.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from DualTrackCore.errors import Cancelled, DualTrackError, OutputError
from DualTrackCore.network.catalogue import FOLDER_VARIABLE, size_text
from DualTrackCore.progress import Reporter, Stage

if TYPE_CHECKING:
    from requests import RequestException, Response

_BLOCK_BYTES = 1 << 16
_TIMEOUT_S = 30.0
#: Left free on the disk beyond the file itself.
_SPARE_BYTES = 64 << 20


class DownloadError(DualTrackError, OSError):
    """The file could not be fetched."""


@dataclass(frozen=True)
class _Source:
    """The content behind an address; `validator` is the value of If-Range that only the same content answers to."""

    url: str
    validator: str | None = None
    total: int | None = None


def download(url: str, part: Path, reporter: Reporter) -> None:
    """Fetch `url` into `part`; what an earlier call left there is continued if the server still has the same content.

    Whatever goes wrong, `part` keeps what has arrived. A small file beside it records where it came from.

    Args:
        url: address of the file.
        part: file to fill; complete when this returns.
        reporter: receives the bytes so far.

    Raises:
        DownloadError: no connection, an error of the server, or a connection that ended early.
        OutputError: too little room on the disk, or the folder cannot be written.
        Cancelled: the caller asked to stop.
    """
    source, start = _resumable(url, part)
    if start == source.total:
        return
    try:
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            _receive(_Transfer(source, part, file, reporter), start)
    except DualTrackError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"Cannot write {part}: {reason}; free some space or choose another folder.") from error
    finally:
        if part.is_file() and not part.stat().st_size:
            delete_part(part)


def delete_part(part: Path) -> None:
    """Delete a part and its record, so that the next download starts from the beginning."""
    for path in (part, _record_path(part)):
        path.unlink(missing_ok=True)


class _Transfer:
    """What happens during one request: `check` is a response hook of requests, the object a progress bar of pooch."""

    def __init__(self, source: _Source, part: Path, file: BinaryIO, reporter: Reporter) -> None:
        self.source, self.file, self.has_begun = source, file, False
        self._part, self._reporter = part, reporter

    def check(self, response: Response, **_options: object) -> None:
        """Refuse what is not the file or does not fit on the disk; start again where the part is not continued."""
        url, total, headers = self.source.url, self.source.total, response.headers
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
            self.source = _Source(url, validator, int(length) if length.isdigit() else None)
        elif total and headers.get("Content-Range") != f"bytes {self.file.tell()}-{total - 1}/{total}":
            self.file.truncate(0)
            raise DownloadError(f"{url} sent another part of the file than requested; run the command again.")
        _require_room(self._part.parent, (self.source.total or 0) - self.file.tell() + _SPARE_BYTES)
        _record_path(self._part).write_text(json.dumps(asdict(self.source)), encoding="utf-8")
        self.has_begun = True
        self.update()

    def update(self, _count: int = 0) -> None:
        """Report the bytes so far."""
        self._reporter.report(Stage.DOWNLOADING, self.file.tell(), self.source.total or self.file.tell())

    def close(self) -> None:
        """Do nothing at the end; pooch calls it, and `reset` before it."""

    reset = close


def _receive(transfer: _Transfer, start: int) -> None:
    from pooch import HTTPDownloader
    from requests import RequestException

    url, file = transfer.source.url, transfer.file
    headers = {"User-Agent": "dualtrack", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": str(transfer.source.validator)}
    options = {"headers": headers, "hooks": {"response": transfer.check}, "timeout": _TIMEOUT_S}
    try:
        HTTPDownloader(progressbar=transfer, chunk_size=_BLOCK_BYTES, **options)(url, file, None)
    except Cancelled:
        kept = f"the {size_text(file.tell())} that have arrived are kept, and the same command continues from there"
        raise Cancelled(f"Cancelled; {kept}.") from None
    except RequestException as error:
        raise DownloadError(_problem(transfer, error)) from error


def _problem(transfer: _Transfer, error: RequestException) -> str:
    """What went wrong, in a sentence."""
    url, file, total = transfer.source.url, transfer.file, transfer.source.total
    if transfer.has_begun:
        arrived = size_text(file.tell()) + (f" of {size_text(total)}" if total else "")
        return f"The connection ended after {arrived}; run the same command again to continue."
    if error.response is not None:
        if error.response.status_code == 416:  # the part is longer than the file has become
            file.truncate(0)
        return f"{url} could not be fetched: the server answered {error.response.status_code}."
    reason = getattr(next(iter(error.args), None), "reason", error)
    return f"{url} could not be fetched: no connection to the server ({reason})."


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"The folder {folder} has {size_text(free)} free and the download needs {size_text(needed)}; "
            f"free some space or name another folder in {FOLDER_VARIABLE}."
        )


def _record_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _resumable(url: str, part: Path) -> tuple[_Source, int]:
    """Where a part came from, and its bytes; 0 if it cannot be continued: another address, no validator, no length."""
    try:
        source = _Source(**json.loads(_record_path(part).read_text(encoding="utf-8")))
        size = part.stat().st_size
        if source.url == url and source.validator and size <= source.total:
            return source, size
    except (OSError, ValueError, TypeError):  # none, damaged, or a file of unknown length
        pass
    return _Source(url), 0
