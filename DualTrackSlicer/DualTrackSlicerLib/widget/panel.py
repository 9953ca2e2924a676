"""The panel: sections over one look at scene and computer. It alone knows them all, and connects them."""

from __future__ import annotations

import sys
from collections.abc import Callable

import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from DualTrackCore.errors import call_settings, labelled
from DualTrackCore.progress import Progress, Stage
from DualTrackSlicerLib.events import soon
from DualTrackSlicerLib.logic import Logic
from DualTrackSlicerLib.models import ModelChoice
from DualTrackSlicerLib.parameters import DualTrackSlicerParameterNode
from DualTrackSlicerLib.run import Run
from DualTrackSlicerLib.scene import Clip
from DualTrackSlicerLib.setting_labels import settingLabels
from DualTrackSlicerLib.widget.behind_section import BehindSection
from DualTrackSlicerLib.widget.clip_section import ClipSection
from DualTrackSlicerLib.widget.computer_section import ComputerSection
from DualTrackSlicerLib.widget.correct_section import CorrectSection
from DualTrackSlicerLib.widget.error_section import ErrorSection
from DualTrackSlicerLib.widget.marks_section import LoopsSection, MarksSection
from DualTrackSlicerLib.widget.measure_section import MeasureSection
from DualTrackSlicerLib.widget.model_section import ModelSection
from DualTrackSlicerLib.widget.picture import Picture
from DualTrackSlicerLib.widget.prepare_section import PrepareSection
from DualTrackSlicerLib.widget.profile_section import ProfileSection
from DualTrackSlicerLib.widget.result_section import ResultSection
from DualTrackSlicerLib.widget.run_section import RunSection
from DualTrackSlicerLib.widget.tabs import EvaluationTab, ScriptTab
from DualTrackSlicerLib.widget.view import View
from DualTrackSlicerLib.widget.volume_section import AreaSection, VolumeSection


class Panel(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel.

    Attributes:
        logic: does the work.
        parameters: settings of the current scene; None while the panel is not shown.
    """

    def __init__(self, parent: object = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Logic | None = None
        self.parameters: DualTrackSlicerParameterNode | None = None
        self._gui_tag = None
        self._clips: tuple[Clip, ...] = ()
        self._models: tuple[ModelChoice, ...] = ()
        self._message = ""
        self._updating = self._refresh_pending = False

    def onReload(self) -> None:
        """Read the module anew, with its library and the core."""
        for name in [name for name in sys.modules if name.partition(".")[0] in ("DualTrackSlicerLib", "DualTrackCore")]:
            del sys.modules[name]
        super().onReload()

    def setup(self) -> None:
        """Build the panel."""
        call_settings(labelled(settingLabels()))
        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/DualTrackSlicer.ui"))
        self.layout.addWidget(widget)
        self.ui = ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = logic = Logic()
        self.clipSection, self.areaSection = ClipSection(ui, logic), AreaSection(ui, logic)
        self.prepareSection = PrepareSection(ui, logic)
        self.modelSection, self.computerSection = ModelSection(ui, logic), ComputerSection(ui, logic)
        self.runSection, self.resultSection, self.picture = RunSection(ui, logic), ResultSection(ui), Picture(ui)
        self.behindSection, self.errorSection = BehindSection(ui), ErrorSection(ui)
        self.measureSection, self.profileSection = MeasureSection(ui), ProfileSection(ui, logic)
        self.marksSection, self.loopsSection = MarksSection(ui), LoopsSection(ui, logic)
        self.correctSection = CorrectSection(ui, logic)
        self.sections = (
            *(
                self.clipSection,
                self.prepareSection,
                self.areaSection,
                self.modelSection,
                VolumeSection(ui),
                self.computerSection,
            ),
            *(self.runSection, self.resultSection, self.marksSection, self.loopsSection, self.correctSection),
            *(self.picture, EvaluationTab(ui), ScriptTab(ui)),
            *(self.behindSection, self.errorSection, self.measureSection, self.profileSection),
        )
        self._connect()
        self.enter()

    def _connect(self) -> None:
        """Say what follows on what sections emit."""
        for section in (self.clipSection, self.profileSection):
            section.chosen.then(self.chooseClip)
        self.clipSection.added.then(self._choose_browser)
        for section in (self.prepareSection, self.areaSection):
            section.drawing.then(self.picture.showFirstFrame)
        self.logic.preview.changed.then(self.update)
        self.runSection.moved.then(self._on_progress)
        self.runSection.done.then(self.picture.showRun)
        self.resultSection.shown.then(self.picture.showResult)
        self.behindSection.framed.then(self.picture.showFrames)
        self.resultSection.exporting.then(self.measureSection.measuring.finish)
        for section in (self.resultSection, self.errorSection):
            section.failed.then(self.runSection.complain)
        self.errorSection.shown.then(self.update)
        self.errorSection.shown.then(self.picture.layOver)
        for section in (self.clipSection, self.prepareSection, self.areaSection, self.marksSection):
            section.said.then(self.say)
        for section in (self.marksSection, self.loopsSection, self.correctSection):
            section.changed.then(self.update)
        for section in (self.loopsSection, self.correctSection):
            section.framed.then(self.picture.stepTo)
        self.correctSection.asked.then(self.runSection.follow)
        self.correctSection.compared.then(self.resultSection.compare)
        self.correctSection.shown.then(self.picture.showResult)
        self.correctSection.shown.then(self._refresh)
        self.resultSection.taken.then(self.correctSection.take)
        for section in (self.modelSection, self.computerSection):
            section.changed.then(self._refresh_models)
        for section in (self.clipSection, self.areaSection, self.profileSection, self.runSection, self.resultSection):
            section.changed.then(self.update)
        self.runSection.done.then(self._refresh)
        self.resultSection.shown.then(self._refresh)

    def cleanup(self) -> None:
        """The module is unloaded or the application ends: nothing stays behind."""
        call_settings(None)
        self.exit()
        self.removeObservers()
        self.resultSection.forget()
        self.measureSection.measuring.stop()
        self.modelSection.cancel()
        self.logic.close()

    def enter(self) -> None:
        """The panel is shown: follow the settings of the scene."""
        scene = slicer.mrmlScene
        if not self.hasObserver(scene, scene.StartCloseEvent, self._on_scene_closes):
            self.addObserver(scene, scene.StartCloseEvent, self._on_scene_closes)
        if not self.hasObserver(scene, scene.EndCloseEvent, self._on_scene_replaced):
            for event, slot in self._scene_events():
                self.addObserver(scene, event, slot)
        self._follow_settings()
        self._refresh_models()
        self._refresh()

    def exit(self) -> None:
        """Another module is shown: nothing here acts until it is this one again, but a run goes on."""
        scene = slicer.mrmlScene
        self._leave_settings()
        if self.hasObserver(scene, scene.EndCloseEvent, self._on_scene_replaced):
            for event, slot in self._scene_events():
                self.removeObserver(scene, event, slot)

    def _scene_events(self) -> list[tuple[int, Callable]]:
        """(event of the scene, what is called) while the panel is shown."""
        scene = slicer.mrmlScene
        replaced = (scene.EndCloseEvent, scene.EndImportEvent)
        nodes = (scene.EndBatchProcessEvent, scene.NodeAddedEvent, scene.NodeRemovedEvent)
        undone = (scene.EndUndoEvent, scene.EndRedoEvent)
        slots = ((replaced, self._on_scene_replaced), (nodes, self._on_nodes), (undone, self._on_undone))
        return [(event, slot) for events, slot in slots for event in events]

    def view(self) -> View:
        """Scene and computer as they are now."""
        return View(
            self.parameters,
            self._clips,
            self._models,
            self.logic.device(),
            self._message,
            self.runSection.isRunning(),
            self.modelSection.isBusy,
        )

    def update(self) -> None:
        """Show everything as it is now."""
        if self.parameters is None or self._updating:
            return
        self._updating = True
        try:
            view = self.view()
            for section in self.sections:
                section.update(view)
        finally:
            self._updating = False

    def say(self, message: str) -> None:
        """Say something in place of the facts of the clip, until the next thing is said or another clip chosen."""
        if message != self._message:
            self._message = message
            self.update()

    def chooseClip(self, clip: Clip) -> None:
        """Take a clip as it is, with its own pixel size, and show it."""
        parameters, self._message = self.parameters, ""
        self.areaSection.forget()
        self.prepareSection.forget()
        with slicer.util.NodeModify(parameters):
            parameters.browser = clip.browser
            parameters.sequence = clip.sequence or clip.volume
            parameters.spacingX, parameters.spacingY = clip.spacing_mm or (0.0, 0.0)
            parameters.firstFrame, parameters.lastFrame, parameters.crop, parameters.depth = 0, 0, "", 0.0
            parameters.rotate, parameters.mirror, parameters.mask = type(parameters.rotate)(0), False, "auto"
            parameters.countedIn = ""
        self.picture.showClip(clip)
        self.update()
        self.correctSection.take(self.view().result)

    def _choose_browser(self, browser: slicer.vtkMRMLSequenceBrowserNode) -> None:
        self._refresh()
        for clip in self._clips:
            if clip.browser is browser:
                self.chooseClip(clip)

    def _follow_settings(self) -> None:
        if self.parameters is not None:
            return
        self.parameters = self.logic.getParameterNode()
        self._gui_tag = self.parameters.connectGui(self.ui)
        self.addObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._on_parameters)

    def _leave_settings(self) -> None:
        for section in self.sections:
            section.stop()
        if self.parameters is not None:
            self.removeObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._on_parameters)
            self.parameters.disconnectGui(self._gui_tag)
            self.parameters = self._gui_tag = None
        self._clips, self._message = (), ""

    def _on_parameters(self, caller: object, event: str) -> None:
        self.update()

    def _on_progress(self, report: Progress) -> None:
        if report.stage is Stage.NETWORK and report.total > 1 and self.parameters is not None:
            self.picture.showFrame(self.parameters.firstFrame + report.done - 1)

    def _on_scene_closes(self, caller: object, event: str) -> None:
        self.runSection.forget()
        self.resultSection.forget()
        self.measureSection.measuring.stop()
        self.profileSection.forget()
        self._leave_settings()

    def _on_scene_replaced(self, caller: object, event: str) -> None:
        self._leave_settings()
        self._follow_settings()
        self._refresh()

    def _on_nodes(self, caller: object, event: str) -> None:
        """Nodes often come in bunches: look once, when the bunch is there."""
        if not self._refresh_pending and not slicer.mrmlScene.IsBatchProcessing():
            self._refresh_pending = True
            soon(self._refresh)

    def _on_undone(self, caller: object, event: str) -> None:
        """Results came back or went: so do the views."""
        self._refresh()
        if self.parameters is not None and (view := self.view()).clip is not None:
            if view.result is None:
                self.picture.showClip(view.clip)
            else:
                self.picture.showResult(view.result)

    def _refresh_models(self) -> None:
        self._models = tuple(self.logic.models())
        self.update()

    def _refresh(self, *_: Run) -> None:
        """Look which clips there are; the only one, or the first that can be used, is chosen where none is."""
        self._refresh_pending = False
        if self.parameters is None:
            return
        self._clips = tuple(self.logic.clips())
        if self.view().clip is None and self._clips and not self.runSection.isRunning():
            self.chooseClip(next((clip for clip in self._clips if not clip.problem), self._clips[0]))
        self.update()
