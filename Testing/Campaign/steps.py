"""Commands run in a forked child, in which every step on the file system can be stopped or refused."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

#: Called before a step with its number from 1, its event and its path; may raise OSError or end the process.
Act = Callable[[int, str, str], None]

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
#: The argument that holds the file descriptor of the folder that a path is relative to, by event.
_FOLDER_ARGUMENT = {"os.remove": 1, "os.rmdir": 1, "os.rename": 2, "os.mkdir": 2, "os.chmod": 2}


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes:
        code: exit code; negative the number of the signal that ended it.
        err: what it wrote to stderr.
        seconds: how long it took.
        hung: whether it did not end within its limit.
        events: its steps as "event path", where it ended by itself.
    """

    code: int
    err: str
    seconds: float
    hung: bool = False
    events: list[str] = field(default_factory=list)


class Steps:
    """An audit hook that counts the changes of files and folders below one folder."""

    def __init__(self, folder: Path, act: Act | None) -> None:
        self.folder, self.act, self.events = str(folder.resolve()), act, []

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITING:
                return
        elif event in _CHANGES:
            path = arguments[0]
        else:
            return
        if isinstance(path, int) or path is None:
            return
        place = self._whole(os.fsdecode(path), event, arguments)
        if place != self.folder and not place.startswith(self.folder + os.sep):
            return
        self.events.append(f"{event} {place[len(self.folder) + 1 :]}")
        if self.act is not None:
            self.act(len(self.events), event, place)

    def _whole(self, path: str, event: str, arguments: tuple) -> str:
        index = _FOLDER_ARGUMENT.get(event)
        descriptor = -1 if index is None or index >= len(arguments) else arguments[index]
        if isinstance(descriptor, int) and descriptor >= 0 and not os.path.isabs(path):
            with contextlib.suppress(OSError):
                path = os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), path)
        return os.path.abspath(path)


def in_child(
    work: Callable[[], int],
    folder: Path,
    *,
    act: Act | None = None,
    before: Callable[[], None] | None = None,
    outside: tuple[float, int] | None = None,
    limit_s: float = 60.0,
) -> Ending:
    """Run `work` in a forked child and wait for it.

    Args:
        work: returns the exit code.
        folder: steps below it count.
        act: called before each step.
        before: called in the child first, for limits.
        outside: seconds after which this process sends a signal, and the signal.
        limit_s: the child is killed after so long; `err` then says where it was.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    words, steps = _Pipe(), _Pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(work, folder, words, steps, act, before)
    code, hung = _wait(child, started, outside, limit_s, (words, steps))
    err, events = words.whole().decode("utf-8", "replace"), steps.whole()
    return Ending(code, err, time.monotonic() - started, hung, json.loads(events) if events else [])


class _Pipe:
    """What a child writes; a pipe, because limits of file sizes do not touch it."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self._parts: list[bytes] = []

    def drain(self) -> None:
        """Take what is there."""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self.reading, 65536):
                self._parts.append(part)

    def whole(self) -> bytes:
        """All that was written, after the child's end."""
        self.drain()
        os.close(self.reading)
        os.close(self.writing)
        return b"".join(self._parts)


def _child(
    work: Callable[[], int], folder: Path, words: _Pipe, events: _Pipe, act: Act | None, before: Callable | None
) -> None:
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(words.writing, 2)
        faulthandler.register(signal.SIGUSR1, file=2)
        tempfile.tempdir = None
        steps = Steps(folder, act)
        if before is not None:
            before()
        sys.addaudithook(steps)
        code = work()
        steps.act = None
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(events.writing, json.dumps(steps.events).encode())
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(
    child: int, started: float, outside: tuple[float, int] | None, limit_s: float, pipes: tuple[_Pipe, ...]
) -> tuple[int, bool]:
    hung = False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), hung
        for pipe in pipes:
            pipe.drain()
        passed = time.monotonic() - started
        if outside is not None and passed >= outside[0]:
            os.kill(child, outside[1])
            outside = None
        if passed > limit_s and not hung:
            hung = True
            os.kill(child, signal.SIGUSR1)
            time.sleep(0.2)
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
