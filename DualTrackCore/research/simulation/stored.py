"""Simulated sweeps kept in files: rendered once, taken up again as long as the simulator is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from DualTrackCore.io import load_sweep, save_sweep
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.research.simulation.simulated import simulated_sweep
from DualTrackCore.sweep import Sweep


@dataclass(frozen=True)
class Simulation:
    """What decides a simulated sweep: the arguments of :func:`~DualTrackCore.research.simulation.simulated_sweep`."""

    seed: int
    frames: int
    family: str | None
    speckle_seed: int | None
    frame_size: tuple[int, int]
    spacing_mm: tuple[float, float]

    def file_name(self, simulator: str) -> str:
        """Name of the stored sweep: a hash of the settings and the simulator, then the seed."""
        settings = [simulator, self.frames, self.family, self.speckle_seed, self.frame_size, self.spacing_mm]
        return f"{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]}-{self.seed}.h5"

    def sweep(self) -> Sweep:
        """Simulate; frames are made when they are read."""
        return simulated_sweep(
            self.seed,
            frames=self.frames,
            family=self.family,
            speckle_seed=self.speckle_seed,
            frame_size=self.frame_size,
            spacing_mm=self.spacing_mm,
        )


def simulator_hash(frame_size: tuple[int, int], spacing_mm: tuple[float, float]) -> str:
    """Hash of two frames and a path: another version of the simulator must not take up sweeps of this one."""
    sample = Simulation(0, 2, None, None, frame_size, spacing_mm).sweep()
    return hashlib.sha256(sample.window(0, 2).tobytes() + sample.tracked.poses.tobytes()).hexdigest()


def stored_sweeps(
    simulations: Sequence[Simulation], folder: Path, workers: int, reporter: Reporter
) -> tuple[Sweep, ...]:
    """The sweeps from their files, after simulating those that are not there yet.

    Args:
        simulations: all of one frame size and spacing.
        folder: of the files; made if need be.
        workers: processes that simulate.
        reporter: told of stage "sweeps".

    Returns:
        Sweeps that read their frames from the files.

    Raises:
        OutputError: the folder cannot be written.
        Cancelled: the caller asked to stop; whole sweeps that are stored already stay.
    """
    if not simulations:
        return ()
    simulator = simulator_hash(simulations[0].frame_size, simulations[0].spacing_mm)
    paths = [folder / simulation.file_name(simulator) for simulation in simulations]
    missing = [(job, path) for job, path in zip(simulations, paths, strict=True) if not path.is_file()]
    # Sweeps that share speckle follow each other, because making it takes longer than a sweep.
    missing.sort(key=lambda pair: (pair[0].speckle_seed or 0, pair[0].seed))
    _in_parallel(_store, missing, workers, reporter)
    return tuple(load_sweep(path) for path in paths)


def _store(job: tuple[Simulation, Path]) -> None:
    simulation, path = job
    save_sweep(simulation.sweep(), path)


def _in_parallel(work: Callable, jobs: Sequence, workers: int, reporter: Reporter) -> None:
    """Do all jobs, in `workers` processes where that is more than one."""
    if min(workers, len(jobs)) <= 1:
        for done, job in enumerate(jobs):
            reporter.report(Stage.SWEEPS, done, len(jobs))
            work(job)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # Forked copies of a process that has run torch may hang, so workers start afresh.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(work, jobs)):
            reporter.report(Stage.SWEEPS, done, len(jobs))
