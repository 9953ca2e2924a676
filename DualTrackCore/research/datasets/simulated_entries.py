"""Simulated sweeps as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from DualTrackCore.errors import DatasetError
from DualTrackCore.io import load_sweep, save_sweep
from DualTrackCore.research.datasets.dataset import Dataset, Entry
from DualTrackCore.research.datasets.held_out import (
    FRAME_SIZE,
    SPACING_MM,
    calibration_simulations,
    held_out_simulations,
    sweep_name,
)
from DualTrackCore.research.simulation import FAMILIES
from DualTrackCore.research.simulation.simulator import Simulation, simulator_hash
from DualTrackCore.sweep import Sweep

#: Words that stand for a simulated data set where a folder or file is expected, and what each of them means.
SIMULATED_SETS = {"held-out": held_out_simulations, "simulated": calibration_simulations}


@dataclass(frozen=True)
class SimulatedEntry(Entry):
    """A sweep that is simulated when it is loaded, and kept in `path` where it is to be stored.

    Attributes:
        simulation: what it is made from.
        stored: whether to keep it; without, every reading of a frame renders it.
    """

    simulation: Simulation | None = None
    stored: bool = False

    def load(self) -> Sweep:
        """The sweep with its exact poses; simulated and stored now if it is to be stored and not there yet.

        Raises:
            OutputError: it cannot be stored.
        """
        if not self.stored:
            return self.simulation.sweep()
        if not self.path.is_file():
            # Two processes that make it at once write the same bytes, and each moves its whole file into place.
            save_sweep(self.simulation.sweep(), self.path)
        return load_sweep(self.path)


def simulated_dataset(
    which: str = "held-out",
    *,
    count: int = 2 * len(FAMILIES),
    frames: int = 200,
    frame_size: tuple[int, int] = FRAME_SIZE,
    spacing_mm: tuple[float, float] = SPACING_MM,
    folder: str | Path | None = None,
) -> Dataset:
    """Sweeps of the simulation, the families of paths in turn. Accuracy on them says nothing about patients.

    Args:
        which: "held-out" for sweeps with seeds that training and validation never draw; "simulated" for sweeps of the
            training range, on which methods may be calibrated.
        count: number of sweeps.
        frames: of each sweep.
        frame_size: rows and columns.
        spacing_mm: (across columns, down rows).
        folder: where sweeps are kept once they have been simulated; None for simulating every frame when it is read.

    Raises:
        DatasetError: another word.
        InputError: numbers out of range.
    """
    if which not in SIMULATED_SETS:
        raise DatasetError(f"{which!r} is no simulated data set; choose {' or '.join(SIMULATED_SETS)}.")
    simulations = SIMULATED_SETS[which](count, frames, tuple(frame_size), tuple(spacing_mm))
    return Dataset(f"{which} sweeps", _entries(simulations, None if folder is None else Path(folder)))


def _entries(simulations: Sequence[Simulation], folder: Path | None) -> list[Entry]:
    first = simulations[0]
    simulator = "unstored" if folder is None else simulator_hash(first.frame_size, first.spacing_mm)
    return [
        SimulatedEntry(
            sweep_name(simulation),
            (folder or Path()) / simulation.file_name(simulator),
            simulation=simulation,
            stored=folder is not None,
        )
        for simulation in simulations
    ]
