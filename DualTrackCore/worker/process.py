"""The worker process as its client sees it: started, listened to, ended with everything it started."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import DualTrackCore
from DualTrackCore.errors import InputError
from DualTrackCore.memory import says_out_of_memory
from DualTrackCore.worker.protocol import decoded_event, encoded

#: Lines of the log that go into a report.
LOG_LINES = 60
#: A process that closed its output is given this long to end by itself, s.
_GRACE_S = 1.0
#: What to do where the memory did not suffice, the end of a sentence.
LESS_MEMORY = "use a smaller chunk, larger voxels or a shorter range of frames, or close other programs"
_CRASHES = {
    0xC0000005: "an access violation",
    0xC00000FD: "a stack overflow",
    0xC0000409: "a damaged stack",
    0xC000001D: "an instruction that this processor does not have",
    0xC0000135: "a missing system library",
}
#: Names of signals by number; a process on Windows is never ended by one.
_SIGNALS = {} if os.name == "nt" else {number.value: number.name for number in signal.Signals}
#: What Slicer's launcher writes where what it started was ended by a signal, which it passes on as code 1.
_LAUNCHER_SAYS = "exit abnormally"
_NO_MEMORY_CODES = (0xC0000017, 0xC000012D)


class WorkerProcess:
    """One running worker.

    Args:
        command: program and arguments; `--folder FOLDER` is added.
        environment: variables for :func:`core_environment`; those of this process where None.
        folder: the client's folder, which the worker removes if the client dies.
        log_path: takes what the process and its libraries print.

    Attributes:
        messages: what the worker said: events of the protocol; `{"event": "unreadable", "line": ...}`; last
            `{"event": "ended"}`. The client may put its own messages there, to be woken.

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None, folder: Path, log_path: Path
    ) -> None:
        self.log_path = log_path
        self.messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._worker_pid: int | None = None
        self._fell_silent = False
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--folder", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=core_environment(os.environ if environment is None else environment),
                **own_group(),
            )
        self._waiter = threading.Thread(target=self._wait, name="DualTrack worker: end", daemon=True)
        self._reader = threading.Thread(target=self._read, name="DualTrack worker: output", daemon=True)
        self._waiter.start()
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether the process is still there."""
        return not self._ended.is_set()

    @property
    def pid(self) -> int:
        """Of the process that computes: where a launcher was started, of what that started, once it has said hello."""
        return self._worker_pid or self._process.pid

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a request; nothing happens if the process has ended, which `messages` will say."""
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(encoded(message))
            self._process.stdin.flush()

    def end(self, timeout_s: float = 10.0) -> None:
        """End the process and what it started, and wait until they have gone."""
        self._kill()
        self._ended.wait(timeout_s)

    def ending(self) -> tuple[str, str]:
        """(kind of failure, what happened as the middle of a sentence) for a process that ended by itself."""
        if self._fell_silent:
            return "crash", "closed its output and was ended; run it again"
        return described_ending(self._process.returncode, self.log_tail())

    def log_tail(self) -> str:
        """The last lines of the log."""
        return last_lines(self.log_path)

    def _kill(self) -> None:
        end_tree({self._process.pid, self.pid})
        with contextlib.suppress(OSError):
            self._process.kill()

    def _wait(self) -> None:
        self._process.wait()
        end_tree({self._process.pid, self.pid})  # what it started outlives it otherwise

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self._process.stdout:
                self._take(line)
        self._waiter.join(_GRACE_S)
        if self._waiter.is_alive():
            self._fell_silent = True
            self._kill()
            self._waiter.join()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        self._ended.set()
        self.messages.put({"event": "ended"})

    def _take(self, line: bytes) -> None:
        try:
            event = decoded_event(line)
        except InputError as error:
            # Before hello it may be the greeting of a launcher or of a start-up file.
            if self._worker_pid is not None:
                self.messages.put({"event": "unreadable", "line": str(error)})
            return
        if event["event"] == "hello":
            self._worker_pid = event["pid"]
        self.messages.put(event)


def own_group() -> dict[str, Any]:
    """Arguments of Popen that make the process the head of a tree that can be ended as one, without a window."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def end_tree(pids: set[int]) -> None:
    """End at once the processes that :func:`own_group` started, and all that these started."""
    for pid in pids:
        if os.name == "nt":
            subprocess.run(
                ["taskkill", "/F", "/T", "/PID", str(pid)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                creationflags=subprocess.CREATE_NO_WINDOW,
                check=False,
            )
        else:
            # Gone already, or (macOS) nothing left but what waits to be collected.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)


def described_ending(returncode: int, log_tail: str) -> tuple[str, str]:
    """(kind of failure as in `JobFailed`, what happened and what to do about it, without a full stop).

    Args:
        returncode: as subprocess gives it, or as a launcher passes on the end of what it started (128 + signal).
        log_tail: the end of the log.
    """
    if returncode in _NO_MEMORY_CODES or says_out_of_memory(log_tail):
        return "memory", f"ended because the memory ran out; {LESS_MEMORY}"
    if returncode == 1 and _LAUNCHER_SAYS in log_tail:
        return "memory", f"was ended by the system or crashed, most likely because the memory ran out; {LESS_MEMORY}"
    number = -returncode if returncode < 0 else returncode - 128
    name = _SIGNALS.get(number)
    if name == "SIGKILL":
        return "memory", f"was ended by the system, most likely because the memory ran out; {LESS_MEMORY}"
    if name in ("SIGTERM", "SIGINT", "SIGHUP"):
        return "crash", f"was ended from outside ({name}); run it again"
    reason = name or _CRASHES.get(returncode)
    if reason is not None:
        return "crash", f"crashed ({reason}); try the device cpu, and report it with the log if that does not help"
    last = log_tail.strip().splitlines()[-1:]
    return "crash", f"ended with code {returncode}{''.join(f' ({line.strip()})' for line in last)}"


def core_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables with which a process imports the same DualTrackCore as this one and nothing from its current folder."""
    root = str(Path(DualTrackCore.__file__).resolve().parents[1])
    path = os.pathsep.join(part for part in (root, variables.get("PYTHONPATH", "")) if part)
    return {
        # Threads that spin while they wait take the cores from the window that shows the progress.
        "OMP_WAIT_POLICY": "passive",
        **variables,
        "PYTHONPATH": path,
        "PYTHONSAFEPATH": "1",
        "PYTHONIOENCODING": "utf-8:backslashreplace",
    }


def last_lines(path: Path) -> str:
    """The last lines of a log; empty where it cannot be read."""
    with contextlib.suppress(OSError):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])
    return ""
