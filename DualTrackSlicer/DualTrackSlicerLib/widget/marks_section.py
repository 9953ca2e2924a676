"""Points and places that are seen in several frames: marks on the picture in the red view, and proposed loops."""

from __future__ import annotations

from collections.abc import Iterator

import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import Cancelled, DualTrackError
from DualTrackSlicerLib import region
from DualTrackSlicerLib.events import Pieces, Signal
from DualTrackSlicerLib.logic import Logic
from DualTrackSlicerLib.scene import ResultNodes, addLandmarks, bindMarks, clip_in_pieces, landmarkLists, placeMarks
from DualTrackSlicerLib.widget.view import Section, View, enable, fill


class MarksSection(Section):
    """The list of marks, which keep to their frames whatever result is shown.

    Attributes:
        changed: emits when marks were set, moved or removed.
        said: emits a sentence to be shown with the clip.
    """

    def __init__(self, ui: object) -> None:
        self.ui = ui
        self.changed, self.said = Signal(), Signal()
        self._observed: tuple[object, list[int]] = (None, [])
        self._placing = False
        ui.markButton.connect("clicked()", self._on_mark)
        ui.pointEdit.connect("textChanged(QString)", self._on_point)
        ui.landmarksComboBox.connect("currentIndexChanged(int)", self._on_chosen)

    def stop(self) -> None:
        """Watch the marks no longer, until the next update."""
        self._observe(None)
        super().stop()

    def update(self, view: View) -> None:
        """Show the list, and put its marks where their frames lie now."""
        self._view = view
        ui, node, clip = self.ui, view.parameters.landmarks, view.clip
        reason = _("Choose a clip first.") if clip is None else clip.problem or ""
        if clip is not None and clip.browser is None:
            reason = _("Run the volume once: its slices become frames that can be marked.")
        self._observe(None if reason else node)
        if node is not None and not reason:
            self._placing = True
            try:
                placeMarks(node, clip)
            finally:
                self._placing = False
            label = node.GetControlPointLabelFormat()
            label = (
                "" if "%" in label else label
            )  # Slicer numbers the points of its own lists, so that none is marked twice
            if ui.pointEdit.text.strip() != label:
                ui.pointEdit.text = label
        lists = landmarkLists(slicer.mrmlScene)
        index = 1 + lists.index(node) if node in lists else 0
        fill(ui.landmarksComboBox, [_("no marks"), *(one.GetName() for one in lists)], index)
        enable(view.waiting or reason, ui.markButton)
        enable(view.waiting, ui.landmarksComboBox, ui.pointEdit)

    def _observe(self, node: object) -> None:
        before, tags = self._observed
        if node is before:
            return
        for tag in tags:
            before.RemoveObserver(tag)
        events = (
            () if node is None else (node.PointPositionDefinedEvent, node.PointModifiedEvent, node.PointRemovedEvent)
        )
        self._observed = node, [node.AddObserver(event, self._on_points) for event in events]

    def _on_points(self, caller: object, event: str) -> None:
        if self._placing or self._view is None:
            return
        node = self._view.parameters.landmarks
        self._placing = True
        try:
            bindMarks(node, self._view.clip)
        finally:
            self._placing = False
        self.changed.emit()

    def _on_mark(self) -> None:
        parameters, point = self._view.parameters, self.ui.pointEdit.text.strip() or "A"
        if parameters.landmarks is None:
            parameters.landmarks = addLandmarks(slicer.mrmlScene)
        parameters.landmarks.SetControlPointLabelFormat(point)
        region.placeNext(parameters.landmarks, slicer.app.applicationLogic())
        self.said.emit(
            _("Click on the point in the red view; then go to another frame that shows it, and mark it again.")
        )

    def _on_point(self, text: str) -> None:
        if self._view is not None and self._view.parameters.landmarks is not None and text.strip():
            self._view.parameters.landmarks.SetControlPointLabelFormat(text.strip())

    def _on_chosen(self, index: int) -> None:
        if self._view is not None and index >= 0:
            lists = landmarkLists(slicer.mrmlScene)
            self._view.parameters.landmarks = lists[index - 1] if index else None


class LoopsSection(Section):
    """Proposes far frames whose pictures are alike; only what the user takes is used.

    Attributes:
        framed: emits the number of a frame that is to be seen.
        changed: emits when there is something else to be shown.
    """

    def __init__(self, ui: object, logic: Logic) -> None:
        self.ui, self.logic = ui, logic
        self.framed, self.changed = Signal(), Signal()
        self._looking, self._message, self._of, self._second = False, "", "", False
        self._proposed: list[tuple[tuple[int, int], float]] = []
        self._reading: Pieces | None = None
        ui.proposeButton.connect("clicked()", self._on_propose)
        ui.lookButton.connect("clicked()", self._on_look)
        ui.takeProposalButton.connect("clicked()", self._on_take)

    def update(self, view: View) -> None:
        """Show what was proposed for the shown result."""
        self._view = view
        ui, named = self.ui, _("{first} and {last}, alike to {alike:.0%}")
        if self._of != _place(view):
            self._of, self._proposed, self._message = _place(view), [], ""
        ui.proposalFrame.visible = bool(self._proposed)
        texts = [named.format(first=a, last=b, alike=alike) for (a, b), alike in self._proposed]
        fill(ui.proposalComboBox, texts, min(max(ui.proposalComboBox.currentIndex, 0), len(texts) - 1))
        ui.proposalLabel.text, ui.proposalLabel.visible = self._message, bool(self._message)
        reason = view.waiting or ("" if view.result else _("Run the clip first: its path says which frames are far."))
        enable(reason or (_("Wait until the pictures are compared.") if self._looking else ""), ui.proposeButton)
        enable(view.waiting, ui.lookButton, ui.takeProposalButton)

    def stop(self) -> None:
        """Look no further."""
        if self._reading is not None:
            self._reading.stop()
        self._reading, self._looking = None, False
        super().stop()

    def _on_propose(self) -> None:
        self._looking, self._message, self._proposed = True, _("Comparing the pictures…"), []
        self._reading = Pieces(self._read(self._view.base))
        self.changed.emit()

    def _read(self, nodes: ResultNodes) -> Iterator[object]:
        try:
            clip = yield from clip_in_pieces(nodes)
            self.logic.findLoops(nodes, clip, self._on_found)
        except DualTrackError as error:
            self._looking, self._message = False, str(error)
            self.changed.emit()

    def _on_found(self, job: object) -> None:
        if not self._looking:
            return  # of a scene that has been closed, or another module is shown
        self._looking, self._message = False, ""
        try:
            self._proposed = job.result
            if self._proposed:
                self._message = _(
                    "Look at both pictures of a pair before you take it: tissue may look alike elsewhere."
                )
            else:
                self._message = _("No far frames show alike pictures.")
        except Cancelled:
            self._proposed = []
        except DualTrackError as error:
            self._message = str(error)
        self.changed.emit()

    def _chosen(self) -> tuple[int, int]:
        return self._proposed[self.ui.proposalComboBox.currentIndex][0]

    def _on_look(self) -> None:
        self.framed.emit(self._chosen()[self._second])
        self._second = not self._second

    def _on_take(self) -> None:
        parameters, pair = self._view.parameters, ", ".join(map(str, self._chosen()))
        pairs = [part.strip() for part in parameters.loops.split(";") if part.strip()]
        parameters.loops = "; ".join(pairs if pair in pairs else [*pairs, pair])


def _place(view: View) -> str:
    return "" if view.base is None else view.base.transform_sequence.GetID()
