"""Sweeps and stand-ins for tests of the worker process; loads no torch, which takes seconds."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from DualTrackCore.run.settings import RunSettings
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory
from DualTrackCore.worker import JobFailed

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


def finished(job, timeout_s: float = 60.0):
    job.wait(timeout_s)
    assert job.state != "running", "the job takes too long"
    return job


def failure(job) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        _ = finished(job).result
    assert job.state == "failed"
    return caught.value


def first_report(job, stage: str) -> bool:
    """Whether the job comes to a stage."""
    return comes_true(lambda: any(report.stage == stage and report.done for report in job.poll()), 60.0)
