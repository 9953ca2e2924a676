"""What `run`, `reconstruct` and `demo` leave in their folder: trajectory, volume, coverage, pictures, report."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from DualTrackCore.cli.console import Console, columns, plural
from DualTrackCore.cli.parser import NOTICE
from DualTrackCore.errors import MissingDependencyError
from DualTrackCore.evaluation import Evaluation, evaluate
from DualTrackCore.io import save_sweep, write_trajectory_csv
from DualTrackCore.reconstruction import Reconstruction, plan_grid, reconstruct_volume
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory
from DualTrackCore.version import __version__


@dataclass(frozen=True, eq=False)
class Results:
    """What came of one sweep.

    Attributes:
        report: as in report.json.
        reconstruction: the volume.
        evaluation: against the tracking; None where there is nothing to measure by.
    """

    report: dict[str, Any]
    reconstruction: Reconstruction
    evaluation: Evaluation | None


def write_results(
    staging: Path, target: Path, sweep: Sweep, trajectory: Trajectory, options: Namespace, console: Console
) -> None:
    """Reconstruct the volume, write everything into `staging` and say it; messages name `target`, where it ends up."""
    results = write_files(staging, sweep, trajectory, options, console)
    write_report(results.report, staging)
    console.say(_summary(results.report, target))
    console.result({"output": str(target), **results.report})


def write_files(staging: Path, sweep: Sweep, trajectory: Trajectory, options: Namespace, console: Console) -> Results:
    """Reconstruct the volume and write all files but the report."""
    reconstruction = reconstruct(sweep, trajectory, options, console)
    # Poses that a file got from an earlier estimate are nothing to measure an estimate by.
    measured = None if sweep.tracked is None or sweep.tracked.estimated_by is not None else sweep.tracked
    truth = None if trajectory is measured else measured
    evaluation = None
    if truth is not None and (truth.valid & trajectory.valid).sum() >= 2:
        evaluation = evaluate(trajectory, sweep, progress=console.progress)
    write_trajectory_csv(trajectory, staging / "trajectory.csv", sweep.timestamps_s)
    save_sweep(sweep, staging / "sweep.igs.mha", trajectory=trajectory, progress=console.progress)
    reconstruction.write(staging / "volume.nrrd")
    reconstruction.write(staging / "coverage.nrrd", "coverage")
    notes = [] if options.no_pictures else _write_pictures(staging, sweep, trajectory, reconstruction, truth)
    for note in notes:
        console.warn(note)
    return Results(_report(sweep, trajectory, reconstruction, evaluation, notes), reconstruction, evaluation)


def write_report(report: dict[str, Any], staging: Path) -> None:
    """Write report.json, and list in it what lies beside it."""
    report["files"] = sorted([path.name for path in staging.iterdir()] + ["report.json"])
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    (staging / "report.json").write_text(text + "\n", encoding="utf-8")


def reconstruct(sweep: Sweep, trajectory: Trajectory, options: Namespace, console: Console) -> Reconstruction:
    """The volume as the options of `run` and `reconstruct` want it."""
    voxel = options.voxel
    if voxel is not None and len(voxel) == 1:
        voxel = voxel[0]
    fan = None if options.fan == "none" else options.fan
    grid = plan_grid(
        sweep,
        trajectory,
        spacing_mm="auto" if voxel is None else voxel,
        axes=options.axes,
        frame=options.frame,
        clip=options.clip,
        fan=fan,
    )
    return reconstruct_volume(
        sweep,
        trajectory,
        grid,
        interpolation=options.interpolation,
        compounding=options.compounding,
        clip=options.clip,
        fan=fan,
        reject_below=options.reject_below,
        hole_filling=options.hole_filling,
        progress=console.progress,
    )


def _write_pictures(
    staging: Path, sweep: Sweep, trajectory: Trajectory, reconstruction: Reconstruction, truth: Trajectory | None
) -> list[str]:
    from DualTrackCore import pictures

    try:
        pictures.write_slices(reconstruction, staging / "slices.png")
        pictures.write_trajectory(trajectory, sweep, staging / "trajectory.png", truth=truth)
        pictures.write_motion(trajectory, staging / "motion.png", truth=truth, timestamps_s=sweep.timestamps_s)
    except MissingDependencyError as error:
        return [f"No pictures were written: {error}"]
    return []


def _report(
    sweep: Sweep,
    trajectory: Trajectory,
    reconstruction: Reconstruction,
    evaluation: Evaluation | None,
    notes: list[str],
) -> dict[str, Any]:
    from DualTrackCore.cli.sweeps import sweep_facts

    grid = reconstruction.grid
    return _plain(
        {
            "notice": NOTICE,
            "dualtrack_version": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "sweep": sweep_facts(sweep),
            "trajectory": {
                "poses": len(trajectory),
                "valid_poses": int(trajectory.valid.sum()),
                "path_length_mm": trajectory.path_length_mm,
                "source": dict(trajectory.provenance),
            },
            "volume": {
                "size": grid.size,
                "spacing_mm": grid.spacing_mm,
                "origin_mm": grid.origin_mm,
                "description": grid.describe(),
                "covered_fraction": reconstruction.covered_fraction,
                "filled_fraction": reconstruction.filled_fraction,
                "frames_used": reconstruction.frames_used,
                "frames_skipped": reconstruction.frames_skipped,
                "settings": {k: v for k, v in reconstruction.provenance.items() if k not in ("sweep", "trajectory")},
            },
            "evaluation": None if evaluation is None else evaluation.as_dict(),
            "warnings": [*trajectory.provenance.get("warnings", ()), *notes],
        }
    )


def _plain(value: Any) -> Any:
    """The same with nothing but what JSON knows; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _summary(report: Mapping[str, Any], target: Path) -> str:
    volume, trajectory = report["volume"], report["trajectory"]
    size = " x ".join(str(n) for n in volume["size"])
    spacing = " x ".join(f"{s:.3g}" for s in volume["spacing_mm"])
    used = plural(volume["frames_used"], "frame")
    if volume["frames_skipped"]:
        used += f", {volume['frames_skipped']} skipped as invalid"
    rows = [
        ("trajectory", f"{trajectory['path_length_mm']:.1f} mm path over {plural(trajectory['poses'], 'frame')}"),
        ("volume", f"{size} voxels of {spacing} mm from {used}; {volume['covered_fraction']:.0%} of it was seen"),
    ]
    if views := trajectory["source"].get("views"):
        rows.insert(1, ("views", f"mean of the sweep {', '.join(views)}"))
    if report["evaluation"] is not None:
        rows += _error_rows(report["evaluation"])
    rows.append(("results", str(target)))
    rows += [("", name) for name in report["files"]]
    return f"{columns(rows)}\n{report['notice']}"


def _error_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    own, still = evaluation["metrics"], evaluation["baselines"]["identity"]

    def against(name: str, unit: str) -> str:
        values = [figures.get(name) for figures in (own, still)]
        return " against ".join("undefined" if v is None else f"{v:.3g} {unit}" for v in values)

    return [
        ("mean error", f"{against('gpe_mm', 'mm')} for no motion at all (all pixels, against the tracking)"),
        ("final drift", f"{against('final_drift_mm', 'mm')} for no motion at all"),
    ]
