"""What a folder of results holds, and whether that is wholly an earlier result or wholly a newer one."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Path from the place: what is there, a hash of the content or a word for folders and links.
Snapshot = Mapping[str, str]

_TEXTS = {".json", ".yaml", ".csv", ".md", ".html", ".txt", ".mha", ".nrrd"}
_TIME = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(\+\d\d:\d\d|Z)?")
_DURATION = re.compile(rb'("[a-z_]*(?:seconds|_s|ms_per_frame|ms_a_frame)"\s*:\s*)-?[\d.e+-]+')


def snapshot(place: Path) -> dict[str, str]:
    """Everything below a folder; times are taken out of texts before they are hashed."""
    found = {}
    for folder, folders, files in os.walk(place):
        for name in [*folders, *files]:
            path = Path(folder, name)
            found[path.relative_to(place).as_posix()] = _content(path)
    return found


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"link to {os.readlink(path)}"
    if path.is_dir():
        return "folder"
    content = path.read_bytes()
    if path.suffix in _TEXTS:
        content = _DURATION.sub(rb"\1TIME", _TIME.sub(b"TIME", content))
    return hashlib.sha256(content).hexdigest()


def is_hidden(path: str) -> bool:
    """Whether a part of the path is hidden, as names of unfinished results are."""
    return any(part.startswith(".") for part in path.split("/"))


def replace_tree(source: Path | None, target: Path) -> None:
    """Make the content of `target` that of `source`, or empty; `target` itself stays, as it can be a mount."""
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if source is not None:
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


@dataclass(frozen=True)
class References:
    """An earlier and a newer result of one command, and what must not be mixed.

    Attributes:
        old: the place with the earlier result.
        new: the place after the command ran into an empty one.
        after: the place after the command ran over the earlier result, undisturbed.
        measured: patterns of files that state measured times, so that two undisturbed runs may write other bytes.
        units: patterns of the paths that belong together.
        kept: patterns of parts that may stay when a command is stopped, such as finished results of single sweeps.
    """

    old: Snapshot
    new: Snapshot
    after: Snapshot
    units: tuple[str, ...]
    measured: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    events: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def state(self, now: Snapshot) -> tuple[str, list[str]]:
        """Say "old", "new", "stale" (new beside files of the old result) or "mixed", and the paths that show it."""
        states, shown = set(), []
        for unit in self.units:
            state, paths = self._unit_state(unit, now)
            states.add(state)
            shown += paths
        if "mixed" in states:
            return "mixed", shown
        # Units are whole by themselves; between them a command that stops may have finished some.
        return ("new" if states <= {"new", "same"} else "stale" if "stale" in states else "old"), shown

    def _unit_state(self, unit: str, now: Snapshot) -> tuple[str, list[str]]:
        paths = {path for held in (self.old, self.new, now) for path in held if self._counts(path, unit)}
        paths -= self._foreign()
        not_old = [path for path in paths if now.get(path) != self.old.get(path)]
        not_new = [path for path in paths if not self._is_new(path, now)]
        if not not_old:
            return ("same" if not not_new else "old"), []
        if not not_new:
            return "new", []
        # Old files count as stale only where an undisturbed run leaves them, too.
        stale = [path for path in not_new if path not in self.new and now.get(path) == self.after.get(path)]
        if len(stale) == len(not_new):
            return "stale", sorted(stale)
        return "mixed", [f"{path}: {self._describe(path, now)}" for path in sorted({*not_old, *not_new})]

    def _foreign(self) -> set[str]:
        return {path for path in self.old if path.endswith(OWN_FILE)}

    def _counts(self, path: str, unit: str) -> bool:
        return fnmatch.fnmatch(path, unit) and not is_hidden(path) and not _matches(path, self.kept)

    def _is_new(self, path: str, now: Snapshot) -> bool:
        if _matches(path, self.measured):
            return path in now and now[path] != self.old.get(path)
        return now.get(path) == self.new.get(path)

    def _describe(self, path: str, now: Snapshot) -> str:
        if path not in now:
            return "missing"
        if now[path] == self.old.get(path):
            return "old"
        return "new" if self._is_new(path, now) else "neither old nor new"

    def leftovers(self, now: Snapshot, expected: Iterable[str] | None = None) -> list[str]:
        """Paths that neither an undisturbed run leaves nor `expected` names; hidden ones count everywhere."""
        expected = set(self.after if expected is None else expected)
        extra = [path for path in now if path not in expected]
        return sorted(path for path in extra if is_hidden(path) or not _matches(path, self.kept))

    def lost(self, now: Snapshot) -> list[str]:
        """Files of the user that have gone or changed."""
        return [path for path in self._foreign() if now.get(path) != self.old[path]]


#: The system's folder for temporary files, in the place.
TEMPORARY = "temporary"
#: A file of the user in each folder of results; it must stay.
OWN_FILE = "my notes.txt"


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)
