"""What goes into the volume: the picture area in numbers and drawn on the picture, voxels and memory."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError, InputError
from DualTrackCore.memory import format_bytes
from DualTrackCore.reconstruction.grid import BYTES_A_VOXEL
from DualTrackCore.run.settings import NETWORK, VOLUME
from DualTrackSlicerLib import region
from DualTrackSlicerLib.events import Signal, soon
from DualTrackSlicerLib.logic import Logic
from DualTrackSlicerLib.parameters import (
    Area,
    Poses,
    aspect,
    givenArea,
    givenFan,
    settingGroup,
    settingOfParameter,
    takeFan,
)
from DualTrackSlicerLib.region import fanOutline
from DualTrackSlicerLib.widget.drawing import DrawingSection
from DualTrackSlicerLib.widget.view import Section, View, enable

if TYPE_CHECKING:
    from DualTrackCore.reconstruction import Fan
    from DualTrackCore.run.preparation import Preparation


class AreaSection(DrawingSection):
    """Which part of each frame goes into the volume.

    Attributes:
        changed: emits when there is a drawing to be shown.
    """

    def __init__(self, ui: object, logic: Logic) -> None:
        super().__init__()
        self.ui, self.logic = ui, logic
        self.changed = Signal()
        self._shown: object = None
        self._placing = self._dragging = self._finding = False
        self.ui.drawAreaButton.connect("clicked()", self._on_draw)
        self.ui.findAreaButton.connect("clicked()", self._on_find)
        logic.preview.changed.then(self._on_found)

    def forget(self) -> None:
        """Another clip was chosen: what is drawn has to be placed on it."""
        self._shown, self._finding = None, False

    def stop(self) -> None:
        """Watch the drawings no longer, until the next update."""
        super().stop()
        self.forget()

    def update(self, view: View) -> None:
        """Show the numbers of the area, and the drawing of a fan; where none is given, one to start from is found."""
        self._view = view
        ui, parameters, clip = self.ui, view.parameters, view.clip
        self._observe("region", parameters.region, self._on_region)
        self._observe("fanCorners", parameters.fanCorners, self._on_corners)
        reason = "" if parameters.area is Area.GIVEN else _("Choose “as given below” to type the picture area.")
        enable(reason, ui.areaXSpinBox, ui.areaYSpinBox, ui.areaWidthSpinBox, ui.areaHeightSpinBox)
        reason = _("Choose a clip first.") if clip is None else clip.problem or ""
        enable(reason, ui.drawAreaButton, ui.findAreaButton)
        is_fan = parameters.area is Area.FAN
        ui.rectangleFrame.visible, ui.fanFrame.visible = not is_fan, is_fan
        for node in (parameters.fanCorners, parameters.fanOutline):
            if node is not None:
                node.SetDisplayVisibility(is_fan)
        if not is_fan or reason:
            return
        tip = _("Put a point on each corner of the fan; drag them until the line follows the picture.")
        ui.drawAreaButton.toolTip = tip
        if parameters.fanStop <= 0:
            if not self._finding:
                self._finding = True
                soon(self._on_found)
            return
        try:
            self._show(givenFan(parameters))
        except DualTrackError as error:
            ui.clipInfoLabel.text = str(error)

    def _show(self, fan: Fan) -> None:
        """The outline of the fan; its corners too, unless they are being dragged."""
        parameters = self._view.parameters
        shown = fan, parameters.rotate, parameters.mirror
        if shown == self._shown or (parameters.fanOutline is None and parameters.fanCorners is None):
            return
        frame = self._drawn_on()
        self._shown = shown
        self._placing = True
        try:
            if parameters.fanOutline is not None:
                region.placePoints(parameters.fanOutline, region.fanOutline(fan), frame)
            if parameters.fanCorners is not None and not self._dragging:
                region.placePoints(parameters.fanCorners, region.fanCorners(fan), frame)
        finally:
            self._placing = False

    def _on_draw(self) -> None:
        parameters = self._view.parameters
        self.drawing.emit()
        with self._saying():
            current = givenArea(parameters)
            self._shown = None
            if parameters.area is not Area.FAN:
                frame = self._drawn_on()
                if parameters.region is None:
                    parameters.region = region.addRegion(slicer.mrmlScene, frame, current, "DualTrack picture area")
                self._take_area(region.areaOfRegion(parameters.region, frame))
                return
            with slicer.util.NodeModify(parameters):
                if parameters.fanOutline is None:
                    parameters.fanOutline = region.addFanOutline(slicer.mrmlScene)
                if parameters.fanCorners is None:
                    parameters.fanCorners = region.addFanCorners(slicer.mrmlScene)
            self.changed.emit()

    def _on_region(self, caller: object, event: str) -> None:
        with self._saying():
            self._take_area(region.areaOfRegion(self._view.parameters.region, self._drawn_on()))

    def _on_corners(self, caller: object, event: str) -> None:
        parameters = self._view.parameters
        if self._placing or parameters.fanCorners.GetNumberOfControlPoints() != 4:
            return
        with self._saying():
            pixels = region.pixelsOf(parameters.fanCorners, self._drawn_on())
            fan = region.fanOfCorners(pixels, aspect(parameters))
            self._dragging = True
            try:
                self.said.emit("")
                takeFan(parameters, fan)
            finally:
                self._dragging = False

    def _on_find(self) -> None:
        self._finding = True
        self._on_found()

    def _on_found(self) -> None:
        """Take the area that was asked for, once the worker process has found it."""
        if not self._finding or self._view is None or self._view.clip is None:
            return
        view = self._view
        with self._saying():
            made = self.logic.preview.of(view.clip, view.preparing(), view.pixel_mm)
            if made is None:
                self.said.emit(_("Looking for the picture area…"))
                return
            self._take_found(made)
        self._finding = False

    def _take_found(self, made: Preparation) -> None:
        parameters, area = self._view.parameters, made.area
        if area is not None and area.fan is not None:
            takeFan(parameters, area.fan)
        elif parameters.area is Area.FAN and parameters.fanStop <= 0:
            takeFan(parameters, region.usualFan(made.turned.frame_size, aspect(parameters)))
        elif area is not None:
            self._take_area(area.clip)
        else:
            sentence = _("No picture area was found: the frames are black, or nothing in them moves; draw it.")
            raise InputError(sentence)
        self.said.emit("")

    def _take_area(self, clip: tuple[int, int, int, int]) -> None:
        self.said.emit("")
        parameters = self._view.parameters
        with slicer.util.NodeModify(parameters):
            parameters.area = Area.GIVEN
            parameters.areaX, parameters.areaY, parameters.areaWidth, parameters.areaHeight = clip


class VolumeSection(Section):
    """Voxel size, compounding, hole filling; whether there is a volume at all."""

    def __init__(self, ui: object) -> None:
        self.ui = ui
        # Widgets of settings by the group of the setting.
        self._widgets = {group: [] for group in (NETWORK, VOLUME)}
        for widget in vars(self.ui).values():
            name = settingOfParameter(widget.property("SlicerParameterName"))
            if name is not None and settingGroup(name) in self._widgets:
                self._widgets[settingGroup(name)].append(widget)

    def update(self, view: View) -> None:
        """Show the estimate, and what does not apply."""
        parameters = view.parameters
        volume = "" if parameters.makeVolume else _("Tick “Make a volume” under Advanced first.")
        network = _("Poses that are given need no network.") if parameters.poses is Poses.TRACKED else ""
        for group, reason in ((VOLUME, volume), (NETWORK, network)):
            enable(reason, *self._widgets[group])
        self.ui.estimateLabel.text = self._estimate(view)

    def _estimate(self, view: View) -> str:
        parameters, clip = view.parameters, view.clip
        if not parameters.makeVolume:
            return _("No volume is made: only the path of the probe is estimated.")
        size, spacing = None, None
        with contextlib.suppress(InputError):
            size, spacing = (None, None) if clip is None or clip.problem else view.picture()
        if spacing is None:
            return _("The size is shown once a clip with known pixel size is chosen.")
        if exact := self._as_last_time(view):
            return exact
        columns, rows = self._area(view, *size)
        # The core never makes automatic voxels finer than the longer side of a pixel.
        voxel = parameters.voxelSize or max(spacing)
        across, down = (round(n * mm / voxel) + 1 for n, mm in zip((columns, rows), spacing, strict=True))
        per_centimetre = across * down * (10 / voxel) * BYTES_A_VOXEL
        text = (
            _("At most {across} x {down} voxels a slice, and up to {memory} of memory for each centimetre of sweep.")
            if not parameters.voxelSize
            else _("About {across} x {down} voxels a slice, and {memory} of memory for each centimetre of sweep.")
        )
        return text.format(across=across, down=down, memory=format_bytes(per_centimetre))

    def _area(self, view: View, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of the picture area in a picture; the whole where it is found only later."""
        parameters = view.parameters
        if parameters.area is Area.GIVEN and parameters.areaWidth and parameters.areaHeight:
            return min(parameters.areaWidth, width), min(parameters.areaHeight, height)
        if parameters.area is Area.FAN and parameters.fanStop > 0:
            with contextlib.suppress(InputError):
                around = np.clip(fanOutline(givenFan(parameters)), 0, [width, height])
                across, down = np.ptp(around, axis=0)
                return round(across), round(down)
        return width, height

    def _as_last_time(self, view: View) -> str:
        """From the sweep of the shown result, if there is one: its extent is known then."""
        volume = None if view.report is None else view.report.volume
        if volume is None:
            return ""
        voxel = view.parameters.voxelSize or volume["spacing_mm"][0]
        sides = zip(volume["size"], volume["spacing_mm"], strict=True)
        x, y, z = (round((n - 1) * mm / voxel) + 1 for n, mm in sides)
        text = _("About {x} x {y} x {z} voxels of {voxel:.3g} mm, {memory} of memory, as the last sweep went.")
        return text.format(x=x, y=y, z=z, voxel=voxel, memory=format_bytes(x * y * z * BYTES_A_VOXEL))
