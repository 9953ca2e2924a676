"""Pixels that lie in files and are read in windows, and the temporary file of those that a decoder gives one by one.

Nothing is mapped into memory: where a file is cut short while it is in use, a read ends with a sentence, and a mapping
with a signal that ends the process.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from DualTrackCore.errors import InputError, OutputError
from DualTrackCore.memory import available_memory_bytes, format_bytes, require_memory

#: Frames that are worked on at a time, in bytes as they are stored.
WINDOW_BYTES = 1 << 25
#: Unpacked pixels stay in memory up to this, and up to this part of what may be taken.
_HELD_BYTES, _HELD_PART = 1 << 28, 8
_PIECE_BYTES = 1 << 24


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

    def part(self, start: int, stop: int, rows: slice, columns: slice) -> np.ndarray:
        """`window(start, stop)[:, rows, columns]`; where the file allows it, no more than that is read."""
        return self.window(start, stop)[:, rows, columns]

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
        self._read([(values, start * math.prod(self.shape[1:]))])
        return values

    def part(self, start: int, stop: int, rows: slice, columns: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.shape[1])
        values = np.empty((stop - start, max(last - first, 0), *self.shape[2:]), self.dtype)
        wide = math.prod(self.shape[2:])
        self._read([(band, ((start + i) * self.shape[1] + first) * wide) for i, band in enumerate(values)])
        return values[:, :, columns]

    def _read(self, pieces: Iterable[tuple[np.ndarray, int]]) -> None:
        """Fill arrays from the values that begin at a number, each."""
        try:
            with self._path.open("rb", buffering=0) as file:
                for values, first in pieces:
                    offset = self._offset + first * self.dtype.itemsize
                    if not _fill(values, lambda done, count, at=offset: _read_at(file, at + done, count)):
                        raise InputError(f"{self._path.name} was cut short while it was in use; copy it again.")
        except OSError as error:
            raise InputError(f"Cannot read {self._path}: {error.strerror or error}.") from error


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
