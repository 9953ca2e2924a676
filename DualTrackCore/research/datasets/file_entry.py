"""A sweep of a data set that lies in a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from DualTrackCore.errors import DatasetError, InputError
from DualTrackCore.io import load_sweep
from DualTrackCore.io.tus_rec import CALIBRATION_NAME
from DualTrackCore.landmarks import Landmarks
from DualTrackCore.research.datasets.dataset import Entry
from DualTrackCore.research.datasets.landmark_files import read_landmarks
from DualTrackCore.sweep import Sweep


@dataclass(frozen=True)
class FileEntry(Entry):
    """A sweep in a file of any format that :func:`~DualTrackCore.io.load_sweep` reads.

    Attributes:
        calibration: that the user gives, as :func:`load_sweep` takes it; None for what the file says or has beside it.
        calibration_nearby: used only where the file has no way from pixels to the tracker's world without one.
        landmark_file: TUS-REC HDF5 or CSV of this package; None for a sweep without landmarks.
    """

    calibration: Path | np.ndarray | None = None
    calibration_nearby: Path | None = None
    landmark_file: Path | None = None

    def load(self) -> Sweep:
        """See :meth:`Entry.load`."""
        if not self.path.exists():
            raise DatasetError(f"{self.path} is missing; copy it in, or leave the sweep {self.name} out.")
        try:
            sweep = load_sweep(self.path, calibration=self.calibration)
            if sweep.tracked is None and self.calibration is None and self.calibration_nearby is not None:
                sweep = load_sweep(self.path, calibration=self.calibration_nearby)
        except DatasetError:
            raise
        except InputError as error:
            raise DatasetError(f"{self.path}: {error}") from error
        if not sweep.has_images:
            raise DatasetError(f"{self.path} has tracking and no images; leave the sweep {self.name} out.")
        lacking = "poses" if sweep.tracked is None else "pixel spacing" if sweep.spacing_mm is None else None
        if lacking is not None:
            raise DatasetError(
                f"{self.path} has no {lacking}, and a data set needs images and poses in mm; {self._remedy(sweep)}."
            )
        return replace(sweep, provenance={**sweep.provenance, "sweep": self.name})

    def _remedy(self, sweep: Sweep) -> str:
        if sweep.provenance.get("calibration"):
            return "put its poses beside it, or leave it out"
        return f"put {CALIBRATION_NAME} or the PLUS configuration beside it, give --calibration, or leave it out"

    def landmarks(self, sweep: Sweep | None = None) -> Landmarks | None:
        """See :meth:`Entry.landmarks`."""
        if self.landmark_file is None:
            return None
        found = read_landmarks(self.landmark_file, self.path.stem)
        if found is not None:
            sweep = self.load() if sweep is None else sweep
            try:
                found.require_inside(len(sweep), sweep.frame_size)
            except InputError as error:
                raise DatasetError(f"{self.landmark_file}, landmarks of {self.name}: {error}") from error
        return found
