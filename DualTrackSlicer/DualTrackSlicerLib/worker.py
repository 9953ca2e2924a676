"""The worker process as Slicer drives it: one job after the other, from Qt's event loop, without a thread."""

from __future__ import annotations

import contextlib
import json
import shutil
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from DualTrackCore.errors import Cancelled, DualTrackError, InputError, OutputError
from DualTrackCore.progress import Progress, Stage
from DualTrackCore.worker.job import JobFailed, LoopsTask, PartsTask, PreflightTask, RunTask
from DualTrackCore.worker.process import LABELS_VARIABLE, described_ending, session_folder
from DualTrackCore.worker.protocol import PROGRESS_FIELDS, decoded_event, encoded, mismatch
from DualTrackSlicerLib.events import Clock, Pieces, soon
from DualTrackSlicerLib.process import Process, end_family
from DualTrackSlicerLib.setting_labels import settingLabels

if TYPE_CHECKING:
    from DualTrackCore.run.settings import RunSettings
    from DualTrackCore.sweep import Sweep
    from DualTrackCore.trajectory import Trajectory

    #: What gives the path of an earlier run, in pieces.
    GivenPath = Generator[None, None, Trajectory]
    Task = RunTask | PartsTask | PreflightTask

#: Longest wait for the greeting of a process, s; virus scanners can make a first start slow.
HELLO_TIMEOUT_S = 120.0


class Job:
    """One piece of work of a :class:`Worker`.

    Attributes:
        state: "running" (also while it waits for its turn), "done", "failed" or "cancelled".
        onProgress: called with every report.
        onEnd: called with the job, once, when it has ended.
    """

    def __init__(self, worker: Worker | None, task: Task | Generator[object, None, Task] | None) -> None:
        self.state = "running"
        self.onProgress: Callable[[Progress], None] = lambda report: None
        self.onEnd: Callable[[Job], None] = lambda job: None
        self.task, self._worker = task, worker
        self._outcome: object = None

    @property
    def result(self) -> Any:
        """What came out. Raises JobFailed, Cancelled: it did not; RuntimeError: it is still running."""
        if self.state == "running":
            raise RuntimeError("The job is still running; wait for it first.")
        if isinstance(self._outcome, DualTrackError):
            raise self._outcome
        return self._outcome

    def cancel(self) -> None:
        """Stop the work; the state becomes "cancelled" when its process has gone. Jobs that ended stay as they are."""
        if self._worker is not None:
            self._worker.cancel(self)

    def finish(self, outcome: object) -> None:
        """For the worker: note how it ended."""
        failed = "failed" if isinstance(outcome, DualTrackError) else "done"
        self.state = "cancelled" if isinstance(outcome, Cancelled) else failed
        self._outcome, on_end = outcome, self.onEnd
        # What it holds goes with it: the frames, the nodes of whoever waits.
        self._worker = self.task = self.onProgress = self.onEnd = None
        on_end(self)


class Worker:
    """One warm worker process; it is started by the first job and kept, with its model, for the next.

    Args:
        command: how to start it.
        variables: its environment.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self._command, self._variables = tuple(command), dict(variables)
        self._folder: Path | None = None
        self._kept = contextlib.ExitStack()
        self._jobs: list[Job] = []
        self._job: Job | None = None
        self._number, self._pid = 0, 0
        self._process: Process | None = None
        self._greeted = False
        self._pieces: Pieces | None = None
        self._request: dict[str, Any] | None = None
        self._ending: DualTrackError | None = None  # why the process is being ended
        self._late: Clock | None = None

    @property
    def pid(self) -> int | None:
        """Of the process that computes, or None."""
        return None if self._process is None else self._pid or self._process.pid

    def submit(self, sweep: Sweep, settings: RunSettings, path: GivenPath | None = None) -> Job:
        """Start a run, or correct the path that an earlier one gave.

        Raises InputError: frames or crop are not in the sweep, or a setting is for files only.
        """
        return self._add(Job(self, PartsTask(sweep, settings, RunTask(sweep, settings, path).knowing)))

    def submit_read(self, reading: Generator[object, None, Sweep], settings: RunSettings) -> Job:
        """Start a run of a clip that is read in pieces when its turn comes; what is wrong with it fails the job."""

        def making() -> Generator[object, None, PartsTask]:
            sweep = yield from reading
            return PartsTask(sweep, settings, RunTask(sweep, settings).knowing)

        return self._add(Job(self, making()))

    def find_loops(self, sweep: Sweep, settings: RunSettings, path: GivenPath) -> Job:
        """Look where the probe may have come back, as LoopsTask gives it. Raises InputError: as `submit`."""
        return self._add(Job(self, PartsTask(sweep, settings, LoopsTask(sweep, settings, path).knowing)))

    def find_parts(self, sweep: Sweep, settings: RunSettings) -> Job:
        """Find image area and text as a run does first; the result is PictureParts. Raises InputError: as `submit`."""
        return self._add(Job(self, PartsTask(sweep, settings)))

    def preflight(self, device: str) -> Job:
        """Ask whether this computer is ready; the result is the dict of :func:`DualTrackCore.worker.preflight`."""
        return self._add(Job(self, PreflightTask(device)))

    def cancel(self, job: Job) -> None:
        """Stop a job; the process is ended where it works on it, which frees its memory."""
        if job is self._job:
            self._end_process(_cancelled())
        elif job in self._jobs:
            self._jobs.remove(job)
            job.finish(_cancelled())

    def stop(self) -> None:
        """Cancel all jobs, end the process, remove all files; a later job starts anew."""
        for job in [*self._jobs, *([] if self._job is None else [self._job])]:
            self.cancel(job)
        self._end_process(_cancelled(), wait=True)
        self._kept.close()
        self._folder = None

    def _add(self, job: Job) -> Job:
        if self._folder is None:
            self._folder = self._kept.enter_context(session_folder())
        self._jobs.append(job)
        # Whoever asked can say first what is to be called.
        soon(self._next)
        return job

    def _next(self) -> None:
        """Begin the next job, unless there is none or one is under way."""
        if self._job is not None or not self._jobs or self._ending is not None:
            return
        self._job, self._number = self._jobs.pop(0), self._number + 1
        if self._process is None:
            self._start_process()
        if self._job is not None:
            self._pieces = Pieces(self._preparing(self._job))

    def _start_process(self) -> None:
        self._greeted, self._pid = False, 0
        command = (*self._command, "--folder", str(self._folder))
        log = self._folder / f"worker-{self._number}.log"
        self._late = Clock(HELLO_TIMEOUT_S, self._on_late)
        variables = {**self._variables, LABELS_VARIABLE: json.dumps(settingLabels())}
        self._process = Process(command, variables, log, self._on_line, self._on_end)

    def _preparing(self, job: Job) -> Iterator[None]:
        """Write what the process needs, and ask it."""
        folder = self._job_folder()
        try:
            folder.mkdir(exist_ok=True)
            if isinstance(job.task, Generator):
                job.task = yield from job.task
            for report in job.task.send(folder):
                job.onProgress(report)
                yield
        except (InputError, OutputError) as error:
            self._fail(
                "disk" if isinstance(error, OutputError) else "input", str(error), about=getattr(error, "about", "")
            )
        except OSError as error:
            text = _("The frames cannot be handed over in {folder}: {reason}; free some space or set TMPDIR.")
            text = text.format(folder=self._folder.parent, reason=error.strerror or error)
            self._fail("disk", text, traceback.format_exc())
        except Exception as error:
            sentence = _("A fault of the program: {error}; please report it with the details.").format(error=error)
            self._fail("fault", sentence, traceback.format_exc())
        else:
            if not self._greeted:
                job.onProgress(Progress(Stage.STARTING, 0, 1))
            self._request = {"id": self._number, **job.task.request(folder)}
            self._ask()

    def _ask(self) -> None:
        if self._greeted and self._request is not None:
            request, self._request = self._request, None
            self._process.send(encoded(request))

    def _on_line(self, line: bytes) -> None:
        try:
            event = decoded_event(line)
        except InputError as error:
            # Before hello it may be the greeting of a launcher or of a start-up file.
            if self._greeted and self._ending is None:
                self._break(str(error))
            return
        if self._ending is not None:
            return
        if event["event"] == "hello":
            self._on_time()
            self._greeted, self._pid = True, event["pid"]
            if (sentence := mismatch(event)) is not None:
                self._end_process(self._failure("version", sentence))
            self._ask()
        elif self._job is None or event["id"] != self._number:
            self._break(line[:200].decode("utf-8", errors="replace"))
        elif event["event"] == "progress":
            self._job.onProgress(Progress(**{name: event[name] for name in PROGRESS_FIELDS}))
        elif event["event"] == "done":
            self._take(event["result"])
        else:
            self._fail(event["kind"], event["message"], event["details"], event.get("about", ""))

    def _take(self, values: dict[str, Any]) -> None:
        try:
            outcome = self._job.task.result(values)
        except Exception as error:
            sentence = _("The results cannot be read: {error}; free some memory or disk and run it again.")
            self._end_process(self._failure("fault", sentence.format(error=error), traceback.format_exc()))
        else:
            if isinstance(outcome, RunTask):  # there is more to do
                self._job.task = outcome
                self._pieces = Pieces(self._preparing(self._job))
            else:
                self._finish(outcome)

    def _on_time(self) -> None:
        if self._late is not None:
            self._late.stop()
            self._late = None

    def _on_late(self) -> None:
        self._on_time()
        if self._process is not None and not self._greeted:
            text = _("The worker process did not answer within {seconds:.0f} s; try again.")
            self._end_process(self._failure("start", text.format(seconds=HELLO_TIMEOUT_S)))

    def _on_end(self) -> None:
        process, why, greeted = self._process, self._ending, self._greeted
        if self._pid:
            end_family(self._pid)  # what it started outlives it otherwise
        self._process = self._ending = None
        self._greeted, self._pid = False, 0
        self._on_time()
        if self._job is None:
            soon(self._next)
        elif why is not None:
            self._finish(why)
        elif process.problem:
            text = _("The program {program} cannot be started: {reason}.")
            text = text.format(program=self._command[0], reason=process.problem)
            self._finish(JobFailed(text, process.log_path, "", "start"))
        else:
            kind, ending = described_ending(process.returncode, process.log_tail())
            kind = "start" if kind == "crash" and not greeted else kind
            text = _("The worker process {ending}; its log is {path}.").format(ending=ending, path=process.log_path)
            self._finish(JobFailed(text, process.log_path, process.log_tail(), kind))

    def _break(self, what: str) -> None:
        text = _("The worker process wrote something unreadable and was ended; run it again.")
        self._end_process(self._failure("crash", text, f"{what}\n{self._process.log_tail()}"))

    def _end_process(self, why: DualTrackError, wait: bool = False) -> None:
        """End the process; its job ends with `why` when it has gone."""
        self._send_no_more()
        if self._process is None:
            if self._job is not None:
                self._finish(why)
            return
        self._ending = self._ending or why
        self._process.end(wait)

    def _fail(self, kind: str, message: str, details: str | None = None, about: str = "") -> None:
        self._finish(self._failure(kind, message, details, about))

    def _failure(self, kind: str, message: str, details: str | None = None, about: str = "") -> JobFailed:
        log = self._folder / "worker.log" if self._process is None else self._process.log_path
        if details is None:
            details = "" if self._process is None else self._process.log_tail()
        return JobFailed(message, log, details, kind, about)

    def _finish(self, outcome: object) -> None:
        self._send_no_more()
        job, self._job = self._job, None
        shutil.rmtree(self._job_folder(), ignore_errors=True)
        if isinstance(outcome, DualTrackError):
            outcome.__traceback__ = outcome.__context__ = None  # the frames of the sweep are held there
        try:
            job.finish(outcome)
        finally:
            soon(self._next)

    def _send_no_more(self) -> None:
        if self._pieces is not None:
            self._pieces.stop()
        self._pieces = self._request = None

    def _job_folder(self) -> Path:
        return self._folder / f"job-{self._number}"


def _cancelled() -> Cancelled:
    return Cancelled(_("Cancelled; nothing was written."))
