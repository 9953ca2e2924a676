"""A file for HDF5 to write to that keeps a full disk from ending the process.

HDF5 cannot close a file that it could not flush, and crashes when the program ends. So it writes here through a Python
file; after the first failure everything is accepted and thrown away, HDF5 closes in peace, and the failure is raised.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import h5py


@contextlib.contextmanager
def written(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file at `path`, closed at the end.

    Raises:
        OSError: what first went wrong with writing.
    """
    with _Sink(path) as sink:
        try:
            with h5py.File(sink, "w") as file:
                yield file
                file.flush()
                sink.require_success()
        except (OSError, RuntimeError):
            sink.require_success()  # the cause goes before what HDF5 makes of it
            raise
        sink.require_success()


class _Sink(io.FileIO):
    """The part of a binary file that h5py uses; see the module for what is unusual about it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._failure: OSError | None = None

    def require_success(self) -> None:
        """Raise the first failure, if there was one."""
        if self._failure is not None:
            raise self._failure

    def write(self, data: memoryview) -> int:
        """Write all of `data`, or keep the failure and drop it."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self._failure is None:
            try:
                done += super().write(view[done:])
            except OSError as error:
                self._failure = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the length, or keep the failure."""
        try:
            return super().truncate(size)
        except OSError as error:
            self._failure = self._failure or error
            return size or 0
