"""Opens the data set at a place: a table of DualTrack files, tracked recordings, or folders of TUS-REC."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from DualTrackCore.errors import DatasetError, InputError
from DualTrackCore.io import read_calibration
from DualTrackCore.research.datasets.dataset import (
    Dataset,
    Entry,
    Finding,
    Layout,
    overlaps,
    subject_of,
    visible_files,
)
from DualTrackCore.research.datasets.entries import SIMULATED_SETS, FileEntry, simulated_dataset
from DualTrackCore.research.datasets.tus_rec import TusRecFolder

TABLE_NAME = "metadata.csv"
PATH_COLUMN, SPLIT_COLUMN, NAME_COLUMN, LANDMARKS_COLUMN = "processed_sweep_path", "split", "sweep_id", "landmarks_path"
SUBJECT_COLUMN = "subject"
_MAX_HEADER_CHARACTERS = 1 << 16
#: Suffixes of files that may hold tracked frames; .zraw and .raw belong to a .mhd.
SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr", ".h5", ".hdf5")
#: First parts of double suffixes, which are no part of the sweep's name.
_KIND_SUFFIXES = (".igs", ".seq")


def open_dataset(
    place: str | Path,
    *,
    split: str | None = None,
    calibration: str | Path | None = None,
    poses_are: str | None = None,
) -> Dataset:
    """The tracked sweeps of a place; no sweep is opened yet.

    Args:
        place: a folder of TUS-REC 2024 or 2025 (training, validation, test, one subject, or several of these below it),
            a metadata CSV of DualTrack files or its folder, a folder of tracked recordings, a single tracked file, or
            "held-out", "simulated" or "acquisitions" (`./held-out` is a folder of that name).
        split: only the sweeps of this split of a table. Folders, those of TUS-REC as well, say nothing of splits.
        calibration: as :func:`~DualTrackCore.io.load_sweep` takes it, for all sweeps.
        poses_are: origin of poses whose file does not state it (:func:`~DualTrackCore.run.pipeline.with_said_origin`);
            None: unknown, which is no ground truth.

    Raises DatasetError: nothing there, an unknown layout, no sweeps, an empty split, a sweep that is listed twice, or a
        subject in two splits.
    """
    if str(place) in SIMULATED_SETS and isinstance(place, str):
        if any(given is not None for given in (split, calibration, poses_are)):
            raise DatasetError(
                f"The sweeps {place!r} have neither splits nor a calibration nor other poses; give none."
            )
        return simulated_dataset(place)
    layout = find_layout(place, calibration=calibration)
    entries = declared(layout.entries(), poses_are)
    if not entries:
        raise DatasetError(f"There are no sweeps in {place}; give a {layout.kind} that holds some.")
    for finding in overlaps(entries):
        raise DatasetError(str(finding))
    dataset = Dataset(layout.name, entries)
    return dataset if split is None else dataset.of_split(split)


def declared(entries: Iterable[Entry], poses_are: str | None) -> tuple[Entry, ...]:
    """The entries with the user's word for the origin of their poses."""
    return tuple(replace(entry, poses_are=poses_are) for entry in entries)


def find_layout(place: str | Path, *, calibration: str | Path | None = None) -> Layout:
    """The layout of the data set at a place.

    Raises DatasetError: nothing is there, or a folder has several tables.
    """
    if not str(place):
        raise DatasetError("The name of the data set is empty; give a folder or a file.")
    place = Path(place)
    calibration = None if calibration is None else Path(calibration)
    for path, what in ((place, "data set"), (calibration, "calibration")):
        if path is not None and not os.path.exists(path):
            raise DatasetError(f"There is no {what} at {path}; check the name.")
    if not place.is_dir():
        return (Table if place.suffix.lower() == ".csv" else SequenceFolder)(place, calibration)
    tables = [place / TABLE_NAME]
    if not tables[0].is_file():
        tables = [path for path in sorted(place.glob("*.csv")) if _is_table(path)]
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise DatasetError(f"{place} has several tables of sweeps: {names}; give one of them instead.")
    if tables:
        return Table(tables[0], calibration)
    tus_rec = TusRecFolder(place, calibration)
    return tus_rec if tus_rec.parts else SequenceFolder(place, calibration)


def _is_table(path: Path) -> bool:
    """Whether a CSV file has the columns of a table of sweeps."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader([file.readline(_MAX_HEADER_CHARACTERS)]), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return {PATH_COLUMN, SPLIT_COLUMN} <= set(header)


def table_rows(path: Path, *needed: str) -> list[dict[str, str]]:
    """The rows of a CSV file by column. Raises DatasetError: it cannot be read, or lacks a column that is needed."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            rows, columns = list(reader), set(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"The table {path} cannot be read: {error}.") from None
    if missing := {*needed} - columns:
        raise DatasetError(f"{path.name} lacks the columns {', '.join(sorted(missing))}.")
    return rows


class Table(Layout):
    """The sweeps of a metadata CSV.

    Columns: `sweep_id`, `processed_sweep_path` (relative to the table), `split`, optional `landmarks_path` and
    `subject` (else the first folder in `sweep_id`), others.
    """

    kind = "DualTrack table"

    def __init__(self, place: Path, calibration: Path | None = None) -> None:
        super().__init__(place, calibration)
        self.name = place.name if place.name != TABLE_NAME else place.resolve().parent.name

    def entries(self) -> tuple[Entry, ...]:
        """See :meth:`Layout.entries`; names are the column sweep_id."""
        entries = []
        for row in self._rows():
            name = row.get(NAME_COLUMN) or Path(row[PATH_COLUMN]).stem
            entry = FileEntry(
                name,
                self._beside(row[PATH_COLUMN]),
                row[SPLIT_COLUMN].strip() or None,
                row.get(SUBJECT_COLUMN) or subject_of(name),
                calibration=self._calibration,
                landmark_file=self._beside(row[LANDMARKS_COLUMN]) if row.get(LANDMARKS_COLUMN) else None,
            )
            entries.append(entry)
        return tuple(entries)

    def findings(self) -> Iterator[Finding]:
        entries = self.entries()
        for entry in entries:
            if entry.split is None:
                yield Finding(self.place, entry.name, "its row has no split", "write train or val there")
        listed = {os.path.abspath(entry.path) for entry in entries}
        for path in visible_files(self.place.parent, ".h5", ".hdf5"):
            if os.path.abspath(path) not in listed:
                yield Finding(path, None, f"no row of {self.place.name} names it", "add a row or remove the file")
        if {entry.split for entry in entries} <= {"train"}:
            what = "the split val is empty" if entries else "it lists no sweep"
            yield Finding(self.place, None, what, "add rows, or move some of the sweeps to that split")

    def _beside(self, path: str) -> Path:
        return self.place.parent / path.replace("\\", "/")

    def _rows(self) -> list[dict[str, str]]:
        rows = table_rows(self.place, PATH_COLUMN, SPLIT_COLUMN)
        if pathless := [number for number, row in enumerate(rows, 2) if not row[PATH_COLUMN].strip()]:
            raise DatasetError(f"{self.place} has no {PATH_COLUMN} in line {pathless[0]}; complete or remove the line.")
        return rows


class SequenceFolder(Layout):
    """All tracked recordings in a folder and below (one file per sweep), or one file.

    A PLUS recording without ImageToProbe needs the calibration of its probe: the given one, else the PLUS configuration
    of the same name beside it, else the only .xml of the nearest folder upwards that has any, up to the given folder.
    """

    kind = "tracked recordings"

    def entries(self) -> tuple[Entry, ...]:
        """See :meth:`Layout.entries`; names are paths below the folder, without suffixes if that is unique."""
        root = self.place if self.place.is_dir() else self.place.parent
        paths = visible_files(root, *SUFFIXES) if root == self.place else [self.place]
        short = [_short(path.relative_to(root)) for path in paths]
        counts = Counter(short)
        entries = []
        for path, name in zip(paths, short, strict=True):
            name = name if counts[name] == 1 else path.relative_to(root).as_posix()
            nearby = _configuration_near(path, root) if self._calibration is None else None
            given = {"calibration": self._calibration, "calibration_nearby": nearby}
            entries.append(FileEntry(name, path, subject=subject_of(name), **given))
        return tuple(entries)

    def findings(self) -> Iterator[Finding]:
        if self.place.is_dir() and not visible_files(self.place, *SUFFIXES):
            problem = f"there is no tracked recording in it ({', '.join(SUFFIXES)})"
            yield Finding(self.place, None, problem, "give another folder")
        if self._calibration is None or self._calibration.suffix.lower() == ".csv":
            return
        try:
            read_calibration(self._calibration)
        except InputError as error:
            yield Finding(self._calibration, None, "cannot be used", "give the calibration of this probe", str(error))


def _short(path: Path) -> str:
    """A path without the suffixes of its format: "a/b" for "a/b.igs.mha"."""
    path = path.with_suffix("")
    return (path.with_suffix("") if path.suffix.lower() in _KIND_SUFFIXES else path).as_posix()


def _configuration_near(path: Path, root: Path) -> Path | None:
    """The PLUS configuration of a recording below `root`; None if there are none or several."""
    own = path.with_name(f"{_short(Path(path.name))}.xml")
    if own.is_file():
        return own
    for folder in path.parents:
        configurations = sorted(p for p in folder.glob("*.xml") if not p.name.startswith("."))
        if configurations:
            return configurations[0] if len(configurations) == 1 else None
        if folder == root:
            break
    return None
