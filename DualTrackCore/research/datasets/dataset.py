"""A data set of tracked sweeps: its entries, how it lies in files, and what is wrong with it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from DualTrackCore.errors import DatasetError
from DualTrackCore.files import plain_values
from DualTrackCore.landmarks import Landmarks
from DualTrackCore.sweep import Sweep

#: Remedy for a file that is damaged.
COPY_AGAIN = "copy the file again, or leave the sweep out"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        path: the file or folder.
        sweep: name of the sweep that it is about; None for the data set as a whole.
        problem: what is wrong, a clause without a full stop.
        remedy: what to do, a clause without a full stop.
        reason: the sentence of the error that showed it; empty where there was none.
    """

    path: Path
    sweep: str | None
    problem: str
    remedy: str
    reason: str = ""

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.path}: {self.problem}; {self.remedy}.{reason}"

    def as_json(self) -> dict[str, str | None]:
        """Plain values."""
        return plain_values(self)


@dataclass(frozen=True)
class Entry(ABC):
    """One sweep of a data set: what it is called, and where it lies. Plain values, so it can go to other processes.

    Attributes:
        name: unique in the data set, such as "050/RH_Per_L_DtP".
        path: the file of its frames; for sweeps that are simulated when they are read, a name that no file has.
        split: such as "train" or "val"; None where the data set has none.
    """

    name: str
    path: Path
    split: str | None = None

    @abstractmethod
    def load(self) -> Sweep:
        """The sweep; frames stay in the file until they are asked for.

        Raises DatasetError: it cannot be read, or has no images, no poses or no pixel spacing.
        """

    def landmarks(self, sweep: Sweep | None = None) -> Landmarks | None:
        """Its landmarks; None where nobody set any.

        Args:
            sweep: what :meth:`load` gave, where that has been called already.

        Raises DatasetError: they cannot be read, or lie outside the sweep.
        """
        return None


class Dataset:
    """Tracked sweeps with names. Nothing is read before a sweep is loaded, and then frames in windows only.

    A data set can be sent to other processes: it holds names and paths, no open files and no frames.

    Attributes:
        name: what to call the whole.
        names: of the sweeps, unique, in a fixed order.
    """

    def __init__(self, name: str, entries: Sequence[Entry]) -> None:
        """Raises :class:`DatasetError` where two entries have one name."""
        self.name = name
        self._entries = {entry.name: entry for entry in entries}
        self.names: tuple[str, ...] = tuple(self._entries)
        if len(self.names) < len(entries):
            twice = next(sweep for sweep, count in Counter(e.name for e in entries).items() if count > 1)
            places = [str(entry.path) for entry in entries if entry.name == twice]
            raise DatasetError(f"The sweep {twice} is twice in {name}: {' and '.join(places)}; keep one of the two.")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def entry(self, name: str) -> Entry:
        """The entry of one sweep. Raises DatasetError: there is no such sweep."""
        try:
            return self._entries[name]
        except KeyError:
            some = ", ".join(self.names[:3]) + (", ..." if len(self) > 3 else "")
            raise DatasetError(f"{self.name} has no sweep {name!r}; it has {some or 'none at all'}.") from None

    def load(self, name: str) -> Sweep:
        """One sweep, with images, poses and a pixel spacing.

        Poses that are no rigid motions come marked invalid (`sweep.tracked.valid`); `check_dataset` names them.

        Raises DatasetError: no such sweep, or it cannot be used; the message names the file and the remedy.
        """
        return self.entry(name).load()

    def landmarks(self, name: str) -> Landmarks | None:
        """Landmarks of one sweep; None where there are none.

        Raises DatasetError: no such sweep, or landmarks that cannot be read or lie outside of it.
        """
        return self.entry(name).landmarks()

    def subset(self, names: Iterable[str]) -> Dataset:
        """The same data set with only these sweeps, in this order."""
        return Dataset(self.name, [self.entry(name) for name in names])

    def of_split(self, split: str) -> Dataset:
        """The sweeps of one split. Raises DatasetError: the split is empty."""
        chosen = [entry.name for entry in self if entry.split == split]
        if not chosen:
            there = ", ".join(sorted({entry.split for entry in self if entry.split})) or "none"
            raise DatasetError(f"{self.name} has no sweep whose split is {split} (splits there: {there}).")
        return self.subset(chosen)


class Layout(ABC):
    """How a data set lies in files.

    Args:
        place: the folder or file.
        calibration: that the user gives for all sweeps.

    Attributes:
        name: what to call the data set.
        kind: words for people.
    """

    kind: str

    def __init__(self, place: Path, calibration: Path | None = None) -> None:
        self.place, self.name, self._calibration = place, place.resolve().name, calibration

    @abstractmethod
    def entries(self) -> tuple[Entry, ...]:
        """The sweeps, in a fixed order, names not yet known to be unique; no sweep is opened.

        Raises DatasetError: the list itself cannot be read.
        """

    @abstractmethod
    def findings(self) -> Iterator[Finding]:
        """What is wrong with the set as a whole and comes up in the loading of no sweep; no frame is read."""

    def examined(self, entry: Entry) -> Entry:
        """The entry, or one that loads although its calibration, which `findings` reports once for all, is missing."""
        return entry


def overlaps(entries: Iterable[Entry]) -> Iterator[Finding]:
    """Sweeps that are there twice, by name or file: a mean would count them twice, or mix training and validation."""
    by_name: dict[str, Entry] = {}
    by_file: dict[str, Entry] = {}
    for entry in entries:
        file = os.path.abspath(entry.path)
        first = by_name.setdefault(entry.name, entry)
        if first is entry:
            first = by_file.setdefault(file, entry)
        if first is entry:
            continue
        splits = sorted({split for split in (first.split, entry.split) if split})
        if len(splits) == 2:
            problem = f"the sweep {entry.name} is in two splits, {splits[0]} and {splits[1]}"
        else:
            problem = f"the sweep {entry.name} is listed twice"
        other = "" if os.path.abspath(first.path) == file else f", the other file is {first.path}"
        yield Finding(entry.path, entry.name, problem + other, "keep it in one place")


def visible_files(folder: Path, *suffixes: str) -> list[Path]:
    """Files of these endings in a folder and below, sorted; hidden ones (unfinished or of the system) left out."""
    paths = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [Path(place, name) for name in files if not name.startswith(".") and name.lower().endswith(suffixes)]
    return sorted(paths)
