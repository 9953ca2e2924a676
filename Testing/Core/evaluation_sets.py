"""Small data sets and methods for the tests of the evaluation; without torch, so that processes start quickly."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory


def straight_sweep(step_mm: float, frames: int = 5, **changes) -> Sweep:
    """Frames of one grey value each, moving by a constant elevational step."""
    motions = np.tile([0, 0, step_mm, 0, 0, 0], (frames - 1, 1))
    values = {"spacing_mm": 0.5, "tracked": Trajectory.from_parameters(motions, origin="measured"), **changes}
    grey = (7 * np.arange(frames) % 256).astype(np.uint8)
    return Sweep(np.tile(grey[:, None, None], (1, 10, 12)), **values)


def wobbling_sweep(seed: int, frames: int = 12) -> Sweep:
    """Random grey values on a path of random steps."""
    random = np.random.default_rng(seed)
    motions = random.normal(size=(frames - 1, 6)) * 0.1 + [0, 0, 0.3, 0, 0, 0]
    pixels = random.integers(0, 256, (frames, 10, 12), dtype=np.uint8)
    return Sweep(pixels, 0.5, tracked=Trajectory.from_parameters(motions, origin="measured"))


class Given:
    """Sweeps by name, as a data set; an exception among them is raised when it is loaded."""

    def __init__(self, name: str = "given", **sweeps: Sweep | Exception) -> None:
        self.name, self._sweeps, self.names = name, sweeps, tuple(sweeps)

    def load(self, name: str) -> Sweep:
        if isinstance(self._sweeps[name], Exception):
            raise self._sweeps[name]
        return self._sweeps[name]

    def landmarks(self, name: str) -> None:
        return None


class Wobbling(Given):
    """`count` sweeps that are made when they are loaded; it can go to other processes."""

    def __init__(self, count: int, first: int = 0) -> None:
        self.name = "wobbling"
        self._seeds = {f"Par_L_DtP {seed}": seed for seed in range(first, first + count)}
        self.names = tuple(self._seeds)

    def load(self, name: str) -> Sweep:
        return wobbling_sweep(self._seeds[name])


class Shortened:
    """The truth with its elevational steps scaled; writes a line into a log for every sweep it is run on.

    Once the log has `most` lines it hangs: its run is killed half done, however slow the machine is.
    """

    uses = "images"

    def __init__(self, name: str, scale: float, log: Path | None = None, most: int = 1000) -> None:
        self.name, self.scale, self.log, self.most = name, scale, log, most

    @property
    def fingerprint(self) -> str:
        """The log changes nothing of what comes out."""
        return f"{self.name} {self.scale}"

    def estimate(self, sweep, *, progress=None, cancelled=None) -> Trajectory:
        if self.log is not None:
            with self.log.open("a") as file:
                card = os.environ.get("CUDA_VISIBLE_DEVICES", "-")
                file.write(f"{self.name} {sweep.tracked.parameters[0, 0]:.9f} {card} {os.getpid()}\n")
            while len(self.log.read_text().splitlines()) >= self.most:
                time.sleep(0.1)
        motions = sweep.tracked.parameters.copy()
        motions[:, 2] *= self.scale
        return Trajectory.from_parameters(motions)


class Failing:
    """The truth, but an error on sweeps of one length."""

    name, uses = "failing", "images"

    def __init__(self, frames: int, error: Exception) -> None:
        self.frames, self.error = frames, error

    @property
    def fingerprint(self) -> str:
        return "failing"

    def estimate(self, sweep, *, progress=None, cancelled=None) -> Trajectory:
        if len(sweep) == self.frames:
            raise self.error
        return Trajectory(sweep.tracked.poses)


class Dying:
    """Ends its process on the second sweep, as a system short of memory does."""

    name, uses = "dying", "images"

    def estimate(self, sweep, *, progress=None, cancelled=None) -> Trajectory:
        if sweep.tracked.parameters[0, 0] == wobbling_sweep(1).tracked.parameters[0, 0]:
            os._exit(9)
        return Trajectory(sweep.tracked.poses)
