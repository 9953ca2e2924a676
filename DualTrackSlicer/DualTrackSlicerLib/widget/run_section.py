"""Apply, Cancel, progress, and what went wrong."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackCore.progress import Progress
from DualTrackCore.run.settings import RunSettings
from DualTrackSlicerLib.events import Signal
from DualTrackSlicerLib.logic import Logic, withLessMemory
from DualTrackSlicerLib.run import Run
from DualTrackSlicerLib.widget.texts import paceText
from DualTrackSlicerLib.widget.view import Section, View, enable


class RunSection(Section):
    """One button that starts a run and becomes the one that stops it.

    Attributes:
        changed: emits when a run begins, is cancelled or has ended.
        moved: emits every report of progress.
        done: emits the run, when its results are in the scene.
        run: the last run of this scene, or None.
    """

    def __init__(self, ui: object, logic: Logic) -> None:
        self.ui, self.logic = ui, logic
        self.changed, self.moved, self.done = Signal(), Signal(), Signal()
        self.run: Run | None = None
        self._error = self._details = self._kind = ""
        self._cancelling = False
        ui.applyButton.connect("clicked()", self._on_apply)
        ui.retryButton.connect("clicked()", self._on_retry)
        ui.copyErrorButton.connect("clicked()", self._on_copy)

    def isRunning(self) -> bool:
        """Whether a run is under way."""
        return self.run is not None and self.run.state == "running"

    def forget(self) -> None:
        """The scene closes: so does its run."""
        run, self.run = self.run, None
        self._cancelling = False
        self._error = self._details = self._kind = ""
        self._view = None
        if run is not None:
            run.cancel()

    def complain(self, sentence: str) -> None:
        """Show what went wrong, or with an empty sentence nothing."""
        self._error, self._details, self._kind = sentence, "", ""
        self.changed.emit()

    def update(self, view: View) -> None:
        """Show the button, the progress and the error."""
        self._view = view
        ui, running = self.ui, view.is_running
        problem = "" if running else view.problem()
        ui.applyButton.text = _("Cancel") if running else _("Apply")
        ui.applyButton.setShortcut(qt.QKeySequence("Ctrl+." if running else "Ctrl+Return"))  # a new text takes it away
        enable(_("Cancelling; the memory is being freed.") if running and self._cancelling else problem, ui.applyButton)
        if running and not self._cancelling:
            ui.applyButton.toolTip = _("Stop; the scene stays as it is (Ctrl+.).")
        ui.progressBar.visible = running
        ui.progressLabel.text = self._progress_text() if running else problem
        ui.progressLabel.visible = bool(ui.progressLabel.text)
        ui.errorFrame.visible = bool(self._error)
        ui.errorLabel.text = self._error
        ui.retryButton.visible = self._kind == "memory"

    def _progress_text(self) -> str:
        return _("Cancelling…") if self._cancelling else paceText(self.run.pace)

    def _on_apply(self) -> None:
        if not self.isRunning():
            self._start(None)
            return
        self._cancelling = True
        self.run.cancel()
        self.changed.emit()

    def _on_retry(self) -> None:
        self._start(withLessMemory(self._view.settings()))

    def _start(self, settings: RunSettings | None) -> None:
        view, clip = self._view, self._view.clip

        def begin(**callbacks: Callable) -> Run:
            given = {"settings": settings or view.settings(), "spacing_mm": view.spacing()}
            return self.logic.run(clip.browser or clip.volume, sequenceNode=clip.sequence, **given, **callbacks)

        self.follow(begin)

    def follow(self, begin: Callable[..., Run]) -> None:
        """Begin a run and show how it goes; `begin` starts it with the callbacks `onProgress` and `onDone`."""
        self._error = self._details = self._kind = ""
        try:
            self.run = begin(onProgress=self._on_progress, onDone=self._on_done)
            self.ui.progressBar.setRange(0, 0)
        except DualTrackError as error:
            self._error = str(error)
        self.changed.emit()

    def _on_progress(self, report: Progress) -> None:
        if self.run is None or self._view is None:
            return  # of a scene that has been closed, or another module is shown
        several = report.total > 1
        self.ui.progressBar.setRange(0, report.total if several else 0)
        if several:
            self.ui.progressBar.value = report.done
        self.ui.progressLabel.text = self._progress_text()
        self.moved.emit(report)

    def _on_done(self, run: Run) -> None:
        if run is not self.run:
            return  # of a scene that has been closed
        self._cancelling = False
        if run.state == "failed" and not run.about:  # else the row that it is about says it
            self._error, self._details, self._kind = run.error, run.details, run.kind
        if run.state == "done":
            self.done.emit(run)
        self.changed.emit()

    def _on_copy(self) -> None:
        parts = (self._error, self._details, self.logic.diagnostics())
        slicer.app.clipboard().setText("\n\n".join(part for part in parts if part))
