"""One piece of work as its owner sees it: progress, cancel, result."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from DualTrackCore.errors import Cancelled, DualTrackError
from DualTrackCore.progress import Progress, Reporter
from DualTrackCore.run.results import RunResult

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
