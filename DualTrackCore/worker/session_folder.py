"""The temporary folder of one client: its logs and the files of its jobs, removed whatever happens to the client."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

from DualTrackCore.errors import OutputError

_PREFIX = "dualtrack-worker-"
_LOCK = "owner.lock"


class SessionFolder:
    """A folder that is this client's until :meth:`remove`.

    The client keeps a lock in it. What a client left behind that was ended from outside together with its worker, which
    otherwise cleans up after it, is known by the lock that nobody holds any more; the next client removes it.

    Raises:
        OutputError: there is no room for temporary files.
    """

    def __init__(self) -> None:
        _remove_leftovers(Path(tempfile.gettempdir()))
        try:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._lock = _hold(self.path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"No temporary folder can be made: {reason}; free some space or set TMPDIR.") from error

    def remove(self) -> None:
        """Delete the folder with all it holds; a second call does nothing."""
        self._lock.close()
        # Windows lets go of the files of a process some moments after its end.
        for _ in range(20):
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                return
            time.sleep(0.1)


def _hold(folder: Path) -> BinaryIO:
    """The lock file, open and locked; on Windows an open file is one that others cannot delete."""
    if os.name == "nt":
        return (folder / _LOCK).open("wb")
    import fcntl

    new = folder / f"new-{_LOCK}"
    file = new.open("wb")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.replace(new, folder / _LOCK)  # under its name it is never seen without the lock
    return file


def _remove_leftovers(parent: Path) -> None:
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        # Of another user, or gone in the meantime.
        with contextlib.suppress(OSError):
            if not _is_held(lock):
                shutil.rmtree(lock.parent, ignore_errors=True)


def _is_held(lock: Path) -> bool:
    if os.name == "nt":
        try:
            lock.unlink()
        except PermissionError:
            return True
        return False
    import fcntl

    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
