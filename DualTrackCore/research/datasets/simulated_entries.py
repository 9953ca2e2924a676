"""Simulated sweeps as a data set: those on which methods are compared, and those on which they may be calibrated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from DualTrackCore.errors import DatasetError, InputError
from DualTrackCore.io import load_sweep, save_sweep
from DualTrackCore.research.datasets.dataset import Dataset, Entry
from DualTrackCore.research.simulation import FAMILIES
from DualTrackCore.research.simulation.simulator import Simulation, simulator_hash
from DualTrackCore.sweep import Sweep

#: Words that stand for a simulated data set where a folder or file is expected. Each has the first seed of phantom and
#: path, the first seed of speckle, and how many speckle volumes the sweeps share. Training and validation never draw
#: the seeds of "held-out"; those of "simulated" are of the training range.
SIMULATED_SETS = {"held-out": (2_000_000, 9_000, 4), "simulated": (0, 0, 12)}


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

        Raises OutputError: it cannot be stored.
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
    frame_size: tuple[int, int] = (128, 160),
    spacing_mm: tuple[float, float] = (0.25, 0.25),
    folder: str | Path | None = None,
) -> Dataset:
    """Sweeps of the simulation, the families of paths in turn. Accuracy on them says nothing about patients.

    Frame size and spacing are by default those of the small model's training sweeps.

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
    if count < 1:
        raise InputError(f"{count} simulated sweeps were asked for; the least is 1.")
    if frames < 2:
        raise InputError(f"Sweeps of {frames} frames were asked for; a trajectory needs at least 2.")
    first_seed, first_speckle, speckles = SIMULATED_SETS[which]
    frame_size, spacing_mm = tuple(frame_size), tuple(spacing_mm)
    simulator = "unstored" if folder is None else simulator_hash(frame_size, spacing_mm)
    entries = []
    for i in range(count):
        family = FAMILIES[i % len(FAMILIES)]
        simulation = Simulation(first_seed + i, frames, family, first_speckle + i % speckles, frame_size, spacing_mm)
        path = Path(folder or "", simulation.file_name(simulator))
        entries.append(SimulatedEntry(f"{family} {simulation.seed}", path, None, simulation, folder is not None))
    return Dataset(f"{which} sweeps", entries)
