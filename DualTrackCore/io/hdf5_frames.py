"""HDF5 files of frames: checked before use, read in windows.

A sweep file must hold its own data. Links to other files, external storage and virtual data sets are refused, so that
opening a sweep reads no other file. So are data sets that claim more than they store: they could exhaust the memory.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.errors import DualTrackError, InputError, reason_of
from DualTrackCore.io.sequence_parts import Axes, require_plausible_clip
from DualTrackCore.io.stack_axes import stack_axes
from DualTrackCore.memory import naming_memory, require_memory
from DualTrackCore.pixels import FilePixels, WindowSource

if TYPE_CHECKING:
    import h5py

#: Largest compression of deflate, the strongest common filter; larger claims are false.
_MAX_COMPRESSION = 1040

#: Largest chunk of a data set, bytes: it is unpacked as a whole to read one frame.
_MAX_CHUNK_BYTES = 1 << 30

#: Files that a process keeps open for many short reads, at 0.6 MB each.
_MOST_OPEN = 256

#: Largest table of poses, times and the like, in numbers.
_MAX_TABLE_VALUES = 1 << 26


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Context with the file, open for reading. Raises InputError: HDF5 cannot read it."""
    import h5py

    with _reading(path), h5py.File(path, "r", locking="best-effort") as file:
        yield file


@functools.lru_cache(maxsize=_MOST_OPEN)
def _kept_open(path: Path, state: tuple[int, int], process: int) -> h5py.File:
    """The file, which stays open until others push it out; never the one before a change or a fork."""
    del state, process
    import h5py

    # Each read asks for a chunk once: a cache of chunks (8 MB a file) would hold what nobody asks for again.
    return h5py.File(path, "r", locking="best-effort", rdcc_nbytes=0)


def close_kept_files() -> None:
    """Close the files that :meth:`Hdf5Frames.kept_open` has left open in this process."""
    _kept_open.cache_clear()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of HDF5 in the block into sentences about the file."""
    try:
        with naming_memory(f"Reading {path.name}"):
            yield
    except DualTrackError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = reason_of(error)
        raise InputError(f"{path.name} cannot be read as HDF5, it is damaged or cut short ({reason}).") from error


def member(file: h5py.File, name: str) -> h5py.Dataset | None:
    """The data set `name` of the file, checked; None if there is none.

    Raises InputError: it is no data set of this file, or claims more than it stores.
    """
    import h5py

    link = file.get(name, getlink=True)
    if link is None:
        return None
    source = Path(file.filename).name
    if not isinstance(link, h5py.HardLink):
        raise InputError(
            f"{source} refers to {name!r} through a link; a sweep file must hold its own data: copy it in."
        )
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{source} holds {name!r} as a {type(dataset).__name__.lower()}; expected a data set.")
    if dataset.is_virtual or dataset.external:
        raise InputError(f"{source} keeps {name!r} in other files; a sweep file must hold its own data: copy it in.")
    _require_stored(dataset, name, source, Path(file.filename).stat().st_size)
    return dataset


def _require_stored(dataset: h5py.Dataset, name: str, source: str, file_bytes: int) -> None:
    """Raises InputError: the data set is larger than its stored bytes can be, or has too large chunks."""
    if dataset.shape is None:
        raise InputError(f"{source} holds an empty {name!r}.")
    claimed = dataset.size * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    packed = dataset.chunks is not None and dataset.id.get_create_plist().get_nfilters() > 0
    if stored > file_bytes or claimed > stored * (_MAX_COMPRESSION if packed else 1):
        raise InputError(
            f"{source} claims {claimed} bytes of {name!r} and stores {min(stored, file_bytes)}; "
            "the file is incomplete or damaged: write it again."
        )
    chunk_bytes = int(np.prod(dataset.chunks or (0,), dtype=np.float64)) * dataset.dtype.itemsize
    if chunk_bytes > _MAX_CHUNK_BYTES:
        raise InputError(
            f"{source} packs {name!r} in pieces of {chunk_bytes} bytes; the limit is {_MAX_CHUNK_BYTES}: "
            "write it again with one frame a piece."
        )
    require_memory(chunk_bytes, f"A piece of {name!r} in {source}")


def read_table(file: h5py.File, name: str, shape: tuple[int | None, ...]) -> np.ndarray | None:
    """A small data set as float64, None if there is none; `shape` has None for axes of any length.

    Tables of MATLAB are rearranged: it stores vectors as columns or rows, matrices along the last axis, and the axes in
    reverse order.

    Raises InputError: another shape, not numbers, or too many of them.
    """
    dataset = member(file, name)
    if dataset is None:
        return None
    source = Path(file.filename).name
    if dataset.dtype.kind not in "biuf" or dataset.size > _MAX_TABLE_VALUES:
        raise InputError(f"{source} holds {dataset.size} values of {dataset.dtype} in {name!r}; expected numbers.")
    require_memory(2 * 8 * dataset.size, f"The table {name!r} of {source}")
    values = dataset[()].astype(np.float64)
    if is_of_matlab(dataset):
        values = values.T
        values = np.moveaxis(values, -1, 0) if len(shape) == 3 and values.shape[:2] == shape[1:] else values
    if len(shape) == 1 and values.size == max(values.shape, default=0):
        values = values.reshape(-1)
    if len(values.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, values.shape, strict=True)):
        expected = ", ".join("any" if n is None else str(n) for n in shape)
        raise InputError(f"{source} holds {name!r} of shape {dataset.shape}; expected [{expected}].")
    return values


def is_of_matlab(dataset: h5py.Dataset) -> bool:
    """Whether MATLAB wrote a data set (version 7.3 files)."""
    return "MATLAB_class" in dataset.attrs


class Hdf5Frames(WindowSource):
    """Frames [N, H, W], or [N, H, W, channels], in an HDF5 file, read on demand.

    The file is opened for every window and closed again; :meth:`kept_open` gives frames that are read more quickly. The
    object can be sent to another process.

    Args:
        path: the file.
        name: of the data set.
        count: number of frames, if something else in the file states it.
        size: (H, W) of the frames, if something else in the file states it.

    Attributes:
        shape: of the frames.
        dtype: of the stored pixels.
        notes: sentences for the user.

    Raises InputError: the data set cannot hold frames.
    """

    def __init__(self, path: Path, name: str, *, count: int | None = None, size: tuple[int, int] | None = None) -> None:
        """Check the data set; reads no pixels."""
        self.path = Path(path).resolve()
        self.name = name
        with opened(self.path) as file:
            dataset = self._dataset(file)
            self._stored, self.dtype = dataset.shape, dataset.dtype
            what = f"{name!r} in {self.path.name}"
            if self.dtype.kind not in "biuf":
                raise InputError(f"{what} holds {self.dtype}; frames must hold whole or real numbers.")
            backwards = is_of_matlab(dataset)
            self._axes, self.notes = stack_axes(self._stored, what, backwards=backwards, count=count, size=size)
            #: Byte of the first pixel where they lie in the file as they are, one after the other; else None.
            self._offset = dataset.id.get_offset() if self._axes == Axes(0, 1, 2) and self.dtype.kind != "b" else None
            self._keeps, self._state = False, _state(self.path)
        self.shape = self._axes.arranged(np.broadcast_to(np.False_, self._stored)).shape
        stored = 0 if self.dtype == np.uint8 else self.dtype.itemsize
        require_plausible_clip(self.path, *self.shape[:3], pixel_bytes=stored)

    def _dataset(self, file: h5py.File) -> h5py.Dataset:
        dataset = member(file, self.name)
        if dataset is None:
            raise InputError(f"{self.path.name} has no {self.name!r}.")
        return dataset

    def grey(self) -> tuple[WindowSource, list[str]]:
        """The frames as [N, H, W] uint8, read on demand, and all notes."""
        if self.dtype == np.uint8 and len(self.shape) == 3:
            return self, self.notes
        from DualTrackCore.grey import grey_frames

        grey, notes = grey_frames(self, has_colour=len(self.shape) == 4)
        return grey, [*self.notes, *notes]

    def window(self, start: int, stop: int) -> np.ndarray:
        """Frames start to stop - 1, read now.

        Raises InputError: the file has changed, is missing, or is damaged there.
        """
        return self.part(start, stop, slice(None), slice(None))

    def part(self, start: int, stop: int, rows: slice, columns: slice) -> np.ndarray:
        if not self._keeps:
            with opened(self.path) as file:
                return self._selected(self._dataset(file), start, stop, rows, columns)
        with _reading(self.path):
            if _state(self.path) != self._state:
                raise self._changed()
            if self._offset is not None:
                return FilePixels(self.path, self._offset, self.shape, self.dtype).part(start, stop, rows, columns)
            file = _kept_open(self.path, self._state, os.getpid())
            return self._selected(self._dataset(file), start, stop, rows, columns)

    def kept_open(self) -> Hdf5Frames:
        """The same frames for many short reads: no process opens the file more than once, as HDF5 needs 1 to 2 ms.

        Pixels that lie in the file as they are, without chunks, are read without HDF5. For others, each process keeps
        the files open that it used last, until :func:`close_kept_files`.
        """
        kept = copy.copy(self)
        kept._keeps = True
        return kept

    def _selected(self, dataset: h5py.Dataset, start: int, stop: int, rows: slice, columns: slice) -> np.ndarray:
        if (dataset.shape, dataset.dtype) != (self._stored, self.dtype):
            raise self._changed()
        wanted, last = [slice(None)] * dataset.ndim, dataset.ndim - 1
        for axis, chosen in (
            (self._axes.frames, slice(start, stop)),
            (self._axes.down, rows),
            (self._axes.across, columns),
        ):
            wanted[last - axis] = chosen
        return self._axes.arranged(dataset[tuple(wanted)])

    def _changed(self) -> InputError:
        return InputError(f"{self.path.name} has changed since it was opened; load it again.")


def _state(path: Path) -> tuple[int, int]:
    """What changes with a file: its size, and when it was written."""
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns
