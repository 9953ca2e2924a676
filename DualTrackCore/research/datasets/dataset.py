"""A data set of tracked sweeps: its entries, its layout in files, and findings about it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from DualTrackCore.errors import DatasetError, named
from DualTrackCore.files import file_identity, plain_values
from DualTrackCore.landmarks import Landmarks
from DualTrackCore.sweep import Sweep

#: Remedy for a file that is damaged.
COPY_AGAIN = "copy the file again, or leave the sweep out"


@dataclass(frozen=True)
class Finding:
    """One fault of a data set.

    Attributes:
        path: the file or folder.
        sweep: name of the sweep; None for the whole data set.
        problem: what is wrong, a clause without a full stop.
        remedy: what to do, a clause without a full stop.
        reason: the sentence of the underlying error, or empty.
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
    """One sweep of a data set: its name and its file. It holds plain values only, so processes can exchange it.

    Attributes:
        name: unique in the data set, such as "050/RH_Per_L_DtP".
        path: the file of its frames; no such file exists for a sweep that is simulated when it is read.
        split: such as "train" or "val"; None if the data set has none.
        subject: who was scanned; None if nothing says it.
    """

    name: str
    path: Path
    split: str | None = None
    subject: str | None = None

    @abstractmethod
    def load(self) -> Sweep:
        """The sweep; frames are read on demand.

        Raises DatasetError: it cannot be read, or has no images, no poses or no pixel spacing.
        """

    def pictures(self) -> Sweep:
        """The sweep for an estimate: as :meth:`load`, but poses may be missing, unknown or estimated."""
        return self.load()

    def landmarks(self, sweep: Sweep | None = None) -> Landmarks | None:
        """Its landmarks; None if it has none.

        Args:
            sweep: result of :meth:`load`, if it was called before.

        Raises DatasetError: they cannot be read, or lie outside the sweep.
        """
        return None


class Dataset:
    """Tracked sweeps with names. A sweep is read when it is loaded, its frames in windows.

    Processes can exchange a data set: it holds names and paths, but no open files and no frames.

    Attributes:
        name: of the data set.
        names: of the sweeps, unique, in a fixed order.
    """

    def __init__(self, name: str, entries: Sequence[Entry]) -> None:
        """Raises :class:`DatasetError` if two entries have the same name."""
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

        Poses that are not rigid are marked invalid (`sweep.tracked.valid`); `check_dataset` names them.

        Raises DatasetError: no such sweep, or it cannot be used.
        """
        return self.entry(name).load()

    def landmarks(self, name: str) -> Landmarks | None:
        """Landmarks of one sweep; None if it has none.

        Raises DatasetError: no such sweep, or landmarks that cannot be read or lie outside the sweep.
        """
        return self.entry(name).landmarks()

    def subset(self, names: Iterable[str]) -> Dataset:
        """The same data set with only these sweeps, in this order."""
        return Dataset(self.name, [self.entry(name) for name in names])

    def of_split(self, split: str) -> Dataset:
        """The sweeps of one split. Raises DatasetError: the split is empty."""
        chosen = [entry.name for entry in self if entry.split == split]
        if not chosen:
            splits = ", ".join(sorted({entry.split for entry in self if entry.split}))
            splits = (
                splits
                or f"none, for folders say nothing of splits; convert the data set, or leave {named('split')} out"
            )
            raise DatasetError(f"{self.name} has no sweep whose split is {split} (splits there: {splits}).")
        return self.subset(chosen)


class Layout(ABC):
    """Layout of a data set in files.

    Args:
        place: the folder or file.
        calibration: the user's calibration for all sweeps, or None.

    Attributes:
        name: of the data set.
        kind: name of the layout, for messages.
    """

    kind: str

    def __init__(self, place: Path, calibration: Path | None = None) -> None:
        self.place, self.name, self._calibration = place, place.resolve().name, calibration

    @abstractmethod
    def entries(self) -> tuple[Entry, ...]:
        """The sweeps in a fixed order, without opening them; names may occur twice.

        Raises DatasetError: the list of sweeps cannot be read.
        """

    @abstractmethod
    def findings(self) -> Iterator[Finding]:
        """Findings about the whole set that loading a sweep does not show; reads no frame."""

    def examined(self, entry: Entry) -> Entry:
        """The entry to check; one with a substitute if the calibration is missing, which `findings` reports once."""
        return entry


def overlaps(entries: Iterable[Entry]) -> Iterator[Finding]:
    """Sweeps listed twice, by name or file (also through links), and subjects in two splits.

    The former would count twice in a mean; both would let training see what validation measures.
    """
    by_name: dict[str, Entry] = {}
    by_file: dict[object, Entry] = {}
    of_subject: dict[str, set[str]] = {}
    for entry in entries:
        file = os.path.abspath(entry.path)
        first = by_name.setdefault(entry.name, entry)
        if first is entry:
            first = by_file.setdefault(file_identity(entry.path) or file, entry)
        if first is entry:
            if entry.subject and entry.split:
                splits = of_subject.setdefault(entry.subject, set())
                if splits and entry.split not in splits:
                    problem = f"the subject {entry.subject} is in two splits, {min(splits)} and {entry.split}"
                    remedy = "keep all sweeps of a subject in one split, for training must not see whom it is tried on"
                    yield Finding(entry.path, entry.name, problem, remedy)
                splits.add(entry.split)
            continue
        splits = sorted({split for split in (first.split, entry.split) if split})
        if len(splits) == 2:
            problem = f"the sweep {entry.name} is in two splits, {splits[0]} and {splits[1]}"
        else:
            problem = f"the sweep {entry.name} is listed twice"
        other = "" if os.path.abspath(first.path) == file else f", the other file is {first.path}"
        yield Finding(entry.path, entry.name, problem + other, "keep it in one place")


def subject_of(name: str) -> str | None:
    """Who was scanned, from the name of a sweep: its first folder, None without one."""
    return name.partition("/")[0] if "/" in name else None


def visible_files(folder: Path, *suffixes: str) -> list[Path]:
    """Files with these suffixes in a folder and below, sorted, without hidden ones (unfinished or of the system)."""
    paths = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [Path(place, name) for name in files if not name.startswith(".") and name.lower().endswith(suffixes)]
    return sorted(paths)
