"""A client, sweeps and stand-ins for tests of the worker process; loads no torch, which takes seconds."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from DualTrackCore.progress import Progress
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory
from DualTrackCore.worker.job import PartsTask, PreflightTask, RunTask
from DualTrackCore.worker.process import core_environment
from DualTrackCore.worker.protocol import PROGRESS_FIELDS, decoded_event, encoded, mismatch

#: A run that needs no network and no torch, and so takes no time.
LIGHT = RunSettings(poses="tracked", reconstruct=False)

STAND_IN = """\
import json, os, signal, subprocess, sys, time

def say(**message):
    sys.stdout.write(json.dumps(message) + "\\n")
    sys.stdout.flush()

def hello(**changes):
    from DualTrackCore.worker.protocol import hello as greeting
    say(**{**greeting(), **changes})

def asked():
    return json.loads(sys.stdin.readline())

"""

#: Beginnings of the names of variables that say how threads work.
THREAD_VARIABLES = ("OMP_", "KMP_", "GOMP_", "MKL_", "NUMBA_NUM_")
#: Notes the variables of every process that looks for torch to load it, in a file named by the id of the process.
WATCH = """\
import json, os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            with open(os.path.join({folder!r}, str(os.getpid())), "w") as file:
                json.dump(dict(os.environ), file)
            if {stops}:
                os._exit(0)

sys.meta_path.insert(0, Watch())
"""


def plain(**more: str) -> dict[str, str]:
    """The variables of this process without those that say how threads work."""
    return {name: value for name, value in os.environ.items() if not name.startswith(THREAD_VARIABLES)} | more


def watched(folder: Path, stops: bool) -> dict[str, str]:
    """Such variables for a process that notes in a folder what it has when it loads torch, and `stops` there."""
    (folder / "noted").mkdir()
    (folder / "sitecustomize.py").write_text(WATCH.format(folder=str(folder / "noted"), stops=stops))
    return plain(PYTHONPATH=os.pathsep.join([str(folder), *sys.path]))


def noted(folder: Path) -> list[tuple[int, dict[str, str]]]:
    """(id, variables) of each process that noted them."""
    return [(int(path.name), json.loads(path.read_text())) for path in (folder / "noted").iterdir()]


def tracked_sweep(frames: int, height: int = 96, width: int = 128, **changes) -> Sweep:
    """Noise with a straight tracked path of 0.5 mm a frame."""
    pixels = np.random.default_rng(frames).integers(0, 256, (frames, height, width), dtype=np.uint8)
    tracked = Trajectory.from_parameters(np.tile([0.0, 0.0, 0.5, 0.0, 0.0, 0.0], (frames - 1, 1)), origin="measured")
    return Sweep(pixels, **{"spacing_mm": (0.22938919, 0.22097969), "tracked": tracked, **changes})


def stand_in(folder: Path, body: str) -> list[str]:
    """The command of a process that does what `body` says in place of the worker."""
    path = folder / "stand_in.py"
    path.write_text(STAND_IN + body, encoding="utf-8")
    return [sys.executable, str(path)]


def is_running(pid: int) -> bool:
    """Whether a process is there and is more than an entry that waits to be collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        if Path("/proc/self/stat").exists():
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    return state not in "ZX"


def comes_true(condition, timeout_s: float = 60.0) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, of this test alone; it must be empty in the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


class Driver:
    """A worker process that is asked one thing after the other by a test, which waits for the answers.

    Attributes:
        reports: the progress of the last request, that of sending the frames too.
    """

    def __init__(self, command: list[str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dualtrack-driver-"))
        self.log_path = self.folder / "worker.log"
        self.reports: list[Progress] = []
        self._number = 0
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*(command or [sys.executable, "-m", "DualTrackCore.worker"]), "--folder", str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=core_environment(os.environ),
                start_new_session=True,
            )
        greeting = self._event()
        assert mismatch(greeting) is None
        self.pid = greeting["pid"]

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, sweep: Sweep, settings: RunSettings | None = None):
        """The result of a run, or the event "failed"."""
        return self._perform(RunTask(sweep, settings or RunSettings()))

    def preflight(self, device: str = "auto"):
        """The answer of the readiness check, or the event "failed"."""
        return self._perform(PreflightTask(device))

    def parts(self, sweep: Sweep, settings: RunSettings):
        """What the pictures consist of, or the event "failed"."""
        return self._perform(PartsTask(sweep, settings))

    def start(self, task: RunTask | PartsTask | PreflightTask) -> None:
        """Send a task and do not wait; :meth:`events` has what comes of it."""
        self._number += 1
        folder = self.folder / f"job-{self._number}"
        folder.mkdir()
        self.reports = list(task.send(folder))
        self.process.stdin.write(encoded({"id": self._number, **task.request(folder)}))
        self.process.stdin.flush()

    def events(self):
        """What the worker says of the task, up to "done" or "failed"; notes the progress."""
        event = {"event": "progress"}
        while event["event"] == "progress":
            event = self._event()
            assert event["id"] == self._number
            if event["event"] == "progress":
                self.reports.append(Progress(**{name: event[name] for name in PROGRESS_FIELDS}))
            yield event

    def close(self) -> None:
        """Say no more to the process, on which it ends, and remove the folder."""
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _perform(self, task: RunTask | PartsTask | PreflightTask):
        self.start(task)
        *_, last = self.events()
        return last if last["event"] == "failed" else task.result(last["result"])

    def _event(self):
        line = self.process.stdout.readline()
        assert line, f"The worker has ended:\n{self.log_path.read_text()}"
        return decoded_event(line)
