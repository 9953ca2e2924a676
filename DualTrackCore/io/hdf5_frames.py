"""HDF5 files of frames: checked before use, read in windows.

A sweep file must hold its own data. Links to other files, external storage and virtual data sets are refused, so that
opening a sweep reads no other file. So are data sets that claim more than they store: they could exhaust the memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.errors import DualTrackError, InputError, reason_of
from DualTrackCore.io.sequence_parts import require_plausible_clip
from DualTrackCore.io.stack_axes import stack_axes
from DualTrackCore.memory import naming_memory, require_memory
from DualTrackCore.pixels import WindowSource

if TYPE_CHECKING:
    import h5py

#: Largest compression of deflate, the strongest common filter; larger claims are false.
_MAX_COMPRESSION = 1040

#: Largest chunk of a data set, bytes: it is unpacked as a whole to read one frame.
_MAX_CHUNK_BYTES = 1 << 30

#: Largest table of poses, times and the like, in numbers.
_MAX_TABLE_VALUES = 1 << 26


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Context with the file, open for reading. Raises InputError: HDF5 cannot read it."""
    import h5py

    try:
        with naming_memory(f"Reading {path.name}"), h5py.File(path, "r", locking="best-effort") as file:
            yield file
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

    The file is opened for every window and closed again. So the object can be sent to another process.

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
        with opened(self.path) as file:
            dataset = self._dataset(file)
            if (dataset.shape, dataset.dtype) != (self._stored, self.dtype):
                raise InputError(f"{self.path.name} has changed since it was opened; load it again.")
            wanted = [slice(None)] * dataset.ndim
            wanted[dataset.ndim - 1 - self._axes.frames] = slice(start, stop)
            return self._axes.arranged(dataset[tuple(wanted)])
