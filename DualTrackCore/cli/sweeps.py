"""`dualtrack info`, `run`, `track`, `reconstruct` and `convert`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from DualTrackCore.cli.console import Console, columns, plural
from DualTrackCore.errors import InputError
from DualTrackCore.files import staged_folder
from DualTrackCore.io import load_sweep, read_trajectory_csv, save_sweep, write_trajectory_csv
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory


def info(options: Namespace, console: Console) -> None:
    """What a sweep holds."""
    sweep = _load(options)
    facts = sweep_facts(sweep)
    console.say(str(options.sweep))
    console.say(columns(_info_rows(sweep)))
    for note in sweep.provenance.get("conversions", ()):
        console.say(f"  - {note}")
    console.result(facts)


def run(options: Namespace, console: Console) -> None:
    """Images to trajectory to volume, with pictures and a report."""
    with staged_folder(options.output) as folder:
        sweep = _load(options)
        trajectory = _estimate(sweep, options, console)
        _write_results(folder, Path(options.output), sweep, trajectory, options, console)


def track(options: Namespace, console: Console) -> None:
    """Images to trajectory."""
    output = Path(options.output)
    if output.suffix.lower() not in (".csv", ".mha", ".nrrd", ".h5", ".hdf5"):
        raise InputError(f"{output.name} is no trajectory file; choose .csv, .igs.mha, .seq.nrrd or .h5.")
    sweep = _load(options)
    trajectory = _estimate(sweep, options, console)
    if output.suffix.lower() == ".csv":
        write_trajectory_csv(trajectory, output, sweep.timestamps_s)
    else:
        save_sweep(sweep, output, trajectory=trajectory, progress=console.progress)
    console.say(f"The path of {plural(len(sweep), 'frame')} is {trajectory.path_length_mm:.1f} mm long: {output}")
    console.result({"output": str(output), "trajectory": dict(trajectory.provenance)})


def reconstruct(options: Namespace, console: Console) -> None:
    """Known poses to volume."""
    with staged_folder(options.output) as folder:
        sweep = _load(options)
        trajectory = _known_poses(sweep, options.poses)
        if trajectory is None:
            raise InputError(_why_untracked(sweep))
        _write_results(folder, Path(options.output), sweep, trajectory, options, console)


def convert(options: Namespace, console: Console) -> None:
    """One format to another."""
    sweep = _load(options)
    save_sweep(sweep, options.output, trajectory=_known_poses(sweep, options.poses), progress=console.progress)
    console.say(f"Wrote {plural(len(sweep), 'frame')} to {options.output}.")
    console.result({"output": str(options.output), "sweep": sweep_facts(sweep)})


def sweep_facts(sweep: Sweep) -> dict[str, object]:
    """What is known about a sweep, as plain values."""
    tracked = sweep.tracked
    return {
        "frames": len(sweep),
        "frame_size": list(sweep.frame_size),
        "frames_without_image": int((~sweep.frame_valid).sum()),
        "spacing_mm": None if sweep.spacing_mm is None else list(sweep.spacing_mm),
        "skew_deg": sweep.skew_deg,
        "duration_s": sweep.duration_s,
        "frame_rate_hz": sweep.frame_rate_hz,
        "tracked_frames": None if tracked is None else int(tracked.valid.sum()),
        "path_length_mm": None if tracked is None else tracked.path_length_mm,
        "provenance": dict(sweep.provenance),
    }


def _write_results(
    folder: Path, output: Path, sweep: Sweep, trajectory: Trajectory, options: Namespace, console: Console
) -> None:
    from DualTrackCore.cli.results import write_results  # `info` needs neither volumes nor metrics

    write_results(folder, output, sweep, trajectory, options, console)


def _load(options: Namespace) -> Sweep:
    spacing = options.spacing
    spacing = spacing[0] if spacing is not None and len(spacing) == 1 else spacing
    return load_sweep(options.sweep, calibration=options.calibration, spacing_mm=spacing)


def _estimate(sweep: Sweep, options: Namespace, console: Console) -> Trajectory:
    from DualTrackCore.network import load_model
    from DualTrackCore.tracking import estimate_trajectory

    model = load_model(options.model, card=options.card)
    settings = {"device": options.device, "precision": options.precision, "chunk_frames": options.chunk}
    return estimate_trajectory(sweep, model, views=options.views, progress=console.progress, **settings)


def _known_poses(sweep: Sweep, poses: str) -> Trajectory | None:
    if poses == "tracked":
        return sweep.tracked
    trajectory = read_trajectory_csv(poses)
    if len(trajectory) != len(sweep):
        raise InputError(f"{poses} has {len(trajectory)} poses and the sweep {len(sweep)} frames; they must be equal.")
    return trajectory


def _why_untracked(sweep: Sweep) -> str:
    reason = sweep.provenance.get("tracking") or "The sweep holds no tracking."
    return f"{reason} Give poses with --poses FILE, or estimate them with `dualtrack run`."


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
