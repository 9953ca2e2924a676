"""A sweep of a data set that lies in a file, and files of its landmarks."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from DualTrackCore.errors import DatasetError, InputError, SweepError
from DualTrackCore.files import replacing
from DualTrackCore.io import load_sweep
from DualTrackCore.io.hdf5_frames import opened, read_table
from DualTrackCore.io.tus_rec import CALIBRATION_NAME
from DualTrackCore.landmarks import Landmarks
from DualTrackCore.research.datasets.dataset import COPY_AGAIN, Entry
from DualTrackCore.run import with_said_origin
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import PoseOrigin

#: Columns of the CSV file: frame, column and row, all counted from 0.
_COLUMNS = ("frame", "column", "row")

_MAX_CSV_BYTES = 1 << 26


def same_scan(name: str) -> str:
    """A scan's name with the two spellings of TUS-REC 2025 made one: `RH_rotating` and `RH_rotation`."""
    return f"{name.removesuffix('_rotating')}_rotation" if name.endswith("_rotating") else name


def read_landmarks(path: Path, scan: str) -> Landmarks | None:
    """The landmarks of one sweep.

    Args:
        path: HDF5 of TUS-REC (rows of frame from 0, column and row from 1) or CSV of this package.
        scan: which data set of an HDF5 file; either spelling of the rotations.

    Returns:
        None where an HDF5 file has none for the scan.

    Raises:
        DatasetError: the file cannot be read, or holds something else.
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
        calibration: that the user gives, as :func:`load_sweep` takes it; None for what the file says or has beside it.
        calibration_nearby: used only where the file has no way from pixels to the tracker's world without one.
        landmark_file: TUS-REC HDF5 or CSV of this package; None for a sweep without landmarks.
        poses_are: what the user says of poses whose file does not say where they are from: "measured", ...
    """

    calibration: Path | np.ndarray | None = None
    calibration_nearby: Path | None = None
    landmark_file: Path | None = None
    poses_are: str | None = None

    def load(self) -> Sweep:
        """See :meth:`Entry.load`."""
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
        lacking = "poses" if sweep.tracked is None else "pixel spacing" if sweep.spacing_mm is None else None
        if lacking is not None:
            problem = f"has no {lacking}, and a data set needs images and poses in mm"
            remedy = f"put {CALIBRATION_NAME} or the PLUS configuration beside it, give --calibration, or leave it out"
            if sweep.provenance.get("calibration"):
                remedy = "put its poses beside it, or leave it out"
            raise SweepError(self.path, problem, remedy)
        try:
            sweep = replace(sweep, tracked=with_said_origin(sweep.tracked, self.poses_are, self.path.name))
        except InputError as error:
            problem = f"has poses that are {sweep.tracked.origin_text}, not {self.poses_are}"
            raise SweepError(self.path, problem, "leave --poses-are out, or leave the sweep out", str(error)) from None
        if sweep.truth is None:
            problem = f"has poses that are {sweep.tracked.origin_text}, and a data set needs measured ones"
            remedy = "give measured poses, or leave it out"
            if sweep.tracked.origin is PoseOrigin.UNKNOWN:
                remedy = "if a tracker measured them, say --poses-are measured (data.poses_are in a recipe)"
            raise SweepError(self.path, problem, remedy)
        return replace(sweep, provenance={**sweep.provenance, "sweep": self.name})

    def landmarks(self, sweep: Sweep | None = None) -> Landmarks | None:
        """See :meth:`Entry.landmarks`."""
        if self.landmark_file is None:
            return None
        landmarks = read_landmarks(self.landmark_file, self.path.stem)
        if landmarks is not None:
            sweep = self.load() if sweep is None else sweep
            try:
                landmarks.require_inside(len(sweep), sweep.frame_size)
            except InputError as error:
                problem = f"has landmarks of {self.name} that do not fit"
                raise SweepError(self.landmark_file, problem, COPY_AGAIN, str(error)) from error
        return landmarks
