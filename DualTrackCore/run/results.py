"""What a run gives, and how it is written: trajectory, sweep, volume, coverage, pictures, settings and report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DualTrackCore.errors import MissingDependencyError
from DualTrackCore.progress import Reporter
from DualTrackCore.run.report import RunReport
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

if TYPE_CHECKING:
    from DualTrackCore.reconstruction import Reconstruction, VoxelGrid


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run gives.

    Attributes:
        sweep: the frames used.
        trajectory: frame0_from_image of the frames used, mm; frame0 is the first of them (the first valid one of
            tracked poses).
        reconstruction: volume, coverage and grid; None where no volume was wanted.
        report: facts, figures and warnings.
        seconds: how long the parts took: "model", "trajectory", "volume", "evaluation", "total", and from a worker
            process also "sending" and "waiting" (start of the process, of the work before this).
    """

    sweep: Sweep
    trajectory: Trajectory
    reconstruction: Reconstruction | None
    report: RunReport
    seconds: dict[str, float]

    @property
    def volume(self) -> np.ndarray | None:
        """[nz, ny, nx] uint8 grey values; None without a volume."""
        return None if self.reconstruction is None else self.reconstruction.volume

    @property
    def coverage(self) -> np.ndarray | None:
        """[nz, ny, nx] float32, how much was seen of each voxel, 0 is unseen; None without a volume."""
        return None if self.reconstruction is None else self.reconstruction.coverage

    @property
    def grid(self) -> VoxelGrid | None:
        """Where the voxels lie; None without a volume."""
        return None if self.reconstruction is None else self.reconstruction.grid

    @property
    def first_frame(self) -> int:
        """Index in the whole sweep of the first frame used."""
        return self.report.sweep["first_frame"]

    @property
    def evaluation(self) -> Mapping[str, Any] | None:
        """`Evaluation.as_dict()` against the tracking; None where a tracker measured nothing."""
        return self.report.evaluation

    @property
    def warnings(self) -> list[str]:
        """Sentences for the user."""
        return self.report.warnings

    def write(self, folder: Path, reporter: Reporter | None = None) -> RunReport:
        """Write everything into a folder that exists: results, pictures if they are wanted, settings, report.

        Returns:
            The report as it was written, with the names of the files.

        Raises:
            OutputError: the folder cannot be written, or the disk is full.
            Cancelled: the caller asked to stop; the folder is left to the caller.
        """
        from DualTrackCore.io import save_sweep, write_trajectory_csv

        reporter = reporter or Reporter()
        settings = RunSettings.from_dict(self.report.settings)
        write_trajectory_csv(self.trajectory, folder / "trajectory.csv", self.sweep.timestamps_s)
        save_sweep(self.sweep, folder / "sweep.igs.mha", trajectory=self.trajectory, progress=reporter.forward)
        if self.reconstruction is not None:
            self.reconstruction.write(folder / "volume.nrrd")
            self.reconstruction.write(folder / "coverage.nrrd", "coverage")
        notes = self._write_pictures(folder) if settings.pictures else []
        (folder / "settings.yaml").write_text(settings.to_yaml(), encoding="utf-8")
        return write_report(replace(self.report, warnings=[*self.warnings, *notes]), folder)

    def _write_pictures(self, folder: Path) -> list[str]:
        """Draw the previews; a note where the packages for that are missing."""
        from DualTrackCore import pictures

        # The evaluation says whether there is a truth to draw beside the estimate.
        truth = None if self.evaluation is None else self.sweep.tracked
        times = self.sweep.timestamps_s
        try:
            if self.reconstruction is not None:
                pictures.write_slices(self.reconstruction, folder / "slices.png")
            pictures.write_trajectory(self.trajectory, self.sweep, folder / "trajectory.png", truth=truth)
            pictures.write_motion(self.trajectory, folder / "motion.png", truth=truth, timestamps_s=times)
        except MissingDependencyError as error:
            return [f"No pictures were written: {error}"]
        return []


def write_report(report: RunReport, folder: Path) -> RunReport:
    """Write report.json into a folder; returns the report with the names of all files there."""
    report = replace(report, files=sorted({path.name for path in folder.iterdir()} | {"report.json"}))
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    return report
