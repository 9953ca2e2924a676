"""One run as the panel and scripts see it: progress, time left, and in the end nodes or a sentence."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import Cancelled, DualTrackError
from DualTrackCore.progress import Progress, Stage
from DualTrackCore.worker.job import JobFailed
from DualTrackSlicerLib.events import Pieces
from DualTrackSlicerLib.scene import ResultNodes, SceneSweep, showInPieces
from DualTrackSlicerLib.worker import Job

#: Time that a stage has to run before the time left is shown, s.
LEAST_PACE_S = 2.0
#: Time between two looks at the windows while a script waits, s.
_LOOK_S = 0.005


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
    """A run in the worker process, which puts its results into the scene when it has ended.

    What a callback raises is logged and changes nothing about the run.

    Args:
        scene: gets the results.
        reading: gives the clip, in pieces that come from Qt's event loop; within this call where it is one step.
        begin: asks the worker process for the run of that clip.
        base: the result that is corrected, to which the new one refers.
        onProgress, onDone: called with each report, and with the run when it has ended.

    Attributes:
        state: "running", "done", "failed" or "cancelled".
        pace: where it stands.
        nodes: the results in the scene, once done.
        failure, error: what went wrong and its sentence, if it failed or was cancelled.
        details: for a report, if it failed: end of the log or traceback.
        about: name of the setting that is wrong, where it failed by one.
        kind: what kind of failure, as :class:`~DualTrackCore.worker.JobFailed` has it.
    """

    def __init__(
        self,
        scene: slicer.vtkMRMLScene,
        reading: Generator[object, None, SceneSweep],
        begin: Callable[[SceneSweep], Job],
        onProgress: Callable[[Progress], None] | None = None,
        onDone: Callable[[Run], None] | None = None,
        base: ResultNodes | None = None,
    ) -> None:
        self.state, self.error, self.details, self.kind, self.about = "running", "", "", "", ""
        self.pace = Pace()
        self.nodes: ResultNodes | None = None
        self.failure: DualTrackError | None = None
        self._scene: slicer.vtkMRMLScene | None = scene
        self._clip: SceneSweep | None = None
        self._job: Job | None = None
        self._base = base
        self._on_progress, self._on_done = onProgress, onDone
        self._pieces: Pieces | None = None
        try:
            next(reading)
        except StopIteration as end:
            self._begin(end.value, begin)
        else:
            self._pieces = Pieces(self._guarded(self._read(reading, begin), _("The clip could not be read: {error}")))

    def cancel(self) -> None:
        """Stop it; the scene stays as it was. The state changes once the process has gone."""
        if self._job is not None:
            self._job.cancel()
        elif self._pieces is not None:
            self._pieces.stop()
            self._ended(Cancelled(_("The run was cancelled.")))

    def wait(self) -> Run:
        """Return when it has ended, keeping the application's windows alive."""
        while self.state == "running":
            slicer.app.processEvents()
            time.sleep(_LOOK_S)
        return self

    def _read(
        self, reading: Generator[object, None, SceneSweep], begin: Callable[[SceneSweep], Job]
    ) -> Iterator[object]:
        clip = yield from reading
        self._begin(clip, begin)

    def _begin(self, clip: SceneSweep, begin: Callable[[SceneSweep], Job]) -> None:
        self._clip, self._pieces, self._job = clip, None, begin(clip)
        self._job.onProgress, self._job.onEnd = self._note, self._end

    def _note(self, report: Progress) -> None:
        self.pace.note(report)
        _tell(self._on_progress, report)

    def _end(self, job: Job) -> None:
        work = self._show(self._scene, self._clip, job)
        sentence = _("The results could not be put into the scene: {error}")
        self._job, self._pieces = None, Pieces(self._guarded(work, sentence))

    def _show(self, scene: slicer.vtkMRMLScene, clip: SceneSweep, job: Job) -> Iterator[None]:
        """Put the results into the scene, piece by piece, while the application stays alive."""
        self.nodes = yield from showInPieces(scene, clip, job.result, base=self._base)
        self._ended()

    def _guarded(self, work: Iterator[object], sentence: str) -> Iterator[object]:
        """Work in pieces; what it raises ends the run."""
        try:
            yield from work
        except DualTrackError as error:
            self._ended(error)
        except Exception as error:
            logging.exception("A run of DualTrack failed in Slicer.")
            self._ended(DualTrackError(sentence.format(error=error)))

    def _ended(self, error: DualTrackError | None = None) -> None:
        on_done = self._on_done
        # Nothing of a closed scene stays behind with whoever keeps the run.
        self._scene = self._clip = self._base = self._on_progress = self._on_done = self._pieces = None
        if error is None:
            self.state = "done"
        else:
            self.state = "cancelled" if isinstance(error, Cancelled) else "failed"
            self.failure, self.error = error.with_traceback(None), str(error)
        if isinstance(error, JobFailed):
            self.details, self.kind, self.about = error.details, error.kind, error.about
        _tell(on_done, self)


def _tell(callback: Callable[[object], None] | None, value: object) -> None:
    try:
        if callback is not None:
            callback(value)
    except Exception:
        logging.exception("What DualTrack called at a run failed; the run goes on.")
