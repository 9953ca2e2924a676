"""The results of the clip: which one is shown, its card, and what can be done with it; all of it is in the scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.trajectory import PoseOrigin
from DualTrackSlicerLib.events import Pieces, Signal
from DualTrackSlicerLib.parameters import takeSettings
from DualTrackSlicerLib.scene import (
    ResultNodes,
    baseOf,
    compareResults,
    exportFiles,
    exportInPieces,
    fadeVolumes,
    removeResults,
    reportOf,
    secondsOf,
    showErrorTube,
    showResult,
    turnOverInPieces,
)
from DualTrackSlicerLib.widget.cards import cardRows, comparedText, pageTexts, titleText, warningsOf
from DualTrackSlicerLib.widget.texts import listText, rowsText
from DualTrackSlicerLib.widget.view import Section, View, enable, fill


class ResultSection(Section):
    """Chooser of the result, its card, comparison with another one.

    Attributes:
        shown: emits the result that the views should show.
        changed: emits when a result was changed or removed.
        exporting: emits nothing, before tables are written.
        taken: emits the result whose settings were taken.
        failed: emits a sentence where something could not be done, an empty one where it could.
    """

    def __init__(self, ui: object) -> None:
        self.ui = ui
        self.shown, self.changed, self.failed = Signal(), Signal(), Signal()
        self.exporting, self.taken = Signal(), Signal()
        self._turning: Pieces | None = None
        self._exporting: Pieces | None = None
        ui.resultComboBox.connect("currentIndexChanged(int)", self._on_chosen)
        ui.compareComboBox.connect("currentIndexChanged(int)", self._on_compared)
        ui.fadeSlider.connect("valueChanged(int)", self._on_fade)
        ui.settingsButton.connect("clicked()", self._on_settings)
        ui.deleteResultButton.connect("clicked()", self._on_delete)
        ui.errorTubeCheckBox.connect("clicked()", self._on_tube)
        ui.turnOverButton.connect("clicked()", self._on_turn_over)
        ui.exportButton.connect("clicked()", self._on_export)
        ui.copyResultButton.connect("clicked()", self._on_copy)
        ui.previousResultButton.connect("clicked()", self._on_previous)
        ui.nextResultButton.connect("clicked()", self._on_next)

    def forget(self) -> None:
        """The scene closes, or turning over and writing are to be stopped: result and files stay as they were."""
        for work in (self._turning, self._exporting):
            if work is not None:
                work.stop()
        self._turning = self._exporting = None

    def update(self, view: View) -> None:
        """Show what the scene holds."""
        self._view = view
        ui, nodes, turning = self.ui, view.result, self._turning is not None
        ui.resultGroup.visible = nodes is not None
        if nodes is None:
            return
        titles = [titleText(result) for result in view.results]
        fill(ui.resultComboBox, titles, _place(view.results, nodes))
        others, compared = _others(view), self._compared(view)
        chosen = 0 if compared is None else 1 + _place(others, compared)
        fill(ui.compareComboBox, [_("nothing"), *(titleText(result) for result in others)], chosen)
        waiting = _("The result is being turned over; wait a moment, or stop it.") if turning else ""
        enable(waiting or view.waiting, ui.settingsButton, ui.deleteResultButton)
        enable("" if turning else view.waiting or _turned_elsewhere(view), ui.turnOverButton)
        ui.turnOverButton.text = _("Stop turning over") if turning else _("Runs the other way")
        ui.turnOverButton.setShortcut(qt.QKeySequence("Ctrl+Shift+D"))  # a new text takes it away
        enable(waiting, ui.resultComboBox)
        enable(_("The tables are being written; wait a moment.") if self._exporting else "", ui.exportButton)
        alone = "" if others else _("This is the only result of the clip; run it again to compare.")
        enable(waiting or alone, ui.compareComboBox, ui.previousResultButton, ui.nextResultButton)
        ui.comparisonFrame.visible = compared is not None
        if compared is not None:
            ui.comparisonLabel.text = comparedText(nodes, compared)
            both = nodes.volume is not None and compared.volume is not None
            enable("" if both else _("There are no two volumes to fade between."), ui.fadeSlider)
        self._update_card(nodes)

    def _update_card(self, nodes: ResultNodes) -> None:
        ui = self.ui
        try:
            report = reportOf(nodes)
            base = baseOf(nodes)
            origin = [] if base is None else [(_("Corrected from"), base.name)]
            ui.resultLabel.text = rowsText([*cardRows(report, secondsOf(nodes)), *origin])
            warnings, given = warningsOf(report), PoseOrigin(report.trajectory["origin"]).is_truth
        except DualTrackError as error:
            ui.resultLabel.text, warnings, given = str(error), [], True
        ui.warningsLabel.text = listText(warnings)
        ui.warningsLabel.visible = bool(warnings)
        ui.turnOverButton.visible = not given
        tube, box = nodes.error_tube, ui.errorTubeCheckBox
        enable("" if tube is not None else _("Nothing says how sure these poses are, or the tube was deleted."), box)
        if tube is not None:
            box.toolTip = _("{name}: the true image centres lie within this tube.").format(name=tube.GetName())
        box.checked = tube is not None and bool(tube.GetDisplayNode().GetVisibility())

    def _compared(self, view: View) -> ResultNodes | None:
        """The other result that the shown one is compared with."""
        chosen = view.parameters.compared
        return next((other for other in _others(view) if other.transform_sequence is chosen), None)

    def _on_chosen(self, index: int) -> None:
        if self._view is not None and 0 <= index < len(self._view.results):
            self._view.parameters.compared = None
            showResult(self._view.results[index])
            self.shown.emit(self._view.results[index])

    def _on_previous(self) -> None:
        self._step(-1)

    def _on_next(self) -> None:
        self._step(1)

    def _step(self, by: int) -> None:
        combo = self.ui.resultComboBox
        combo.currentIndex = (combo.currentIndex + by) % combo.count

    def _on_compared(self, index: int) -> None:
        view, others = self._view, _others(self._view)
        if index < 1:
            view.parameters.compared = None
            showResult(view.result)
            self.shown.emit(view.result)
        elif index <= len(others):
            self.compare(others[index - 1])
        self.changed.emit()

    def compare(self, other: ResultNodes) -> None:
        """Compare the shown result with another one: both paths, and fading of the volumes."""
        self._view.parameters.compared = other.transform_sequence
        compareResults(self._view.result, other)
        self._on_fade(self.ui.fadeSlider.value)

    def _on_fade(self, percent: int) -> None:
        compared = None if self._view is None else self._compared(self._view)
        if compared is not None:
            fadeVolumes(self._view.result, compared, percent / 100)

    def _on_settings(self) -> None:
        self._try(self._take_settings)

    def _take_settings(self) -> None:
        parameters, report = self._view.parameters, reportOf(self._view.result)
        takeSettings(parameters, RunSettings.from_dict(report.settings))
        if report.sweep["spacing_mm"] is not None:
            with slicer.util.NodeModify(parameters):
                parameters.spacingX, parameters.spacingY = report.sweep["spacing_mm"]
        self.taken.emit(self._view.result)

    def _on_export(self) -> None:
        nodes = self._view.result
        title = _("Path and figures of {name}").format(name=nodes.name)
        given = qt.QFileDialog.getSaveFileName(self.ui.exportButton, title, f"{nodes.name}.csv", _("Tables (*.csv)"))
        if not given:
            return
        path = Path(given if given.lower().endswith(".csv") else f"{given}.csv")
        self.exporting.emit()
        # The dialog has asked about the file that it gives, not about others.
        there = [str(file) for file in exportFiles(nodes, path) if str(file) != given and file.exists()]
        question = _("Replace {files}?").format(files=", ".join(there))
        if there and not slicer.util.confirmOkCancelDisplay(question, windowTitle=title):
            return
        self._exporting = Pieces(self._export(nodes, path))
        self.changed.emit()

    def _export(self, nodes: ResultNodes, path: Path) -> Iterator[object]:
        problem = ""
        try:
            yield from exportInPieces(nodes, path)
        except DualTrackError as error:
            problem = str(error)
        finally:
            self._exporting = None
        self.failed.emit(problem)
        self.changed.emit()

    def _on_copy(self) -> None:
        self._try(self._copy)

    def _copy(self) -> None:
        text, page = pageTexts(self._view.result)
        self._copied = qt.QMimeData()  # kept, for the clipboard does not keep what Python made
        self._copied.setText(text)
        self._copied.setHtml(page)
        slicer.app.clipboard().setMimeData(self._copied)

    def _try(self, act: Callable[[], None]) -> None:
        """Do something, and say what went wrong."""
        try:
            act()
            self.failed.emit("")
        except DualTrackError as error:
            self.failed.emit(str(error))

    def _on_delete(self) -> None:
        agreed = slicer.util.confirmOkCancelDisplay(
            _("Delete {name} from the scene?").format(name=self._view.result.name), windowTitle=_("Delete a result")
        )
        if agreed:
            removeResults(self._view.result)
            self.changed.emit()

    def _on_tube(self) -> None:
        if (tube := self._view.result.error_tube) is not None:
            showErrorTube(tube, self.ui.errorTubeCheckBox.checked)

    def _on_turn_over(self) -> None:
        if self._turning is None:
            self._turning = Pieces(self._turn_over(self._view.result))
        else:
            self.forget()
        self.changed.emit()

    def _turn_over(self, nodes: ResultNodes) -> Iterator[object]:
        """Every voxel of the volume moves, so the application gets a turn now and then."""
        problem = ""
        try:
            nodes = yield from turnOverInPieces(nodes)
        except DualTrackError as error:
            problem = str(error)
        finally:
            self._turning = None
        self.failed.emit(problem)
        if not problem:
            self.shown.emit(nodes)


def _others(view: View) -> list[ResultNodes]:
    shown = view.result.transform_sequence
    return [result for result in view.results if result.transform_sequence is not shown]


def _turned_elsewhere(view: View) -> str:
    """Why the shown result is not turned over in its place: the link to what it was corrected from would be lost."""
    shown = view.result.transform_sequence
    bases = [base.transform_sequence for result in view.results if (base := baseOf(result)) is not None]
    if view.base.transform_sequence is shown and shown not in bases:
        return ""
    return _("This result was corrected, or is what others were corrected from; turn it over under “Correct”.")


def _place(results: list[ResultNodes], nodes: ResultNodes) -> int:
    return [result.transform_sequence for result in results].index(nodes.transform_sequence)
