"""What goes into the volume: the picture area in numbers and drawn on the picture, voxels and memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError, InputError
from DualTrackCore.reconstruction.grid import BYTES_A_VOXEL
from DualTrackCore.run.settings import NETWORK, VOLUME
from DualTrackSlicerLib import region
from DualTrackSlicerLib.events import Signal
from DualTrackSlicerLib.logic import Logic
from DualTrackSlicerLib.parameters import Area, Poses, givenArea, givenFan, settingGroup, settingOfParameter, takeFan
from DualTrackSlicerLib.region import fanOutline
from DualTrackSlicerLib.scene import SceneSweep
from DualTrackSlicerLib.widget.controls import enable
from DualTrackSlicerLib.widget.texts import sizeText
from DualTrackSlicerLib.widget.view import Section, View

if TYPE_CHECKING:
    from DualTrackCore.reconstruction import Fan


class AreaSection(Section):
    """Which part of each frame goes into the volume.

    Attributes:
        said: emits a sentence to be shown with the clip; an empty one takes it back.
        drawing: emits nothing, before something is drawn on the picture of the first frame.
        changed: emits when there is a drawing to be shown.
    """

    def __init__(self, ui: object, logic: Logic) -> None:
        self.ui, self.logic = ui, logic
        self.said, self.drawing, self.changed = Signal(), Signal(), Signal()
        # The nodes that are observed and the tags of their observers, by the name of their parameter.
        self._observed: dict[str, tuple[object, int]] = {}
        self._shown: Fan | None = None
        self._sweep: SceneSweep | None = None
        self._placing = self._dragging = False
        self.ui.drawAreaButton.connect("clicked()", self._on_draw)
        self.ui.findAreaButton.connect("clicked()", self._on_find)

    def forget(self) -> None:
        """Another clip was chosen: what is drawn has to be placed on it."""
        self._sweep = self._shown = None

    def stop(self) -> None:
        """Watch the drawings no longer, until the next update."""
        for name in list(self._observed):
            self._observe(name, None, None)
        self.forget()
        super().stop()

    def update(self, view: View) -> None:
        """Show the numbers of the area, and the drawing of a fan; there is a fan to start from where none is given."""
        self._view = view
        ui, parameters, clip = self.ui, view.parameters, view.clip
        self._observe("region", parameters.region, self._on_region)
        self._observe("fanCorners", parameters.fanCorners, self._on_corners)
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
                takeFan(parameters, region.likelyFan(view.sceneSweep()))
            self._show(givenFan(parameters))
        except DualTrackError as error:
            ui.clipInfoLabel.text = str(error)

    def _observe(self, name: str, node: object, slot: Callable | None) -> None:
        before, tag = self._observed.get(name, (None, 0))
        if node is before:
            return
        self._observed.pop(name, None)
        if before is not None:
            before.RemoveObserver(tag)
        if node is not None:
            self._observed[name] = node, node.AddObserver(node.PointModifiedEvent, slot)

    @contextlib.contextmanager
    def _saying(self) -> Iterator[None]:
        """Say what goes wrong within, in place of the facts of the clip."""
        try:
            yield
        except DualTrackError as error:
            self.said.emit(str(error))

    def _drawn_on(self) -> SceneSweep:
        """The clip that is drawn on; kept, for this is called at every move of the mouse."""
        if self._sweep is None:
            self._sweep = self._view.sceneSweep()
        return self._sweep

    def _show(self, fan: Fan) -> None:
        """The outline of the fan; its corners too, unless they are being dragged."""
        parameters = self._view.parameters
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
        parameters = self._view.parameters
        self.drawing.emit()
        with self._saying():
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
            fan = region.fanOfCorners(pixels, parameters.spacingY / parameters.spacingX)
            self._dragging = True
            try:
                self.said.emit("")
                takeFan(parameters, fan)
            finally:
                self._dragging = False

    def _on_find(self) -> None:
        from DualTrackCore.reconstruction import detect_fan

        with self._saying():
            area = detect_fan(self._view.sceneSweep().sweep)
            if area.fan is None:
                self._take_area(area.clip)
            else:
                self.said.emit("")
                takeFan(self._view.parameters, area.fan)

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
        spacing = parameters.spacingX, parameters.spacingY
        if clip is None or clip.problem or min(spacing) <= 0:
            return _("The size is shown once a clip with known pixel size is chosen.")
        if exact := self._as_last_time(view):
            return exact
        columns, rows = self._area(view)
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

    def _area(self, view: View) -> tuple[int, int]:
        """Columns and rows of the picture area; the whole frame where it is found only later."""
        parameters, (width, height) = view.parameters, view.clip.size
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
        return text.format(x=x, y=y, z=z, voxel=voxel, memory=sizeText(x * y * z * BYTES_A_VOXEL))
