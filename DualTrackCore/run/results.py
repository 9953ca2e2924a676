"""What a run gives and says: its results, and the report of facts, figures and warnings, one schema with a version."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DualTrackCore import __version__
from DualTrackCore.errors import InputError, named
from DualTrackCore.files import json_text, plain_values, recorded_files, require_apart, staged_folder, write_flat_csv
from DualTrackCore.path_error import (
    CORRECTIONS,
    TRUST,
    direction_of,
    direction_warnings,
    path_error,
    trust_in,
    turned_over,
    with_trust,
)
from DualTrackCore.progress import Reporter, Stage, finished
from DualTrackCore.reconstruction import no_fan_text
from DualTrackCore.repeats import Repeats, turn_warnings
from DualTrackCore.run.settings import NOTICE, RunSettings
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import PoseOrigin, Trajectory

if TYPE_CHECKING:
    from DualTrackCore.evaluation import Evaluation
    from DualTrackCore.measurement import Measurements
    from DualTrackCore.reconstruction import Reconstruction, VoxelGrid

#: The files that a run or the demo may leave in its folder.
FILES = (
    *("trajectory.csv", "sweep.igs.mha", "volume.nrrd", "coverage.nrrd", "settings.yaml", "report.json"),
    *("scene.mrb", "uncertainty.nrrd"),
    *("slices.png", "trajectory.png", "motion.png"),
    *("comparison.png", "true-volume.nrrd", "true-trajectory.csv"),
)
#: Of the schema below; 1 had no settings and no frame range.
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class RunReport:
    """The facts and figures of one run, as plain values.

    Attributes:
        sweep: the frames used: `sweep_facts`, with "first_frame", the index in the whole sweep of the first of them.
            Stretches that stand still are counted from that frame.
        trajectory: "poses", "valid_poses", "path_length_mm", "origin" (text of a
            :class:`~DualTrackCore.trajectory.PoseOrigin`), "error" (`PathError.as_dict()`: how sure the path is; None
            where nothing says it), "trust" (`Trust.as_dict()`: what the path is good for; None for poses that nobody
            estimated), "turns" (frames, of those used, at which the pictures run back), "direction" (how it is known
            which way the sweep runs, a word of :mod:`~DualTrackCore.path_error`; None for given poses), and "source":
            the provenance of the poses (model, weights_sha256, device, precision, chunk_frames, warnings, ...).
        settings: `RunSettings.as_dict()`, files named from the root.
        volume: "size", "spacing_mm", "origin_mm", "description", "covered_fraction", "filled_fraction", "frames_used",
            "frames_skipped" and "settings" of the reconstruction; None without a volume.
        evaluation: `Evaluation.as_dict()` against the true poses; None where they are not known.
        warnings: sentences for the user.
        files: names of the files beside the report; empty until they are written.
        about: a sentence on what the figures mean; empty for most runs.
        created: when the run ended, ISO 8601, UTC.
        dualtrack_version: of the program.
        notice: what the result must not be used for.
        schema_version: of these fields.
    """

    settings: Mapping[str, Any]
    sweep: Mapping[str, Any]
    trajectory: Mapping[str, Any]
    volume: Mapping[str, Any] | None = None
    evaluation: Mapping[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    about: str = ""
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    dualtrack_version: str = __version__
    notice: str = NOTICE
    schema_version: int = SCHEMA_VERSION

    def as_dict(self) -> dict[str, Any]:
        """The content of report.json."""
        return plain_values(self)

    def to_json(self) -> str:
        """The text of report.json."""
        return json_text(self)

    def write_csv(self, path: str | os.PathLike) -> None:
        """Write a table of two columns: names, such as trajectory.path_length_mm for what is so nested, and values.

        Raises OutputError: the file cannot be written.
        """
        write_flat_csv(self.as_dict(), path)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunReport:
        """A report from :meth:`as_dict`. Raises InputError: a report of another schema."""
        names = {f.name for f in fields(cls)}
        if values.get("schema_version") != SCHEMA_VERSION or not names >= set(values):
            version = values.get("schema_version", 1)
            raise InputError(f"The report has schema version {version}; this version reads {SCHEMA_VERSION}.")
        return cls(**values)


def run_report(
    settings: RunSettings,
    sweep: Sweep,
    trajectory: Trajectory,
    reconstruction: Reconstruction | None,
    evaluation: Evaluation | None,
    repeats: Repeats | None = None,
    turns: Sequence[int] = (),
    error: Mapping[str, Any] | None = None,
) -> RunReport:
    """The report of a run; `sweep` holds the frames used, `repeats` those found in it, whether or not left out, `turns`
    the frames at which its pictures run back, `error` that of the path in the report, where it is known already."""
    if error is None:
        found = path_error(trajectory)
        error = None if found is None else found.as_dict()
    facts = None if evaluation is None else plain_values(evaluation.as_dict())
    trust = trust_in(trajectory, turns, facts)
    path = {
        "poses": len(trajectory),
        "valid_poses": int(trajectory.valid.sum()),
        "path_length_mm": trajectory.path_length_mm,
        "origin": trajectory.origin,
        "error": error,
        "trust": None if trust is None else trust.as_dict(),
        "turns": turns,
        "direction": trajectory.provenance.get("direction"),
        "source": {name: value for name, value in trajectory.provenance.items() if name != TRUST},
    }
    return RunReport(
        settings=settings.as_dict(),
        sweep=plain_values({"first_frame": settings.first_frame, **sweep_facts(sweep, repeats)}),
        trajectory=plain_values(path),
        volume=None if reconstruction is None else plain_values(_volume_facts(reconstruction)),
        evaluation=facts,
        warnings=[
            *sweep.provenance.get("warnings", ()),
            *(() if repeats is None else repeats.warnings(sweep, settings.first_frame)),
            *turn_warnings(turns, settings.first_frame),
            *_warnings(sweep, trajectory, reconstruction),
            *filter(None, [reconstruction and no_fan_text(settings.fan, reconstruction.provenance)]),
        ],
    )


def sweep_facts(sweep: Sweep, repeats: Repeats | None = None) -> dict[str, object]:
    """What is known about a sweep, as plain values; with its repeats where they were looked for.

    "prepared" is None for a sweep that nobody prepared, and else has "rotate", "mirror", "crop" and "depth_mm" as the
    settings, "area" (what shows ultrasound, with "confidence"; None where nothing was found), "masked" (rectangles) and
    "done" (the same in sentences); all rectangles count pixels of the turned and mirrored picture before the crop.
    """
    poses, tracked = sweep.tracked, sweep.truth
    return {
        "frames": len(sweep),
        "frame_size": list(sweep.frame_size),
        "frames_without_image": int((~sweep.frame_valid).sum()),
        "spacing_mm": None if sweep.spacing_mm is None else list(sweep.spacing_mm),
        "skew_deg": sweep.skew_deg,
        "duration_s": sweep.duration_s,
        "frame_rate_hz": sweep.frame_rate_hz,
        "tracked_frames": None if tracked is None else int(tracked.valid.sum()),
        "poses_origin": None if poses is None else poses.origin.value,
        "path_length_mm": None if poses is None else poses.path_length_mm,
        "repeats": None if repeats is None else repeats.facts(sweep),
        "prepared": sweep.provenance.get("prepared"),
        "provenance": {name: value for name, value in sweep.provenance.items() if name != "prepared"},
    }


def _volume_facts(volume: Reconstruction) -> dict[str, Any]:
    return {
        "size": volume.grid.size,
        "spacing_mm": volume.grid.spacing_mm,
        "origin_mm": volume.grid.origin_mm,
        "description": volume.grid.describe(),
        "covered_fraction": volume.covered_fraction,
        "filled_fraction": volume.filled_fraction,
        "frames_used": volume.frames_used,
        "frames_skipped": volume.frames_skipped,
        "settings": {
            k: v for k, v in volume.provenance.items() if k not in ("sweep", "trajectory", "poses_origin", "poses_text")
        },
    }


def _warnings(sweep: Sweep, trajectory: Trajectory, volume: Reconstruction | None) -> list[str]:
    messages = [str(message) for message in trajectory.provenance.get("warnings", ())]
    messages += direction_warnings(trajectory.provenance)
    if PoseOrigin.UNKNOWN in {poses.origin for poses in (sweep.tracked, trajectory) if poses is not None}:
        messages.append(
            "Where the given poses are from is unknown, so nothing is measured against them; "
            f"if a tracker measured them, say so ({named('poses_are', 'measured')})."
        )
    if volume is not None and volume.grid.note:
        messages.append(f"The voxels were {volume.grid.note}.")
    if volume is not None and volume.frames_skipped:
        total = volume.frames_used + volume.frames_skipped
        messages.append(f"{volume.frames_skipped} of {total} frames have no valid image or pose and were left out.")
    return messages


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run gives.

    Attributes:
        sweep: the frames used.
        trajectory: frame0_from_image of the frames used, mm; frame0 is the first of them (the first valid one of
            tracked poses).
        reconstruction: volume, coverage and grid; None where no volume was wanted.
        report: facts, figures and warnings.
        seconds: how long the parts took: "model", "trajectory", "volume", "evaluation", "total".
    """

    sweep: Sweep
    trajectory: Trajectory
    reconstruction: Reconstruction | None
    report: RunReport
    seconds: dict[str, float]

    def __post_init__(self) -> None:
        """Let path and volume carry the line on trust, which the report alone knows whole."""
        if self.report.trajectory["trust"] is None:
            return
        path = with_trust(self.trajectory, self.report.trajectory["trust"]["text"])
        object.__setattr__(self, "trajectory", path)
        if self.reconstruction is not None:
            made = {**self.reconstruction.provenance, "trajectory": dict(path.provenance)}
            object.__setattr__(self, "reconstruction", replace(self.reconstruction, provenance=made))

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

    def measurements(self) -> Measurements:
        """Lengths, areas and volumes between points in frame0, mm. Raises InputError: no frame can be placed."""
        from DualTrackCore.measurement import Measurements

        return Measurements(self.trajectory, self.sweep)

    def turned_over(self) -> RunResult:
        """The same result with the sweep running the other way, as a run with that direction gives it.

        Path and volume are mirrored at the image plane of frame0; nothing is estimated or reconstructed again. Turning
        it over again gives the first result back.

        Raises InputError: the poses are no estimate, or were fitted to what would not be mirrored with them.
        """
        return finished(self.turn_over_in_pieces())

    def turn_over_in_pieces(self) -> Generator[object, None, RunResult]:
        """:meth:`turned_over`, a part of the volume or of the errors at each step."""
        if any("residuals" in name for entry in self.trajectory.provenance.get(CORRECTIONS, ()) for name in entry):
            raise InputError(
                "The path was fitted to marks, places or poses, which say which way it runs; run the clip the other "
                "way without them first."
            )
        before, trajectory, volume = self.trajectory, turned_over(self.trajectory), self.reconstruction
        if volume is not None:
            volume = yield from volume.turn_over_in_pieces(trajectory)
        evaluation = None
        if self.evaluation is not None:
            from DualTrackCore.evaluation.per_sweep import evaluate_in_pieces

            evaluation = yield from evaluate_in_pieces(trajectory, self.sweep)
        yield
        given = RunSettings.from_dict(self.report.settings)
        settings = replace(given, direction=direction_of(trajectory.provenance))
        same = {name: self.report.trajectory[name] for name in ("turns", "error")}
        report = run_report(settings, self.sweep, trajectory, None, evaluation, **same)
        others = [sentence for sentence in self.warnings if sentence not in direction_warnings(before.provenance)]
        warnings = [*direction_warnings(trajectory.provenance), *others]
        report = replace(report, sweep=self.report.sweep, warnings=warnings, about=self.report.about)
        if volume is not None:
            report = replace(report, volume={**self.report.volume, "origin_mm": volume.grid.origin_mm.tolist()})
        return replace(self, trajectory=trajectory, reconstruction=volume, report=report)

    def write(self, folder: str | os.PathLike, reporter: Reporter | None = None) -> RunReport:
        """Write everything into a folder: results, pictures if they are wanted, settings, report.

        All of it appears at once, in place of the files of an earlier run (:func:`~DualTrackCore.files.staged_folder`).

        Returns:
            The report as it was written, with the names of the files.

        Raises:
            InputError: a file of the results is one that the sweep was read from.
            OutputError: the folder cannot be written, or the disk is full.
            Cancelled: the caller asked to stop.
        """
        require_apart(result_paths(folder), self.sweep.files)
        with results_folder(folder) as staging:
            return self.write_files(staging, reporter)

    def write_files(self, folder: Path, reporter: Reporter | None = None) -> RunReport:
        """Do as :meth:`write`, into a folder of :func:`results_folder`."""
        from DualTrackCore.io import save_sweep, write_trajectory_csv

        reporter = reporter or Reporter()
        settings = RunSettings.from_dict(self.report.settings)
        # The frames lie in the world of the volume.
        placed = replace(self.trajectory, reference_from_frame0=None) if settings.frame == "frame0" else self.trajectory
        # Compressing the volume keeps one core busy; frames and pictures are made on another one meanwhile.
        with ThreadPoolExecutor(1, thread_name_prefix="volume") as pool:
            volumes = [] if self.reconstruction is None else ["volume", "coverage"]
            if volumes and settings.uncertainty_volume:
                volumes.append("uncertainty")
            writing = [pool.submit(self._write_volume, what, folder, reporter) for what in volumes]
            write_trajectory_csv(self.trajectory, folder / "trajectory.csv", self.sweep.timestamps_s)
            save_sweep(self.sweep, folder / "sweep.igs.mha", trajectory=placed, progress=reporter.forward)
            notes = self._draw(folder, reporter) if settings.pictures else []
            for done, file in enumerate(writing):
                reporter.report(Stage.WRITING_VOLUME, done, len(writing))
                notes += file.result()
                reporter.report(Stage.WRITING_VOLUME, done + 1, len(writing))
        if settings.slicer:
            from DualTrackCore.io.slicer_bundle import write_bundle

            volume = self.reconstruction and folder / "volume.nrrd"
            write_bundle(self.sweep, folder / "scene.mrb", placed, reporter, volume)
        (folder / "settings.yaml").write_text(settings.to_yaml(), encoding="utf-8")
        return write_report(replace(self.report, warnings=[*self.warnings, *notes]), folder)

    def _write_volume(self, what: str, folder: Path, reporter: Reporter) -> list[str]:
        """Write the volume, its coverage or its uncertainty; returns notes."""
        reporter.check()
        if what == "uncertainty":
            from DualTrackCore.measurement.displacement import write_displacement

            return write_displacement(self.reconstruction, self.trajectory, folder / "uncertainty.nrrd")
        self.reconstruction.write(folder / f"{what}.nrrd", what)
        return []

    def _draw(self, folder: Path, reporter: Reporter) -> list[str]:
        from DualTrackCore.pictures import write_previews

        # The evaluation says whether there is a truth to draw beside the estimate.
        truth = None if self.evaluation is None else self.sweep.tracked
        return write_previews(self.sweep, self.trajectory, self.reconstruction, truth, folder, reporter)


def results_folder(folder: str | os.PathLike) -> contextlib.AbstractContextManager[Path]:
    """A temporary folder for results; on success they take the place of those of an earlier run in `folder`.

    Raises OutputError: the folder cannot be written, or the disk is full.
    """
    return staged_folder(folder, recorded_files(Path(folder, "report.json"), FILES))


def result_paths(folder: str | os.PathLike) -> list[Path]:
    """The folder, and every file that a run or the demo may write into it."""
    return [Path(folder), *(Path(folder, name) for name in FILES)]


def write_report(report: RunReport, folder: Path) -> RunReport:
    """Write report.json into a folder; returns the report with the names of all files there."""
    report = replace(report, files=sorted({path.name for path in folder.iterdir() if path.is_file()} | {"report.json"}))
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    return report
