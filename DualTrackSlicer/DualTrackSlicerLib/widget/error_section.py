"""The switch that lays the expected error of the shown result over its volume."""

from __future__ import annotations

from collections.abc import Iterator

from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackSlicerLib.events import Pieces, Signal
from DualTrackSlicerLib.scene import ResultNodes, hideExpectedError, showExpectedError
from DualTrackSlicerLib.widget.view import Section, View, enable


class ErrorSection(Section):
    """On where the scene has the expected error of the shown result.

    Attributes:
        shown: emits nothing when it came or went.
        failed: emits a sentence where it could not be computed, an empty one where it could.
    """

    def __init__(self, ui: object) -> None:
        self.ui = ui
        self.shown, self.failed = Signal(), Signal()
        self._work: Pieces | None = None
        ui.errorOverCheckBox.connect("clicked()", self._on_switch)

    def update(self, view: View) -> None:
        """Show whether it is there."""
        self._view = view
        nodes, box = view.result, self.ui.errorOverCheckBox
        box.visible = nodes is not None and nodes.volume is not None
        box.checked = self._work is not None or (nodes is not None and nodes.expected_error is not None)
        enable(view.waiting if self._work is None else _("It is being computed."), box)

    def stop(self) -> None:
        """Compute no more."""
        if self._work is not None:
            self._work.stop()
            self._work = None
        super().stop()

    def _on_switch(self) -> None:
        nodes = self._view.result
        if nodes.expected_error is not None:
            hideExpectedError(nodes)
            self.shown.emit()
        else:
            self._work = Pieces(self._show(nodes))
            self.update(self._view)

    def _show(self, nodes: ResultNodes) -> Iterator[None]:
        said = ""
        try:
            yield from showExpectedError(nodes)
        except DualTrackError as error:
            said = str(error)
        self._work = None
        self.failed.emit(said)
        self.shown.emit()
