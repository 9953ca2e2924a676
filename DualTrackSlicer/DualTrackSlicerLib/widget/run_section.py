"""Apply, Cancel, progress, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackCore.path_error import TIMES_95, path_error
from DualTrackCore.progress import Progress
from DualTrackCore.run.results import RunResult
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.trajectory import PoseOrigin
from DualTrackSlicerLib.logic import withLessMemory
from DualTrackSlicerLib.run import Run
from DualTrackSlicerLib.scene import fitSliceViews, followFrame, showErrorTube
from DualTrackSlicerLib.widget.controls import enable
from DualTrackSlicerLib.widget.texts import directionText, durationText, listText, paceText, rowsText, trustText

if TYPE_CHECKING:
    from DualTrackSlicerLib.widget.panel import Panel


class RunSection:
    """One button that starts a run and becomes the one that stops it."""

    def __init__(self, panel: Panel) -> None:
        self.panel, self.ui = panel, panel.ui
        self._browser = self._sequence = None
        self._error = self._details = self._kind = ""
        self._cancelling = False
        self._follower = None
        ui = self.ui
        ui.applyButton.connect("clicked()", self._on_apply)
        ui.retryButton.connect("clicked()", self._on_retry)
        ui.copyErrorButton.connect("clicked()", self._on_copy)
        ui.errorTubeCheckBox.connect("clicked()", self._on_tube)
        ui.turnOverButton.connect("clicked()", self._on_turn_over)

    def shownResult(self) -> RunResult | None:
        """The result of the last run where that was of the chosen clip, else None."""
        run, clip = self.panel.run, self.panel.clip()
        is_of_clip = self._sequence is not None and clip is not None and clip.sequence is self._sequence
        return run.result if run is not None and is_of_clip else None

    def update(self) -> None:
        """Show the button, the progress, the error or the result."""
        ui, running = self.ui, self.panel.isRunning()
        problem = "" if running else self.panel.problem()
        ui.applyButton.text = _("Cancel") if running else _("Apply")
        enable(_("Cancelling; the memory is being freed.") if running and self._cancelling else problem, ui.applyButton)
        if running and not self._cancelling:
            ui.applyButton.toolTip = _("Stop; the scene stays as it is.")
        ui.progressBar.visible = running
        ui.progressLabel.text = self._progress_text() if running else problem
        ui.progressLabel.visible = bool(ui.progressLabel.text)
        ui.errorFrame.visible = bool(self._error)
        ui.errorLabel.text = self._error
        ui.retryButton.visible = self._kind == "memory"
        result = self.shownResult()
        ui.resultGroup.visible = result is not None
        if result is not None:
            ui.resultLabel.text = rowsText(resultRows(result))
            self._update_tube()
            warnings = resultWarnings(result)
            ui.warningsLabel.text = listText(warnings)
            ui.warningsLabel.visible = bool(warnings)
            ui.turnOverButton.visible = not result.trajectory.origin.is_truth

    def _update_tube(self) -> None:
        box, tube = self.ui.errorTubeCheckBox, self._error_tube()
        enable("" if tube is not None else _("Nothing says how sure these poses are, or the tube was deleted."), box)
        if tube is not None:
            box.toolTip = _("{name}: the true image centres lie within this tube.").format(name=tube.GetName())
        box.checked = tube is not None and bool(tube.GetDisplayNode().GetVisibility())

    def _error_tube(self) -> slicer.vtkMRMLModelNode | None:
        tube = getattr(self.panel.run.nodes, "error_tube", None)
        return tube if tube is not None and tube.GetScene() is not None else None

    def _on_tube(self) -> None:
        if (tube := self._error_tube()) is not None:
            showErrorTube(tube, self.ui.errorTubeCheckBox.checked)

    def _progress_text(self) -> str:
        return _("Cancelling…") if self._cancelling else paceText(self.panel.run.pace)

    def _on_apply(self) -> None:
        if self.panel.isRunning():
            self._cancelling = True
            self.panel.run.cancel()
            self.panel.update()
            return
        self._start(None)

    def _on_retry(self) -> None:
        self._start(withLessMemory(self.panel.settings()))

    def _start(self, settings: RunSettings | None) -> None:
        panel, clip = self.panel, self.panel.clip()
        self._error = self._details = self._kind = ""
        try:
            settings, spacing = settings or panel.settings(), panel.spacing()
            browser = clip.browser
            if browser is None:
                browser = panel.logic.sequenceFromVolume(clip.volume)
                with slicer.util.NodeModify(panel.parameters):
                    panel.parameters.browser, panel.parameters.sequence = browser, browser.GetMasterSequenceNode()
                panel.clipSection.refresh()
            panel.run = panel.logic.run(
                browser,
                sequenceNode=panel.parameters.sequence,
                settings=settings,
                spacing_mm=spacing,
                onProgress=self._on_progress,
                onDone=self._on_done,
            )
            self._browser, self._sequence = browser, panel.parameters.sequence
            self.ui.progressBar.setRange(0, 0)
        except DualTrackError as error:
            self._error = str(error)
        panel.update()

    def _on_progress(self, report: Progress) -> None:
        if self.panel.run is None:
            return  # of a scene that has been closed
        several = report.total > 1
        self.ui.progressBar.setRange(0, report.total if several else 0)
        if several:
            self.ui.progressBar.value = report.done
        self.ui.progressLabel.text = self._progress_text()

    def _on_done(self, run: Run) -> None:
        self._cancelling = False
        if run is not self.panel.run:
            return  # of a scene that has been closed
        if run.state == "failed":
            self._error, self._details, self._kind = run.error, run.details, run.kind
        elif run.state == "done":
            self._show(run)
        self.panel.update()

    def _show(self, run: Run) -> None:
        """The volume in the slice views, and the red one moving with the frames."""
        if run.nodes.volume is not None:
            fitSliceViews(run.nodes.volume, slicer.app.applicationLogic())
        red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
        self.stopFollowing()
        if red is not None and self._browser.GetProxyNode(self._sequence) is not None:
            self._follower = followFrame(red, self._browser, self._sequence)

    def _on_turn_over(self) -> None:
        self._error = self._details = self._kind = ""
        try:
            self.panel.run.turnOver()
            self._show(self.panel.run)
        except DualTrackError as error:
            self._error = str(error)
        self.panel.update()

    def stopFollowing(self) -> None:
        """Leave the slice views alone."""
        if self._follower is not None:
            self._follower.stop()
            self._follower = None

    def _on_copy(self) -> None:
        parts = (self._error, self._details, self.panel.computerSection.diagnostics())
        slicer.app.clipboard().setText("\n\n".join(part for part in parts if part))


def resultRows(result: RunResult) -> list[tuple[str, str]]:
    """The lines of the result card."""
    trajectory = result.trajectory
    rows = [
        (_("Length of the sweep"), lengthText(result)),
        (_("Frames"), str(len(trajectory))),
    ]
    if (trust := result.report.trajectory["trust"]) is not None:
        rows.insert(1, (_("Trust"), trustText(trust)))
    if result.grid is not None:
        size = " x ".join(str(n) for n in result.grid.size)
        # One number for cubic voxels.
        sides = result.grid.spacing_mm if len(set(result.grid.spacing_mm)) > 1 else result.grid.spacing_mm[:1]
        spacing = " x ".join(f"{mm:.3g}" for mm in sides)
        rows.append((_("Volume"), _("{size} voxels of {spacing} mm").format(size=size, spacing=spacing)))
    if result.coverage is not None:
        seen = np.count_nonzero(result.coverage) / result.coverage.size
        rows.append((_("Coverage"), _("{seen:.0%} of the box was seen").format(seen=seen)))
    if (errors := _errors(result)) is not None:
        text = _("{own:.1f} mm on average ({still:.1f} mm for no motion at all)")
        simulated = result.report.sweep["poses_origin"] == PoseOrigin.SIMULATED.value
        against = _("Error against the simulation") if simulated else _("Error against the tracker")
        rows.append((against, text.format(own=errors[0], still=errors[1])))
    if (direction := result.trajectory.provenance.get("direction")) is not None:
        rows.append((_("Direction"), directionText(direction)))
    none = _("none: tracked") if trajectory.origin.is_truth else _("none: poses of unknown origin")
    rows.append((_("Model"), trajectory.estimated_by or none))
    if "total" in result.seconds:
        rows.append((_("Time"), durationText(result.seconds["total"])))
    return rows


def lengthText(result: RunResult) -> str:
    """The length of the path, and how sure it is where anything says so."""
    text, error = _("{length:.1f} mm").format(length=result.trajectory.path_length_mm), path_error(result.trajectory)
    if error is None:
        return text
    if not np.isfinite(error.end_length_mm):
        return _("{length} (error not known)").format(length=text)
    by_model, by_rule = _("{length} ± {most:.1f} mm (95 %)"), _("{length} ± {most:.1f} mm (95 %, by rule of thumb)")
    form = by_model if error.rule_percent is None else by_rule
    return form.format(length=text, most=TIMES_95 * error.end_length_mm)


def resultWarnings(result: RunResult) -> list[str]:
    """Warnings about the result, the gravest first."""
    errors = _errors(result)
    if errors is None or errors[0] < errors[1]:
        return list(result.warnings)
    return [_("The estimate is no better than assuming no motion at all: do not use this volume."), *result.warnings]


def _errors(result: RunResult) -> tuple[float, float] | None:
    """Mean error of the estimate and of no motion, mm; None where there is nothing to compare with."""
    if result.evaluation is None or result.report.settings["poses"] == "tracked":
        return None
    own = result.evaluation["metrics"].get("gpe_mm")
    still = result.evaluation["baselines"]["identity"].get("gpe_mm")
    return None if own is None or still is None else (own, still)
