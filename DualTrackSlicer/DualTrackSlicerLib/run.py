"""One run as the panel and scripts see it: progress, time left, and in the end nodes or a sentence."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import Cancelled, DualTrackError
from DualTrackCore.progress import Progress, Stage
from DualTrackCore.run.results import RunResult
from DualTrackCore.worker import Job, JobFailed
from DualTrackSlicerLib.scene import ResultNodes, SceneSweep, showResults

#: Slicer runs Python threads only while its main thread runs Python: time that the client's threads get, s.
THREAD_TURN_S = 0.02
#: Time that a stage has to run before the time left is shown, s.
LEAST_PACE_S = 2.0


@dataclass
class Pace:
    """How far a stage is, and how long it will take."""

    stage: Stage | None = None
    detail: str = ""
    done: int = 0
    total: int = 0
    _start: tuple[float, int] = field(default=(0.0, 0))

    def note(self, report: Progress) -> None:
        """A new report."""
        if (report.stage, report.detail) != (self.stage, self.detail):
            self._start = time.monotonic(), report.done
        self.stage, self.detail, self.done, self.total = report.stage, report.detail, report.done, report.total

    @property
    def seconds_left(self) -> float | None:
        """Until the stage ends at the pace so far; None until a pace can be seen."""
        elapsed, done = time.monotonic() - self._start[0], self.done - self._start[1]
        if elapsed < LEAST_PACE_S or done < 1 or self.done >= self.total:
            return None
        return elapsed / done * (self.total - self.done)


class Run:
    """A run in the worker process; :meth:`poll` moves it on and puts the results into the scene.

    Attributes:
        state: "running", "done", "failed" or "cancelled".
        pace: where it stands.
        nodes: the results in the scene, once done.
        result: the results as arrays, once done.
        failure, error: what went wrong and its sentence, if it failed or was cancelled.
        details: for a report, if it failed: end of the log or traceback.
        kind: what kind of failure, as :class:`~DualTrackCore.worker.JobFailed` has it.
    """

    def __init__(
        self,
        job: Job,
        scene: slicer.vtkMRMLScene,
        sceneSweep: SceneSweep,
        onProgress: Callable[[Progress], None] | None = None,
        onDone: Callable[[Run], None] | None = None,
    ) -> None:
        self.state, self.error, self.details, self.kind = "running", "", "", ""
        self.pace = Pace()
        self.nodes: ResultNodes | None = None
        self.result: RunResult | None = None
        self.failure: DualTrackError | None = None
        self._job, self._scene, self._scene_sweep = job, scene, sceneSweep
        self._on_progress, self._on_done = onProgress, onDone

    def poll(self) -> str:
        """Move on; call it from a timer. Returns the state."""
        if self.state != "running":
            return self.state
        self._job.wait(THREAD_TURN_S)
        ended = self._job.state != "running"
        for report in self._job.poll():
            self.pace.note(report)
            if self._on_progress is not None:
                self._on_progress(report)
        if ended:
            self._finish()
        return self.state

    def cancel(self) -> None:
        """Stop it; the scene stays as it was. The state changes once the process has gone."""
        self._job.cancel()

    def wait(self) -> Run:
        """Poll until it has ended, keeping the application's windows alive."""
        while self.poll() == "running":
            if hasattr(slicer, "app"):
                slicer.app.processEvents()
        return self

    def turnOver(self) -> None:
        """Show the result with the sweep running the other way, at once; again, and it is the first one.

        Raises InputError: the poses are measured, or the clip has left the scene; the result stays as it is.
        """
        result = self.result.turned_over()
        self.nodes = showResults(self._scene, self._scene_sweep, result, self.nodes)
        self.result = result

    def _finish(self) -> None:
        try:
            self.result = self._job.result
            self.nodes = showResults(self._scene, self._scene_sweep, self.result)
            self.state = "done"
        except DualTrackError as error:
            self._fail(error)
        except Exception as error:
            # The run is over in any case; whoever polls gets the error itself, for it is a fault of the program.
            self._fail(DualTrackError(_("The results could not be put into the scene: {error}").format(error=error)))
            raise
        finally:
            if self._on_done is not None:
                self._on_done(self)

    def _fail(self, error: DualTrackError) -> None:
        self.state = "cancelled" if isinstance(error, Cancelled) else "failed"
        self.failure, self.error = error, str(error)
        if isinstance(error, JobFailed):
            self.details, self.kind = error.details, error.kind
