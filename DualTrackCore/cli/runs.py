"""`dualtrack run`, `track` and `reconstruct`: options to settings, a run, and what came of it in words."""

from __future__ import annotations

import glob
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from DualTrackCore.cli.batch import run_several
from DualTrackCore.cli.console import Console, columns, plural
from DualTrackCore.cli.options import given_settings
from DualTrackCore.errors import InputError
from DualTrackCore.files import staged_folder
from DualTrackCore.io import save_sweep, write_trajectory_csv
from DualTrackCore.progress import Reporter
from DualTrackCore.run.pipeline import run as run_clip
from DualTrackCore.run.results import RunReport
from DualTrackCore.run.settings import RunSettings


def run(options: Namespace, console: Console) -> bool:
    """Images to trajectory to volume, with pictures and a report; returns whether every sweep could be used."""
    settings, sweeps = _settings(options), _expanded(options.sweeps)
    if len(sweeps) > 1:
        return run_several(sweeps, settings, Path(options.output), console)
    _run_into(options.output, sweeps[0], settings, console)
    return True


def reconstruct(options: Namespace, console: Console) -> None:
    """Known poses to volume."""
    _run_into(options.output, options.sweep, _settings(options), console)


def track(options: Namespace, console: Console) -> None:
    """Images to trajectory."""
    output = Path(options.output)
    if output.suffix.lower() not in (".csv", ".mha", ".nrrd", ".h5", ".hdf5"):
        raise InputError(f"{output.name} is no trajectory file; choose .csv, .igs.mha, .seq.nrrd or .h5.")
    settings = _settings(options, reconstruct=False, evaluate=False)
    result = run_clip(options.sweep, settings, Reporter(console.progress))
    sweep, trajectory = result.sweep, result.trajectory
    if output.suffix.lower() == ".csv":
        write_trajectory_csv(trajectory, output, sweep.timestamps_s)
    else:
        save_sweep(sweep, output, trajectory=trajectory, progress=console.progress)
    console.say(f"The path of {plural(len(sweep), 'frame')} is {trajectory.path_length_mm:.1f} mm long: {output}")
    console.result({"output": str(output), "trajectory": dict(trajectory.provenance)})


def _settings(options: Namespace, **fixed: Any) -> RunSettings:
    """The settings of the file given with --config, with the given options over them."""
    given = {**given_settings(options, RunSettings), **fixed}
    return RunSettings(**given) if options.config is None else RunSettings.from_yaml(options.config, given)


def _expanded(sweeps: Sequence[str]) -> list[str]:
    """The sweeps, with patterns replaced by what they match, for shells that do not do so."""
    found = [sorted(glob.glob(s)) if glob.has_magic(s) and not Path(s).exists() else [s] for s in sweeps]
    for pattern, matches in zip(sweeps, found, strict=True):
        if not matches:
            raise InputError(f"No sweep matches {pattern}; check folder and pattern.")
    return [path for matches in found for path in matches]


def _run_into(output: str, sweep: str, settings: RunSettings, console: Console) -> None:
    with staged_folder(output) as folder:
        result = run_clip(sweep, settings, Reporter(console.progress))
        report = result.write(folder, Reporter(console.progress))
    for note in report.warnings[len(result.report.warnings) :]:
        console.warn(note)
    console.say(_summary(report, Path(output)))
    console.result({"output": str(output), **report.as_dict()})


def _summary(report: RunReport, target: Path) -> str:
    trajectory = report.trajectory
    rows = [("trajectory", f"{trajectory['path_length_mm']:.1f} mm path over {plural(trajectory['poses'], 'frame')}")]
    if augmented := trajectory["source"].get("test_time_augmentation"):
        rows.append(("augmentation", f"mean of the sweep {', '.join(augmented)}"))
    if report.volume is not None:
        rows.append(("volume", _volume_text(report.volume)))
    if report.evaluation is not None:
        rows += _error_rows(report.evaluation)
    rows.append(("results", str(target)))
    rows += [("", name) for name in report.files]
    return f"{columns(rows)}\n{report.notice}"


def _volume_text(volume: dict[str, Any]) -> str:
    size = " x ".join(str(n) for n in volume["size"])
    spacing = " x ".join(f"{s:.3g}" for s in volume["spacing_mm"])
    used = plural(volume["frames_used"], "frame")
    if volume["frames_skipped"]:
        used += f", {volume['frames_skipped']} skipped as invalid"
    return f"{size} voxels of {spacing} mm from {used}; {volume['covered_fraction']:.0%} of it was seen"


def _error_rows(evaluation: dict[str, Any]) -> list[tuple[str, str]]:
    own, still = evaluation["metrics"], evaluation["baselines"]["identity"]

    def against(name: str, unit: str) -> str:
        values = [figures.get(name) for figures in (own, still)]
        return " against ".join("undefined" if v is None else f"{v:.3g} {unit}" for v in values)

    return [
        ("mean error", f"{against('gpe_mm', 'mm')} for no motion at all (all pixels, against the tracking)"),
        ("final drift", f"{against('final_drift_mm', 'mm')} for no motion at all"),
    ]
