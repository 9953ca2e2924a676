"""The clip: which one, its pixel size, and what is known of its frames."""

from __future__ import annotations

from collections.abc import Iterator

import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackSlicerLib.events import Pieces, Signal
from DualTrackSlicerLib.logic import Logic
from DualTrackSlicerLib.scene import Clip, framesInPieces
from DualTrackSlicerLib.widget.texts import clipText, repeatsText
from DualTrackSlicerLib.widget.view import Section, View, enable, fill


class ClipSection(Section):
    """Chooser of the clip and what belongs to it.

    Attributes:
        chosen: emits the clip that the user chose.
        added: emits the browser of the sample.
        said: emits a sentence in place of the facts of the clip.
        changed: more is known of the clip.
    """

    def __init__(self, ui: object, logic: Logic) -> None:
        self.ui, self.logic = ui, logic
        self.chosen, self.added, self.said, self.changed = Signal(), Signal(), Signal(), Signal()
        self._searched: Clip | None = None
        self._repeats = ""
        self._search: Pieces | None = None
        self.ui.clipComboBox.connect("currentIndexChanged(int)", self._on_chosen)
        self.ui.sampleButton.connect("clicked()", self._on_sample)
        self.ui.spacingResetButton.connect("clicked()", self._on_spacing_reset)

    def update(self, view: View) -> None:
        """Show the chosen clip."""
        self._view = view
        clip, ui = view.clip, self.ui
        fill(ui.clipComboBox, [listed.name for listed in view.clips], -1 if clip is None else view.clips.index(clip))
        self._look_for_repeats(clip)
        text = _("No clip is loaded. Drag one into this window, or press Sample.") if clip is None else clipText(clip)
        ui.clipInfoLabel.text = view.message or text + self._repeats
        enable(view.waiting, ui.clipComboBox, ui.sampleButton)
        reason = ""
        if clip is None:
            reason = _("Choose a clip first.")
        elif clip.spacing_mm is None:
            reason = _("No pixel size is stored with this clip.")
        enable(view.waiting or reason, ui.spacingResetButton)

    def stop(self) -> None:
        """Look no further for repeated frames; it begins anew with the next update."""
        super().stop()
        if self._search is not None:
            self._search.stop()
        self._searched = self._search = None
        self._repeats = ""

    def _look_for_repeats(self, clip: Clip | None) -> None:
        """Start to look for the repeated frames of a clip, once."""
        if clip == self._searched:
            return
        if self._search is not None:
            self._search.stop()
        self._searched, self._repeats, self._search = clip, "", None
        if clip is not None and not clip.problem:
            self._search = Pieces(self._searching(clip))

    def _searching(self, clip: Clip) -> Iterator[None]:
        from DualTrackCore.repeats import search_repeats

        try:
            sweep = yield from framesInPieces(clip)
            repeats = yield from search_repeats(sweep)
        except DualTrackError:
            return  # said when the clip is used
        self._repeats = repeatsText(sweep, repeats)
        self.changed.emit()

    def _on_chosen(self, index: int) -> None:
        if self._view is not None and 0 <= index < len(self._view.clips):
            self.chosen.emit(self._view.clips[index])

    def _on_sample(self) -> None:
        from DualTrackSlicerLib.sweep_nodes import addSample

        try:
            self.added.emit(addSample(slicer.mrmlScene))
        except DualTrackError as error:
            self.said.emit(str(error))

    def _on_spacing_reset(self) -> None:
        parameters = self._view.parameters
        with slicer.util.NodeModify(parameters):
            parameters.depth = 0.0
            parameters.spacingX, parameters.spacingY = self._view.clip.spacing_mm
