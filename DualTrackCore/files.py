"""Writing files so that a reader sees the old content or the whole new one, never a part; and their checksums."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from DualTrackCore.errors import OutputError


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it to `path` on success, delete it on any failure.

    The temporary name keeps the suffixes of `path`, because writers choose their format by them.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    parents: list[Path] = []
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
        parents = _missing_parents(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"Cannot write {path}: {reason}; choose another folder or free some space.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
        _remove_empty(parents)


@contextlib.contextmanager
def staged_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Give an empty temporary folder beside or in `folder`; on success move what it holds there, file by file.

    Files of the same names are replaced, others in `folder` stay; on any failure nothing in `folder` changes. The
    temporary folder is made at once, so a place that cannot be written is found before the work begins.

    Raises:
        OutputError: the place cannot be written, or the disk is full.
    """
    folder = Path(folder)
    parents: list[Path] = []
    # Inside a folder that exists: the one above it may be closed to writing, and "." has no name beside which to stage.
    staging = (folder if os.path.isdir(folder) else folder.parent) / f".{secrets.token_hex(4)}-{folder.name}"
    try:
        parents = _missing_parents(folder)
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"Cannot write into {folder}: it is a file; choose another folder.")
        staging.mkdir(parents=True)
        yield staging
        folder.mkdir(exist_ok=True)
        for path in sorted(staging.iterdir()):
            os.replace(path, folder / path.name)
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"Cannot write into {folder}: {reason}; choose another folder or free some space.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(parents)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _missing_parents(path: Path) -> list[Path]:
    """Folders above `path` that do not exist yet, the nearest first."""
    return [parent for parent in path.parents if not parent.exists()]


def _remove_empty(folders: list[Path]) -> None:
    """Remove those of the folders that hold nothing: they were made for an output that did not come about."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
