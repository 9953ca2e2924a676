"""What is done to the pictures of the clip before they are tracked, with a picture of what comes of it."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackSlicerLib import region
from DualTrackSlicerLib.events import soon
from DualTrackSlicerLib.logic import Logic
from DualTrackSlicerLib.parameters import aspect
from DualTrackSlicerLib.preview import previewHtml
from DualTrackSlicerLib.widget.drawing import DrawingSection, followTurns
from DualTrackSlicerLib.widget.texts import preparedText, preparingText
from DualTrackSlicerLib.widget.view import View, enable


class PrepareSection(DrawingSection):
    """Frames, turns, crop, pixel size by depth or ruler, and burned-in text.

    Area and text are looked for only while the section is unfolded, for they need the worker process.
    """

    def __init__(self, ui: object, logic: Logic) -> None:
        super().__init__()
        self.ui, self.logic = ui, logic
        self._drawn: object = None
        ui.prepareSection.connect("contentsCollapsed(bool)", self._on_folded)
        ui.drawCropButton.connect("clicked()", self._on_draw_crop)
        ui.cropOffButton.connect("clicked()", self._on_crop_off)
        ui.rulerButton.connect("clicked()", self._on_ruler)
        ui.rulerLengthSpinBox.connect("valueChanged(double)", self._on_length)
        ui.maskCheckBox.connect("clicked()", self._on_mask)

    def stop(self) -> None:
        """Look at no clip any more, until the next update."""
        super().stop()
        self.logic.preview.forget()
        self._drawn = None

    def forget(self) -> None:
        """Another clip was chosen: what is drawn on the last one goes."""
        self._remove("cropRegion")
        self._remove("ruler")

    def update(self, view: View) -> None:
        """Show what is done to the clip, and while the section is unfolded what comes of it."""
        self._view = view
        ui, parameters, clip = self.ui, view.parameters, view.clip
        if clip is not None and not clip.problem:
            followTurns(parameters, clip.size[::-1])
        self._observe("cropRegion", parameters.cropRegion, self._on_region)
        self._observe("ruler", parameters.ruler, self._on_ruler_moved)
        unfolded = not ui.prepareSection.collapsed
        for node in (parameters.cropRegion, parameters.ruler):
            if node is not None:
                node.SetDisplayVisibility(unfolded)
        reason = _("Choose a clip first.") if clip is None else clip.problem or view.waiting
        enable(reason, ui.drawCropButton, ui.rulerButton)
        whole = "" if parameters.crop else _("Nothing is cropped away.")
        enable(reason or whole, ui.cropOffButton)
        sized = _("The size of a pixel comes from the depth; set the depth to “not used” first.")
        enable(sized if parameters.depth else "", ui.spacingXSpinBox, ui.spacingYSpinBox)
        ui.rulerFrame.visible = parameters.ruler is not None
        ui.maskCheckBox.checked = parameters.mask != "none"
        if clip is not None:
            ui.lastFrameSpinBox.specialValueText = _("the last ({number})").format(number=clip.frames - 1)
        self._show_what_comes(view, unfolded)

    def _show_what_comes(self, view: View, unfolded: bool) -> None:
        ui, made = self.ui, None
        try:
            settings = view.preparing()
            line = preparingText(settings)
            if view.clip is not None and not view.clip.problem and unfolded:
                made = self.logic.preview.of(view.clip, settings, view.pixel_mm)
                line = _("Looking for picture area and text…") if made is None else preparedText(made, settings)
        except DualTrackError as error:
            line = str(error)
        ui.preparedLabel.text, ui.preparedLabel.visible = line, view.clip is not None
        if made is not None and made is not self._drawn:
            ui.previewLabel.text = previewHtml(made)
            ui.previewLabel.toolTip = _("The first frame as it will be tracked.")
            self._drawn = made
        ui.previewLabel.visible = self._drawn is not None and view.clip is not None

    def _on_folded(self, collapsed: bool) -> None:
        if self._view is not None:
            self.update(self._view)

    def _on_draw_crop(self) -> None:
        self.drawing.emit()
        with self._saying():
            frame, parameters = self._drawn_on(), self._view.parameters
            if parameters.cropRegion is None:
                crop = self._view.preparing().crop
                drawn = None if crop is None else (*crop[:2], crop[2] - 1, crop[3] - 1)
                parameters.cropRegion = region.addRegion(slicer.mrmlScene, frame, drawn, "DualTrack crop")
            self._take_crop()

    def _on_region(self, caller: object, event: str) -> None:
        with self._saying():
            self._take_crop()

    def _take_crop(self) -> None:
        parameters = self._view.parameters
        x, y, width, height = region.areaOfRegion(parameters.cropRegion, self._drawn_on())
        self.said.emit("")
        # Of a crop, other than of the area of the volume, the sizes count pixels.
        parameters.crop = f"{x}, {y}, {width + 1}, {height + 1}"

    def _on_crop_off(self) -> None:
        self._remove("cropRegion")
        self._view.parameters.crop = ""

    def _remove(self, name: str) -> None:
        """Take what is drawn out of the scene, by the name of its parameter."""
        node = None if self._view is None else getattr(self._view.parameters, name)
        if node is not None:
            setattr(self._view.parameters, name, None)
            slicer.mrmlScene.RemoveNode(node)

    def _on_ruler(self) -> None:
        self.drawing.emit()
        parameters = self._view.parameters
        self._remove("ruler")
        parameters.ruler = region.measureOn(slicer.mrmlScene, slicer.app.applicationLogic())
        self.said.emit(_("Click on two marks of the ruler in the red view, and say below how far they are apart."))

    def _on_length(self) -> None:
        soon(self._measure)  # when the parameter has it

    def _on_ruler_moved(self, caller: object, event: str) -> None:
        self._measure()

    def _measure(self) -> None:
        parameters = None if self._view is None else self._view.parameters
        if parameters is None or parameters.ruler is None:
            return
        with self._saying():
            ratio = aspect(parameters)
            size = region.pixelOfRuler(parameters.ruler, self._drawn_on(), parameters.rulerLength, ratio)
            if size is None:
                return
            self.said.emit("")
            with slicer.util.NodeModify(parameters):
                parameters.depth = 0.0
                parameters.spacingX, parameters.spacingY = size[:: -1 if parameters.rotate.value % 180 else 1]

    def _on_mask(self) -> None:
        self._view.parameters.mask = "auto" if self.ui.maskCheckBox.checked else "none"
