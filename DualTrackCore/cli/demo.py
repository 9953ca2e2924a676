"""`dualtrack demo`: the whole way on the sample sweep, measured against the truth, with a word on every result."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from DualTrackCore.cli.console import Console, columns, plural
from DualTrackCore.io import write_trajectory_csv
from DualTrackCore.progress import Reporter
from DualTrackCore.reconstruction import seen_text, spacing_text
from DualTrackCore.run import run
from DualTrackCore.run.results import RunReport, RunResult, result_paths, results_folder, write_report
from DualTrackCore.run.settings import NOTICE, TRACKED, RunSettings
from DualTrackCore.sample import sample_sweep

HONESTY = "Sweep and training data are simulated: the figures say nothing about patients."
#: Metric, its unit, its name in the table, and what it means.
_ROWS = (
    ("gpe_mm", "mm", "GPE", "how far pixels are off, mean over all pixels and frames"),
    ("lpe_mm", "mm", "LPE", "the same for single steps, from each frame to the next"),
    ("fdr_percent", "%", "FDR, distance", "error at the end as a part of the straight distance"),
    ("fdr_path_percent", "%", "FDR, path", "the same as a part of the length of the path"),
    ("final_drift_mm", "mm", "final drift", "how far the centre of the last image is off"),
    ("max_drift_mm", "mm", "largest drift", "the same where it is largest"),
)
_FILES = {
    "comparison.png": "look at this first: both volumes, both paths, and how the error grows",
    "slices.png": "the volume from estimated poses in three slices and a projection",
    "trajectory.png": "the estimated path in 3D, the true one in grey",
    "motion.png": "the six components of the motion from frame to frame",
    "volume.nrrd": "grey values, placed by the estimated poses",
    "true-volume.nrrd": "the same frames, placed by the true poses",
    "coverage.nrrd": "how much was seen of each voxel: unseen is not dark",
    "sweep.igs.mha": "the frames with their estimated poses",
    "trajectory.csv": "the estimated poses",
    "true-trajectory.csv": "the true poses",
    "settings.yaml": "the settings, for `dualtrack run --config`",
    "report.json": "model, settings, warnings and all figures",
}


def demo(options: Namespace, console: Console) -> None:
    """Track and reconstruct the sample sweep with the model that ships, and compare with the true poses."""
    target, reporter = Path(options.output), Reporter(console.progress)
    settings = RunSettings()
    with results_folder(target) as folder:
        sweep = sample_sweep()
        console.say(
            f"The sample sweep, {plural(len(sweep), 'simulated frame')} on a path of "
            f"{sweep.tracked.path_length_mm:.1f} mm, goes through the model {settings.model},\n"
            "which never saw it. Its true poses are known and only used to measure the result."
        )
        result = run(sweep, settings, reporter, outputs=result_paths(target))
        report = result.write_files(folder, reporter)
        _write_truth(folder, result, reporter)
        report = write_report(replace(report, about=HONESTY), folder)
    for note in report.warnings[len(result.warnings) :]:
        console.warn(note)
    console.say(_summary(report, settings.model, target))
    console.result({"output": str(target), **report.as_dict()})


def _write_truth(folder: Path, result: RunResult, reporter: Reporter) -> None:
    """Write the volume from the true poses, the poses, and the picture of both."""
    sweep = result.sweep
    true = run(sweep, RunSettings(poses=TRACKED), reporter)
    true.reconstruction.write(folder / "true-volume.nrrd")
    write_trajectory_csv(sweep.tracked, folder / "true-trajectory.csv", sweep.timestamps_s)
    if (folder / "slices.png").is_file():  # else there is nothing to draw with, which was said already
        from DualTrackCore.pictures import write_comparison

        picture = folder / "comparison.png"
        write_comparison(
            result.reconstruction, true.reconstruction, result.trajectory, sweep.tracked, result.evaluation, picture
        )


def _summary(report: RunReport, model: str, target: Path) -> str:
    volume = report.volume
    size = " x ".join(str(n) for n in volume["size"])
    seen = seen_text(volume["covered_fraction"], volume["filled_fraction"])
    lines = [
        "",
        f"The volume has {size} voxels of {spacing_text(volume['spacing_mm'])}; {seen}.",
        "",
        _table(report.evaluation, model),
        "",
        '"No motion" leaves every frame on the first one. "Mean motion" repeats the mean of the true steps, so it was',
        "told what the model has to find out, all but the changes from step to step.",
        HONESTY,
        "",
        f"Results are in {target}:",
        columns([(name, what) for name, what in _FILES.items() if name in report.files]),
        "",
        "In 3D Slicer, drag volume.nrrd and true-volume.nrrd into the window; sweep.igs.mha needs the extension",
        "SlicerIGSIO. Your own clip goes the same way: `dualtrack run CLIP -o DIR`.",
        NOTICE,
    ]
    return "\n".join(lines)


def _table(evaluation: Mapping[str, Any], model: str) -> str:
    """Metrics of the estimate beside those of the baselines, each with what it means."""
    figures = [evaluation["metrics"], evaluation["baselines"]["identity"], evaluation["baselines"]["mean_motion"]]
    rows = [["", model, "no motion", "mean motion", ""]]
    for key, unit, name, meaning in _ROWS:
        rows.append([name, *(_figure(values.get(key), unit) for values in figures), meaning])
    return columns(rows, right=(1, 2, 3))


def _figure(value: float | None, unit: str) -> str:
    """Three digits and the unit."""
    if value is None:
        return "undefined"
    return f"{value:.0f} {unit}" if abs(value) >= 99.95 else f"{value:#.3g} {unit}"
