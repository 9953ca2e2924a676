"""What the user knows of the sweep, put into the path of the shown result: a row for each kind, with its undo."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from slicer.i18n import tr as _

from DualTrackCore.errors import InputError
from DualTrackCore.run.results import RunReport
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.trajectory import PoseOrigin
from DualTrackSlicerLib.events import Signal
from DualTrackSlicerLib.knowledge import ROWS, LengthOf, forget, knownIn, takeKnowledge, together, wanted
from DualTrackSlicerLib.logic import Logic
from DualTrackSlicerLib.run import Run
from DualTrackSlicerLib.scene import (
    LANDMARKS,
    TRACKER,
    ResultNodes,
    baseOf,
    reportOf,
    showResult,
    trackingSequences,
)
from DualTrackSlicerLib.widget.knowledge_texts import didText, wouldText
from DualTrackSlicerLib.widget.texts import directionText
from DualTrackSlicerLib.widget.view import Section, View, enable, fill

#: Controls that wait for a run.
_CONTROLS = (
    *("otherWayCheckBox", "lengthCheckBox", "lengthSpinBox", "lengthOfComboBox", "lengthFirstSpinBox"),
    *("lengthLastSpinBox", "scaleComboBox", "lengthAccuracySpinBox", "placesAccuracySpinBox", "loopsEdit"),
    *("loopsMmSpinBox", "loopsDegSpinBox", "monotoneCheckBox", "stepSpinBox", "turnSpinBox", "stopsEdit"),
    *("orientationsEdit", "orientationsSpinBox", "trackerEdit", "trackerComboBox", "trackerMmSpinBox"),
    "trackerDegSpinBox",
)
DIRECTION = "direction"
_WRONG, _DONE = (f"<span style='color:{colour}'>{{}}</span>" for colour in ("#b00020", "#1b6e2e"))


class _Shown(NamedTuple):
    """What the shown result says: its report, and what it was corrected by, as far as that can be taken back."""

    report: RunReport | None = None
    known: Mapping[str, Mapping[str, Any]] = {}
    is_turned: bool = False


class CorrectSection(Section):
    """Rows of what is known, what they would do and did; *Apply corrections*.

    Attributes:
        asked: emits what begins a correction, given the callbacks `onProgress` and `onDone`.
        shown: emits the result that the views should show.
        compared: emits the result that the shown one is to be compared with.
        framed: emits the number of a frame that is to be seen.
        changed: emits when there is something else to be shown.
    """

    def __init__(self, ui: object, logic: Logic) -> None:
        self.ui, self.logic = ui, logic
        self.asked, self.shown, self.compared = Signal(), Signal(), Signal()
        self.framed, self.changed = Signal(), Signal()
        # What was refused, by row: what the row said then, and the sentence.
        self._refused: dict[str, tuple[object, str]] = {}
        for row in (DIRECTION, *ROWS):
            self._connect_undo(row)
        ui.applyCorrectionsButton.connect("clicked()", self._on_apply)
        ui.beforeButton.connect("clicked()", self._on_before)
        ui.trackerComboBox.connect("currentIndexChanged(int)", self._on_tracker)
        ui.orientationsEdit.connect("currentPathChanged(QString)", self._on_orientations)
        ui.trackerEdit.connect("currentPathChanged(QString)", self._on_tracker_file)
        ui.lengthFirstSpinBox.connect("valueChanged(int)", self._on_frame)
        ui.lengthLastSpinBox.connect("valueChanged(int)", self._on_frame)

    def update(self, view: View) -> None:
        """Show what is known and what came of it."""
        self._view = view
        ui, parameters = self.ui, view.parameters
        ui.lengthFramesFrame.visible = parameters.lengthOf is LengthOf.FRAMES
        self._show_files(view)
        shown, (known, wrong) = _shown(view), self._said()
        for row in ROWS:
            said, did = known.get(row, {}), shown.known.get(row, {})
            refused = self._refused.get(row, (None, ""))
            error = wrong.get(row) or (refused[1] if refused[0] == said else "")
            self._show_row(row, error, self._state(row, said, did, shown), bool(said or did or error))
        self._show_direction(parameters.otherWay, shown)
        enable(view.waiting, *(getattr(ui, name) for name in _CONTROLS))
        corrected = bool(any(shown.known.values()) or shown.is_turned)
        says = corrected or any(known.values()) or parameters.otherWay
        reason = correctable(view) or next(iter(wrong.values()), "")
        enable(reason or ("" if says else _("Say first what is known of the sweep.")), ui.applyCorrectionsButton)
        alone = "" if corrected else _("No earlier result: the shown one was not corrected, or that is gone.")
        enable(view.waiting or alone, ui.beforeButton)

    def take(self, nodes: ResultNodes | None) -> None:
        """Say in the rows what a result was corrected by; nothing for None and one that was not."""
        if self._view is None:
            return
        parameters, known, turned, landmarks, tracker = (
            self._view.parameters,
            RunSettings().corrections,
            False,
            None,
            None,
        )
        if nodes is not None and (base := baseOf(nodes)) is not None:
            settings = RunSettings.from_dict(reportOf(nodes).settings)
            known, turned = settings.corrections, settings.direction != reportOf(base).settings["direction"]
            references = (nodes.transform_sequence.GetNodeReference(name) for name in (LANDMARKS, TRACKER))
            landmarks, tracker = references
        takeKnowledge(parameters, known, landmarks, tracker)
        parameters.otherWay = turned

    def _said(self) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """What the rows say, and what is wrong with others."""
        view = self._view
        if view.clip is None or view.clip.sequence is None:
            return {}, {}
        try:
            settings = RunSettings.from_dict(reportOf(view.base).settings) if view.base else view.preparing()
        except InputError:
            settings = RunSettings()
        return wanted(view.parameters, view.clip, settings)

    def _state(self, row: str, said: Mapping[str, Any], did: Mapping[str, Any], shown: _Shown) -> str:
        """What a row would do, or did to the shown result, as rich text."""
        done = "" if shown.report is None else html.escape(didText(row, shown.report))
        if said and said == did:
            return _DONE.format(done)
        sentences = []
        if said:
            node = self._view.parameters.trackerNode
            report = None if self._view.base is None else reportOf(self._view.base)
            sentences.append(html.escape(wouldText(row, said, report, "" if node is None else node.GetName())))
        if done and (did or not said):
            sentences.append(_("In the shown result: {text}").format(text=done))
        return "<br>".join(sentences)

    def _show_row(self, row: str, error: str, state: str, says: bool) -> None:
        label = getattr(self.ui, f"{row}StateLabel")
        label.text = _WRONG.format(html.escape(error)) if error else state
        label.visible = bool(label.text)
        reason = "" if says else _("Nothing is said in this row.")
        enable(self._view.waiting or reason, getattr(self.ui, f"{row}UndoButton"))

    def _show_direction(self, wanted_turn: bool, shown: _Shown) -> None:
        found = "" if shown.report is None else shown.report.trajectory["direction"] or ""
        text = _("Which way it runs: {direction}.").format(direction=directionText(found)) if found else ""
        if wanted_turn and shown.is_turned:
            text = _DONE.format(_("Turned over, as you say."))
        elif wanted_turn:
            text += " " + _("Would be turned over.")
        elif shown.is_turned:
            text = _("The shown result is turned over.")
        self._show_row(DIRECTION, "", text, wanted_turn or shown.is_turned)

    def _show_files(self, view: View) -> None:
        ui, parameters = self.ui, view.parameters
        for edit, path in (
            (ui.orientationsEdit, parameters.orientationsFile),
            (ui.trackerEdit, parameters.trackerFile),
        ):
            if edit.currentPath != path:
                edit.currentPath = path
        nodes = trackingSequences(parameters.parameterNode.GetScene())
        index = 1 + nodes.index(parameters.trackerNode) if parameters.trackerNode in nodes else 0
        none = _("no transforms of the scene") if nodes else _("no transforms are in the scene")
        fill(ui.trackerComboBox, [none, *(node.GetName() for node in nodes)], index)

    def _connect_undo(self, row: str) -> None:
        def undo() -> None:
            self._undo(row)

        getattr(self.ui, f"{row}UndoButton").connect("clicked()", undo)

    def _undo(self, row: str) -> None:
        """Take back what a row says, and show the result without it where the shown one has it."""
        view, shown = self._view, _shown(self._view)
        was_applied = shown.is_turned if row == DIRECTION else bool(shown.known.get(row))
        self._refused.pop(row, None)
        if row == DIRECTION:
            view.parameters.otherWay = False
        else:
            forget(view.parameters, row)
        if was_applied:
            left = {other: given for other, given in shown.known.items() if other != row}
            self._make(left, shown.is_turned and row != DIRECTION)
        else:
            self.changed.emit()

    def _on_apply(self) -> None:
        self._make(self._said()[0], self._view.parameters.otherWay)

    def _make(self, known: Mapping[str, Mapping[str, Any]], otherWay: bool) -> None:
        """Show the result that is corrected so: the one that is there, or a new one."""
        view, base, corrections = self._view, self._view.base, together(known)
        self._refused = {}
        for nodes in view.results:
            is_base = nodes.transform_sequence is base.transform_sequence
            if (is_base and not corrections and not otherWay) or _is_corrected(nodes, base, corrections, otherWay):
                showResult(nodes)
                self.shown.emit(nodes)
                return
        landmarks, tracker = view.parameters.landmarks, view.parameters.trackerNode

        def begin(onProgress: Callable, onDone: Callable) -> Run:
            def ended(run: Run) -> None:
                if run.nodes is not None:
                    for name, node in ((LANDMARKS, landmarks), (TRACKER, tracker)):
                        run.nodes.transform_sequence.SetNodeReferenceID(name, None if node is None else node.GetID())
                elif run.about:
                    row = next(row for row, names in ROWS.items() if run.about in names)
                    self._refused[row] = known.get(row), run.error
                onDone(run)

            callbacks = {"onProgress": onProgress, "onDone": ended}
            return self.logic.correct(base, corrections, otherWay=otherWay, trackerNode=tracker, **callbacks)

        self.asked.emit(begin)

    def _on_before(self) -> None:
        self.compared.emit(self._view.base)

    def _on_tracker(self, index: int) -> None:
        if self._view is not None and index >= 0:
            nodes = trackingSequences(self._view.parameters.parameterNode.GetScene())
            self._view.parameters.trackerNode = nodes[index - 1] if index else None

    def _on_orientations(self, path: str) -> None:
        if self._view is not None:
            self._view.parameters.orientationsFile = path

    def _on_tracker_file(self, path: str) -> None:
        if self._view is not None:
            self._view.parameters.trackerFile = path

    def _on_frame(self, number: int) -> None:
        if self._view is not None and self._view.clip is not None and not self.ui.correctSection.collapsed:
            self.framed.emit(number)


def correctable(view: View) -> str:
    """Why nothing of the shown result can be corrected, empty where it can."""
    if view.waiting:
        return view.waiting
    if view.result is None:
        return _("Run the clip first: corrections go into a result.")
    if view.report is None:
        return _("Run the clip again: the shown result was made by another version of DualTrack.")
    origin = PoseOrigin(view.report.trajectory["origin"])
    if origin.is_truth:
        return _("Poses of this result are {origin}; only estimated ones are corrected.").format(origin=origin.value)
    return ""


def _shown(view: View) -> _Shown:
    if view.report is None:
        return _Shown()
    settings = RunSettings.from_dict(view.report.settings)
    if view.base.transform_sequence is view.result.transform_sequence:
        return _Shown(view.report)  # what corrected it before belongs to it
    turned = settings.direction != reportOf(view.base).settings["direction"]
    return _Shown(view.report, {row: knownIn(settings.corrections, row) for row in ROWS}, turned)


def _is_corrected(nodes: ResultNodes, base: ResultNodes, corrections: object, otherWay: bool) -> bool:
    """Whether a result was made from another one by these corrections."""
    found = baseOf(nodes)
    if found is None or found.transform_sequence is not base.transform_sequence:
        return False
    settings = RunSettings.from_dict(reportOf(nodes).settings)
    turned = settings.direction != reportOf(base).settings["direction"]
    return settings.corrections == corrections and turned == otherWay
