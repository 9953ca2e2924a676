"""The panel: sections over one parameter node, one run at a time."""

from __future__ import annotations

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from DualTrackCore.errors import DualTrackError
from DualTrackCore.run.settings import RunSettings
from DualTrackSlicerLib.logic import Logic
from DualTrackSlicerLib.parameters import DualTrackSlicerParameterNode, givenSpacing, runSettings
from DualTrackSlicerLib.run import Run
from DualTrackSlicerLib.scene import Clip
from DualTrackSlicerLib.widget.clip_section import ClipSection
from DualTrackSlicerLib.widget.computer_section import ComputerSection
from DualTrackSlicerLib.widget.controls import QtTicker
from DualTrackSlicerLib.widget.model_section import ModelSection
from DualTrackSlicerLib.widget.run_section import RunSection
from DualTrackSlicerLib.widget.tabs import EvaluationTab, ScriptTab
from DualTrackSlicerLib.widget.volume_section import AreaSection, VolumeSection


class Panel(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel.

    Attributes:
        logic: does the work.
        parameters: settings of the current scene; None while no scene is connected.
        ticker: calls back from the event loop.
        run: the last run, or None.
    """

    def __init__(self, parent: object = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Logic | None = None
        self.parameters: DualTrackSlicerParameterNode | None = None
        self.run: Run | None = None
        self.ticker = QtTicker()
        self._gui_tag = None
        self._updating = False
        self._refresh_pending = False

    def makeLogic(self) -> Logic:
        """The logic of this panel."""
        return Logic(self.ticker)

    def setup(self) -> None:
        """Build the panel."""
        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/DualTrackSlicer.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = self.makeLogic()
        self.clipSection = ClipSection(self)
        self.areaSection = AreaSection(self)
        self.modelSection = ModelSection(self)
        self.computerSection = ComputerSection(self)
        self.runSection = RunSection(self)
        self.sections = (
            self.clipSection,
            self.areaSection,
            self.modelSection,
            VolumeSection(self),
            self.computerSection,
            self.runSection,
            EvaluationTab(self),
            ScriptTab(self),
        )
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._on_scene_closes)
        for event in (scene.EndCloseEvent, scene.EndImportEvent):
            self.addObserver(scene, event, self._on_scene_replaced)
        for event in (scene.EndBatchProcessEvent, scene.NodeAddedEvent, scene.NodeRemovedEvent):
            self.addObserver(scene, event, self._on_nodes)
        self.enter()

    def cleanup(self) -> None:
        """The module is unloaded or the application ends: nothing stays behind."""
        self._disconnect()
        self.removeObservers()
        self.modelSection.stop()
        self.runSection.stopFollowing()
        self.ticker.stop()
        self.logic.close()

    def enter(self) -> None:
        """The panel is shown: follow the settings of the scene."""
        if self.parameters is None:
            self.parameters = self.logic.getParameterNode()
            self._gui_tag = self.parameters.connectGui(self.ui)
            self.addObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._on_parameters)
        self.modelSection.refresh()
        self.clipSection.refresh()
        self.update()

    def exit(self) -> None:
        """Another module is shown."""
        self._disconnect()

    def update(self) -> None:
        """Show everything as it is now."""
        if self.parameters is None or self._updating:
            return
        self._updating = True
        try:
            for section in self.sections:
                section.update()
        finally:
            self._updating = False

    def clip(self) -> Clip | None:
        """The chosen clip."""
        return self.clipSection.chosen()

    def isRunning(self) -> bool:
        """Whether a run is under way."""
        return self.run is not None and self.run.state == "running"

    def settings(self) -> RunSettings:
        """What a run would be asked for. Raises InputError: the settings contradict each other."""
        return runSettings(self.parameters, self.logic.device())

    def spacing(self) -> tuple[float, float] | None:
        """The pixel size where it replaces the recorded one. Raises InputError: it is unknown."""
        clip = self.clip()
        return givenSpacing(self.parameters, None if clip is None else clip.spacing_mm)

    def problem(self) -> str:
        """Why Apply cannot be pressed, in one sentence; empty where it can."""
        clip = self.clip()
        if clip is None:
            return _("Load an ultrasound clip first, or press Sample.")
        if clip.problem:
            return clip.problem
        try:
            self.spacing()
            self.settings()
        except DualTrackError as error:
            return str(error)
        return self.modelSection.problem()

    def chooseClip(self, clip: Clip) -> None:
        """Take a clip, with its own pixel size and all of its frames."""
        parameters = self.parameters
        with slicer.util.NodeModify(parameters):
            parameters.browser = clip.browser
            parameters.sequence = clip.sequence or clip.volume
            parameters.spacingX, parameters.spacingY = clip.spacing_mm or (0.0, 0.0)
            parameters.firstFrame, parameters.lastFrame = 1, 0
        self.update()

    def _disconnect(self) -> None:
        if self.parameters is None:
            return
        self.removeObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._on_parameters)
        self.parameters.disconnectGui(self._gui_tag)
        self.parameters = self._gui_tag = None

    def _on_parameters(self, caller: object, event: str) -> None:
        self.update()

    def _on_scene_closes(self, caller: object, event: str) -> None:
        if self.isRunning():
            self.run.cancel()
        self.run = None
        self.runSection.stopFollowing()
        self._disconnect()

    def _on_scene_replaced(self, caller: object, event: str) -> None:
        self._disconnect()
        self.enter()

    def _on_nodes(self, caller: object, event: str) -> None:
        """Nodes often come in bunches: look once, when the bunch is there."""
        if self._refresh_pending or slicer.mrmlScene.IsBatchProcessing():
            return
        self._refresh_pending = True
        qt.QTimer.singleShot(0, self._refresh_clips)

    def _refresh_clips(self) -> None:
        self._refresh_pending = False
        if self.parameters is not None:
            self.clipSection.refresh()
            self.update()
