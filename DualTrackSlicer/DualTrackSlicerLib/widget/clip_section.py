"""The clip: which one, its pixel size, which frames and which part of the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackCore.reconstruction import detect_fan
from DualTrackSlicerLib.parameters import Area, givenArea, takeFan
from DualTrackSlicerLib.region import addRegion, areaOfRegion
from DualTrackSlicerLib.scene import Clip, SceneSweep, sweepFromBrowser
from DualTrackSlicerLib.sweep_nodes import addSample
from DualTrackSlicerLib.widget.controls import enable
from DualTrackSlicerLib.widget.fan_area import FanArea, fanTip
from DualTrackSlicerLib.widget.texts import clipText

if TYPE_CHECKING:
    from DualTrackSlicerLib.widget.panel import Panel


class ClipSection:
    """Chooser of the clip and what belongs to it."""

    def __init__(self, panel: Panel) -> None:
        self.panel, self.ui = panel, panel.ui
        self.clips: list[Clip] = []
        self._choosing = False
        self._message = ""
        self._observed = None
        self._drawn_on: SceneSweep | None = None
        self._fan = FanArea(self)
        ui = self.ui
        ui.clipComboBox.connect("currentIndexChanged(int)", self._on_chosen)
        ui.sampleButton.connect("clicked()", self._on_sample)
        ui.spacingResetButton.connect("clicked()", self._on_spacing_reset)
        ui.drawAreaButton.connect("clicked()", self._on_draw)
        ui.findAreaButton.connect("clicked()", self._on_find)

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
        clip, ui, running = self.chosen(), self.ui, self.panel.isRunning()
        self._choosing = True
        ui.clipComboBox.currentIndex = -1 if clip is None else self.clips.index(clip)
        self._choosing = False
        text = _("No clip is loaded. Drag one into this window, or press Sample.") if clip is None else clipText(clip)
        ui.clipInfoLabel.text = self._message or text
        self._update_area(clip)
        self._update_drawing(clip)
        reason = _("Wait until the run has ended, or cancel it.") if running else ""
        enable(ui.clipComboBox, reason, _("The ultrasound clip to turn into a volume."))
        enable(ui.sampleButton, reason, _("Add a small simulated clip to try this with."))
        if clip is None:
            reason = _("Choose a clip first.")
        elif clip.spacing_mm is None:
            reason = _("No pixel size is stored with this clip.")
        enable(ui.spacingResetButton, reason, _("Go back to the pixel size that is stored with the clip."))
        if clip is not None:
            ui.lastFrameSpinBox.specialValueText = _("the last ({number})").format(number=clip.frames)

    def sceneSweep(self) -> SceneSweep:
        """The chosen clip as a sweep.

        Raises:
            InputError: it cannot be used.
        """
        clip = self.chosen()
        browser = clip.browser or self.panel.logic.sequenceFromVolume(clip.volume)
        return sweepFromBrowser(browser, clip.sequence, self.panel.spacing())

    def _update_area(self, clip: Clip | None) -> None:
        ui, parameters = self.ui, self.panel.parameters
        if parameters.region is not self._observed:
            if self._observed is not None:
                self.panel.removeObserver(self._observed, self._observed.PointModifiedEvent, self._on_region)
            self._observed = parameters.region
            if self._observed is not None:
                self.panel.addObserver(self._observed, self._observed.PointModifiedEvent, self._on_region)
        given = parameters.area is Area.GIVEN
        reason = "" if given else _("Choose “as given below” to type the picture area.")
        for box, tip in (
            (ui.areaXSpinBox, _("Left edge of the area, pixels.")),
            (ui.areaYSpinBox, _("Upper edge of the area, pixels.")),
            (ui.areaWidthSpinBox, _("Width of the area, pixels.")),
            (ui.areaHeightSpinBox, _("Height of the area, pixels.")),
        ):
            enable(box, reason, tip)

    def _update_drawing(self, clip: Clip | None) -> None:
        ui, parameters = self.ui, self.panel.parameters
        reason = _("Choose a clip first.") if clip is None else clip.problem or ""
        if not reason and min(parameters.spacingX, parameters.spacingY) <= 0:
            reason = _("Enter the size of a pixel first.")
        self._fan.update(reason)
        box = _("Put a box on the picture that can be moved and resized in the slice view.")
        enable(ui.drawAreaButton, reason, fanTip() if parameters.area is Area.FAN else box)
        enable(
            ui.findAreaButton,
            reason,
            _("Look for the part of the frames that changes: the ultrasound without the scanner's frame and text."),
        )

    def _on_chosen(self, index: int) -> None:
        if not self._choosing and 0 <= index < len(self.clips):
            self._message, self._drawn_on = "", None
            self._fan.forget()
            self.panel.chooseClip(self.clips[index])

    def _on_sample(self) -> None:
        try:
            browser = addSample(slicer.mrmlScene)
        except DualTrackError as error:
            self.say(str(error))
            return
        self.refresh()
        for clip in self.clips:
            if clip.browser is browser:
                self._message = ""
                self.panel.chooseClip(clip)

    def _on_spacing_reset(self) -> None:
        clip = self.chosen()
        with slicer.util.NodeModify(self.panel.parameters):
            self.panel.parameters.spacingX, self.panel.parameters.spacingY = clip.spacing_mm

    def _on_draw(self) -> None:
        parameters = self.panel.parameters
        try:
            current = givenArea(parameters)
            sceneSweep = self.sceneSweep()
        except DualTrackError as error:
            self.say(str(error))
            return
        if parameters.area is Area.FAN:
            self._fan.draw(sceneSweep)
            return
        self._drawn_on = sceneSweep
        if parameters.region is None:
            parameters.region = addRegion(slicer.mrmlScene, sceneSweep, current)
        self._take_area(areaOfRegion(parameters.region, sceneSweep))

    def _on_region(self, caller: object, event: str) -> None:
        try:
            if self._drawn_on is None:  # a restored scene; kept, for this is called at every move of the mouse
                self._drawn_on = self.sceneSweep()
            self._take_area(areaOfRegion(self.panel.parameters.region, self._drawn_on))
        except DualTrackError as error:
            self.say(str(error))

    def _on_find(self) -> None:
        try:
            area = detect_fan(self.sceneSweep().sweep)
            if area.fan is None:
                self._take_area(area.clip)
            else:
                self._message = ""
                takeFan(self.panel.parameters, area.fan)
        except DualTrackError as error:
            self.say(str(error))

    def _take_area(self, clip: tuple[int, int, int, int]) -> None:
        self._message = ""
        parameters = self.panel.parameters
        with slicer.util.NodeModify(parameters):
            parameters.area = Area.GIVEN
            parameters.areaX, parameters.areaY, parameters.areaWidth, parameters.areaHeight = clip

    def say(self, message: str) -> None:
        """A sentence in place of the facts of the clip; empty for the facts."""
        self._message = message
        self.panel.update()

    def clear_message(self) -> None:
        """The facts of the clip again, with the next update."""
        self._message = ""

    def show_message(self, message: str) -> None:
        """:meth:`say` from within an update, until the next one."""
        self.ui.clipInfoLabel.text = message
