"""Writing files so that a reader sees the old content or the whole new one, never a part."""

from __future__ import annotations

import contextlib
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
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
    try:
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


@contextlib.contextmanager
def staged_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Give an empty temporary folder beside `folder`; on success move what it holds into `folder`, file by file.

    Files of the same names are replaced, others in `folder` stay; on any failure nothing in `folder` changes. The
    temporary folder is made at once, so a place that cannot be written is found before the work begins.

    Raises:
        OutputError: the place cannot be written, or the disk is full.
    """
    folder = Path(folder)
    staging = folder.with_name(f".{secrets.token_hex(4)}-{folder.name}")
    try:
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
