"""The DualTrack module of 3D Slicer: its metadata, and the names that Slicer looks for."""

from __future__ import annotations

import slicer
from DualTrackSlicerLib import self_test
from DualTrackSlicerLib.sweep_nodes import FileReader, registerSample
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)


class DualTrackSlicer(ScriptedLoadableModule):
    """What Slicer lists about the module."""

    def __init__(self, parent: object) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "DualTrack"
        parent.categories = [translate("qSlicerAbstractCoreModule", "Ultrasound")]
        parent.dependencies = ["Sequences", "VolumeRendering", "Markups", "SubjectHierarchy"]
        parent.contributors = ["The DualTrack for 3D Slicer contributors"]
        parent.helpText = _(
            "Sensorless freehand 3D ultrasound: a network estimates how the probe moved from a plain 2D clip, and the "
            "frames become a volume. Choose a clip and press Apply. For research use only, not for diagnosis."
        )
        parent.acknowledgementText = _(
            "The network follows the DualTrack paper (Wilson et al. 2025, arXiv 2509.09530). This module is "
            "written independently of its authors."
        )
        slicer.app.connect("startupCompleted()", self.onStartupCompleted)

    def onStartupCompleted(self) -> None:
        """List the sample once the module Sample Data is there."""
        registerSample(self.resourcePath("Icons/DualTrackSlicer.png"))


class DualTrackSlicerWidget(ScriptedLoadableModuleWidget):
    """The panel; what it is made of is imported when it is first opened, not when Slicer starts."""

    def __new__(cls, parent: object = None) -> DualTrackSlicerWidget:
        """A :class:`~DualTrackSlicerLib.widget.panel.Panel` under the name that Slicer looks for."""
        from DualTrackSlicerLib.widget.panel import Panel

        return type(cls.__name__, (Panel,), {})(parent)


class DualTrackSlicerLogic(ScriptedLoadableModuleLogic):
    """What the module does, from the console: `DualTrackSlicerLogic().run(browserNode, model="mini")`."""

    def __new__(cls) -> DualTrackSlicerLogic:
        """A :class:`~DualTrackSlicerLib.logic.Logic` under the name that Slicer looks for."""
        from DualTrackSlicerLib.logic import Logic

        return type(cls.__name__, (Logic,), {})()


class DualTrackSlicerFileReader(FileReader):
    """Opens sweeps of every format."""


class DualTrackSlicerTest(self_test.SelfTest):
    """The journey of a user on synthetic data; nothing is downloaded.

    Its base is no name of this module, or it would be found as a test of its own.
    """
