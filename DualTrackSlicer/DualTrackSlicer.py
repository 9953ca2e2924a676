"""The DualTrack module of 3D Slicer: its listing, a page on what is installed, self-tests of the core."""

from __future__ import annotations

import importlib.util

import numpy as np
import qt
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

from DualTrackCore import Sweep, Trajectory, __version__, plan_grid

CONSOLE_EXAMPLE = """\
from DualTrackCore import load_sweep, plan_grid, reconstruct_volume

sweep = load_sweep("sweep.igs.mha", calibration="calibration.xml")
grid = plan_grid(sweep, sweep.tracked)
reconstruction = reconstruct_volume(sweep, sweep.tracked, grid)
"""


class DualTrackSlicer(ScriptedLoadableModule):
    """What Slicer lists about the module."""

    def __init__(self, parent: object) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "DualTrack"
        parent.categories = [translate("qSlicerAbstractCoreModule", "Ultrasound")]
        parent.dependencies = []
        parent.contributors = ["The DualTrack for 3D Slicer contributors"]
        parent.helpText = _(
            "Sensorless freehand 3D ultrasound: a network estimates the probe trajectory from a plain 2D "
            "clip, and the frames are compounded into a volume. For research use only, not for diagnosis."
        )
        parent.acknowledgementText = _(
            "The network follows the DualTrack paper (Wilson et al. 2025, arXiv 2509.09530). This module is "
            "written independently of its authors."
        )


class DualTrackSlicerWidget(ScriptedLoadableModuleWidget):
    """A page that says what is installed and how to use it from the Python console."""

    def setup(self) -> None:
        """Build the page."""
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = DualTrackSlicerLogic()
        summary = qt.QLabel(self.logic.installationSummary())
        summary.wordWrap = True
        self.layout.addWidget(summary)
        example = qt.QPlainTextEdit()
        example.setPlainText(CONSOLE_EXAMPLE)
        example.readOnly = True
        self.layout.addWidget(example)
        self.layout.addStretch(1)


class DualTrackSlicerLogic(ScriptedLoadableModuleLogic):
    """What the page shows, without the page."""

    def missingPackages(self) -> list[str]:
        """Packages that the core needs and Slicer's Python does not have."""
        needed = ("torch", "timm", "h5py", "safetensors")
        return [name for name in needed if importlib.util.find_spec(name) is None]

    def installationSummary(self) -> str:
        """One paragraph: the version of the core, and what is missing before it can do all its work."""
        summary = _("DualTrack core {version} is installed.").format(version=__version__)
        missing = self.missingPackages()
        if missing:
            sentence = _("Trajectories and volumes also need {packages}.")
            summary += " " + sentence.format(packages=", ".join(missing))
        return summary + " " + _("Tracked sweeps are reconstructed from the Python console:")


class DualTrackSlicerTest(ScriptedLoadableModuleTest):
    """Self-tests of the core on synthetic data; nothing is downloaded and no network is run."""

    def test_motions_survive_accumulation(self) -> None:
        """Relative motions come back from the trajectory they were accumulated into."""
        motions = np.tile([0.1, -0.02, 0.3, 0.5, -0.4, 0.2], (20, 1))
        trajectory = Trajectory.from_parameters(motions)
        np.testing.assert_allclose(trajectory.parameters, motions, atol=1e-9)

    def test_a_straight_sweep_has_its_length(self) -> None:
        """Twenty steps of 0.25 mm make a path of 5 mm."""
        trajectory = Trajectory.from_parameters(np.tile([0.0, 0.0, 0.25, 0.0, 0.0, 0.0], (20, 1)))
        np.testing.assert_allclose(trajectory.path_length_mm, 5.0)

    def test_pixels_are_measured_from_the_image_centre(self) -> None:
        """The centre of the middle pixel is the origin of the image frame."""
        sweep = Sweep(np.zeros((2, 5, 7), np.uint8), spacing_mm=(0.2, 0.1))
        np.testing.assert_allclose(sweep.image_from_pixel @ [3, 2, 0, 1], [0, 0, 0, 1], atol=1e-12)
        np.testing.assert_allclose(sweep.image_from_pixel @ [0, 0, 0, 1], [-0.6, -0.2, 0, 1], atol=1e-12)

    def test_the_grid_of_a_straight_sweep_holds_its_frames(self) -> None:
        """Ten millimetres of motion and a frame of 30 x 20 pixels of 0.5 mm give a grid of at least that size."""
        sweep = Sweep(np.zeros((41, 20, 30), np.uint8), spacing_mm=0.5)
        trajectory = Trajectory.from_parameters(np.tile([0.0, 0.0, 0.25, 0.0, 0.0, 0.0], (40, 1)))
        grid = plan_grid(sweep, trajectory, spacing_mm=0.5)
        self.assertEqual(grid.size, (30, 20, 21))  # noqa: PT009 - a unittest case
