"""A data set of tracked sweeps: its entries, and findings: what is wrong with it and what to do about that."""

from __future__ import annotations

from abc import ABC, abstractmethod
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

        Raises:
            DatasetError: it cannot be read, or has no images, no poses or no pixel spacing.
        """

    def landmarks(self, sweep: Sweep | None = None) -> Landmarks | None:
        """Its landmarks; None where nobody set any.

        Args:
            sweep: what :meth:`load` gave, where that has been called already.

        Raises:
            DatasetError: they cannot be read, or lie outside the sweep.
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
        """Args: name: of the whole; entries: of unique names.

        Raises:
            DatasetError: two entries have one name.
        """
        self.name = name
        self._entries = {entry.name: entry for entry in entries}
        self.names: tuple[str, ...] = tuple(self._entries)
        if len(self.names) < len(entries):
            seen: set[str] = set()
            twice = next(entry.name for entry in entries if entry.name in seen or seen.add(entry.name))
            places = [str(entry.path) for entry in entries if entry.name == twice]
            raise DatasetError(f"The sweep {twice} is twice in {name}: {' and '.join(places)}; keep one of the two.")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def entry(self, name: str) -> Entry:
        """The entry of one sweep.

        Raises:
            DatasetError: there is no such sweep.
        """
        try:
            return self._entries[name]
        except KeyError:
            some = ", ".join(self.names[:3]) + (", ..." if len(self) > 3 else "")
            raise DatasetError(f"{self.name} has no sweep {name!r}; it has {some or 'none at all'}.") from None

    def load(self, name: str) -> Sweep:
        """One sweep, with images, poses and a pixel spacing; frames are read when they are asked for.

        Poses that are no rigid motions come marked invalid (`sweep.tracked.valid`); `check_dataset` names them.

        Raises:
            DatasetError: no such sweep, or it cannot be used; the message names the file and the remedy.
        """
        return self.entry(name).load()

    def landmarks(self, name: str) -> Landmarks | None:
        """Landmarks of one sweep; None where there are none.

        Raises:
            DatasetError: no such sweep, or landmarks that cannot be read or lie outside of it.
        """
        return self.entry(name).landmarks()

    def subset(self, names: Iterable[str]) -> Dataset:
        """The same data set with only these sweeps, in this order."""
        return Dataset(self.name, [self.entry(name) for name in names])

    def of_split(self, split: str) -> Dataset:
        """The sweeps of one split.

        Raises:
            DatasetError: the split is empty.
        """
        chosen = [entry.name for entry in self if entry.split == split]
        if not chosen:
            there = ", ".join(sorted({entry.split for entry in self if entry.split})) or "none"
            raise DatasetError(f"{self.name} has no sweep whose split is {split} (splits there: {there}).")
        return self.subset(chosen)
