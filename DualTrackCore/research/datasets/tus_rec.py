"""The folders of the TUS-REC challenges of 2024 and 2025.

Frames and poses are together in `frames_transfs/SUBJECT/SCAN.h5` (training data of 2024 and, in its last version, of
2025) or apart in `frames/` and `transfs/` (validation, test, and training data of 2025 as first described; the poses of
a test are not given out). So the folders do not tell the split. Beside them are `calib_matrix.csv`, `landmark/` or
`landmarks/` with one `landmark_SUBJECT.h5` per subject, and perhaps `dataset_keys.h5` with one key per scan, such as
`sub050__RH_Per_L_DtP`. A subject has the same number in both years.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from DualTrackCore.errors import InputError, named
from DualTrackCore.io.hdf5_frames import opened
from DualTrackCore.io.tus_rec import CALIBRATION_NAME, read_calib_matrix
from DualTrackCore.research.datasets.dataset import Entry, Finding, Layout, subject_of, visible_files
from DualTrackCore.research.datasets.entries import FileEntry, same_scan

KEYS_NAME = "dataset_keys.h5"
#: Names of the folders of frames.
_FRAME_FOLDERS = ("frames_transfs", "frames")
_LANDMARK_FOLDERS = ("landmark", "landmarks")
_KEY = re.compile(r"\Asub(\d+)__(.+)\Z")
#: Levels below the given folder that are searched for folders of frames.
_DEPTH = 3


@dataclass(frozen=True)
class _Part:
    """One folder of frames, and the files beside it.

    Attributes:
        frames: the folder `frames_transfs` or `frames`.
        only: the one chosen subject, or None for all.
    """

    frames: Path
    only: str | None = None

    @property
    def root(self) -> Path:
        """The folder of the calibration, the landmarks and the list of keys."""
        return self.frames.parent

    def scans(self, folder: Path) -> dict[str, Path]:
        """Files of `folder`, which has one folder per subject, by name: "050/RH_Per_L_DtP"."""
        inner = folder if self.only is None else folder / self.only
        return {p.relative_to(folder).with_suffix("").as_posix(): p for p in visible_files(inner, ".h5")}

    def landmark_files(self) -> dict[str, Path]:
        """Landmark files by subject."""
        folders = [self.root / name for name in _LANDMARK_FOLDERS]
        files = [path for folder in folders if folder.is_dir() for path in visible_files(folder, ".h5")]
        by_subject = {path.stem.removeprefix("landmark_"): path for path in files}
        return {s: path for s, path in by_subject.items() if self.only in (None, s)}

    def calibration(self) -> Path | None:
        """The calibration in the folders where a reader searches."""
        folders = [self.frames, self.root, *self.root.parents[:1]]
        return next((f / CALIBRATION_NAME for f in folders if (f / CALIBRATION_NAME).is_file()), None)


class TusRecFolder(Layout):
    """TUS-REC data below a folder: training, validation, test or several of them, of one year or both.

    Attributes:
        parts: the folders of frames, at `place` or up to three levels below; empty for other data.
    """

    kind = "TUS-REC folder"

    def __init__(self, place: Path, calibration: Path | None = None) -> None:
        super().__init__(place, calibration)
        self.parts = _parts_below(place)

    def entries(self) -> tuple[Entry, ...]:
        """See :meth:`Layout.entries`; names are "SUBJECT/SCAN"."""
        entries = []
        for part in self.parts:
            landmarks = part.landmark_files()
            for name, path in part.scans(part.frames).items():
                subject = subject_of(name)
                given = {"calibration": self._calibration, "landmark_file": landmarks.get(subject)}
                entries.append(FileEntry(name, path, subject=subject, **given))
        return tuple(entries)

    def findings(self) -> Iterator[Finding]:
        for part in self.parts:
            scans = part.scans(part.frames)
            if not scans:
                yield Finding(part.frames, None, "the folder holds no .h5 scans", "copy them in")
            yield from self._of_calibration(part)
            yield from _of_poses(part, scans)
            yield from _of_keys(part, scans)
            yield from _of_landmarks(part, scans)
            yield from _of_subjects(part, scans)

    def examined(self, entry: Entry) -> Entry:
        if self._calibration is not None or not isinstance(entry, FileEntry):
            return entry
        part = next(p for p in self.parts if p.frames in entry.path.parents)
        return replace(entry, calibration=np.eye(4)) if any(self._of_calibration(part)) else entry

    def _of_calibration(self, part: _Part) -> Iterator[Finding]:
        path = part.calibration() if self._calibration is None else self._calibration
        if path is None:
            problem = f"{CALIBRATION_NAME} is missing, so no scan has a pixel spacing or poses of the image"
            yield Finding(
                part.root, None, problem, f"copy it in from the published data, or give {named('calibration')}"
            )
        elif path.suffix.lower() == ".csv":
            try:
                read_calib_matrix(path)
            except InputError as error:
                yield Finding(path, None, "the calibration cannot be used", "copy the file again", str(error))


def _parts_below(place: Path) -> tuple[_Part, ...]:
    """The folders of frames at, below or (for the folder of one subject) above a place."""
    place = Path(os.path.abspath(place))
    if place.parent.name in _FRAME_FOLDERS and _is_part(place.parent):
        return (_Part(place.parent, place.name),)
    parts = []
    for folder, names, _ in os.walk(place):
        here = Path(folder)
        depth = len(here.relative_to(place).parts)
        if here.name in _FRAME_FOLDERS and _is_part(here):
            parts.append(_Part(here))
            names.clear()
        keep = sorted(name for name in names if not name.startswith(".") and name not in _LANDMARK_FOLDERS)
        names[:] = keep if depth < _DEPTH else []
    return tuple(sorted(parts, key=lambda part: part.frames))


def _is_part(folder: Path) -> bool:
    """Whether a folder of this name belongs to TUS-REC: `frames` could also hold the pictures of one clip."""
    return folder.name == "frames_transfs" or (folder.parent / "transfs").is_dir() or any(folder.glob("*/*.h5"))


def _of_poses(part: _Part, scans: dict[str, Path]) -> Iterator[Finding]:
    """Poses without frames, if these are in separate files; loading shows frames without poses."""
    poses = part.scans(part.root / "transfs") if part.frames.name == "frames" else {}
    for name in sorted(poses.keys() - scans.keys()):
        problem = "there is no file of its frames under frames"
        yield Finding(poses[name], name, problem, "copy it in or remove the poses")


def _keys(path: Path) -> list[str]:
    with opened(path) as file:
        return sorted(file)


def _of_keys(part: _Part, scans: dict[str, Path]) -> Iterator[Finding]:
    """Keys without a scan and scans without a key."""
    path = part.root / KEYS_NAME
    if not path.is_file() or part.only is not None:
        return
    try:
        keys = _keys(path)
    except InputError as error:
        yield Finding(path, None, "the list of scans cannot be read", "copy the file again", str(error))
        return
    scanned = {same_scan(name) for name in scans}
    listed = set()
    for key in keys:
        name = _KEY.sub(r"\1/\2", key)
        listed.add(same_scan(name))
        if same_scan(name) not in scanned:
            yield Finding(path, name, f"the key {key} has no scan", f"copy {part.frames.name}/{name}.h5 in")
    for name in scans:
        if same_scan(name) not in listed:
            yield Finding(path, name, f"no key names the scan {name}", "check that it belongs to this data set")


def _of_landmarks(part: _Part, scans: dict[str, Path]) -> Iterator[Finding]:
    """Landmark files without a subject, keys without a scan, scans without a key."""
    files = part.landmark_files()
    if not files:
        return
    marked, unreadable = set(), set()
    scanned = {same_scan(name) for name in scans}
    for subject, path in files.items():
        try:
            keys = _keys(path)
        except InputError as error:
            unreadable.add(subject)
            yield Finding(path, None, "the landmarks cannot be read", "copy the file again", str(error))
            continue
        for key in keys:
            name = f"{subject}/{key}"
            marked.add(same_scan(name))
            if same_scan(name) not in scanned:
                yield Finding(path, name, f"the key {key} has no scan", f"copy {part.frames.name}/{name}.h5 in")
    for name in scans:
        subject = name.split("/")[0]
        if same_scan(name) not in marked and subject not in unreadable:
            place = files.get(subject, next(iter(files.values())).with_name(f"landmark_{subject}.h5"))
            yield Finding(place, name, f"there are no landmarks of the scan {name}", "copy them in")


def _of_subjects(part: _Part, scans: dict[str, Path]) -> Iterator[Finding]:
    """Missing scans that most subjects have."""
    of_subject: dict[str, set[str]] = {}
    for name in scans:
        subject, _, scan = name.partition("/")
        of_subject.setdefault(subject, set()).add(same_scan(scan))
    counts = Counter(scan for names in of_subject.values() for scan in names)
    usual = {scan for scan, count in counts.items() if 2 * count > len(of_subject)}
    for subject, names in sorted(of_subject.items()):
        for scan in sorted(usual - names):
            path = part.frames / subject / f"{scan}.h5"
            yield Finding(path, f"{subject}/{scan}", "the scan is missing, and most subjects have it", "copy it in")
