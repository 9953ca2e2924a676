"""One piece of work as its owner sees it: progress, cancel, result."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from DualTrackCore.errors import Cancelled, DualTrackError
from DualTrackCore.jobs import JobResult
from DualTrackCore.progress import Progress, Reporter

#: Writes what the worker needs into the folder of the job, and says what to ask it for.
Request = Callable[[Path, Reporter], dict[str, Any]]


class Job:
    """One piece of work of a :class:`~DualTrackCore.worker_client.WorkerClient`.

    Attributes:
        state: "running" (also while it waits for its turn), "done", "failed" or "cancelled".
    """

    def __init__(self, owner: object, request: Request) -> None:
        self.state = "running"
        self.submitted_s = time.perf_counter()
        self._owner = owner  # a client lives as long as its jobs are of interest
        self._request = request
        self._lock = threading.Lock()
        self._started = False
        self._cancelled = threading.Event()
        self._finished = threading.Event()
        self._reports: deque[Progress] = deque()
        self._outcome: JobResult | dict[str, Any] | DualTrackError | None = None
        self._wake: Callable[[], None] = lambda: None

    def poll(self) -> list[Progress]:
        """What has been reported since the last call, oldest first; never waits.

        Stages are those of :func:`DualTrackCore.worker.run_job`; before them come "sending frames" (frames) and, where
        the process is new, "starting".
        """
        reports = []
        with contextlib.suppress(IndexError):
            while True:
                reports.append(self._reports.popleft())
        return reports

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
        end = None if timeout is None else time.monotonic() + timeout
        # In short pieces: on Windows a wait cannot be interrupted from the keyboard.
        while not self._finished.wait(0.2 if end is None else max(0.0, min(0.2, end - time.monotonic()))):
            if end is not None and time.monotonic() >= end:
                return

    @property
    def result(self) -> JobResult | dict[str, Any]:
        """What came out: a :class:`JobResult`, or the dict of a preflight.

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

    def finish(self, outcome: JobResult | dict[str, Any] | DualTrackError) -> None:
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
            self._request = lambda folder, reporter: {}  # lets go of the frames
            self._finished.set()
