"""`dualtrack info` and `convert`."""

from __future__ import annotations

from argparse import Namespace

from DualTrackCore.cli.console import Console, columns, plural
from DualTrackCore.cli.parser import given_settings
from DualTrackCore.io import load_sweep, save_sweep
from DualTrackCore.run.pipeline import known_poses
from DualTrackCore.run.results import sweep_facts
from DualTrackCore.run.settings import TRACKED, RunSettings
from DualTrackCore.sweep import Sweep


def info(options: Namespace, console: Console) -> None:
    """Say what a sweep holds."""
    sweep = _load(options)
    facts = sweep_facts(sweep)
    console.say(str(options.sweep))
    console.say(columns(_info_rows(sweep)))
    for note in sweep.provenance.get("conversions", ()):
        console.say(f"  - {note}")
    console.result(facts)


def convert(options: Namespace, console: Console) -> None:
    """Write a sweep in another format, with its own poses or those of a file."""
    sweep = _load(options)
    poses = sweep.tracked if options.poses == TRACKED else known_poses(sweep, options.poses)
    save_sweep(sweep, options.output, trajectory=poses, progress=console.progress)
    console.say(f"Wrote {plural(len(sweep), 'frame')} to {options.output}.")
    console.result({"output": str(options.output), "sweep": sweep_facts(sweep)})


def _load(options: Namespace) -> Sweep:
    settings = RunSettings(**given_settings(options) | {"poses": TRACKED})
    return load_sweep(options.sweep, calibration=settings.calibration, spacing_mm=settings.spacing_mm)


def _info_rows(sweep: Sweep) -> list[tuple[str, str]]:
    height, width = sweep.frame_size
    rows = [
        ("format", str(sweep.provenance.get("format", "unknown"))),
        ("frames", f"{len(sweep)} of {width} x {height} pixels" if sweep.has_images else f"{len(sweep)}, no images"),
    ]
    if missing := int((~sweep.frame_valid).sum()):
        rows.append(("without image", plural(missing, "frame")))
    if sweep.spacing_mm is None:
        rows.append(("pixel spacing", "unknown: give --spacing or --calibration"))
    else:
        across, down = sweep.spacing_mm
        source = sweep.provenance.get("spacing_source", "unknown")
        rows.append(("pixel spacing", f"{across:.5g} x {down:.5g} mm, from: {source}"))
        rows.append(("field of view", f"{across * width:.1f} x {down * height:.1f} mm (width x depth)"))
    if sweep.duration_s is not None:
        rate = "" if sweep.frame_rate_hz is None else f", {sweep.frame_rate_hz:.3g} frames/s"
        rows.append(("duration", f"{sweep.duration_s:.3g} s{rate}"))
    if sweep.tracked is None:
        rows.append(("tracking", str(sweep.provenance.get("tracking") or "none")))
    else:
        valid = int(sweep.tracked.valid.sum())
        what = "tracking" if sweep.tracked.estimated_by is None else "estimated poses"
        rows.append((what, f"{valid} of {len(sweep)} frames, path {sweep.tracked.path_length_mm:.1f} mm"))
    return rows
