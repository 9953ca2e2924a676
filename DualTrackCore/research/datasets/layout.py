"""What every layout of a data set offers: its sweeps, and what is wrong with the whole of it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from DualTrackCore.research.datasets.dataset import Entry, Finding


class Layout(ABC):
    """How a data set lies in files.

    Attributes:
        name: what to call the data set.
        kind: words for people.
    """

    name: str
    kind: str

    @abstractmethod
    def entries(self) -> tuple[Entry, ...]:
        """The sweeps, in a fixed order, names not yet known to be unique; no sweep is opened.

        Raises:
            DatasetError: the list itself cannot be read.
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
        first = by_name.setdefault(entry.name, entry)
        if first is entry:
            first = by_file.setdefault(os.path.abspath(entry.path), entry)
        if first is entry:
            continue
        splits = sorted({split for split in (first.split, entry.split) if split})
        if len(splits) == 2:
            problem = f"the sweep {entry.name} is in two splits, {splits[0]} and {splits[1]}"
        else:
            problem = f"the sweep {entry.name} is listed twice"
        same_file = os.path.abspath(first.path) == os.path.abspath(entry.path)
        other = "" if same_file else f", the other file is {first.path}"
        yield Finding(entry.path, entry.name, problem + other, "keep it in one place")


def visible_files(folder: Path, *suffixes: str) -> list[Path]:
    """Files of these endings in a folder and below, sorted; hidden ones (unfinished or of the system) left out."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(place, name) for name in files if not name.startswith(".") and name.lower().endswith(tuple(suffixes))
        ]
    return sorted(found)
