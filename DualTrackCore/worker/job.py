"""What goes between a client and the worker through the folder of a job: frames, results, and how a run failed.

Arrays in the folder are plain .npy files that the other side maps instead of reading; everything else is JSON or a
small .npz.
"""

from __future__ import annotations

import functools
import json
import math
import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from DualTrackCore.errors import DualTrackError
from DualTrackCore.files import plain_values
from DualTrackCore.pixels import FilePixels
from DualTrackCore.progress import Progress, Stage
from DualTrackCore.reconstruction import Fan, PlacedFrames
from DualTrackCore.reconstruction.detect import ImageArea, PictureParts
from DualTrackCore.reconstruction.grid import VoxelGrid
from DualTrackCore.run.pipeline import with_spacing
from DualTrackCore.run.preparation import looked_at, prepare
from DualTrackCore.run.results import RunReport, RunResult
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

#: Pixels written at once, so that a cancelled job stops soon, and whoever writes between other things is not held up.
WINDOW_PIXELS = 4_000_000
#: The frames of a job, in its folder.
FRAMES = "frames.npy"
_TRAJECTORY_ARRAYS = ("poses", "valid", "reference_from_frame0", "sigma", "path_covariance")
_VOLUME_ARRAYS = ("volume", "coverage", "filled")


class JobFailed(DualTrackError):
    """A run that ended without a result; `str()` is one sentence.

    Attributes:
        kind: what to offer next: "input" (settings or sweep), "memory" (smaller chunk, CPU, coarser voxels), "disk",
            "missing" (a package), "start" (the process did not start), "version" (of another DualTrack), "crash" (the
            process ended or wrote something unreadable), "fault" (an error in the program).
        log_path: log of the process; it is deleted when the client stops.
        details: the end of the log or the traceback, to be copied into a report.
        about: name of the setting that is wrong, as :class:`~DualTrackCore.errors.InputError` has it.
    """

    def __init__(self, message: str, log_path: Path, details: str = "", kind: str = "fault", about: str = "") -> None:
        super().__init__(message)
        self.log_path = Path(log_path)
        self.details = details
        self.kind, self.about = kind, about


class RunTask:
    """A run as a client hands it over: the prepared clip into a folder, the request, and the result back.

    Args:
        sweep: the clip.
        settings: of the run.
        path: gives that of the frames used by an earlier run, in pieces; it is corrected in place of tracking again.

    Raises InputError: the range of frames is not in the sweep, or a setting is for files only.
    """

    def __init__(
        self, sweep: Sweep, settings: RunSettings, path: Generator[None, None, Trajectory] | None = None
    ) -> None:
        self._settings, self._path = settings.with_whole_paths(), path
        self._parts: PictureParts | None = None
        self._given = with_spacing(sweep, self._settings)
        self._settings.frame_range(len(sweep))

    def knowing(self, parts: PictureParts) -> RunTask:
        """This task, with what a :class:`PartsTask` has found; otherwise sending looks for it, which takes a while."""
        self._parts = parts
        return self

    @functools.cached_property
    def _sweep(self) -> Sweep:
        return prepare(self._given, self._settings, self._parts).sweep  # when its turn comes: it reads frames

    def send(self, folder: Path) -> Iterator[Progress]:
        """Write the clip into a folder, which must exist, piece by piece.

        Raises OSError: no room.
        """
        for done, total in write_sweep(folder, self._sweep):
            yield Progress(Stage.SENDING, done, total)
        if self._path is not None:
            path = yield from _gathered(self._path)
            np.savez(folder / "path.npz", **_trajectory_arrays(path))
            _write_json(folder / "path.json", _source(path))

    def request(self, folder: Path) -> dict[str, Any]:
        """What to ask the worker for, once all is sent."""
        return {"do": "run", "folder": str(folder), "settings": self._settings.as_dict()}

    def result(self, answer: Mapping[str, Any]) -> RunResult:
        """The result that the worker has answered."""
        return read_result(Path(answer["folder"]), self._sweep)


def _gathered(pieces: Generator[None, None, Trajectory]) -> Generator[Progress, None, Trajectory]:
    """What work in pieces gives, with a report for each of them."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value
        yield Progress(Stage.SENDING, 0, 1)


class LoopsTask(RunTask):
    """As :class:`RunTask`, the question where along the path the probe may have come back, by the pictures."""

    def request(self, folder: Path) -> dict[str, Any]:
        """What to ask the worker for."""
        return {"do": "loops", "folder": str(folder)}

    def result(self, answer: Mapping[str, Any]) -> list[tuple[tuple[int, int], float]]:
        """Pairs of frames of the clip, and how alike their pictures are, 0 to 1."""
        first = self._settings.first_frame
        return [((a + first, b + first), alike) for (a, b), alike in answer["loops"]]


class PartsTask:
    """As :class:`RunTask`, the question what the pictures of a clip consist of, once they are turned and cropped.

    Args:
        sweep: the clip.
        settings: of the run.
        then: makes the result of the :class:`PictureParts`.

    Raises InputError: frames, crop or mask are not in the clip.
    """

    def __init__(
        self, sweep: Sweep, settings: RunSettings, then: Callable[[PictureParts], object] = lambda parts: parts
    ) -> None:
        self._frames, self._then = looked_at(with_spacing(sweep, settings), settings), then

    def send(self, folder: Path) -> Iterator[Progress]:
        """Write the few frames that are looked at."""
        for _done in write_sweep(folder, self._frames):
            yield Progress(Stage.SENDING, 0, 1)

    def request(self, folder: Path) -> dict[str, Any]:
        """What to ask the worker for."""
        return {"do": "parts", "folder": str(folder)}

    def result(self, answer: Mapping[str, Any]) -> object:
        """What `then` makes of the answer."""
        area = answer["area"]
        if area is not None:
            area = ImageArea(tuple(area["clip"]), area["fan"] and Fan(**area["fan"]), area["confidence"])
        return self._then(PictureParts(area, np.load(answer["marks"]), tuple(map(tuple, answer["regions"]))))


@dataclass(frozen=True)
class PreflightTask:
    """As :class:`RunTask`, the question whether this computer can run, which needs no files."""

    device: str

    def send(self, folder: Path) -> Iterator[Progress]:
        """Nothing."""
        return iter(())

    def request(self, folder: Path) -> dict[str, Any]:
        """What to ask the worker for."""
        return {"do": "preflight", "device": self.device}

    def result(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The dict of :func:`DualTrackCore.worker.preflight`."""
        return dict(answer)


def write_sweep(folder: Path, sweep: Sweep) -> Iterator[tuple[int, int]]:
    """Write a sweep into a folder, which must exist, a piece at each step; yields (frames written, of how many).

    Raises OSError: no room.
    """
    yield from _write_frames(folder / FRAMES, sweep)
    write_facts(folder, sweep)


def write_facts(folder: Path, sweep: Sweep) -> None:
    """Write what :func:`write_sweep` does besides the frames, for frames that are there."""
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
        read_frames(folder / FRAMES),
        spacing_mm=facts["spacing_mm"],
        timestamps_s=arrays.get("timestamps_s"),
        frame_valid=arrays["frame_valid"],
        tracked=None if facts["tracked"] is None else _trajectory(arrays, facts["tracked"]),
        skew_deg=facts["skew_deg"],
        provenance=facts["provenance"],
    )


def read_path(folder: Path) -> Trajectory | None:
    """The path that a :class:`RunTask` sent with its sweep; None where it sent none."""
    if not (folder / "path.json").is_file():
        return None
    with np.load(folder / "path.npz") as file:
        return _trajectory(dict(file), _read_json(folder / "path.json"))


def write_parts(folder: Path, parts: PictureParts) -> dict[str, Any]:
    """Write what was found in pictures into a folder; the answer to a :class:`PartsTask`."""
    np.save(folder / "marks.npy", parts.marks)
    return {"marks": str(folder / "marks.npy"), "area": parts.area, "regions": parts.regions}


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
            if volume.placed is not None:
                arrays |= {f"placed_{name}": array for name, array in volume.placed._asdict().items()}
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
            placed=_placed(arrays),
            **facts["volume"],
        )
    trajectory = _trajectory(arrays, facts["trajectory"])
    return RunResult(sweep, trajectory, volume, RunReport.from_dict(facts["report"]), facts["seconds"])


def _write_frames(path: Path, sweep: Sweep) -> Iterator[tuple[int, int]]:
    shape = (len(sweep), *sweep.frame_size)
    # Written, not mapped: where there is no room, a write fails with an error and a mapping ends the whole process.
    with path.open("wb") as file:
        begin_frames(file, shape)
        for first, frames in sweep.windows(max(1, WINDOW_PIXELS // math.prod(sweep.frame_size))):
            yield first, len(sweep)
            file.write(np.ascontiguousarray(frames, dtype=np.uint8).data)
    yield len(sweep), len(sweep)


def begin_frames(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Write what goes before the pixels [N, H, W] in the file of the frames."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def read_frames(path: Path) -> FilePixels:
    """The frames of an .npy file, in windows: a mapping of a file that is gone or cut would end the process."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return FilePixels(path, file.tell(), shape, dtype)


def _trajectory_arrays(trajectory: Trajectory | None) -> dict[str, np.ndarray]:
    values = {} if trajectory is None else {name: getattr(trajectory, name) for name in _TRAJECTORY_ARRAYS}
    return {name: value for name, value in values.items() if value is not None}


def _placed(arrays: Mapping[str, np.ndarray]) -> PlacedFrames | None:
    found = {name: arrays[f"placed_{name}"] for name in PlacedFrames._fields if f"placed_{name}" in arrays}
    return PlacedFrames(**found) if found else None


def _source(trajectory: Trajectory) -> dict[str, Any]:
    return {"provenance": trajectory.provenance, "origin": trajectory.origin}


def _trajectory(arrays: Mapping[str, np.ndarray], source: Mapping[str, Any]) -> Trajectory:
    return Trajectory(**{name: arrays[name] for name in _TRAJECTORY_ARRAYS if name in arrays}, **source)


def _write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(plain_values(values), allow_nan=False), encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
