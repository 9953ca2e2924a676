"""Which frames made a voxel, and where a pixel of a frame lies: asked for by clicks into the views."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackSlicerLib.events import Pieces, Signal
from DualTrackSlicerLib.scene import Behind, FramesBehind, framesBehind, pixelAt
from DualTrackSlicerLib.widget.pointing import Pointing
from DualTrackSlicerLib.widget.texts import rowsText
from DualTrackSlicerLib.widget.view import Section, View, enable


class BehindSection(Section):
    """The switch, and the frame that was found with the way to the next ones.

    A click into the picture that the red view shows finds the place of that pixel; any other click, the frames of the
    voxel there.

    Attributes:
        framed: emits nothing; the red view should show the frames of the clip.
    """

    def __init__(self, ui: object) -> None:
        self.ui = ui
        self.framed = Signal()
        self._preparing: Pieces | None = None
        self._pointing: Pointing | None = None
        self._finder: FramesBehind | None = None
        self._found: Behind | None = None
        self._place, self._number = np.zeros(3), 0
        self._asked: object = None  # the poses of the result that is asked
        ui.behindCheckBox.connect("clicked()", self._on_switch)
        ui.previousFrameButton.connect("clicked()", self._on_previous)
        ui.nextFrameButton.connect("clicked()", self._on_next)

    def update(self, view: View) -> None:
        """Ask about the shown result; no more where there is none."""
        self._view = view
        nodes, ui = view.result, self.ui
        ui.behindCheckBox.visible = nodes is not None and nodes.volume is not None
        if self._asked is not None and (nodes is None or nodes.transform_sequence is not self._asked):
            self._off()
            if nodes is not None and nodes.volume is not None:
                self._on()
        ui.behindCheckBox.checked = ui.behindFrame.visible = self._asked is not None

    def stop(self) -> None:
        """Leave the views alone until the switch is pressed again."""
        self._off()
        super().stop()

    def _on_switch(self) -> None:
        if self._asked is None:
            self._on()
        else:
            self._off()

    def _on(self) -> None:
        self._asked = self._view.result.transform_sequence
        self.ui.behindCheckBox.checked = self.ui.behindFrame.visible = True
        self._say(_("Looking up the frames of this result…"))
        self._preparing = Pieces(self._prepare())

    def _off(self) -> None:
        if self._preparing is not None:
            self._preparing.stop()
        if self._pointing is not None:
            self._pointing.stop()
        self._preparing = self._pointing = self._finder = self._found = self._asked = None
        self.ui.behindCheckBox.checked = self.ui.behindFrame.visible = False

    def _prepare(self) -> Iterator[None]:
        try:
            self._finder = yield from framesBehind(self._view.result)
        except DualTrackError as error:
            self._say(str(error))
            return
        self.framed.emit()
        self._say(_("Click into a slice view or the 3D view to see the frame behind that point."))
        red, logic = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed"), slicer.app.applicationLogic()
        self._pointing = Pointing(slicer.mrmlScene, logic, red, self._on_point, self._off)

    def _on_point(self, place: np.ndarray) -> None:
        clip = self._view.clip
        pixel = pixelAt(clip.browser, clip.sequence, place)
        self._pointing.jump(place)
        self._place, self._found, self._number = place, None, 0
        try:
            self._found = self._finder.at(place)
        except DualTrackError as error:
            self._pointing.unmark()
            self._say(rowsText([(_("Place"), _placeText(place))]) + f"<p>{error}</p>")
            return
        shown = np.flatnonzero(self._found.frames == clip.browser.GetSelectedItemNumber())
        if pixel is None or not len(shown):
            self._show(0)
        else:
            # The frame stays that was clicked at.
            self._show(int(shown[0]), pixel)

    def _show(self, number: int, pixel: np.ndarray | None = None) -> None:
        """Show one of the frames: `pixel` (column, row) where the user pointed at one, else the nearest."""
        found, self._number = self._found, number
        clip, frame = self._view.clip, int(found.frames[number])
        clip.browser.SetSelectedItemNumber(frame)
        place = found.places[number] if pixel is None else self._place
        pixel = found.pixels[number] if pixel is None else pixel
        self._pointing.mark(place, _("frame {number}").format(number=frame))
        rows = [
            (_("Frame"), _frameText(found, number, clip.frames)),
            (_("Pixel"), _("column {column:.0f}, row {row:.0f}").format(column=pixel[0], row=pixel[1])),
            (_("Weight"), _weightText(found, number)),
            (_("Place"), _placeText(self._place)),
        ]
        self._say(rowsText(rows) + (f"<p>{found.note}</p>" if found.note else ""))

    def _say(self, text: str) -> None:
        self.ui.behindLabel.text = text
        few = "" if self._found is not None and len(self._found.frames) > 1 else _("There is no other frame here.")
        enable(few, self.ui.previousFrameButton, self.ui.nextFrameButton)

    def _on_previous(self) -> None:
        self._show((self._number - 1) % len(self._found.frames))

    def _on_next(self) -> None:
        self._show((self._number + 1) % len(self._found.frames))


def _frameText(found: Behind, number: int, count: int) -> str:
    text = _("{frame} (of 0 to {last})").format(frame=int(found.frames[number]), last=count - 1)
    if found.times_s is None:
        return text
    return _("{frame}, at {seconds:.2f} s").format(frame=text, seconds=found.times_s[number])


def _weightText(found: Behind, number: int) -> str:
    count, weight = len(found.frames), found.weights[number]
    if count == 1:
        return _("{weight:.2g}: this frame alone made the voxel").format(weight=weight)
    share = 100 * weight / found.weights.sum()
    text = _("{weight:.2g}, {share:.0f} % of the voxel; number {number} of {count} frames")
    return text.format(weight=weight, share=share, number=number + 1, count=count)


def _placeText(place: np.ndarray) -> str:
    right, anterior, superior = place
    return _("R {r:.1f}, A {a:.1f}, S {s:.1f} mm").format(r=right, a=anterior, s=superior)
