"""The folder of one job: frames for the worker, and its result.

Arrays are plain .npy files that the other side maps instead of reading; everything else is JSON or a small .npz.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from DualTrackCore.files import plain_values
from DualTrackCore.pixels import FilePixels
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.reconstruction.grid import VoxelGrid
from DualTrackCore.run.results import RunReport, RunResult
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

#: Frames written at once, so that a cancelled job stops soon.
WINDOW_FRAMES = 32
_TRAJECTORY_ARRAYS = ("poses", "valid", "reference_from_frame0")
_VOLUME_ARRAYS = ("volume", "coverage", "filled")


def write_sweep(folder: Path, sweep: Sweep, reporter: Reporter) -> None:
    """Write a sweep into a folder, which must exist; reports `Stage.SENDING` (frames).

    Raises:
        OSError: no room.
        Cancelled: the caller asked to stop; the folder is left to the caller.
    """
    _write_frames(folder / "frames.npy", sweep, reporter)
    arrays = {"frame_valid": sweep.frame_valid, **_trajectory_arrays(sweep.tracked)}
    if sweep.timestamps_s is not None:
        arrays["timestamps_s"] = sweep.timestamps_s
    np.savez(folder / "sweep.npz", **arrays)
    facts = {
        "spacing_mm": sweep.spacing_mm,
        "skew_deg": sweep.skew_deg,
        "provenance": sweep.provenance,
        "tracked": None if sweep.tracked is None else _source(sweep.tracked),
    }
    _write_json(folder / "sweep.json", facts)


def read_sweep(folder: Path) -> Sweep:
    """The sweep that :func:`write_sweep` wrote; frames are read when they are asked for."""
    facts = _read_json(folder / "sweep.json")
    with np.load(folder / "sweep.npz") as file:
        arrays = dict(file)
    return Sweep(
        _read_frames(folder / "frames.npy"),
        spacing_mm=facts["spacing_mm"],
        timestamps_s=arrays.get("timestamps_s"),
        frame_valid=arrays["frame_valid"],
        tracked=None if facts["tracked"] is None else _trajectory(arrays, facts["tracked"]),
        skew_deg=facts["skew_deg"],
        provenance=facts["provenance"],
    )


def write_result(folder: Path, result: RunResult) -> None:
    """Write a result, all but its frames, into a new folder of a folder that exists; it appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        staging = Path(place, "new")
        staging.mkdir()
        arrays, volume = _trajectory_arrays(result.trajectory), result.reconstruction
        facts = {"trajectory": _source(result.trajectory), "report": result.report, "seconds": result.seconds}
        if volume is not None:
            for name in _VOLUME_ARRAYS:
                np.save(staging / f"{name}.npy", getattr(volume, name))
            arrays |= {"grid_origin_mm": volume.grid.origin_mm, "grid_axes": volume.grid.axes}
            facts["grid"] = {name: getattr(volume.grid, name) for name in ("spacing_mm", "size", "note")}
            facts["volume"] = {name: getattr(volume, name) for name in ("frames_used", "frames_skipped", "provenance")}
        np.savez(staging / "arrays.npz", **arrays)
        _write_json(staging / "result.json", facts)
        staging.rename(folder)


def read_result(folder: Path, sweep: Sweep) -> RunResult:
    """The result that :func:`write_result` wrote; `sweep` holds its frames.

    Volume and coverage are mapped, writable without changing the file, and stay readable when the folder is deleted;
    on Windows, where a mapped file cannot be deleted, they are read.
    """
    facts = _read_json(folder / "result.json")
    with np.load(folder / "arrays.npz") as file:
        arrays = dict(file)
    volume = None
    if "grid" in facts:
        from DualTrackCore.reconstruction import Reconstruction

        mode = None if os.name == "nt" else "c"
        grid = {**facts["grid"], "size": tuple(facts["grid"]["size"])}
        volume = Reconstruction(
            *(np.asarray(np.load(folder / f"{name}.npy", mmap_mode=mode)) for name in _VOLUME_ARRAYS),
            VoxelGrid(arrays["grid_origin_mm"], axes=arrays["grid_axes"], **grid),
            **facts["volume"],
        )
    trajectory = _trajectory(arrays, facts["trajectory"])
    return RunResult(sweep, trajectory, volume, RunReport.from_dict(facts["report"]), facts["seconds"])


def _write_frames(path: Path, sweep: Sweep, reporter: Reporter) -> None:
    shape = (len(sweep), *sweep.frame_size)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    # Written, not mapped: where there is no room, a write fails with an error and a mapping ends the whole process.
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for first, frames in sweep.windows(WINDOW_FRAMES):
            reporter.report(Stage.SENDING, first, len(sweep))
            file.write(np.ascontiguousarray(frames, dtype=np.uint8).data)
    reporter.report(Stage.SENDING, len(sweep), len(sweep))


def _read_frames(path: Path) -> FilePixels:
    """The frames of an .npy file, in windows: a mapping of a file that is gone or cut would end the process."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return FilePixels(path, file.tell(), shape, dtype)


def _trajectory_arrays(trajectory: Trajectory | None) -> dict[str, np.ndarray]:
    values = {} if trajectory is None else {name: getattr(trajectory, name) for name in _TRAJECTORY_ARRAYS}
    return {name: value for name, value in values.items() if value is not None}


def _source(trajectory: Trajectory) -> dict[str, Any]:
    return {"provenance": trajectory.provenance, "origin": trajectory.origin}


def _trajectory(arrays: Mapping[str, np.ndarray], source: Mapping[str, Any]) -> Trajectory:
    return Trajectory(*(arrays.get(name) for name in _TRAJECTORY_ARRAYS), **source)


def _write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(plain_values(values), allow_nan=False), encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
