"""The fan: numbers of the panel, corners and outline on the picture, kept alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackCore.reconstruction import Fan
from DualTrackSlicerLib.parameters import Area, givenFan, takeFan
from DualTrackSlicerLib.region import (
    addFanCorners,
    addFanOutline,
    fanCorners,
    fanOfCorners,
    fanOutline,
    likelyFan,
    pixelsOf,
    placePoints,
)
from DualTrackSlicerLib.scene import SceneSweep

if TYPE_CHECKING:
    from DualTrackSlicerLib.widget.clip_section import ClipSection


class FanArea:
    """What the picture area is for a curvilinear probe."""

    def __init__(self, section: ClipSection) -> None:
        self.section, self.panel, self.ui = section, section.panel, section.ui
        self._observed = None
        self._shown: Fan | None = None
        self._drawn_on: SceneSweep | None = None
        self._placing = self._dragging = False

    def forget(self) -> None:
        """Another clip was chosen: what is drawn has to be placed on it."""
        self._drawn_on = self._shown = None

    def update(self, reason: str) -> None:
        """Show the numbers where a fan is given, with one to start from where there is none yet.

        Args:
            reason: why the clip's frames cannot be looked at; empty where they can.
        """
        parameters = self.panel.parameters
        self._observe()
        given = parameters.area is Area.FAN
        self.ui.rectangleFrame.visible, self.ui.fanFrame.visible = not given, given
        for node in (parameters.fanCorners, parameters.fanOutline):
            if node is not None:
                node.SetDisplayVisibility(given)
        if not given or reason:
            return
        try:
            if parameters.fanStop <= 0:
                takeFan(parameters, likelyFan(self.section.sceneSweep()))
            self._show(givenFan(parameters))
        except DualTrackError as error:
            self.section.show_message(str(error))

    def draw(self, sceneSweep: SceneSweep) -> None:
        """Corners to drag, and the outline that they make."""
        parameters = self.panel.parameters
        self._drawn_on, self._shown = sceneSweep, None
        with slicer.util.NodeModify(parameters):
            if parameters.fanOutline is None:
                parameters.fanOutline = addFanOutline(slicer.mrmlScene)
            if parameters.fanCorners is None:
                parameters.fanCorners = addFanCorners(slicer.mrmlScene)
        self.panel.update()

    def _observe(self) -> None:
        corners = self.panel.parameters.fanCorners
        if corners is self._observed:
            return
        if self._observed is not None:
            self.panel.removeObserver(self._observed, self._observed.PointModifiedEvent, self._on_corners)
        self._observed = corners
        if corners is not None:
            self.panel.addObserver(corners, corners.PointModifiedEvent, self._on_corners)

    def _show(self, fan: Fan) -> None:
        """The outline of the fan; its corners too, unless they are being dragged."""
        parameters = self.panel.parameters
        if fan == self._shown or (parameters.fanOutline is None and parameters.fanCorners is None):
            return
        if self._drawn_on is None:  # a restored scene, or another clip
            self._drawn_on = self.section.sceneSweep()
        self._shown = fan
        self._placing = True
        try:
            if parameters.fanOutline is not None:
                placePoints(parameters.fanOutline, fanOutline(fan), self._drawn_on)
            if parameters.fanCorners is not None and not self._dragging:
                placePoints(parameters.fanCorners, fanCorners(fan), self._drawn_on)
        finally:
            self._placing = False

    def _on_corners(self, caller: object, event: str) -> None:
        parameters = self.panel.parameters
        if self._placing or parameters is None or parameters.fanCorners.GetNumberOfControlPoints() != 4:
            return
        try:
            if self._drawn_on is None:
                self._drawn_on = self.section.sceneSweep()
            pixels = pixelsOf(parameters.fanCorners, self._drawn_on)
            fan = fanOfCorners(pixels, parameters.spacingY / parameters.spacingX)
        except DualTrackError as error:
            self.section.say(str(error))
            return
        self._dragging = True
        try:
            self.section.clear_message()
            takeFan(parameters, fan)
        finally:
            self._dragging = False


def fanTip() -> str:
    """What drawing does for a fan."""
    return _("Put a point on each corner of the fan; drag them until the line follows the picture.")
