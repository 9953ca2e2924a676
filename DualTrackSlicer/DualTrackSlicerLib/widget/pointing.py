"""Clicks into the views, one after the other, and the cross that marks what was found there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import slicer

from DualTrackSlicerLib.events import soon

#: Of the cross: seen on dark and bright tissue, and beside the yellow lines of Slicer's crosshair.
_COLOUR = (0.2, 0.9, 1.0)


class Pointing:
    """Asks for points by Slicer's place mode until :meth:`stop`, and marks a place in one view.

    What is in the scene for it is neither saved with it nor listed.

    Args:
        scene: to point in.
        applicationLogic: `slicer.app.applicationLogic()`.
        marked: the slice view that shows the cross; None shows it in all.
        pointed: called with each place [3], RAS, mm.
        ended: called when the user left the place mode, or another module took it.
    """

    def __init__(
        self,
        scene: slicer.vtkMRMLScene,
        applicationLogic: slicer.vtkMRMLApplicationLogic,
        marked: slicer.vtkMRMLSliceNode | None,
        pointed: Callable[[np.ndarray], None],
        ended: Callable[[], None],
    ) -> None:
        self._scene, self._pointed, self._ended = scene, pointed, ended
        self._selection, self._interaction = applicationLogic.GetSelectionNode(), applicationLogic.GetInteractionNode()
        self._points, self._cross = self._add("DualTrack point"), self._add("DualTrack cross")
        self._cross.SetLocked(True)
        if marked is not None:
            self._cross.GetDisplayNode().AddViewNodeID(marked.GetID())
        self._marked = marked
        self._crosshair = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self._mode = None if self._crosshair is None else self._crosshair.GetCrosshairMode()
        watched = (
            (self._points, self._points.PointPositionDefinedEvent),
            (
                self._interaction,
                self._interaction.InteractionModeChangedEvent,
            ),
        )
        self._tags = [(node, node.AddObserver(event, self._on_event)) for node, event in watched]
        self._ask()

    def mark(self, place: np.ndarray, text: str) -> None:
        """Put the cross at a place [3], RAS, mm, with a text beside it."""
        self._cross.RemoveAllControlPoints()
        self._cross.AddControlPointWorld(*place, text)

    def unmark(self) -> None:
        """Take the cross away."""
        self._cross.RemoveAllControlPoints()

    def jump(self, place: np.ndarray) -> None:
        """Put the crosshair at a place [3], RAS, mm, and let all slice views go there but the one with the cross."""
        if self._crosshair is not None:
            self._crosshair.SetCrosshairRAS(*place)
            self._crosshair.SetCrosshairMode(self._crosshair.ShowBasic)
        slices = slicer.vtkMRMLSliceNode
        slices.JumpAllSlices(self._scene, *place, slices.OffsetJumpSlice, -1, self._marked)

    def stop(self) -> None:
        """Ask no more; nothing stays in the scene or on the views."""
        if not self._tags:
            return
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        self._tags = []
        if self._is_asking():
            self._interaction.SetCurrentInteractionMode(self._interaction.ViewTransform)
        if self._crosshair is not None:
            self._crosshair.SetCrosshairMode(self._mode)
        for node in (self._points, self._cross):
            if node.GetScene() is self._scene:
                self._scene.RemoveNode(node)

    def _add(self, name: str) -> slicer.vtkMRMLMarkupsFiducialNode:
        node = slicer.vtkMRMLMarkupsFiducialNode()
        node.SetSaveWithScene(False)
        node.SetHideFromEditors(True)
        node.SetUndoEnabled(False)
        node.SetName(name)
        self._scene.AddNode(node)
        node.SetControlPointLabelFormat("")
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetGlyphType(display.ThickCross2D)
        display.SetGlyphScale(5.0)
        for colour in (display.SetColor, display.SetSelectedColor, display.SetActiveColor):
            colour(*_COLOUR)
        return node

    def _ask(self) -> None:
        """The next click into a view is a point."""
        self._selection.SetReferenceActivePlaceNodeClassName(self._points.GetClassName())
        self._selection.SetReferenceActivePlaceNodeID(self._points.GetID())
        # One by one: where a point is taken away while Slicer goes on placing, it would count its points wrongly.
        self._interaction.SetPlaceModePersistence(False)
        self._interaction.SetCurrentInteractionMode(self._interaction.Place)

    def _is_asking(self) -> bool:
        ours = self._selection.GetActivePlaceNodeID() == self._points.GetID()
        return ours and self._interaction.GetCurrentInteractionMode() == self._interaction.Place

    def _on_event(self, caller: object, event: str) -> None:
        soon(self._look)  # when Slicer has ended what it does at a click

    def _look(self) -> None:
        """Take the point that was placed; without one, the user did not want to place any."""
        if not self._tags:
            return
        place = np.zeros(3)
        if self._points.GetNumberOfDefinedControlPoints():
            self._points.GetNthControlPointPositionWorld(0, place)
            self._points.RemoveAllControlPoints()
            self._ask()
            self._pointed(place)
        elif not self._is_asking():
            self.stop()
            self._ended()
