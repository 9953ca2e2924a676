"""Folders of tracked recordings, one file a sweep, and single files.

A PLUS recording needs the calibration of its probe where it has no ImageToProbe of its own: the one that is given, else
the PLUS configuration of the same name beside it, else the only .xml in its folder or in the next one above, up to the
given folder, that has any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from DualTrackCore.errors import InputError
from DualTrackCore.io import read_calibration
from DualTrackCore.research.datasets.dataset import Entry, Finding
from DualTrackCore.research.datasets.file_entry import FileEntry
from DualTrackCore.research.datasets.layout import Layout, visible_files

#: Endings of the files that may hold tracked frames; .zraw and .raw belong to a .mhd.
SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr", ".h5", ".hdf5")

#: Parts of names that say what kind of file it is, not which sweep.
_KIND_SUFFIXES = (".igs", ".seq")


class SequenceFolder(Layout):
    """All tracked recordings of a folder and below it, or one file."""

    kind = "tracked recordings"

    def __init__(self, place: Path, calibration: Path | None = None) -> None:
        self.place, self.name, self._calibration = place, place.resolve().name, calibration

    def entries(self) -> tuple[Entry, ...]:
        """See :meth:`Layout.entries`; names are paths below the folder, without endings where that is unique."""
        if not self.place.is_dir():
            return (self._entry(_short(Path(self.place.name)), self.place, self.place.parent),)
        paths = visible_files(self.place, *SUFFIXES)
        counts = Counter(_short(path.relative_to(self.place)) for path in paths)
        found = []
        for path in paths:
            inner = path.relative_to(self.place)
            name = _short(inner) if counts[_short(inner)] == 1 else inner.as_posix()
            found.append(self._entry(name, path, self.place))
        return tuple(found)

    def findings(self) -> Iterator[Finding]:
        """See :meth:`Layout.findings`."""
        if self.place.is_dir() and not visible_files(self.place, *SUFFIXES):
            yield Finding(
                self.place, None, f"there is no tracked recording in it ({', '.join(SUFFIXES)})", "give another folder"
            )
        if self._calibration is None:
            return
        try:
            if self._calibration.suffix.lower() != ".csv":
                read_calibration(self._calibration)
        except InputError as error:
            yield Finding(self._calibration, None, "cannot be used", "give the calibration of this probe", str(error))

    def _entry(self, name: str, path: Path, root: Path) -> Entry:
        nearby = _configuration_near(path, root) if self._calibration is None else None
        return FileEntry(name, path, calibration=self._calibration, calibration_nearby=nearby)


def _short(path: Path) -> str:
    """A path without the endings of its format: "a/b" for "a/b.igs.mha"."""
    path = path.with_suffix("")
    return (path.with_suffix("") if path.suffix.lower() in _KIND_SUFFIXES else path).as_posix()


def _configuration_near(path: Path, root: Path) -> Path | None:
    """The PLUS configuration that belongs to a recording, as the module says; None where none or several might."""
    own = path.parent / f"{Path(_short(Path(path.name))).name}.xml"
    if own.is_file():
        return own
    folder = path.parent
    while True:
        found = sorted(p for p in folder.glob("*.xml") if not p.name.startswith("."))
        if found:
            return found[0] if len(found) == 1 else None
        if folder == root or root not in folder.parents:
            return None
        folder = folder.parent
