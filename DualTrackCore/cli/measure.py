"""`dualtrack measure`: a length in what a run left in its folder, with how far it may be off."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from DualTrackCore.cli.console import Console, columns
from DualTrackCore.errors import InputError
from DualTrackCore.io import load_sweep
from DualTrackCore.measurement import Measurements
from DualTrackCore.measurement.points import read_points
from DualTrackCore.sweep import Sweep

#: The file of a run that has the places of the frames, their size and what is known of their errors.
_SWEEP = "sweep.igs.mha"


def measure(options: Namespace, console: Console) -> None:
    """Measure between two points, or along the points of a file, RAS in the world of the result's files."""
    ras_mm, closed = _points(options)
    sweep = _sweep_of(Path(options.folder))
    path = sweep.tracked
    frame0_from_ras = np.linalg.inv(path.ras_from_frame0)
    points = ras_mm @ frame0_from_ras[:3, :3].T + frame0_from_ras[:3, 3]
    measurements = Measurements(path, sweep)
    length = measurements.length(points, closed=closed)
    ties = measurements.planes.tie(points)
    pixels = measurements.planes.pixels_of(ties)
    rows = [
        ("length", f"{length.value:.1f} {length.unit}"),
        ("68 %", length.band_text(length.band_68)),
        ("95 %", length.band_text(length.band_95)),
        ("basis", length.basis),
        ("trust", length.trust),
    ]
    places: list[dict[str, Any]] = []
    for ras, frame, pixel, apart in zip(ras_mm, ties.frames[:, 0], pixels, ties.distances_mm, strict=True):
        places.append({"ras_mm": ras, "frame": frame, "pixel": pixel, "distance_mm": apart})
    for name, at in (("from", 0), ("to", -1)):
        frame, (column, row) = ties.frames[at, 0], pixels[at]
        apart = f", {ties.distances_mm[at]:.1f} mm beside it" if ties.distances_mm[at] >= 0.05 else ""
        rows.append((name, f"frame {frame}, column {column:.0f}, row {row:.0f}{apart}"))
    console.say(columns(rows))
    values = {"length_mm": length.value, "band_68_mm": length.band_68, "band_95_mm": length.band_95}
    trust = {"level": length.level, "reason": length.reason, "text": length.trust}
    console.result({"folder": str(options.folder), **values, "basis": length.basis, "trust": trust, "points": places})


def _points(options: Namespace) -> tuple[np.ndarray, bool]:
    """[K, 3] RAS, mm, and whether they are the corners of a closed curve."""
    ends = [end for end in (options.start, options.end) if end is not None]
    if len(ends) != (0 if options.points else 2):
        raise InputError("Two ends or a file say what is measured; give --from R,A,S and --to R,A,S, or --points FILE.")
    return read_points(Path(options.points)) if options.points else (np.array(ends), False)


def _sweep_of(folder: Path) -> Sweep:
    """The sweep with its path that a run left in a folder."""
    if not (folder / _SWEEP).is_file():
        lacks = f"holds no {_SWEEP}" if folder.is_dir() else "is no folder"
        raise InputError(
            f"{folder} {lacks}, so there is nothing to measure in; give the folder that dualtrack run wrote."
        )
    sweep = load_sweep(folder / _SWEEP)
    if sweep.tracked is None:
        raise InputError(f"{folder / _SWEEP} holds no poses, so no length is known in it; run the clip again.")
    return sweep
