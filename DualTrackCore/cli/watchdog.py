"""A small process beside a command that ends it where native code keeps Python from hearing signals.

Python notes a signal in the system's handler and acts on it later, in the main thread. A library that does not return
keeps it from that, and one that holds the interpreter lock keeps all threads from running. The number of each signal
therefore also goes into a pipe (`signal.set_wakeup_fd`) that this process reads.

After SIGTERM, or Ctrl-C twice, the command has `PATIENCE_S` to say that it heard. Then it is ended with the children
that it has: with exit code 128 + signal where its threads run, by SIGKILL where not. Outputs are staged, so
none is half written. Windows has no such signals; Ctrl-Break ends a command there.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from subprocess import Popen

#: Time from a signal to the end; with the rest of it below 2 s.
PATIENCE_S = 1.6
#: Time that the command has to end by itself once it is told to.
_LAST_S = 0.2
#: Signals of one key press, which forked children write too, come within this time.
_ONE_PRESS_S = 0.1
_POLL_S = 5.0
#: What a command says beside the numbers of signals: that it heard them, and that the next Ctrl-C is its own.
HEARD, OWN_SIGNAL = 0, 255


@contextlib.contextmanager
def watched() -> Iterator[Callable[[int], None]]:
    """Have this process watched; give the function that says `HEARD` or `OWN_SIGNAL`. Only for the main thread."""
    process = _started() if os.name == "posix" and sys.executable else None
    if process is None:
        yield lambda told: None
        return
    import threading

    threading.Thread(target=_obey, args=(process.stdout,), daemon=True).start()
    pipe = process.stdin.fileno()
    os.set_blocking(pipe, False)
    before = signal.set_wakeup_fd(pipe, warn_on_full_buffer=False)

    def tell(told: int) -> None:
        with contextlib.suppress(OSError):
            os.write(pipe, bytes([told]))

    try:
        yield tell
    finally:
        signal.set_wakeup_fd(before)
        process.stdin.close()


def _started() -> Popen | None:
    import subprocess

    with contextlib.suppress(OSError):
        return subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # which keeps Ctrl-C in the terminal from it
        )


def _obey(pipe: BinaryIO) -> None:
    """End this process when it is told to."""
    number = pipe.read(1)
    if number:
        os.write(2, b"dualtrack: Ended at once, as the work did not hear the signal; nothing was written.\n")
        os._exit(128 + number[0])


def watch(command: int) -> None:
    """Read the signals of a command, a process id, from stdin until it ends; end it where it does not hear them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pressed, presses, deadline, last = -_ONE_PRESS_S, 0, None, 0
    while os.getppid() == command:
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            return _end(command, last)
        if not select.select([0], [], [], _POLL_S if deadline is None else deadline - now)[0]:
            continue
        numbers = os.read(0, 64)
        if not numbers:
            return None
        now = time.monotonic()
        for number in numbers:
            if number == signal.SIGINT:
                presses += now - pressed >= _ONE_PRESS_S
                pressed = now
            elif number == OWN_SIGNAL:
                presses -= 1
            if number == HEARD:
                deadline = None
            elif number == signal.SIGTERM or (number == signal.SIGINT and presses > 1):
                deadline, last = deadline or now + PATIENCE_S, number
    return None


def _end(command: int, number: int) -> None:
    children = _children(command)
    with contextlib.suppress(OSError):
        os.write(1, bytes([number]))
    end = time.monotonic() + _LAST_S
    while os.getppid() == command and time.monotonic() < end:
        time.sleep(0.01)
    for process in [*([command] if os.getppid() == command else []), *children]:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)


def _children(command: int) -> list[int]:
    """Process ids of the children of a process and of theirs, without this process."""
    parents = {process: parent for process, parent in _processes() if process != os.getpid()}
    found = [command]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found[1:]


def _processes() -> Iterator[tuple[int, int]]:
    """(id, id of the parent) of all processes."""
    if sys.platform == "linux":
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                # The name, in parentheses, may hold anything.
                yield int(folder.name), int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        return
    import subprocess

    listing = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
    for line in listing.splitlines():
        process, parent = map(int, line.split())
        yield process, parent


if __name__ == "__main__":
    watch(int(sys.argv[1]))
