"""Runs in another process, from a program that must not wait, import torch or die of it."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from DualTrackCore.progress import Reporter
from DualTrackCore.run.pipeline import with_spacing
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.sweep import Sweep
from DualTrackCore.worker.job import Job
from DualTrackCore.worker.job_files import read_result, write_sweep
from DualTrackCore.worker.session import Session


class WorkerClient:
    """One warm worker process and the jobs that it is given, one after the other.

    Nothing here blocks but :meth:`stop`, and it may be called from any thread. The process is started by the first job
    and kept, with its model, for the next; it is ended, and everything on disk removed, by :meth:`stop`, when the
    client is no longer referenced, when this interpreter ends, and by the worker itself when this process dies.

    Args:
        command: how to start the worker; by default this Python with `-m DualTrackCore.worker`.
        environment: all variables of the process; None inherits those of this one.
    """

    def __init__(self, command: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._command = tuple(command or (sys.executable, "-m", "DualTrackCore.worker"))
        self._environment = None if environment is None else dict(environment)
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._stop: weakref.finalize | None = None

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether there is a worker process."""
        return self.pid is not None

    @property
    def pid(self) -> int | None:
        """Of the worker process, or None."""
        session = self._session
        process = None if session is None else session.process
        return process.pid if process is not None and process.running else None

    def submit(self, sweep: Sweep, settings: RunSettings | None = None) -> Job:
        """Start a run; returns at once.

        Raises:
            InputError: the range of frames is not in the sweep, or a setting is for files only.
        """
        settings = (settings or RunSettings()).with_whole_paths()
        used = with_spacing(sweep, settings).slice(*settings.frame_range(len(sweep)))

        def request(folder: Path, reporter: Reporter) -> dict[str, Any]:
            write_sweep(folder, used, reporter)
            return {"do": "run", "folder": str(folder), "settings": settings.as_dict()}

        return self._start(Job(self, request, lambda answer: read_result(Path(answer["folder"]), used)))

    def preflight(self, device: str = "auto") -> Job:
        """Ask the worker whether it can run; the result is the dict of :func:`DualTrackCore.worker.preflight`."""
        return self._start(Job(self, lambda folder, reporter: {"do": "preflight", "device": device}))

    def stop(self) -> None:
        """Cancel all jobs, end the process and what it started, remove all files; a later job starts anew."""
        with self._lock:
            stop, self._stop, self._session = self._stop, None, None
        if stop is not None:
            stop()

    def _start(self, job: Job) -> Job:
        with self._lock:
            if self._session is None:
                self._session = Session(self._command, self._environment)
                # Also called at the end of the interpreter.
                self._stop = weakref.finalize(self, self._session.stop)
            self._session.add(job)
        return job
