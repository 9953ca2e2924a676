"""HDF5 files of frames: opened with suspicion, read in windows.

A sweep file must hold its own data. Links to other files, external storage and virtual data sets are
refused, so that opening a sweep never reads anything but the sweep; data sets that claim more than they
store are refused, so that a small file cannot ask for a large allocation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.errors import DualTrackError, InputError, reason_of
from DualTrackCore.io.sequence_parts import require_plausible_clip
from DualTrackCore.memory import naming_memory, require_memory
from DualTrackCore.pixels import WindowSource

if TYPE_CHECKING:
    import h5py

#: The most that deflate, the strongest common filter, can shrink data; beyond it the claim cannot be honest.
_MAX_COMPRESSION = 1040

#: Largest chunk that is unpacked to read one frame of it, bytes.
_MAX_CHUNK_BYTES = 1 << 30

#: Largest table of poses, times and the like, in numbers.
_MAX_TABLE_VALUES = 1 << 26


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading; what HDF5 finds wrong becomes an :class:`InputError` naming the file."""
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
    """The data set `name` of the file, checked; None where there is none.

    Raises:
        InputError: the name leads elsewhere, or the data set claims more than it stores.
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
    """Refuse a data set whose claimed size its stored bytes cannot make."""
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
    """A small data set as float64, None where there is none; `shape` has None for axes of any length.

    Raises:
        InputError: another shape, not numbers, or absurdly many of them.
    """
    dataset = member(file, name)
    if dataset is None:
        return None
    source = Path(file.filename).name
    if len(dataset.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, dataset.shape, strict=True)):
        expected = ", ".join("any" if n is None else str(n) for n in shape)
        raise InputError(f"{source} holds {name!r} of shape {dataset.shape}; expected [{expected}].")
    if dataset.dtype.kind not in "biuf" or dataset.size > _MAX_TABLE_VALUES:
        raise InputError(f"{source} holds {dataset.size} values of {dataset.dtype} in {name!r}; expected numbers.")
    require_memory(2 * 8 * dataset.size, f"The table {name!r} of {source}")
    return dataset[()].astype(np.float64)


class Hdf5Frames(WindowSource):
    """Frames [N, H, W] uint8 in an HDF5 file, read when they are asked for.

    The file is opened for every window and closed again: nothing stays open, nothing stays in memory, and
    the object can be sent to another process.
    """

    def __init__(self, path: Path, name: str) -> None:
        """Check that the data set `name` of the file `path` can be frames; no pixel is read."""
        self.path = Path(path).resolve()
        self.name = name
        with opened(self.path) as file:
            self.shape: tuple[int, int, int] = self._checked(file).shape
        self.dtype = np.dtype(np.uint8)

    def _checked(self, file: h5py.File) -> h5py.Dataset:
        dataset = member(file, self.name)
        source = self.path.name
        if dataset is None:
            raise InputError(f"{source} has no {self.name!r}.")
        if len(dataset.shape) != 3 or dataset.dtype != np.uint8:
            raise InputError(
                f"{source} holds {self.name!r} as {dataset.dtype} of shape {dataset.shape}; "
                "expected 8-bit grey frames, uint8 [frames, rows, columns]: convert them first."
            )
        require_plausible_clip(self.path, *dataset.shape, pixel_bytes=0)
        return dataset

    def window(self, start: int, stop: int) -> np.ndarray:
        """Frames start to stop - 1 as [n, H, W] uint8, read now.

        Raises:
            InputError: the file has changed, gone, or is damaged there.
        """
        with opened(self.path) as file:
            dataset = self._checked(file)
            if dataset.shape != self.shape:
                raise InputError(f"{self.path.name} has changed since it was opened; load it again.")
            return dataset[start:stop]
