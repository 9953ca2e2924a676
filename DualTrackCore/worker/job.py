"""One piece of work: as its owner sees it (progress, cancel, result), and its folder of frames and results.

Arrays in the folder are plain .npy files that the other side maps instead of reading; everything else is JSON or a
small .npz.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from DualTrackCore.errors import Cancelled, DualTrackError
from DualTrackCore.files import plain_values
from DualTrackCore.pixels import FilePixels
from DualTrackCore.progress import Progress, Reporter, Stage
from DualTrackCore.reconstruction.grid import VoxelGrid
from DualTrackCore.run.results import RunReport, RunResult
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

#: Writes what the worker needs into the folder of the job, and says what to ask it for.
Request = Callable[[Path, Reporter], dict[str, Any]]
#: Makes the outcome of the values that the worker answers.
Answer = Callable[[dict[str, Any]], "RunResult | dict[str, Any]"]


class JobFailed(DualTrackError):
    """A run that ended without a result; `str()` is one sentence.

    Attributes:
        kind: what to offer next: "input" (settings or sweep), "memory" (smaller chunk, CPU, coarser voxels), "disk",
            "missing" (a package), "start" (the process did not start), "version" (of another DualTrack), "crash" (the
            process ended or wrote something unreadable), "fault" (an error in the program).
        log_path: log of the process; it is deleted when the client stops.
        details: the end of the log or the traceback, to be copied into a report.
    """

    def __init__(self, message: str, log_path: Path, details: str = "", kind: str = "fault") -> None:
        super().__init__(message)
        self.log_path = Path(log_path)
        self.details = details
        self.kind = kind


class Job:
    """One piece of work of a :class:`~DualTrackCore.worker.WorkerClient`.

    Attributes:
        state: "running" (also while it waits for its turn), "done", "failed" or "cancelled".
        answer: for the session: makes the outcome of what the worker answers.
    """

    def __init__(self, owner: object, request: Request, answer: Answer = lambda values: values) -> None:
        self.state = "running"
        self.submitted_s = time.perf_counter()
        self._owner = owner  # a client lives as long as its jobs are of interest
        self._request, self.answer = request, answer
        self._lock = threading.Lock()
        self._started = False
        self._cancelled = threading.Event()
        self._finished = threading.Event()
        self._reports: deque[Progress] = deque()
        self._outcome: RunResult | dict[str, Any] | DualTrackError | None = None
        self._wake: Callable[[], None] = lambda: None

    def poll(self) -> list[Progress]:
        """What has been reported since the last call, oldest first; never waits.

        Before the stages of the run come `Stage.SENDING` (frames) and, where the process is new, `Stage.STARTING`.
        """
        with self._lock:
            return [self._reports.popleft() for _ in range(len(self._reports))]

    def cancel(self) -> None:
        """Stop the work; returns at once. The process is ended, which frees its memory; finished jobs stay as they are.

        The state becomes "cancelled" when the process has gone and the files of the job are removed.
        """
        with self._lock:
            self._cancelled.set()
            waiting = not self._started
        if waiting:
            self.finish(Cancelled("Cancelled; nothing was written."))
        self._wake()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the job has ended or `timeout` seconds have passed."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        # In short pieces: on Windows a wait cannot be interrupted from the keyboard.
        while not self._finished.wait(max(0.0, min(0.2, end - time.monotonic()))):
            if time.monotonic() >= end:
                return

    @property
    def result(self) -> RunResult | dict[str, Any]:
        """What came out: a :class:`RunResult`, or the dict of a preflight.

        Raises:
            JobFailed: the run failed; the message is one sentence.
            Cancelled: it was cancelled.
            RuntimeError: it is still running.
        """
        if not self._finished.is_set():
            raise RuntimeError("The job is still running; wait for it first.")
        if isinstance(self._outcome, DualTrackError):
            raise self._outcome
        return self._outcome

    @property
    def is_cancelled(self) -> bool:
        """Whether it was asked to stop, perhaps not there yet."""
        return self._cancelled.is_set()

    def begin(self, wake: Callable[[], None]) -> bool:
        """For the session: the job's turn has come; false if it was cancelled while it waited."""
        with self._lock:
            self._started = not self._finished.is_set() and not self._cancelled.is_set()
            self._wake = wake
            return self._started

    def prepare(self, folder: Path) -> dict[str, Any]:
        """For the session: write what the worker needs into the folder, and say what to ask it for."""
        return self._request(folder, Reporter(self.report, self._cancelled.is_set))

    def report(self, report: Progress) -> None:
        """For the session: note progress."""
        self._reports.append(report)

    def finish(self, outcome: RunResult | dict[str, Any] | DualTrackError) -> None:
        """For the session: note how it ended; only the first ending counts."""
        with self._lock:
            if self._finished.is_set():
                return
            if isinstance(outcome, DualTrackError):
                # The places it came through hold the frames of the sweep, and it would hold them.
                outcome.__traceback__ = outcome.__context__ = None
            self._outcome = outcome
            failed = "failed" if isinstance(outcome, DualTrackError) else "done"
            self.state = "cancelled" if isinstance(outcome, Cancelled) else failed
            self._request, self.answer = (lambda folder, reporter: {}), (lambda values: values)  # drop the frames
            self._finished.set()


#: Frames written at once, so that a cancelled job stops soon.
WINDOW_FRAMES = 32
_TRAJECTORY_ARRAYS = ("poses", "valid", "reference_from_frame0", "sigma")
_VOLUME_ARRAYS = ("volume", "coverage", "filled")


def write_sweep(folder: Path, sweep: Sweep, reporter: Reporter) -> None:
    """Write a sweep into a folder, which must exist; reports `Stage.SENDING` (frames).

    Raises:
        OSError: no room.
        Cancelled: the caller asked to stop; the folder is left to the caller.
    """
    for done, total in sweep_pieces(folder, sweep):
        reporter.report(Stage.SENDING, done, total)


def sweep_pieces(folder: Path, sweep: Sweep) -> Iterator[tuple[int, int]]:
    """As :func:`write_sweep`, for callers that do something else between pieces: yields (frames written, of how many).

    Raises OSError: no room.
    """
    yield from _write_frames(folder / "frames.npy", sweep)
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


def _write_frames(path: Path, sweep: Sweep) -> Iterator[tuple[int, int]]:
    shape = (len(sweep), *sweep.frame_size)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    # Written, not mapped: where there is no room, a write fails with an error and a mapping ends the whole process.
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for first, frames in sweep.windows(WINDOW_FRAMES):
            yield first, len(sweep)
            file.write(np.ascontiguousarray(frames, dtype=np.uint8).data)
    yield len(sweep), len(sweep)


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
    return Trajectory(**{name: arrays[name] for name in _TRAJECTORY_ARRAYS if name in arrays}, **source)


def _write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(plain_values(values), allow_nan=False), encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
