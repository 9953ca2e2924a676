"""What training keeps on disk between runs: known by what it was made of, and made by one process at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from DualTrackCore.errors import OutputError, named
from DualTrackCore.memory import format_bytes
from DualTrackCore.progress import Reporter
from DualTrackCore.sweep import Sweep

#: Seconds after which a process that waits for another asks whether it should stop.
_PATIENCE_S = 0.5


def content_key(name: str, sweep: Sweep) -> str:
    """Text that changes when the frames of a sweep do.

    It holds their number, size and spacing, the first, the middle and the last of them, and size and time of the file.

    Args:
        name: of the sweep: its file, if it has one.
        sweep: with frames.
    """
    count, digest = len(sweep), hashlib.sha256()
    for frame in sorted({0, count // 2, count - 1}):
        digest.update(sweep.window(frame, frame + 1).tobytes())
    written = None
    with contextlib.suppress(OSError):
        facts = Path(name).stat()
        written = facts.st_size, facts.st_mtime_ns
    said = [sweep.frames.shape, sweep.spacing_mm, digest.hexdigest(), written]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:24]


def require_room(folder: Path, needed: int, what: str) -> None:
    """Raise :class:`OutputError` where `what` (the beginning of the sentence) takes more bytes than are free."""
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise OutputError(
            f"{what} take {format_bytes(needed)} in {folder} and {format_bytes(free)} are free there; free some space, "
            f"or put the runs on another disk ({named('runs')})."
        )


@contextlib.contextmanager
def alone(folder: Path, reporter: Reporter, say: Callable[[str], None] | None) -> Iterator[None]:
    """Let one process at a time into the block, on this machine and on others that share the folder.

    Args:
        folder: made if need be.
        reporter: asked while another process is in the block.
        say: receives a sentence if one is.

    Raises:
        OutputError: the folder cannot be written.
        Cancelled: the caller asked to stop.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "lock")
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(blocking=False)
        if not lock.is_locked and say is not None:
            say(f"Another process writes into {folder}; waiting for it.")
        while not lock.is_locked:
            reporter.check()
            with contextlib.suppress(filelock.Timeout):
                lock.acquire(timeout=_PATIENCE_S)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"Cannot write into {folder}: {reason}; choose another folder ({named('runs')}).") from error
    try:
        yield
    finally:
        lock.release()
