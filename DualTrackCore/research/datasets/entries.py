"""Sweeps of a data set: a file, perhaps with a file of landmarks; or simulated when they are read."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from DualTrackCore.errors import DatasetError, InputError, SweepError, named
from DualTrackCore.files import replacing
from DualTrackCore.io import load_sweep
from DualTrackCore.io.hdf5_frames import opened, read_table
from DualTrackCore.io.tus_rec import CALIBRATION_NAME
from DualTrackCore.landmarks import Landmarks
from DualTrackCore.research.datasets.dataset import COPY_AGAIN, Dataset, Entry
from DualTrackCore.research.simulation import FAMILIES
from DualTrackCore.research.simulation.acquisition import HELD_OUT, Acquisition
from DualTrackCore.research.simulation.simulator import Simulation, simulator_hash
from DualTrackCore.run.pipeline import with_said_origin
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import PoseOrigin

#: Columns of the CSV file: frame, column and row, all counted from 0.
_COLUMNS = ("frame", "column", "row")
_MAX_CSV_BYTES = 1 << 26


def same_scan(name: str) -> str:
    """A scan's name in one of the two spellings of TUS-REC 2025: `RH_rotating` becomes `RH_rotation`."""
    return f"{name.removesuffix('_rotating')}_rotation" if name.endswith("_rotating") else name


def read_landmarks(path: Path, scan: str) -> Landmarks | None:
    """The landmarks of one sweep.

    Args:
        path: HDF5 of TUS-REC (rows of frame from 0, column and row from 1) or CSV of this package.
        scan: name of the data set in an HDF5 file, in either spelling of the rotations.

    Returns:
        The landmarks; None if an HDF5 file has none for the scan.

    Raises DatasetError: the file cannot be read, or holds something else.
    """
    try:
        if path.suffix.lower() == ".csv":
            return _read_csv(path)
        with opened(path) as file:
            keys = [key for key in sorted(file) if same_scan(key) == same_scan(scan)]
            key = scan if scan in keys else keys[0] if keys else None
            rows = None if key is None else read_table(file, key, (None, None))
        return None if rows is None else Landmarks.from_tus_rec(rows)
    except InputError as error:
        raise SweepError(path, f"has landmarks of {scan} that cannot be read", COPY_AGAIN, str(error)) from error


def write_landmarks_csv(landmarks: Landmarks, path: Path) -> None:
    """Write landmarks as CSV with the columns frame, column, row. Raises OutputError: the file cannot be written."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for frame, (column, row) in zip(landmarks.frames.tolist(), landmarks.pixels.tolist(), strict=True):
            writer.writerow([frame, repr(column), repr(row)])


def _read_csv(path: Path) -> Landmarks:
    try:
        if path.stat().st_size > _MAX_CSV_BYTES:
            raise InputError(f"{path.name} has more than {_MAX_CSV_BYTES >> 20} MiB; that is no list of landmarks.")
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path.name} cannot be read: {error}.") from None
    if not rows or tuple(rows[0]) != _COLUMNS:
        raise InputError(f"{path.name} does not begin with the columns {', '.join(_COLUMNS)}.")
    try:
        values = np.array([[float(word) for word in row] for row in rows[1:]], np.float64).reshape(-1, 3)
    except ValueError:
        raise InputError(f"{path.name} has a row that is not three numbers: {', '.join(_COLUMNS)}.") from None
    return Landmarks(values[:, 0], values[:, 1:])


@dataclass(frozen=True)
class FileEntry(Entry):
    """A sweep in a file of any format that :func:`~DualTrackCore.io.load_sweep` reads.

    Attributes:
        calibration: the user's, as for :func:`load_sweep`; None: the one in or beside the file.
        calibration_nearby: used only if the file alone does not map pixels to the tracker's world.
        landmark_file: TUS-REC HDF5 or CSV of this package; None for a sweep without landmarks.
        poses_are: the user's word for the origin of poses if their file does not state it: "measured", ...
    """

    calibration: Path | np.ndarray | None = None
    calibration_nearby: Path | None = None
    landmark_file: Path | None = None
    poses_are: str | None = None

    def pictures(self) -> Sweep:
        if not self.path.exists():
            raise SweepError(self.path, "is missing", f"copy it in, or leave the sweep {self.name} out")
        try:
            sweep = load_sweep(self.path, calibration=self.calibration)
            if sweep.tracked is None and self.calibration is None and self.calibration_nearby is not None:
                sweep = load_sweep(self.path, calibration=self.calibration_nearby)
        except DatasetError:
            raise
        except InputError as error:
            raise SweepError(self.path, "cannot be read", COPY_AGAIN, str(error)) from error
        if not sweep.has_images:
            raise SweepError(self.path, "has tracking and no images", f"leave the sweep {self.name} out")
        return sweep

    def load(self) -> Sweep:
        sweep = self.pictures()
        lacking = "poses" if sweep.tracked is None else "pixel spacing" if sweep.spacing_mm is None else None
        if lacking is not None:
            problem = f"has no {lacking}, and a data set needs images and poses in mm"
            given = named("calibration")
            remedy = f"put {CALIBRATION_NAME} or the PLUS configuration beside it, give {given}, or leave it out"
            if sweep.provenance.get("calibration"):
                remedy = "put its poses beside it, or leave it out"
            raise SweepError(self.path, problem, remedy)
        try:
            sweep = replace(sweep, tracked=with_said_origin(sweep.tracked, self.poses_are, self.path.name))
        except InputError as error:
            problem = f"has poses that are {sweep.tracked.origin_text}, not {self.poses_are}"
            raise SweepError(
                self.path, problem, f"leave {named('poses_are')} out, or leave the sweep out", str(error)
            ) from None
        if sweep.truth is None:
            problem = f"has poses that are {sweep.tracked.origin_text}, and a data set needs measured ones"
            remedy = "give measured poses, or leave it out"
            if sweep.tracked.origin is PoseOrigin.UNKNOWN:
                remedy = (
                    f"if a tracker measured them, say {named('poses_are', 'measured')} (data.poses_are in a recipe)"
                )
            raise SweepError(self.path, problem, remedy)
        return replace(sweep, provenance={**sweep.provenance, "sweep": self.name})

    def landmarks(self, sweep: Sweep | None = None) -> Landmarks | None:
        if self.landmark_file is None:
            return None
        landmarks = read_landmarks(self.landmark_file, self.path.stem)
        if landmarks is not None:
            sweep = self.pictures() if sweep is None else sweep
            try:
                landmarks.require_inside(len(sweep), sweep.frame_size)
            except InputError as error:
                problem = f"has landmarks of {self.name} that do not fit"
                raise SweepError(self.landmark_file, problem, COPY_AGAIN, str(error)) from error
        return landmarks


#: Names of simulated data sets, for use in place of a folder or file: first seed of phantom and path, first seed of
#: speckle, number of speckle volumes. Training and validation never draw the seeds of "held-out"; those of "simulated"
#: are in the training range.
SIMULATED_SETS = {"held-out": (2_000_000, 9_000, 4), "simulated": (0, 0, 12), "acquisitions": (3_000_000, 9_000, 4)}
#: The same for the calibration of the errors that a model states, on clips like those of "acquisitions".
_CALIBRATION = (3_500_000, 9_004, 4)


@dataclass(frozen=True)
class SimulatedEntry(Entry):
    """A sweep that is simulated when it is loaded.

    Attributes:
        simulation: its settings.
        stored: whether it is stored in `path`; else every read of a frame renders it.
    """

    simulation: Simulation | None = None
    stored: bool = False

    def load(self) -> Sweep:
        """The sweep with its exact poses; simulated and stored now if `stored` is set and the file is missing.

        Raises OutputError: it cannot be stored.
        """
        if not self.stored:
            return self.simulation.sweep()
        if not self.path.is_file():
            self.simulation.store(self.path)
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
    """Simulated sweeps, with the families of paths in turn. Accuracy on them says nothing about patients.

    Default frame size and spacing are those of the small model's training sweeps.

    Args:
        which: "held-out": seeds that training and validation never draw; "simulated": seeds of the training range, for
            the calibration of methods; "acquisitions": clips of many probes, scanners and tissues, in turn with a
            probe, a persistence and a tissue that training never draws; "calibration": like these, with other seeds.
        count: number of sweeps.
        frames: of each sweep.
        frame_size: rows and columns; an acquisition has its own.
        spacing_mm: (across columns, down rows).
        folder: where simulated sweeps are stored; None renders every frame when it is read.

    Raises:
        DatasetError: another name.
        InputError: numbers out of range.
    """
    if which not in (*SIMULATED_SETS, "calibration"):
        raise DatasetError(f"{which!r} is no simulated data set; choose {' or '.join(SIMULATED_SETS)}.")
    if count < 1:
        raise InputError(f"{count} simulated sweeps were asked for; the least is 1.")
    if frames < 2:
        raise InputError(f"Sweeps of {frames} frames were asked for; a trajectory needs at least 2.")
    first_seed, first_speckle, speckles = SIMULATED_SETS.get(which, _CALIBRATION)
    frame_size, spacing_mm = tuple(frame_size), tuple(spacing_mm)
    entries, simulator = [], ""
    for i in range(count):
        seed, speckle, family, own = first_seed + i, first_speckle + i % speckles, FAMILIES[i % len(FAMILIES)], None
        name = f"{family} {seed}"
        if which in ("acquisitions", "calibration"):
            kind = sorted(HELD_OUT)[i % len(HELD_OUT)]
            own = Acquisition.of_seed(seed, kind)
            name = f"{kind} {own.motion.family} {seed}"
        simulation = Simulation(seed, frames, family, speckle, frame_size, spacing_mm, own, own is not None)
        if folder is not None:
            simulator = simulator or simulator_hash(simulation)
        path = Path(folder or "", simulation.file_name(simulator or "unstored"))
        entries.append(SimulatedEntry(name, path, simulation=simulation, stored=folder is not None))
    return Dataset(f"{which} sweeps", entries)
