"""Fetching one large file over HTTP so that it can be interrupted and taken up again."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from DualTrackCore.errors import Cancelled, DualTrackError, OutputError
from DualTrackCore.progress import Reporter, Stage

_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 30.0
#: Left free on the disk beyond the file itself.
_SPARE_BYTES = 64 << 20

#: Like `urllib.request.urlopen(request, timeout=...)`.
Opener = Callable[..., Any]


class DownloadError(DualTrackError, OSError):
    """The file could not be fetched; the message says why and what to do without a network."""


@dataclass(frozen=True)
class _Source:
    """What identifies the content behind an address, so that a part is only ever continued with the same content."""

    url: str
    etag: str | None
    last_modified: str | None
    total: int | None

    @property
    def validator(self) -> str | None:
        """Value for the If-Range header; weak entity tags are not allowed there (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


def download(url: str, part: Path, *, remedy: str, reporter: Reporter, opener: Opener = urllib.request.urlopen) -> None:
    """Fetch `url` into `part`; what an earlier call left there is continued if the server still has the same content.

    Whatever goes wrong, `part` keeps what has arrived. A small file beside it remembers where it came from.

    Args:
        url: address of the file.
        part: file to fill; complete when this returns.
        remedy: end of the sentence of every error: what to do without a network.
        reporter: told the bytes so far.
        opener: opens a request; the one of urllib by default.

    Raises:
        DownloadError: no connection, an error of the server, or a connection that ended early.
        OutputError: too little room on the disk, or the folder cannot be written.
        Cancelled: the caller asked to stop.
    """
    try:
        _download(url, part, reporter, opener)
    except (Cancelled, OutputError):
        raise
    except DownloadError as error:
        raise DownloadError(f"{error} {remedy}") from error.__cause__
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{url} could not be fetched (the server answered {error.code}). {remedy}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"{url} could not be fetched ({reason}). {remedy}") from error


def forget(part: Path) -> None:
    """Delete a part and what is remembered of it, so that the next download starts from the beginning."""
    for path in (part, _memory(part)):
        path.unlink(missing_ok=True)


def _download(url: str, part: Path, reporter: Reporter, opener: Opener) -> None:
    known = _recall(part, url)
    start = part.stat().st_size if known is not None and part.exists() else 0
    if known is not None and start == known.total:
        return
    try:
        response = opener(_request(url, start, known), timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # the part is longer than the file has become
            forget(part)
            return _download(url, part, reporter, opener)
        raise
    with contextlib.closing(response):
        source, start = _source_of(response, url, start, known)
        _require_room(part, source.total, start)
        _remember(part, source)
        done = _receive(response, part, start, source.total, reporter)
    if source.total is not None and done != source.total:
        got, whole = size_text(done), size_text(source.total)
        raise DownloadError(f"The connection ended after {got} of {whole}; run the same command again to go on.")


def _request(url: str, start: int, known: _Source | None) -> urllib.request.Request:
    headers = {"User-Agent": "dualtrack", "Accept-Encoding": "identity"}
    if start and known is not None:
        headers["Range"] = f"bytes={start}-"
        headers["If-Range"] = known.validator or ""
    return urllib.request.Request(url, headers=headers)


def _source_of(response: Any, url: str, start: int, known: _Source | None) -> tuple[_Source, int]:
    """What the server is about to send, and from which byte on; 0 where it does not continue the part."""
    headers = response.headers
    if (headers.get("Content-Type") or "").startswith("text/html"):
        raise DownloadError(f"{url} answered with a web page instead of a file.")
    length = headers.get("Content-Length")
    total = int(length) if length is not None and length.isdigit() else None
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range") or "")
        if found is None or int(found[1]) != start or (known and known.total not in (None, int(found[2]))):
            raise DownloadError(f"{url} answered with another part of the file than the one asked for.")
        total = int(found[2])
    else:
        start = 0
    return _Source(url, headers.get("ETag"), headers.get("Last-Modified"), total), start


def _receive(response: Any, part: Path, start: int, total: int | None, reporter: Reporter) -> int:
    """Write the body behind the first `start` bytes of the part; returns the size that the part has then."""
    done = start
    with _writing(part), part.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        try:
            reporter.report(Stage.DOWNLOADING, done, total or done)
            while block := _read(response):
                file.write(block)
                done += len(block)
                reporter.report(Stage.DOWNLOADING, done, total or done)
        except Cancelled:
            kept = f"the {size_text(done)} that have arrived are kept, and the same command goes on from there"
            raise Cancelled(f"Cancelled; {kept}.") from None
    return done


def _read(response: Any) -> bytes:
    try:
        return response.read(_BLOCK_BYTES)
    except http.client.IncompleteRead as error:
        return error.partial
    except OSError as error:
        raise DownloadError(f"The connection broke ({error}); run the same command again to go on.") from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into an :class:`OutputError`; what the network refuses passes."""
    try:
        yield
    except DualTrackError:
        raise
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise OutputError(f"Cannot write {path}: {reason}; free some space or choose another folder.") from error


def _require_room(part: Path, total: int | None, start: int) -> None:
    if total is None:
        return
    free = shutil.disk_usage(part.parent).free
    needed = total - start + _SPARE_BYTES
    if free < needed:
        raise OutputError(
            f"The folder {part.parent} has {size_text(free)} free and the download needs {size_text(needed)}; "
            "free some space or name another folder in DUALTRACK_MODELS."
        )


def _memory(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _remember(part: Path, source: _Source) -> None:
    with _writing(part):
        _memory(part).write_text(json.dumps(asdict(source)), encoding="utf-8")


def _recall(part: Path, url: str) -> _Source | None:
    """Where a part came from, if it can be continued: from the same address, with a way to tell changed content."""
    try:
        source = _Source(**json.loads(_memory(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return source if source.url == url and source.validator else None


def size_text(count: int) -> str:
    """A number of bytes as a person reads it: 408 MB, 1.2 GB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
