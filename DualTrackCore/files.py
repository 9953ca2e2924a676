"""Files: written whole or not at all, their checksums, and values of any kind as JSON has them."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from DualTrackCore import staging
from DualTrackCore.errors import InputError, OutputError, reason_of

#: Longest file of settings.
_MOST_YAML_BYTES = 1 << 20


@contextlib.contextmanager
def replacing(path: str | os.PathLike, keep: bool = False) -> Iterator[Path]:
    """Give a path of the same name in a temporary folder beside `path`; move the file there to `path` on success.

    Whatever fails, and if the process is killed, what stood at `path` is untouched.

    Args:
        path: of the file.
        keep: whether a file that stands at `path` by then stays in place of the new one, as where several processes
            make the same file, and one of them has opened it already.

    Raises OutputError: the place cannot be written, `path` is a folder or read-only, or the disk is full.
    """
    path = Path(path)
    with _output(path, "Cannot write"):
        staging.require_replaceable(path)
        with staging.staging_folder(path.parent) as temporary:
            yield temporary / path.name
            staging.sync(temporary / path.name)
            if not (keep and _placed_first(temporary / path.name, path)):
                os.replace(temporary / path.name, path)
            staging.sync(path.parent)


def _placed_first(new: Path, path: Path) -> bool:
    """Put a file in its place unless one is there; False where the disk cannot do that in one step, and none is."""
    try:
        os.link(new, path)
    except OSError:
        return path.is_file()
    return True


@contextlib.contextmanager
def staged_folder(folder: str | os.PathLike, earlier: Iterable[str] = ()) -> Iterator[Path]:
    """Give an empty temporary folder; on success `folder` holds the files there, all of them at once.

    Files of the same names and of those in `earlier` go, everything else in `folder` stays. Whatever fails, and if the
    process is killed, nothing in `folder` changes; :mod:`DualTrackCore.staging` says how. A place that cannot be
    written is found before the work begins.

    Args:
        folder: made if need be.
        earlier: names of the files of an earlier result that this one takes the place of; see :func:`recorded_files`.

    Raises OutputError: the place cannot be written, a file to be replaced is read-only, or the disk is full.
    """
    earlier = set(earlier)
    with _output(Path(folder), "Cannot write into"):
        place = Path(os.path.realpath(folder))
        if place.exists() and not place.is_dir():
            raise OutputError(f"Cannot write into {folder}: it is a file; choose another folder.")
        if place.is_dir() and not os.access(place, os.W_OK | os.X_OK):
            raise OutputError(f"Cannot write into {folder}: it is read-only; choose another folder.")
        for name in earlier:
            staging.require_replaceable(place / name)
        with staging.staging_folder(place if staging.must_stay(place) else place.parent) as temporary:
            new = temporary / "new"
            new.mkdir()
            yield new
            for path in [*new.rglob("*"), new]:
                staging.sync(path)
            staging.put_in_place(new, place, earlier)


def recorded_files(record: Path, known: Iterable[str]) -> set[str]:
    """The names under "files" in a JSON file that a result left, of those that results can have; none without it."""
    try:
        staging.restore_interrupted(record.parent)
        files = json.loads(record.read_text(encoding="utf-8"))["files"]
        return set(known) & {name for name in files if isinstance(name, str)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def require_apart(outputs: Iterable[str | os.PathLike], inputs: Iterable[str | os.PathLike]) -> None:
    """Raise InputError if an output is one of the inputs, by whatever name: link, hard link, other case, short name.

    The files in a folder that is an input count as inputs too.
    """
    written = {file_identity(path): path for path in outputs}
    written.pop(None, None)
    for source in map(Path, inputs if written else ()):
        read = [source]
        with contextlib.suppress(OSError, ValueError):  # what cannot be read is said where it is read
            read += source.iterdir() if source.is_dir() else ()
        for path in read:
            if (output := written.get(file_identity(path))) is not None:
                raise InputError(f"The output {output} is the input {path}; give the output another name.")


def file_identity(path: str | os.PathLike) -> tuple[int, int] | None:
    """What tells a file or folder from all others, whatever its name; None where there is none."""
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return None
    return facts.st_dev, facts.st_ino


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


def _flat(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(name with dots, value) of everything in nested plain values; entries of a list count from 0."""
    if not isinstance(values, dict | list):
        yield name, values
        return
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        yield from _flat(value, f"{name}.{key}" if name else str(key))


def write_flat_csv(values: Any, path: str | os.PathLike) -> None:
    """Write a table of two columns: names with dots and values. Raises OutputError: the file cannot be written."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("name", "value"))
        for name, value in _flat(values):
            writer.writerow((name, "" if value is None else value if isinstance(value, str) else json.dumps(value)))


def json_text(values: Any) -> str:
    """Values as indented JSON for a file, with a line end; see :func:`plain_values`."""
    return json.dumps(plain_values(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_yaml(path: Path, what: str) -> Any:
    """The values in a YAML file.

    Args:
        path: the file.
        what: it is, for messages.

    Raises InputError: it cannot be read, is absurdly large, or is not YAML.
    """
    import yaml

    try:
        with path.open("rb") as file:
            text = file.read(_MOST_YAML_BYTES + 1)
        if len(text) > _MOST_YAML_BYTES:
            raise InputError(f"{path} is too large for {what}; name another file.")
        return yaml.safe_load(text.decode("utf-8"))
    except OSError as error:
        raise InputError(f"Cannot read {what} {path}: {error.strerror or error}.") from None
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable YAML: {reason_of(error)}.") from None
