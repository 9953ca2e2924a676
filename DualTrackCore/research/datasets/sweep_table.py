"""DualTrack files and the metadata CSV that lists them.

Columns: `sweep_id`, `processed_sweep_path` (relative to the table), `split`; `index` and others are not read.
`landmarks_path`, which :mod:`~DualTrackCore.research.datasets.convert` adds where there are landmarks, may be missing
or empty.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from DualTrackCore.errors import DatasetError
from DualTrackCore.research.datasets.dataset import Entry, Finding
from DualTrackCore.research.datasets.file_entry import FileEntry
from DualTrackCore.research.datasets.layout import Layout, visible_files

TABLE_NAME = "metadata.csv"

PATH_COLUMN, SPLIT_COLUMN, NAME_COLUMN, LANDMARKS_COLUMN = "processed_sweep_path", "split", "sweep_id", "landmarks_path"

_MAX_HEADER_CHARACTERS = 1 << 16


class Table(Layout):
    """The sweeps of a metadata CSV."""

    kind = "DualTrack table"

    def __init__(self, path: Path, calibration: Path | None = None) -> None:
        self.path, self._calibration = path, calibration
        self.name = path.name if path.name != TABLE_NAME else path.resolve().parent.name

    @staticmethod
    def found_in(folder: Path) -> Path | None:
        """The table of a folder; None where it has none.

        Raises:
            DatasetError: there are several, none of them `metadata.csv`.
        """
        if (folder / TABLE_NAME).is_file():
            return folder / TABLE_NAME
        tables = [path for path in sorted(folder.glob("*.csv")) if _is_table(path)]
        if len(tables) > 1:
            names = ", ".join(path.name for path in tables)
            raise DatasetError(f"{folder} has several tables of sweeps: {names}; give one of them instead.")
        return tables[0] if tables else None

    def entries(self) -> tuple[Entry, ...]:
        """See :meth:`Layout.entries`; names are the column sweep_id."""
        return tuple(
            FileEntry(
                row.get(NAME_COLUMN) or Path(row[PATH_COLUMN]).stem,
                self._beside(row[PATH_COLUMN]),
                row[SPLIT_COLUMN].strip() or None,
                calibration=self._calibration,
                landmark_file=self._beside(row[LANDMARKS_COLUMN]) if row.get(LANDMARKS_COLUMN) else None,
            )
            for row in self._rows()
        )

    def findings(self) -> Iterator[Finding]:
        """See :meth:`Layout.findings`."""
        entries = self.entries()
        for entry in entries:
            if entry.split is None:
                yield Finding(self.path, entry.name, "its row names no split", "write train or val there")
        listed = {os.path.abspath(entry.path) for entry in entries}
        for path in visible_files(self.path.parent, ".h5", ".hdf5"):
            if os.path.abspath(path) not in listed:
                yield Finding(path, None, f"no row of {self.path.name} names it", "add a row or remove the file")
        splits = {entry.split for entry in entries}
        if not entries or splits == {"train"}:
            what = "it lists no sweep" if not entries else "the split val is empty"
            yield Finding(self.path, None, what, "add rows, or move some of the sweeps to that split")

    def _beside(self, path: str) -> Path:
        return self.path.parent / path.replace("\\", "/")

    def _rows(self) -> list[dict[str, str]]:
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file, restval="")
                rows, columns = list(reader), set(reader.fieldnames or ())
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DatasetError(f"The table {self.path} cannot be read: {error}.") from None
        if missing := {PATH_COLUMN, SPLIT_COLUMN} - columns:
            raise DatasetError(f"{self.path.name} lacks the columns {', '.join(sorted(missing))}.")
        if pathless := [number for number, row in enumerate(rows, 2) if not row[PATH_COLUMN].strip()]:
            raise DatasetError(f"{self.path} has no {PATH_COLUMN} in line {pathless[0]}; complete or remove the line.")
        return rows


def _is_table(path: Path) -> bool:
    """Whether a CSV file has the columns of a table of sweeps."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader([file.readline(_MAX_HEADER_CHARACTERS)]), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return {PATH_COLUMN, SPLIT_COLUMN} <= set(header)
