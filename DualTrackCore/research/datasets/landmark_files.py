"""Landmarks in files: the HDF5 files of TUS-REC, one data set a scan, and a CSV file of this package, one a sweep."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from DualTrackCore.errors import DatasetError, InputError
from DualTrackCore.files import replacing
from DualTrackCore.io.hdf5_frames import opened, read_table
from DualTrackCore.landmarks import Landmarks

#: Columns of the CSV file: frame, column and row, all counted from 0.
_COLUMNS = ("frame", "column", "row")

_MAX_CSV_BYTES = 1 << 26


def same_scan(name: str) -> str:
    """A scan's name with the two spellings of TUS-REC 2025 made one: `RH_rotating` and `RH_rotation`."""
    return f"{name.removesuffix('_rotating')}_rotation" if name.endswith("_rotating") else name


def landmark_keys(path: Path) -> list[str]:
    """The scans of a TUS-REC landmark file.

    Raises:
        InputError: the file cannot be read.
    """
    with opened(path) as file:
        return sorted(file)


def read_landmarks(path: Path, scan: str) -> Landmarks | None:
    """The landmarks of one sweep.

    Args:
        path: HDF5 of TUS-REC (rows of frame from 0, column and row from 1) or CSV of this package.
        scan: which data set of an HDF5 file; either spelling of the rotations.

    Returns:
        None where an HDF5 file has none for the scan.

    Raises:
        DatasetError: the file cannot be read, or holds something else.
    """
    try:
        if path.suffix.lower() == ".csv":
            return _read_csv(path)
        with opened(path) as file:
            keys = [key for key in sorted(file) if same_scan(key) == same_scan(scan)]
            key = scan if scan in keys else keys[0] if keys else None
            rows = None if key is None else read_table(file, key, (None, None))
        return None if rows is None else Landmarks.from_tus_rec(rows)
    except InputError as error:
        raise DatasetError(f"{path}, landmarks of {scan}: {error}") from error


def write_landmarks_csv(landmarks: Landmarks, path: Path) -> None:
    """Write landmarks as CSV with the columns frame, column, row.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for frame, (column, row) in zip(landmarks.frames.tolist(), landmarks.pixels.tolist(), strict=True):
            writer.writerow([frame, repr(column), repr(row)])


def _read_csv(path: Path) -> Landmarks:
    try:
        if path.stat().st_size > _MAX_CSV_BYTES:
            raise InputError(f"{path.name} has more than {_MAX_CSV_BYTES >> 20} MiB; that is no list of landmarks.")
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path.name} cannot be read: {error}.") from None
    if not rows or tuple(rows[0]) != _COLUMNS:
        raise InputError(f"{path.name} does not begin with the columns {', '.join(_COLUMNS)}.")
    try:
        values = np.array([[float(word) for word in row] for row in rows[1:]], np.float64).reshape(-1, 3)
    except ValueError:
        raise InputError(f"{path.name} has a row that is not three numbers: {', '.join(_COLUMNS)}.") from None
    return Landmarks(values[:, 0], values[:, 1:])
