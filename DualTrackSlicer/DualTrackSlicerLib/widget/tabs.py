"""The tabs beside the reconstruction: the error against a tracker, and the Python that does what Apply does."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackCore.trajectory import PoseOrigin
from DualTrackSlicerLib.knowledge import correctingScript, together, wanted
from DualTrackSlicerLib.parameters import consoleScript
from DualTrackSlicerLib.widget.view import Section, View, enable


class EvaluationTab(Section):
    """A table of the errors against a tracker, beside those of two guesses that need no network."""

    def __init__(self, ui: object) -> None:
        self.ui = ui
        self._rows: list[tuple[str, ...]] = []
        table = self.ui.evaluationTable
        table.setColumnCount(4)
        table.setHorizontalHeaderLabels([_("Error"), _("This run"), _("No motion"), _("Mean motion")])
        table.verticalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        table.verticalHeader().hide()
        header = table.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        self.ui.plotButton.connect("clicked()", self._on_plots)
        self.ui.copyEvaluationButton.connect("clicked()", self._on_copy)

    def update(self, view: View) -> None:
        """Show the errors of the result that is shown."""
        self._view = view
        reason = self._reason()
        if not reason:
            evaluation, origin = view.report.evaluation, view.report.sweep["poses_origin"]
            simulated = origin == PoseOrigin.SIMULATED.value
            text = _(
                "Compared with {truth} over {used} of {all} frames. An estimate is worth something only where it is "
                "well below no motion; mean motion is what a perfectly even hand would give."
            ).format(
                truth=_("the simulation") if simulated else _("the tracker of this clip"),
                used=evaluation["frames_used"],
                all=evaluation["frames"],
            )
        self.ui.evaluationLabel.text = reason or text
        self.ui.evaluationTable.visible = not reason
        enable(reason, self.ui.copyEvaluationButton)
        enable(reason or ("" if view.result.plots else _("There are no plots of this run.")), self.ui.plotButton)
        table, rows = self.ui.evaluationTable, [] if reason else errorRows(evaluation)
        if rows == self._rows:
            return
        self._rows = rows
        table.setRowCount(len(rows))
        for row, cells in enumerate(rows):
            for column, cell in enumerate(cells):
                item = qt.QTableWidgetItem(cell)
                if column:
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                table.setItem(row, column, item)

    def _reason(self) -> str:
        """Why there are no errors to show; empty where there are."""
        report = self._view.report
        if report is None:
            return _("Run a clip that was recorded with a tracker to see how far the estimate is off.")
        if report.evaluation is not None:
            return ""
        if report.sweep["poses_origin"] in (PoseOrigin.ESTIMATED.value, PoseOrigin.UNKNOWN.value):
            origin = report.sweep["poses_origin"]
            return _("The poses of this clip are {origin}, so there is nothing to compare with.").format(origin=origin)
        return _("This clip was recorded without a tracker, so there is nothing to compare with.")

    def _on_plots(self) -> None:
        chart = self._view.result.plots[0]
        layout = slicer.app.layoutManager()
        layout.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView)
        slicer.app.applicationLogic().GetSelectionNode().SetActivePlotChartID(chart.GetID())
        slicer.app.applicationLogic().PropagatePlotChartSelection()

    def _on_copy(self) -> None:
        table = "\n".join("\t".join(row) for row in errorRows(self._view.report.evaluation))
        slicer.app.clipboard().setText(table)


def errorRows(evaluation: dict) -> list[tuple[str, ...]]:
    """(name, this run, no motion, mean motion) of each figure that is defined."""
    names = (
        ("gpe_mm", _("Mean position error of all pixels"), "mm"),
        ("lpe_mm", _("Mean error from frame to frame"), "mm"),
        ("final_drift_mm", _("Drift at the last frame"), "mm"),
        ("max_drift_mm", _("Largest drift"), "mm"),
        ("fdr_path_percent", _("Drift over the length of the sweep"), "%"),
        ("hausdorff_mm", _("Largest distance between the paths"), "mm"),
        ("correlation_tz", _("Agreement of the motion along the sweep"), ""),
    )
    columns = (evaluation["metrics"], evaluation["baselines"]["identity"], evaluation["baselines"]["mean_motion"])
    return [
        (name, *(_figure(column.get(key), unit) for column in columns))
        for key, name, unit in names
        if any(column.get(key) is not None for column in columns)
    ]


def _figure(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:.2f} {unit}".strip()


class ScriptTab(Section):
    """The Python that does what Apply does, with the current settings."""

    def __init__(self, ui: object) -> None:
        self.ui = ui
        self.ui.copyScriptButton.connect("clicked()", self._on_copy)

    def update(self, view: View) -> None:
        """Show the script, or why there is none."""
        reason = _("Choose a clip first.") if view.clip is None else ""
        try:
            text = f"# {reason}\n" if reason else _script(view)
        except DualTrackError as error:
            reason = str(error)
            text = f"# {reason}\n"
        if self.ui.scriptEdit.plainText != text:
            self.ui.scriptEdit.setPlainText(text)
        enable(reason, self.ui.copyScriptButton)

    def _on_copy(self) -> None:
        slicer.app.clipboard().setText(self.ui.scriptEdit.plainText)


def _script(view: View) -> str:
    clip = view.clip
    master = None if clip.browser is None else clip.browser.GetMasterSequenceNode()
    script = consoleScript(
        (clip.browser or clip.volume).GetName(),
        view.settings(),
        view.spacing(),
        is_volume=clip.browser is None,
        sequence_name=None if clip.sequence is master else clip.sequence.GetName(),
    )
    known, wrong = wanted(view.parameters, clip, view.preparing())
    if wrong or clip.sequence is None:
        return script  # the section that asks for it says so
    return script + correctingScript(together(known), view.parameters.otherWay, view.parameters.trackerNode)
