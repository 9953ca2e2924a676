"""What the views show: the frames of the clip in the red one, and the volume behind them."""

from __future__ import annotations

import slicer

from DualTrackSlicerLib.run import Run
from DualTrackSlicerLib.scene import Clip, FrameFollower, ResultNodes, fitSliceViews, layErrorOver, layFrameOver
from DualTrackSlicerLib.widget.view import Section, View


class Picture(Section):
    """The red slice view, which follows the clip, and the toolbar of sequences."""

    def __init__(self, ui: object) -> None:
        self.ui = ui
        self._follower: FrameFollower | None = None
        self._followed: tuple[object, ...] = ()
        ui.frameOverCheckBox.connect("clicked()", self.layOver)

    def update(self, view: View) -> None:
        """Follow the chosen clip, or leave the views alone."""
        self._view = view
        clip = view.clip
        image = None if clip is None or clip.sequence is None else clip.browser.GetProxyNode(clip.sequence)
        red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
        wanted = (red, image, view.result is not None)
        if red is None or image is None or clip.problem or not view.parameters.followFrame:
            wanted = ()
        if wanted != self._followed:
            self._release()
            self._followed = wanted
            if wanted:
                self._follower = FrameFollower(red, clip.browser, clip.sequence, in3D=view.result is not None)
        self.ui.frameOverCheckBox.visible = view.result is not None and view.result.volume is not None

    def stop(self) -> None:
        """Leave the views alone until the next update."""
        super().stop()
        self._release()

    def showClip(self, clip: Clip) -> None:
        """The image of a clip in all slice views, fitted, and the controls that step through it."""
        image = None if clip.sequence is None else clip.browser.GetProxyNode(clip.sequence)
        if image is None or clip.problem:
            return
        fitSliceViews(image, slicer.app.applicationLogic())
        if (sequences := getattr(getattr(slicer, "modules", None), "sequences", None)) is not None:
            sequences.setToolBarActiveBrowserNode(clip.browser)
            sequences.setToolBarVisible(True)

    def showFirstFrame(self) -> None:
        """Step to frame 1, to be drawn upon."""
        if self._view is not None and self._view.clip is not None and self._view.clip.browser is not None:
            self._view.clip.browser.SetSelectedItemNumber(0)
            self.showClip(self._view.clip)

    def showFrame(self, number: int) -> None:
        """Step to the frame in work, from 0, where the red view follows."""
        if self._followed:
            self.stepTo(number)

    def stepTo(self, number: int) -> None:
        """Step to a frame, from 0, that the user wants to see."""
        browser = None if self._view is None or self._view.clip is None else self._view.clip.browser
        if browser is not None:
            browser.SetSelectedItemNumber(min(max(number, 0), browser.GetNumberOfItems() - 1))

    def showFrames(self) -> None:
        """The frames of the clip in the red view, over the volume."""
        self._view.parameters.followFrame = self.ui.frameOverCheckBox.checked = True
        self.layOver()

    def showRun(self, run: Run) -> None:
        """The results of a run."""
        if run.nodes is not None:
            self.showResult(run.nodes)

    def showResult(self, nodes: ResultNodes) -> None:
        """The volume in all views, and in the red one the frame over it."""
        if nodes.volume is not None and self._view is not None:
            fitSliceViews(nodes.volume, slicer.app.applicationLogic())
            if self._follower is not None:
                self._follower.align()  # fitting moves the view to the middle of the volume
            self.layOver(nodes)
            slicer.util.resetThreeDViews()

    def layOver(self, nodes: ResultNodes | None = None) -> None:
        """What lies over the volume of a result: the frame in red, and the expected error where it is shown.

        Args:
            nodes: of the result; by default those of the last update.
        """
        view, over = self._view, self.ui.frameOverCheckBox.checked
        if view is not None and view.clip is not None and view.clip.sequence is not None:
            layFrameOver(slicer.mrmlScene, view.clip.browser.GetProxyNode(view.clip.sequence), over)
            if (nodes or view.result) is not None:
                layErrorOver(nodes or view.result, inRed=not over)

    def _release(self) -> None:
        if self._follower is not None:
            self._follower.stop()
        self._follower, self._followed = None, ()
