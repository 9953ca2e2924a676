"""The clip: which one, its pixel size, and which frames."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackCore.repeats import Repeats, search_repeats
from DualTrackCore.sweep import Sweep
from DualTrackSlicerLib.scene import Clip, SceneSweep, framesOf, sweepFromBrowser
from DualTrackSlicerLib.sweep_nodes import addSample
from DualTrackSlicerLib.widget.controls import enable
from DualTrackSlicerLib.widget.texts import clipText, repeatsText

if TYPE_CHECKING:
    from DualTrackSlicerLib.widget.panel import Panel


#: Longest time that the search for repeated frames holds the panel up at once, s.
_SEARCH_S = 0.05


class ClipSection:
    """Chooser of the clip and what belongs to it.

    Attributes:
        clips: what can be chosen.
        message: a sentence in place of the facts of the clip; empty for the facts, with the next update.
    """

    def __init__(self, panel: Panel) -> None:
        self.panel, self.ui = panel, panel.ui
        self.clips: list[Clip] = []
        self.message = ""
        self._choosing = False
        self._searched: tuple[Clip, str] | None = None  # a clip, and what is known of its repeats so far
        self.ui.clipComboBox.connect("currentIndexChanged(int)", self._on_chosen)
        self.ui.sampleButton.connect("clicked()", self._on_sample)
        self.ui.spacingResetButton.connect("clicked()", self._on_spacing_reset)

    def refresh(self) -> None:
        """Look which clips the scene has; the only one, or the first that can be used, is chosen where none is."""
        self.clips = self.panel.logic.clips()
        combo = self.ui.clipComboBox
        self._choosing = True
        combo.clear()
        for clip in self.clips:
            combo.addItem(clip.name)
        self._choosing = False
        if self.chosen() is None and self.clips and not self.panel.isRunning():
            self.panel.chooseClip(next((clip for clip in self.clips if not clip.problem), self.clips[0]))

    def chosen(self) -> Clip | None:
        """The chosen clip, or None."""
        sequence = self.panel.parameters.sequence
        browser = self.panel.parameters.browser
        for clip in self.clips:
            if sequence is not None and (clip.sequence or clip.volume) is sequence and clip.browser is browser:
                return clip
        return None

    def update(self) -> None:
        """Show the chosen clip."""
        clip, ui = self.chosen(), self.ui
        self._choosing = True
        ui.clipComboBox.currentIndex = -1 if clip is None else self.clips.index(clip)
        self._choosing = False
        text = _("No clip is loaded. Drag one into this window, or press Sample.") if clip is None else clipText(clip)
        ui.clipInfoLabel.text = self.message or text + ("" if clip is None else self._repeats_text(clip))
        reason = _("Wait until the run has ended, or cancel it.") if self.panel.isRunning() else ""
        enable(reason, ui.clipComboBox, ui.sampleButton)
        if clip is None:
            reason = _("Choose a clip first.")
        else:
            ui.lastFrameSpinBox.specialValueText = _("the last ({number})").format(number=clip.frames)
            if clip.spacing_mm is None:
                reason = _("No pixel size is stored with this clip.")
        enable(reason, ui.spacingResetButton)

    def sceneSweep(self) -> SceneSweep:
        """The chosen clip as a sweep. Raises InputError: it cannot be used."""
        clip = self.chosen()
        browser = clip.browser or self.panel.logic.sequenceFromVolume(clip.volume)
        return sweepFromBrowser(browser, clip.sequence, self.panel.spacing())

    @contextlib.contextmanager
    def saying(self) -> Iterator[None]:
        """Say what goes wrong within, in place of the facts of the clip."""
        try:
            yield
        except DualTrackError as error:
            self.message = str(error)
            self.panel.update()

    def _repeats_text(self, clip: Clip) -> str:
        """What is known of the repeated frames of a clip; empty until they have been looked for, which starts now."""
        if clip.problem or clip.sequence is None:
            return ""
        if self._searched is None or self._searched[0] != clip:
            self._searched = clip, ""
            search = _searching(clip)
            self.panel.ticker(lambda: self._search_on(clip, search))
        return self._searched[1]

    def _search_on(self, clip: Clip, search: Generator[None, None, tuple[Sweep, Repeats]]) -> bool:
        """Look at some more frames; whether there are others."""
        if self._searched is None or self._searched[0] != clip:
            return False
        end = time.monotonic() + _SEARCH_S
        try:
            while time.monotonic() < end:
                next(search)
            return True
        except StopIteration as found:
            self._searched = clip, repeatsText(*found.value)
        except DualTrackError:
            return False  # said when the clip is used
        self.panel.update()
        return False

    def _on_chosen(self, index: int) -> None:
        if not self._choosing and 0 <= index < len(self.clips):
            self.message = ""
            self.panel.areaSection.forget()
            self.panel.chooseClip(self.clips[index])

    def _on_sample(self) -> None:
        with self.saying():
            browser = addSample(slicer.mrmlScene)
            self.refresh()
            for clip in self.clips:
                if clip.browser is browser:
                    self.message = ""
                    self.panel.chooseClip(clip)

    def _on_spacing_reset(self) -> None:
        clip = self.chosen()
        with slicer.util.NodeModify(self.panel.parameters):
            self.panel.parameters.spacingX, self.panel.parameters.spacingY = clip.spacing_mm


def _searching(clip: Clip) -> Generator[None, None, tuple[Sweep, Repeats]]:
    sweep = framesOf(clip)
    search = search_repeats(sweep)
    while True:
        try:
            next(search)
        except StopIteration as end:
            return sweep, end.value
        yield
