"""Files: written whole or not at all, their checksums, values of any kind as JSON has them, and pixels in windows.

No pixels are mapped into memory: where a file is cut short while it is in use, a read ends with a sentence, and a
mapping with a signal that ends the process. What a decoder gives one by one goes into a temporary file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from DualTrackCore import staging
from DualTrackCore.errors import InputError, OutputError, reason_of
from DualTrackCore.memory import available_memory_bytes, format_bytes, require_memory

#: Frames that are worked on at a time, in bytes as they are stored.
WINDOW_BYTES = 1 << 25
#: Unpacked pixels stay in memory up to this, and up to this part of what may be taken.
_HELD_BYTES, _HELD_PART = 1 << 28, 8
_PIECE_BYTES = 1 << 24
#: Longest file of settings.
_MOST_YAML_BYTES = 1 << 20


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a path of the same name in a temporary folder beside `path`; move the file there to `path` on success.

    Whatever fails, and if the process is killed, what stood at `path` is untouched.

    Raises OutputError: the place cannot be written, `path` is a folder or read-only, or the disk is full.
    """
    path = Path(path)
    with _output(path, "Cannot write"):
        staging.require_replaceable(path)
        with staging.staging_folder(path.parent) as temporary:
            yield temporary / path.name
            staging.sync(temporary / path.name)
            os.replace(temporary / path.name, path)
            staging.sync(path.parent)


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
    written = {_identity(path): path for path in outputs}
    written.pop(None, None)
    for source in map(Path, inputs if written else ()):
        read = [source]
        with contextlib.suppress(OSError, ValueError):  # what cannot be read is said where it is read
            read += source.iterdir() if source.is_dir() else ()
        for path in read:
            if (output := written.get(_identity(path))) is not None:
                raise InputError(f"The output {output} is the input {path}; give the output another name.")


def _identity(path: str | os.PathLike) -> tuple[int, int] | None:
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
    if hasattr(value, "tolist"):  # an array, or a number of one, also of torch
        return plain_values(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_values(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def json_text(values: Any) -> str:
    """Values as indented JSON for a file, with a line end; see :func:`plain_values`."""
    return json.dumps(plain_values(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_yaml(path: Path, what: str) -> Any:
    """The values in a YAML file.

    Args:
        path: the file.
        what: it is, for messages.

    Raises:
        InputError: it cannot be read, is absurdly large, or is not YAML.
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


class WindowSource:
    """What is read by slices along its first axis: the parts that all such sources share.

    Attributes:
        shape: [N, ...].
        dtype: of the values.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def window(self, start: int, stop: int) -> np.ndarray:
        """Entries start to stop - 1, read now."""
        raise NotImplementedError

    def windows(self) -> Iterator[np.ndarray]:
        """All entries in order, in pieces of about :data:`WINDOW_BYTES`."""
        step = max(1, WINDOW_BYTES // max(1, math.prod(self.shape[1:]) * self.dtype.itemsize))
        for start in range(0, len(self), step):
            yield self.window(start, min(start + step, len(self)))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice) -> np.ndarray:
        """Entries of the slice as an array of their own.

        Raises InputError: the file has changed, gone, or was cut short.
        """
        if not isinstance(key, slice):
            raise TypeError(f"Frames are read by slices, not by {type(key).__name__}.")
        start, stop, step = key.indices(len(self))
        if step < 1:
            raise ValueError(f"Frames are read forwards; the step {step} is not.")
        return self.window(start, max(start, stop))[::step]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Everything at once, for functions that take arrays."""
        require_memory(math.prod(self.shape) * self.dtype.itemsize, "The clip as one array")
        return np.asarray(self[:], dtype)


class FilePixels(WindowSource):
    """[N, ...] values in a file; it is opened for every window, so the object can be sent to another process.

    Args:
        path: the file.
        offset: byte of the first value.
        shape: [N, ...].
        dtype: as the values are stored.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self._path, self._offset = Path(path).resolve(), offset

    def window(self, start: int, stop: int) -> np.ndarray:
        values = np.empty((stop - start, *self.shape[1:]), self.dtype)
        offset = self._offset + start * math.prod(self.shape[1:]) * self.dtype.itemsize
        try:
            with self._path.open("rb", buffering=0) as file:
                whole = _fill(values, lambda done, count: _read_at(file, offset + done, count))
        except OSError as error:
            raise InputError(f"Cannot read {self._path}: {error.strerror or error}.") from error
        if not whole:
            raise InputError(f"{self._path.name} was cut short while it was in use; copy it again.")
        return values


class _TemporaryPixels(WindowSource):
    """[N, ...] values in an open file without a name; sent to another process as an array."""

    def __init__(self, file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self._file, self._turn = file, threading.Lock()

    def window(self, start: int, stop: int) -> np.ndarray:
        values = np.empty((stop - start, *self.shape[1:]), self.dtype)
        offset = start * math.prod(self.shape[1:]) * self.dtype.itemsize
        with self._turn:
            _fill(values, lambda done, count: _read_at(self._file, offset + done, count))
        return values

    def __reduce__(self) -> tuple:
        return np.asarray, (np.asarray(self),)


class Converted(WindowSource):
    """What a function makes of windows of stored pixels, when it is asked for.

    Args:
        pixels: [N, ...] as they are stored.
        convert: from [n, ...] of them to [n, ...]; the same for an entry whatever is beside it.
    """

    def __init__(self, pixels: WindowSource, convert: Callable[[np.ndarray], np.ndarray]) -> None:
        self._pixels, self._convert = pixels, convert
        first = convert(pixels[:1])
        self.shape, self.dtype = (len(pixels), *first.shape[1:]), first.dtype

    def window(self, start: int, stop: int) -> np.ndarray:
        return np.ascontiguousarray(self._convert(self._pixels[start:stop]))


class Spool:
    """Pixels that a decoder gives one after the other: in memory while they are few, then in a temporary file.

    The file is in the folder for temporary files (`TMPDIR`) and has no name there, so nothing of it stays, however the
    process ends.

    Args:
        source: what is unpacked, for messages.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._held = bytearray()
        self._most = min(_HELD_BYTES, available_memory_bytes() // _HELD_PART)
        self._file: BinaryIO | None = None

    def require_room(self, count: int) -> None:
        """Raise :class:`OutputError` where so many bytes in all would not fit, for sizes that are known before."""
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if count > max(self._most, free):
            raise self._no_room(f"take {format_bytes(count)} and {format_bytes(free)} are free there")

    def write(self, values: np.ndarray | bytes) -> None:
        """Append values. Raises OutputError: no room for them."""
        data = memoryview(np.ascontiguousarray(values) if isinstance(values, np.ndarray) else values).cast("B")
        if self._file is None and len(self._held) + len(data) <= self._most:
            self._held += data
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="dualtrack-")  # noqa: SIM115 - as long as its windows
                self._file.write(self._held)
                self._held = bytearray()
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise self._no_room(error.strerror or str(error)) from error

    def finished(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | WindowSource:
        """Everything that was written, as an array of this shape or as a source of windows of it."""
        if self._file is None:
            return np.ndarray(shape, dtype, self._held)
        return _TemporaryPixels(self._file, shape, dtype)

    def _no_room(self, reason: str) -> OutputError:
        return OutputError(
            f"The unpacked frames of {self._source} do not fit into {tempfile.gettempdir()} ({reason}); free some "
            "space there, or set TMPDIR to a folder on another disk."
        )


def _fill(values: np.ndarray, read: Callable[[int, int], bytes]) -> bool:
    """Fill an array by reads of (bytes done, bytes wanted); false where they end before it is full."""
    view, done = memoryview(values.reshape(-1).view(np.uint8)), 0
    while done < len(view):
        piece = read(done, min(len(view) - done, _PIECE_BYTES))
        if not piece:
            return False
        view[done : done + len(piece)] = piece
        done += len(piece)
    return True


def _read_at(file: BinaryIO, offset: int, count: int) -> bytes:
    """Bytes of an open file; where the system can, without a place in it that processes after a fork would share."""
    with contextlib.suppress(AttributeError):
        return os.pread(file.fileno(), count, offset)
    file.seek(offset)
    return file.read(count)
