"""What starts the worker process needs: a folder, its variables, its end with all it started, and words for that."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import DualTrackCore
from DualTrackCore.errors import OutputError
from DualTrackCore.memory import says_out_of_memory
from DualTrackCore.staging import staging_folder
from DualTrackCore.threads import thread_variables

#: Environment variable with the labels of the settings, JSON, of a program whose widgets are called otherwise.
LABELS_VARIABLE = "DUALTRACK_SETTING_LABELS"
#: Lines of the log that go into a report.
LOG_LINES = 60
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


@contextlib.contextmanager
def session_folder() -> Iterator[Path]:
    """A temporary folder of this process alone; what clients that have ended with their worker left goes first.

    Raises OutputError: there is no room for temporary files.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(staging_folder(Path(tempfile.gettempdir())))
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"No temporary folder can be made: {reason}; free some space or set TMPDIR.") from error
        yield folder


def end_tree(pids: set[int]) -> None:
    """End at once these processes, each the head of a group of its own, and all that they started."""
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
    """Variables of a process: the same DualTrackCore as here, nothing from its current folder, threads that sleep."""
    root = str(Path(DualTrackCore.__file__).resolve().parents[1])
    path = os.pathsep.join(part for part in (root, variables.get("PYTHONPATH", "")) if part)
    return {
        **thread_variables(variables),
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
