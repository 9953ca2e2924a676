"""Tracking with the small model while other programs work: with a loop on every core, against the same on free cores.

Each way of waiting has a process of its own that stays. The loops stand still but for the runs that are to be loaded.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from machine import usable_cores

from DualTrackCore.threads import thread_variables

FRAMES = int(os.environ.get("BENCH_BUSY_FRAMES", "600"))


class Tracking:
    """A process that tracks one sweep again and again, with variables of its own."""

    def __init__(self, variables: dict[str, str]) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "KMP_", "GOMP_"))}
        command = [sys.executable, __file__, str(FRAMES)]
        self._process = subprocess.Popen(command, env=kept | variables, stdin=-1, stdout=-1, text=True)
        self.processor_s: list[float] = []
        self._answer()

    def again(self) -> None:
        """Track once."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.processor_s.append(self._answer())

    def end(self) -> None:
        """Let the process end."""
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> float:
        return float(self._process.stdout.readline())


@pytest.fixture(scope="module")
def processes() -> Iterator[dict[str, Tracking]]:
    plain = Tracking({})
    ours = Tracking(thread_variables({}))
    yield {"ours": ours, "plain": plain}
    plain.end()
    ours.end()


@pytest.fixture(scope="module")
def loops() -> Iterator[list[subprocess.Popen]]:
    """A loop for each core, standing still."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(usable_cores())]
    for loop in started:
        loop.send_signal(signal.SIGSTOP)
    yield started
    for loop in started:
        loop.kill()
        loop.wait()


def loaded(tracking: Tracking, loops: list[subprocess.Popen]) -> None:
    """Track once while the loops run."""
    for loop in loops:
        loop.send_signal(signal.SIGCONT)
    try:
        tracking.again()
    finally:
        for loop in loops:
            loop.send_signal(signal.SIGSTOP)


def test_with_a_loop_on_every_core(ratio, processes, loops):
    free, waits = "on free cores", "loaded, OpenMP's own way to wait"
    timing = ratio(
        lambda: loaded(processes["ours"], loops),
        {free: processes["ours"].again, waits: lambda: loaded(processes["plain"], loops)},
        what=f"mini, {FRAMES} frames of 480x640, a loop on every core",
        warm_up=0,
        note="0.5 is a fair share of the cores",
    )
    timing.figures["frames/s"] = FRAMES / timing.seconds
    timing.figures["frames/s on free cores"] = FRAMES / timing.reference_seconds[free]
    assert timing.ratio(free) > 1 / 3


def test_on_free_cores(ratio, processes):
    timing = ratio(
        processes["ours"].again,
        {"OpenMP's own way to wait": processes["plain"].again},
        what=f"mini, {FRAMES} frames of 480x640, threads that sleep",
        warm_up=0,
    )
    for name, process in processes.items():
        timing.figures[f"least processor seconds, {name}"] = min(process.processor_s)


def track_when_asked(frames: int) -> None:
    """Track once, say 0, and then once for every line of input; say the processor seconds."""
    import warnings

    import numpy as np

    from DualTrackCore import Sweep, estimate_trajectory, load_model

    warnings.simplefilter("ignore")
    pixels = np.random.default_rng(0).integers(0, 256, (frames, 480, 640), np.uint8)
    sweep, model = Sweep(pixels, 0.0667), load_model("mini")
    estimate_trajectory(sweep, model, device="cpu")
    print(0.0, flush=True)
    for _ in sys.stdin:
        start = time.process_time()
        estimate_trajectory(sweep, model, device="cpu")
        print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    track_when_asked(int(sys.argv[1]))
