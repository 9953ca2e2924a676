"""What goes into the volume: the picture area in numbers and drawn on the picture, voxels and memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError, InputError
from DualTrackCore.reconstruction import Fan, detect_fan
from DualTrackCore.reconstruction.grid import BYTES_A_VOXEL
from DualTrackCore.run.settings import NETWORK, VOLUME
from DualTrackSlicerLib import region
from DualTrackSlicerLib.parameters import Area, Poses, givenArea, givenFan, settingGroup, settingOfParameter, takeFan
from DualTrackSlicerLib.region import fanOutline
from DualTrackSlicerLib.scene import SceneSweep
from DualTrackSlicerLib.widget.controls import enable
from DualTrackSlicerLib.widget.texts import sizeText

if TYPE_CHECKING:
    from DualTrackSlicerLib.scene import Clip
    from DualTrackSlicerLib.widget.panel import Panel


class AreaSection:
    """Which part of each frame goes into the volume."""

    def __init__(self, panel: Panel) -> None:
        self.panel, self.ui = panel, panel.ui
        # The nodes that are observed, by the name of their parameter.
        self._observed = {}
        self._shown: Fan | None = None
        self._sweep: SceneSweep | None = None
        self._placing = self._dragging = False
        self.ui.drawAreaButton.connect("clicked()", self._on_draw)
        self.ui.findAreaButton.connect("clicked()", self._on_find)

    def forget(self) -> None:
        """Another clip was chosen: what is drawn has to be placed on it."""
        self._sweep = self._shown = None

    def update(self) -> None:
        """Show the numbers of the area, and the drawing of a fan; there is a fan to start from where none is given."""
        ui, parameters, clip = self.ui, self.panel.parameters, self.panel.clip()
        self._observe("region", self._on_region)
        self._observe("fanCorners", self._on_corners)
        reason = "" if parameters.area is Area.GIVEN else _("Choose “as given below” to type the picture area.")
        enable(reason, ui.areaXSpinBox, ui.areaYSpinBox, ui.areaWidthSpinBox, ui.areaHeightSpinBox)
        reason = _("Choose a clip first.") if clip is None else clip.problem or ""
        if not reason and min(parameters.spacingX, parameters.spacingY) <= 0:
            reason = _("Enter the size of a pixel first.")
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
        try:
            if parameters.fanStop <= 0:
                takeFan(parameters, region.likelyFan(self.panel.clipSection.sceneSweep()))
            self._show(givenFan(parameters))
        except DualTrackError as error:
            ui.clipInfoLabel.text = str(error)

    def _observe(self, name: str, slot: Callable) -> None:
        node, before = getattr(self.panel.parameters, name), self._observed.get(name)
        if node is before:
            return
        if before is not None:
            self.panel.removeObserver(before, before.PointModifiedEvent, slot)
        if node is not None:
            self.panel.addObserver(node, node.PointModifiedEvent, slot)
        self._observed[name] = node

    def _drawn_on(self) -> SceneSweep:
        """The clip that is drawn on; kept, for this is called at every move of the mouse."""
        if self._sweep is None:
            self._sweep = self.panel.clipSection.sceneSweep()
        return self._sweep

    def _show(self, fan: Fan) -> None:
        """The outline of the fan; its corners too, unless they are being dragged."""
        parameters = self.panel.parameters
        if fan == self._shown or (parameters.fanOutline is None and parameters.fanCorners is None):
            return
        sceneSweep = self._drawn_on()
        self._shown = fan
        self._placing = True
        try:
            if parameters.fanOutline is not None:
                region.placePoints(parameters.fanOutline, region.fanOutline(fan), sceneSweep)
            if parameters.fanCorners is not None and not self._dragging:
                region.placePoints(parameters.fanCorners, region.fanCorners(fan), sceneSweep)
        finally:
            self._placing = False

    def _on_draw(self) -> None:
        parameters = self.panel.parameters
        with self.panel.clipSection.saying():
            current = givenArea(parameters)
            self.forget()
            sceneSweep = self._drawn_on()
            if parameters.area is not Area.FAN:
                if parameters.region is None:
                    parameters.region = region.addRegion(slicer.mrmlScene, sceneSweep, current)
                self._take_area(region.areaOfRegion(parameters.region, sceneSweep))
                return
            with slicer.util.NodeModify(parameters):
                if parameters.fanOutline is None:
                    parameters.fanOutline = region.addFanOutline(slicer.mrmlScene)
                if parameters.fanCorners is None:
                    parameters.fanCorners = region.addFanCorners(slicer.mrmlScene)
            self.panel.update()

    def _on_region(self, caller: object, event: str) -> None:
        if self.panel.parameters is not None:
            with self.panel.clipSection.saying():
                self._take_area(region.areaOfRegion(self.panel.parameters.region, self._drawn_on()))

    def _on_corners(self, caller: object, event: str) -> None:
        parameters = self.panel.parameters
        if self._placing or parameters is None or parameters.fanCorners.GetNumberOfControlPoints() != 4:
            return
        with self.panel.clipSection.saying():
            pixels = region.pixelsOf(parameters.fanCorners, self._drawn_on())
            fan = region.fanOfCorners(pixels, parameters.spacingY / parameters.spacingX)
            self._dragging = True
            try:
                self.panel.clipSection.message = ""
                takeFan(parameters, fan)
            finally:
                self._dragging = False

    def _on_find(self) -> None:
        with self.panel.clipSection.saying():
            area = detect_fan(self.panel.clipSection.sceneSweep().sweep)
            if area.fan is None:
                self._take_area(area.clip)
            else:
                self.panel.clipSection.message = ""
                takeFan(self.panel.parameters, area.fan)

    def _take_area(self, clip: tuple[int, int, int, int]) -> None:
        self.panel.clipSection.message = ""
        parameters = self.panel.parameters
        with slicer.util.NodeModify(parameters):
            parameters.area = Area.GIVEN
            parameters.areaX, parameters.areaY, parameters.areaWidth, parameters.areaHeight = clip


class VolumeSection:
    """Voxel size, compounding, hole filling; whether there is a volume at all."""

    def __init__(self, panel: Panel) -> None:
        self.panel, self.ui = panel, panel.ui
        # Widgets of settings by the group of the setting.
        self._widgets = {group: [] for group in (NETWORK, VOLUME)}
        for widget in vars(self.ui).values():
            name = settingOfParameter(widget.property("SlicerParameterName"))
            if name is not None and settingGroup(name) in self._widgets:
                self._widgets[settingGroup(name)].append(widget)

    def update(self) -> None:
        """Show the estimate, and what does not apply."""
        parameters = self.panel.parameters
        volume = "" if parameters.makeVolume else _("Tick “Make a volume” under Advanced first.")
        network = _("Poses that are given need no network.") if parameters.poses is Poses.TRACKED else ""
        for group, reason in ((VOLUME, volume), (NETWORK, network)):
            enable(reason, *self._widgets[group])
        self.ui.estimateLabel.text = self._estimate()

    def _estimate(self) -> str:
        parameters, clip = self.panel.parameters, self.panel.clip()
        if not parameters.makeVolume:
            return _("No volume is made: only the path of the probe is estimated.")
        spacing = parameters.spacingX, parameters.spacingY
        if clip is None or clip.problem or min(spacing) <= 0:
            return _("The size is shown once a clip with known pixel size is chosen.")
        if exact := self._as_last_time():
            return exact
        columns, rows = self._area(clip)
        # The core never makes automatic voxels finer than the longer side of a pixel.
        voxel = parameters.voxelSize or max(spacing)
        across, down = (round(n * mm / voxel) + 1 for n, mm in zip((columns, rows), spacing, strict=True))
        per_centimetre = across * down * (10 / voxel) * BYTES_A_VOXEL
        text = (
            _("At most {across} x {down} voxels a slice, and up to {memory} of memory for each centimetre of sweep.")
            if not parameters.voxelSize
            else _("About {across} x {down} voxels a slice, and {memory} of memory for each centimetre of sweep.")
        )
        return text.format(across=across, down=down, memory=sizeText(per_centimetre))

    def _area(self, clip: Clip) -> tuple[int, int]:
        """Columns and rows of the picture area; the whole frame where it is found only later."""
        parameters, (width, height) = self.panel.parameters, clip.size
        if parameters.area is Area.GIVEN and parameters.areaWidth and parameters.areaHeight:
            return min(parameters.areaWidth, width), min(parameters.areaHeight, height)
        if parameters.area is Area.FAN and parameters.fanStop > 0:
            with contextlib.suppress(InputError):
                around = np.clip(fanOutline(givenFan(parameters)), 0, [width, height])
                across, down = np.ptp(around, axis=0)
                return round(across), round(down)
        return width, height

    def _as_last_time(self) -> str:
        """From the sweep of the last run, if it was of this clip: its extent is known then."""
        result = self.panel.runSection.shownResult()
        if result is None or result.grid is None:
            return ""
        grid = result.grid
        voxel = self.panel.parameters.voxelSize or grid.spacing_mm[0]
        x, y, z = (round((n - 1) * mm / voxel) + 1 for n, mm in zip(grid.size, grid.spacing_mm, strict=True))
        text = _("About {x} x {y} x {z} voxels of {voxel:.3g} mm, {memory} of memory, as the last sweep went.")
        return text.format(x=x, y=y, z=z, voxel=voxel, memory=sizeText(x * y * z * BYTES_A_VOXEL))
