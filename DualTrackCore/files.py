"""Files: written whole or not at all, their checksums, and values of any kind as JSON has them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

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
    with _output(path, "Cannot write"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


@contextlib.contextmanager
def staged_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Give an empty temporary folder beside or in `folder`; on success move what it holds there, file by file.

    Files of the same names are replaced, others in `folder` stay; on any failure nothing in `folder` changes. The
    temporary folder is made at once, so a place that cannot be written is found before the work begins.

    Raises:
        OutputError: the place cannot be written, or the disk is full.
    """
    folder = Path(folder)
    # Inside a folder that exists: the one above it may be closed to writing, and "." has no name beside which to stage.
    staging = (folder if os.path.isdir(folder) else folder.parent) / f".{secrets.token_hex(4)}-{folder.name}"
    with _output(folder, "Cannot write into"):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"Cannot write into {folder}: it is a file; choose another folder.")
        try:
            staging.mkdir(parents=True)
            yield staging
            folder.mkdir(exist_ok=True)
            for path in sorted(staging.iterdir()):
                os.replace(path, folder / path.name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def _output(path: Path, what_failed: str) -> Iterator[None]:
    """Say in a sentence why an output did not come about, and remove folders that were made for it and hold nothing."""
    missing: list[Path] = []
    try:
        missing = [parent for parent in path.parents if not parent.exists()]
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{what_failed} {path}: {reason}; choose another folder or free some space.") from error
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def plain_values(value: Any) -> Any:
    """The same values with nothing but what JSON knows.

    Mappings and dataclasses become dicts with text as keys, arrays, tuples and sets lists, enums their values, numbers
    that are not finite None, and everything else, paths included, its text.
    """
    if isinstance(value, Enum):
        return plain_values(value.value)
    if is_dataclass(value) and not isinstance(value, type):
        return plain_values(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # an array, or a number of one; numpy itself may not be installed yet
        return plain_values(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_values(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def json_text(values: Any) -> str:
    """Values as indented JSON for a file, with a line end; see :func:`plain_values`."""
    return json.dumps(plain_values(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
