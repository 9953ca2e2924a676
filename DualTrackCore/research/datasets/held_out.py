"""The simulated sweeps on which methods are compared, and those on which methods may be calibrated.

The held-out sweeps have seeds of phantom and path, and seeds of speckle, that training and validation never draw; the
calibration sweeps have seeds of the training range.
"""

from __future__ import annotations

from pathlib import Path

from DualTrackCore.errors import InputError
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter
from DualTrackCore.research.simulation import FAMILIES
from DualTrackCore.research.simulation.simulator import Simulation, stored_sweeps
from DualTrackCore.sweep import Sweep

#: First seed and first speckle seed of held-out sweeps, and how many speckle volumes they share.
HELD_OUT_SEED, HELD_OUT_SPECKLE_SEED, _HELD_OUT_SPECKLES = 2_000_000, 9_000, 4
#: Speckle volumes that the calibration sweeps share: some of those that the training recipes use.
_CALIBRATION_SPECKLES = 12
#: Frame size (rows, columns) and pixel spacing of the small model's training sweeps.
FRAME_SIZE, SPACING_MM = (128, 160), (0.25, 0.25)


def held_out_simulations(
    count: int = 2 * len(FAMILIES),
    frames: int = 200,
    frame_size: tuple[int, int] = FRAME_SIZE,
    spacing_mm: tuple[float, float] = SPACING_MM,
) -> list[Simulation]:
    """What the held-out sweeps are made from: the families in turn.

    Args:
        count: number of sweeps.
        frames: of each sweep.
        frame_size: rows and columns.
        spacing_mm: (across columns, down rows).
    """
    _require(count, frames)
    return [
        Simulation(
            HELD_OUT_SEED + i,
            frames,
            FAMILIES[i % len(FAMILIES)],
            HELD_OUT_SPECKLE_SEED + i % _HELD_OUT_SPECKLES,
            tuple(frame_size),
            tuple(spacing_mm),
        )
        for i in range(count)
    ]


def calibration_simulations(
    count: int = len(FAMILIES),
    frames: int = 200,
    frame_size: tuple[int, int] = FRAME_SIZE,
    spacing_mm: tuple[float, float] = SPACING_MM,
) -> list[Simulation]:
    """What the calibration sweeps are made from: sweeps that training may use as well, the families in turn."""
    _require(count, frames)
    return [
        Simulation(
            seed,
            frames,
            FAMILIES[seed % len(FAMILIES)],
            seed % _CALIBRATION_SPECKLES,
            tuple(frame_size),
            tuple(spacing_mm),
        )
        for seed in range(count)
    ]


def simulate_all(
    simulations: list[Simulation],
    folder: Path,
    *,
    workers: int = 1,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> list[tuple[str, Sweep]]:
    """Named sweeps that read their frames from files in `folder`; those that are missing are simulated first.

    Raises:
        OutputError: the folder cannot be written.
        Cancelled: the caller asked to stop; sweeps that are stored already stay and are used the next time.
    """
    sweeps = stored_sweeps(simulations, folder, workers, Reporter(progress, cancelled))
    return [(sweep_name(job), sweep) for job, sweep in zip(simulations, sweeps, strict=True)]


def sweep_name(simulation: Simulation) -> str:
    """What a simulated sweep is called in tables."""
    return f"{simulation.family} {simulation.seed}"


def _require(count: int, frames: int) -> None:
    if count < 1:
        raise InputError(f"{count} simulated sweeps were asked for; the least is 1.")
    if frames < 2:
        raise InputError(f"Sweeps of {frames} frames were asked for; a trajectory needs at least 2.")
