"""Temporary folders in which outputs are made, and how what they hold takes the place of an earlier output.

A temporary folder lies at the output's place, has a name that begins with ``.dualtrack-``, and is locked. The system
lets go of the lock of a process that has ended; the next one that writes there then removes the folder.

A folder of results is exchanged with the earlier one in one step, where the system can do that (Linux); the other files
in it are linked into the new folder before. Elsewhere, and where a folder has to stay itself (the current folder, a
mount, one in a closed folder), its files are moved one by one. A journal in the folder says so meanwhile, by which
:func:`restore_interrupted` undoes the moves of a process that has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import secrets
import shutil
import sys
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from DualTrackCore.errors import OutputError

_PREFIX = ".dualtrack-"
#: In a folder whose files are being moved.
_JOURNAL = f"{_PREFIX}journal.json"
#: Of a temporary folder, on Windows.
_LOCK = "lock"
#: A lock on a folder that another process removed or exchanged meanwhile is taken anew, this many times.
_LOCK_TRIALS = 9
#: Arguments of renameat2 (linux/fcntl.h, linux/fs.h): paths from the current folder; swap both.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def staging_folder(place: Path) -> Iterator[Path]:
    """A folder in `place` that is this process's alone; what processes that have ended left there goes first."""
    place.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(place)
    with contextlib.ExitStack() as stack:
        for _ in range(_LOCK_TRIALS):
            staging = place / f"{_PREFIX}{secrets.token_hex(8)}"
            staging.mkdir(0o700)  # what is in it may be of a patient
            stack.callback(_remove, staging)
            if stack.enter_context(_locked(staging)):  # else another process has just taken it for a leftover
                break
        yield staging


def restore_interrupted(folder: Path) -> None:
    """Give a folder its earlier files back if a process ended while it moved new ones in; see the module.

    Raises OSError: the folder cannot be written.
    """
    journal = folder / _JOURNAL
    if not journal.is_file():
        return
    try:
        values = json.loads(journal.read_text(encoding="utf-8"))
        staging, results = folder / Path(values["staging"]).name, [Path(name).name for name in values["new"]]
    except (ValueError, KeyError, TypeError):
        return  # not written here
    if not staging.name.startswith(_PREFIX) or staging.is_symlink() or not staging.is_dir():
        journal.unlink(missing_ok=True)
        return
    with _locked(staging) as is_dead:
        if is_dead:
            _move_back(staging, folder, results)


def _remove_leftovers(place: Path) -> None:
    """Remove the temporary folders of processes that have ended; those of living ones are locked."""
    with contextlib.suppress(OSError):
        restore_interrupted(place)
        if (place / _JOURNAL).exists():
            return
        for entry in os.scandir(place):
            if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False):
                _remove_if_dead(Path(entry.path))


def _remove_if_dead(folder: Path) -> None:
    with _locked(folder) as is_dead:
        if is_dead:
            _remove(folder)
    if is_dead:  # Windows keeps the lock until it is closed
        with contextlib.suppress(OSError):
            (folder / _LOCK).unlink(missing_ok=True)
            folder.rmdir()


@contextlib.contextmanager
def _locked(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Lock a folder, and say whether this process has it now; false too where the file system knows no locks."""
    if os.name == "nt":  # an open file is one that others cannot delete
        try:
            (folder / _LOCK).unlink(missing_ok=True)
            file = (folder / _LOCK).open("wb")
        except OSError:
            yield False
            return
        with file:
            yield True
        return
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            has_it = os.path.samestat(os.fstat(descriptor), os.stat(folder))
        except OSError:
            has_it = False
        yield has_it
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Delete a folder as far as possible, closed folders in it too."""
    for parent, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(parent, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def must_stay(folder: Path) -> bool:
    """Whether an existing folder cannot be exchanged as a whole, so that its files are moved."""
    if not folder.is_dir():
        return False
    here = Path(os.path.realpath("."))
    return os.path.ismount(folder) or folder in (here, *here.parents) or not os.access(folder.parent, os.W_OK)


def put_in_place(new: Path, folder: Path, earlier: set[str]) -> None:
    """Give `folder` the files of the folder `new`, which lies in a temporary folder, instead of its earlier ones.

    Args:
        earlier: names of more files that go.

    Raises:
        OutputError: a file there cannot be replaced, or another process writes there now.
        OSError: the system refuses; the earlier files are there.
    """
    _remove_leftovers(new)  # of a single file of the results, if its folder could not be removed
    results = sorted(name for name in os.listdir(new) if not name.startswith(_PREFIX))
    leaving = {*results, *earlier}
    for name in leaving:
        require_replaceable(folder / name)
    if not folder.exists():
        os.rename(new, folder)
        sync(folder.parent)
        return
    with contextlib.ExitStack() as stack:
        for _ in range(_LOCK_TRIALS if os.name != "nt" else 0):  # one process at a time
            if stack.enter_context(_locked(folder, wait=True)):
                break
        _remove_leftovers(folder)
        in_use = any(name.startswith(_PREFIX) for name in os.listdir(folder))
        if in_use or not _exchanged(new, folder, leaving):
            _move_in(new, folder, results, earlier)


def _exchanged(new: Path, folder: Path, leaving: set[str]) -> bool:
    """Link all but what leaves from `folder` into `new`, and exchange both; false if that is not possible here."""
    results = set(os.listdir(new))
    try:
        _link_all(folder, new, leaving)
        _exchange(new, folder)
    except OSError:
        for path in [new / name for name in os.listdir(new) if name not in results]:
            _remove(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        return False
    with contextlib.suppress(OSError):
        sync(folder.parent)
        _link_all(new, folder, leaving)  # what another program has put there meanwhile
        os.utime(folder)
    return True


def _link_all(source: Path, target: Path, left_out: Container[str] = ()) -> None:
    """Link everything in a folder into another, folders with all they hold; what is there already stays."""
    if os.path.ismount(source):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    for entry in os.scandir(source):
        path = target / entry.name
        if entry.name in left_out:
            continue
        if entry.is_dir(follow_symlinks=False):
            path.mkdir(exist_ok=True)
            _link_all(Path(entry.path), path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(entry.path, path, follow_symlinks=False)
    own, wanted = target.stat(), source.stat()
    if (own.st_uid, own.st_gid) != (wanted.st_uid, wanted.st_gid):
        os.chown(target, wanted.st_uid, wanted.st_gid)
    shutil.copystat(source, target)


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders in one step."""
    library = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if not hasattr(library, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if library.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _move_in(new: Path, folder: Path, results: list[str], earlier: set[str]) -> None:
    """Move files in one by one, the earlier ones out of the way; all are moved back if one cannot be moved."""
    with staging_folder(folder) as staging:
        (staging / "old").mkdir()
        os.rename(new, staging / "new")
        journal = staging / "journal.json"
        journal.write_text(json.dumps({"staging": staging.name, "new": results}), encoding="utf-8")
        sync(journal)
        if os.path.lexists(folder / _JOURNAL):
            raise OutputError(f"Cannot write into {folder}: another process writes there now; wait for it.")
        os.rename(journal, folder / _JOURNAL)
        sync(folder)
        try:
            for name in {*results, *earlier}:
                if os.path.lexists(folder / name):
                    os.rename(folder / name, staging / "old" / name)
            for name in results:
                os.rename(staging / "new" / name, folder / name)
            for changed in (staging / "old", folder):
                sync(changed)
            (folder / _JOURNAL).unlink()
        except BaseException:
            _move_back(staging, folder, results)
            raise
        sync(folder)


def _move_back(staging: Path, folder: Path, results: Iterable[str]) -> None:
    """Undo :func:`_move_in`, however far it or another call of this came."""
    for name in results:
        if os.path.lexists(folder / name) and not os.path.lexists(staging / "new" / name):
            os.replace(folder / name, staging / "new" / name)
    for name in os.listdir(staging / "old"):
        os.replace(staging / "old" / name, folder / name)
    sync(folder)
    (folder / _JOURNAL).unlink(missing_ok=True)


def require_replaceable(path: Path) -> None:
    """Raise OutputError if a file cannot take this place."""
    if path.is_dir():
        raise OutputError(f"Cannot write {path}: it is a folder; choose another name.")
    if path.is_file() and not os.access(path, os.W_OK):
        raise OutputError(
            f"Cannot write {path}: the file there is read-only; choose another place or make it writable."
        )


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before anything after this; not all systems sync folders."""
    with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
