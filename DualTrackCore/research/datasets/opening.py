"""What a place holds: a data set of one of the known layouts."""

from __future__ import annotations

from pathlib import Path

from DualTrackCore.errors import DatasetError
from DualTrackCore.research.datasets.dataset import Dataset
from DualTrackCore.research.datasets.layout import Layout, overlaps
from DualTrackCore.research.datasets.sequences import SequenceFolder
from DualTrackCore.research.datasets.simulated_entries import SIMULATED_SETS, simulated_dataset
from DualTrackCore.research.datasets.sweep_table import Table
from DualTrackCore.research.datasets.tus_rec import TusRecFolder


def open_dataset(place: str | Path, *, split: str | None = None, calibration: str | Path | None = None) -> Dataset:
    """The tracked sweeps of a place; none of them is opened yet.

    Args:
        place: a folder of TUS-REC 2024 or 2025 (training, validation, one subject, or several of these below it), a
            metadata CSV of DualTrack files or the folder that has one, a folder of tracked recordings, a single tracked
            file, or one of the words "held-out" and "simulated" (`./held-out` is a folder of that name).
        split: only the sweeps of this split. In TUS-REC `frames_transfs` is "train" and `frames` with `transfs` "val".
        calibration: as :func:`~DualTrackCore.io.load_sweep` takes it, for all sweeps.

    Raises:
        DatasetError: nothing there, no layout that is known, no sweeps, an empty split, or a sweep that is there twice.
    """
    if str(place) in SIMULATED_SETS and isinstance(place, str):
        if split is not None or calibration is not None:
            raise DatasetError(f"The sweeps {place!r} have neither splits nor a calibration; leave both out.")
        return simulated_dataset(place)
    layout = find_layout(place, calibration=calibration)
    entries = layout.entries()
    if not entries:
        raise DatasetError(f"There are no sweeps in {place}; give a {layout.kind} that holds some.")
    for finding in overlaps(entries):
        raise DatasetError(str(finding))
    dataset = Dataset(layout.name, entries)
    return dataset if split is None else dataset.of_split(split)


def find_layout(place: str | Path, *, calibration: str | Path | None = None) -> Layout:
    """How the data set at a place is laid out.

    Raises:
        DatasetError: nothing is there, or a folder has several tables.
    """
    if not str(place):
        raise DatasetError("The name of the data set is empty; give a folder or a file.")
    place = Path(place)
    calibration = None if calibration is None else Path(calibration)
    for path, what in ((place, "data set"), (calibration, "calibration")):
        if path is not None and not _exists(path):
            raise DatasetError(f"There is no {what} at {path}; check the name.")
    if not place.is_dir():
        return (Table if place.suffix.lower() == ".csv" else SequenceFolder)(place, calibration)
    table = Table.found_in(place)
    if table is not None:
        return Table(table, calibration)
    return (TusRecFolder if TusRecFolder.recognises(place) else SequenceFolder)(place, calibration)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
