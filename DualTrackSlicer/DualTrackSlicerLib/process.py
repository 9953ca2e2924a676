"""Programs beside Slicer: started, listened to and ended from Qt's event loop, with everything that they start."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import qt
from slicer.i18n import tr as _

from DualTrackCore.errors import MissingDependencyError
from DualTrackCore.worker.process import core_environment, end_tree, last_lines
from DualTrackSlicerLib.events import soon

#: Longest wait for a process that was ended, ms.
_END_MS = 5000


def slicerPython() -> str:
    """Slicer's Python for programs of their own, without the launcher where that can be; outside of Slicer this one.

    A launcher hides how a program ends, and does not end with it.

    Raises MissingDependencyError: there is only the application itself, and starting that would open it once more.
    """
    launcher = shutil.which("PythonSlicer")
    beside = None if launcher is None else str(Path(launcher).parent)
    real = shutil.which("python-real") or (beside and shutil.which("python-real", path=beside))
    if found := real or launcher:
        return found
    if "python" not in Path(sys.executable).name.lower():
        raise MissingDependencyError(
            _("Slicer's Python (PythonSlicer) was not found beside {program}; install Slicer again.").format(
                program=sys.executable
            )
        )
    return sys.executable


class Process:
    """One program.

    Args:
        command: program and arguments.
        variables: the environment; the core of this program is added, as :func:`core_environment` does.
        log_path: takes what it writes to standard error.
        onLine: called with each line of its standard output.
        onEnd: called once, when it has gone or could not be started, never before this returns; see `returncode`.

    Attributes:
        returncode: as subprocess gives it: negative for a signal; None while it runs, or where it did not start.
        problem: why it could not be started; empty where it could.
    """

    def __init__(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        log_path: Path,
        onLine: Callable[[bytes], None],
        onEnd: Callable[[], None],
    ) -> None:
        self.returncode: int | None = None
        self.problem = ""
        self.log_path = log_path
        self._on_line, self._on_end, self._rest, self._running = onLine, onEnd, b"", True
        environment = qt.QProcessEnvironment()
        for name, value in core_environment(variables).items():
            environment.insert(name, value)
        # Without a window of its own on Windows: Qt starts programs so where the application has none.
        self._process = qt.QProcess()
        self._process.setProcessEnvironment(environment)
        self._process.setStandardErrorFile(str(log_path))
        self._process.connect("readyReadStandardOutput()", self._read)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._failed)
        self._process.start(command[0], list(command[1:]))

    @property
    def pid(self) -> int:
        """Of the program; 0 where it does not run."""
        return int(self._process.processId()) if self._running else 0

    def send(self, line: bytes) -> None:
        """Write to its standard input; nothing happens if it has ended."""
        if self._running:
            self._process.write(line)

    def end(self, wait: bool = False) -> None:
        """End it and all that it started, at once; `onEnd` is called when it has gone, within this call if `wait`."""
        if not self._running:
            return
        if self.pid:
            end_family(self.pid)
        self._process.kill()
        if self.problem:
            self._over()
        elif wait:
            self._process.waitForFinished(_END_MS)

    def log_tail(self) -> str:
        """The last lines of standard error."""
        return last_lines(self.log_path)

    def _read(self) -> None:
        *lines, self._rest = (self._rest + bytes(self._process.readAllStandardOutput().data())).split(b"\n")
        for line in lines:
            self._on_line(line)

    def _finished(self, code: int, status: object) -> None:
        if not self._running:
            return
        self._read()
        crashed = self._process.exitStatus() == qt.QProcess.CrashExit and os.name != "nt"
        self.returncode = -code if crashed else code & 0xFFFFFFFF
        self._over()

    def _failed(self, error: object) -> None:
        if self._running and self._process.error() == qt.QProcess.FailedToStart:
            self.problem = self._process.errorString()
            soon(self._over)  # Qt may tell it while the process is being made

    def _over(self) -> None:
        if not self._running:
            return
        self._running = False
        self._process.disconnect("readyReadStandardOutput()", self._read)
        self._process.disconnect("finished(int,QProcess::ExitStatus)", self._finished)
        self._process.disconnect("errorOccurred(QProcess::ProcessError)", self._failed)
        on_end, self._on_end, self._on_line = self._on_end, None, None
        on_end()


def end_family(pid: int) -> None:
    """End a process and all that it started, also behind a launcher, at once."""
    family = {str(pid)}
    if os.name != "nt":
        with contextlib.suppress(OSError):
            listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False)
            words = listed.stdout.split()
            parents = dict(zip(words[::2], words[1::2], strict=False))
            while more := {child for child, parent in parents.items() if parent in family} - family:
                family |= more
        for member in family:
            with contextlib.suppress(OSError):
                os.kill(int(member), signal.SIGKILL)
    end_tree({int(member) for member in family})
