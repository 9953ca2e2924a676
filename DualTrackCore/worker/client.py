"""Runs in another process, from a program that must not wait, import torch or die of it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from DualTrackCore.errors import Cancelled, DualTrackError, InputError, OutputError
from DualTrackCore.progress import Progress, Reporter, Stage
from DualTrackCore.run import with_spacing
from DualTrackCore.run.preparation import prepare
from DualTrackCore.run.results import RunResult
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.sweep import Sweep
from DualTrackCore.worker.job import Job, JobFailed, read_result, write_sweep
from DualTrackCore.worker.process import WorkerProcess
from DualTrackCore.worker.protocol import PROGRESS_FIELDS, mismatch

_PREFIX = "dualtrack-worker-"
_LOCK = "owner.lock"
#: Longest wait for the greeting of a process, s; virus scanners can make a first start slow.
HELLO_TIMEOUT_S = 120.0
_WAKE = {"event": "wake"}


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
        self._session: _Session | None = None
        self._stop: weakref.finalize | None = None

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(self, *_: object) -> None:
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

        Raises InputError: the range of frames is not in the sweep, or a setting is for files only.
        """
        settings = (settings or RunSettings()).with_whole_paths()
        given = with_spacing(sweep, settings)
        settings.frame_range(len(sweep))
        used = functools.cache(lambda: prepare(given, settings).sweep)  # in the thread: it reads frames

        def request(folder: Path, reporter: Reporter) -> dict[str, Any]:
            write_sweep(folder, used(), reporter)
            return {"do": "run", "folder": str(folder), "settings": settings.as_dict()}

        return self._start(Job(self, request, lambda answer: read_result(Path(answer["folder"]), used())))

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
                self._session = _Session(self._command, self._environment)
                # Also called at the end of the interpreter.
                self._stop = weakref.finalize(self, self._session.stop)
            self._session.add(job)
        return job


class _Session:
    """A thread that gives a process one job after the other.

    It lasts from the first job of a client to its stop, and has no reference to the client.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None) -> None:
        self._command, self._environment = command, environment
        self._folder = SessionFolder()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._unfinished: weakref.WeakSet[Job] = weakref.WeakSet()
        self._numbers = itertools.count(1)
        self._greeted = False
        self.process: WorkerProcess | None = None
        self._thread = threading.Thread(target=self._work, name="DualTrack jobs", daemon=True)
        self._thread.start()

    def add(self, job: Job) -> None:
        """Give the job its place in the queue."""
        self._unfinished.add(job)
        self._jobs.put(job)

    def stop(self) -> None:
        """Cancel everything, end the process, remove the folder."""
        for job in list(self._unfinished):
            job.cancel()
        self._jobs.put(None)
        # The last reference to the client may go anywhere, also in the thread itself.
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._end_process()
        self._folder.remove()

    def wake(self) -> None:
        """Let the thread look whether its job was cancelled."""
        if (process := self.process) is not None:
            process.messages.put(_WAKE)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.begin(self.wake):
                number = next(self._numbers)
                job.finish(self._outcome(job, number, self._folder.path / f"job-{number}"))
            else:
                job.finish(Cancelled("Cancelled; nothing was written."))
            del job  # and what it holds, before the wait for the next

    def _outcome(self, job: Job, number: int, folder: Path) -> RunResult | dict[str, Any] | DualTrackError:
        try:
            return self._perform(job, number, folder)
        except Cancelled as error:
            self._end_process()
            return error
        except JobFailed as error:
            return error
        except (OutputError, InputError) as error:
            return self._failed("disk" if isinstance(error, OutputError) else "input", str(error))
        except OSError as error:
            reason = error.strerror or str(error)
            place = tempfile.gettempdir()
            message = f"The frames cannot be handed over in {place}: {reason}; free some space or set TMPDIR."
            return self._failed("disk", message, traceback.format_exc())
        except Exception as error:
            self._end_process()
            message = f"A fault of the program: {error}; please report it with the details."
            return self._failed("fault", message, traceback.format_exc())
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _perform(self, job: Job, number: int, folder: Path) -> RunResult | dict[str, Any]:
        folder.mkdir()
        self._start_process()
        start = time.perf_counter()
        request = job.prepare(folder)
        sending = time.perf_counter() - start
        if not self._greeted:
            self._greet(job)
        self.process.send({"id": number, **request})
        waiting = time.perf_counter() - job.submitted_s - sending
        outcome = job.answer(self._result(job, number))
        if isinstance(outcome, RunResult):
            return replace(outcome, seconds={**outcome.seconds, "sending": sending, "waiting": waiting})
        return outcome

    def _start_process(self) -> None:
        if self.process is not None and self.process.running:
            return
        self._greeted = False
        log_path = self._log_path(next(self._numbers))
        try:
            self.process = WorkerProcess(self._command, self._environment, self._folder.path, log_path)
        except OSError as error:
            self.process = None
            reason = error.strerror or str(error)
            raise self._failed("start", f"The program {self._command[0]} cannot be started: {reason}.") from None

    def _greet(self, job: Job) -> None:
        job.report(Progress(Stage.STARTING, 0, 1))
        deadline = time.monotonic() + HELLO_TIMEOUT_S
        try:
            greeting = self._message(job, deadline)
        except queue.Empty:
            self._end_process()
            clause = f"The worker process did not answer within {HELLO_TIMEOUT_S:.0f} s; try again"
            raise self._failed("start", self._with_log(clause)) from None
        if greeting["event"] != "hello":
            raise self._broken(greeting, "start")
        if (sentence := mismatch(greeting)) is not None:
            self._end_process()
            raise self._failed("version", sentence)
        self._greeted = True
        job.report(Progress(Stage.STARTING, 1, 1))

    def _result(self, job: Job, number: int) -> dict[str, Any]:
        while True:
            message = self._message(job)
            if message["event"] not in ("progress", "done", "failed") or message["id"] != number:
                raise self._broken(message, "crash")
            if message["event"] == "progress":
                job.report(Progress(**{name: message[name] for name in PROGRESS_FIELDS}))
            elif message["event"] == "done":
                return message["result"]
            else:
                raise self._failed(message["kind"], message["message"], message["details"])

    def _message(self, job: Job, deadline: float | None = None) -> dict[str, Any]:
        """The next message of the worker; queue.Empty after the deadline."""
        while True:
            if job.is_cancelled:
                raise Cancelled("Cancelled; nothing was written.")
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            message = self.process.messages.get(timeout=timeout)
            if message is not _WAKE:
                return message

    def _broken(self, message: Mapping[str, Any], kind: str) -> JobFailed:
        """The failure for a worker that ended or wrote something unreadable; ends the process."""
        if message["event"] == "ended":
            what, ending = self.process.ending()
            kind = what if what == "memory" else kind
            sentence = self._with_log(f"The worker process {ending}")
        else:
            sentence = self._with_log("The worker process wrote something unreadable and was ended; run it again")
        details = "\n".join([*([message["line"]] if "line" in message else []), self.process.log_tail()])
        self._end_process()
        return self._failed(kind, sentence, details)

    def _with_log(self, clause: str) -> str:
        return f"{clause}; its log is {self.process.log_path}."

    def _failed(self, kind: str, message: str, details: str | None = None) -> JobFailed:
        if details is None:
            details = "" if self.process is None else self.process.log_tail()
        log_path = self._log_path(0) if self.process is None else self.process.log_path
        return JobFailed(message, log_path, details, kind)

    def _log_path(self, number: int) -> Path:
        return self._folder.path / f"worker-{number}.log"

    def _end_process(self) -> None:
        if self.process is not None:
            self.process.end()


class SessionFolder:
    """A folder that is this client's until :meth:`remove`.

    The client keeps a lock in it. What a client left behind that was ended from outside together with its worker, which
    otherwise cleans up after it, is known by the lock that nobody holds any more; the next client removes it.

    Raises OutputError: there is no room for temporary files.
    """

    def __init__(self) -> None:
        for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
            # Of another user, or gone in the meantime.
            with contextlib.suppress(OSError):
                if not _is_held(lock):
                    shutil.rmtree(lock.parent, ignore_errors=True)
        try:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._lock = _hold(self.path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"No temporary folder can be made: {reason}; free some space or set TMPDIR.") from error

    def remove(self) -> None:
        """Delete the folder with all it holds; a second call does nothing."""
        self._lock.close()
        # Windows lets go of the files of a process some moments after its end.
        for _ in range(20):
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                return
            time.sleep(0.1)


def _hold(folder: Path) -> BinaryIO:
    """The lock file, open and locked; on Windows an open file is one that others cannot delete."""
    if os.name == "nt":
        return (folder / _LOCK).open("wb")
    import fcntl

    new = folder / f"new-{_LOCK}"
    file = new.open("wb")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.replace(new, folder / _LOCK)  # under its name it is never seen without the lock
    return file


def _is_held(lock: Path) -> bool:
    if os.name == "nt":
        try:
            lock.unlink()
        except PermissionError:
            return True
        return False
    import fcntl

    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
