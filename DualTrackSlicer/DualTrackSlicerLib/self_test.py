"""The self-test that Slicer runs: a clip on the scene, the settings, a run where a model is there."""

from __future__ import annotations

import logging

import numpy as np
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

from DualTrackCore import Sweep, Trajectory
from DualTrackSlicerLib.sweep_nodes import addSweep

FRAMES, HEIGHT, WIDTH, STEP_MM = 24, 48, 64, 0.5


def syntheticSweep() -> Sweep:
    """A tracked sweep of a ball: 24 frames 0.5 mm apart, 0.4 x 0.3 mm pixels, 20 frames a second."""
    motions = np.tile([0.0, 0.0, STEP_MM, 0.0, 0.0, 0.0], (FRAMES - 1, 1))
    z, y, x = np.ogrid[:FRAMES, :HEIGHT, :WIDTH]
    ball = ((z - FRAMES / 2) * STEP_MM) ** 2 + ((y - HEIGHT / 2) * 0.3) ** 2 + ((x - WIDTH / 2) * 0.4) ** 2 < 25
    speckle = np.random.default_rng(0).integers(0, 60, (FRAMES, HEIGHT, WIDTH))
    frames = (speckle + 150 * ball + 20).astype(np.uint8)
    return Sweep(
        frames, (0.4, 0.3), np.arange(FRAMES) / 20, tracked=Trajectory.from_parameters(motions, origin="simulated")
    )


class SelfTest(ScriptedLoadableModuleTest):
    """Independent tests on synthetic data; nothing is downloaded and nothing is installed."""

    def setUp(self) -> None:
        """An empty scene."""
        from DualTrackSlicerLib.logic import Logic

        slicer.mrmlScene.Clear()
        self.logic = Logic()

    def tearDown(self) -> None:
        """No worker process stays behind."""
        self.logic.close()

    def runTest(self) -> None:
        """All tests, for the module's button Reload and Test."""
        for name in sorted(name for name in dir(self) if name.startswith("test_")):
            self.setUp()
            try:
                getattr(self, name)()
            finally:
                self.tearDown()
            logging.info("%s passed", name)

    def requirePackages(self) -> None:
        """Fail where packages are missing: a test that cannot run has shown nothing."""
        unfit, missing = self.logic.dependencies.unfit(), self.logic.dependencies.missing()
        assert not unfit, unfit
        assert not missing, f"Not installed: {', '.join(missing)}; press Apply in the panel once, which installs them."

    def test_a_clip_in_the_scene_is_offered_with_its_size(self) -> None:
        """The chooser knows frames, size, spacing and rate."""
        addSweep(slicer.mrmlScene, syntheticSweep(), "clip")
        (clip,) = self.logic.clips()
        assert (clip.frames, clip.size, clip.problem) == (FRAMES, (WIDTH, HEIGHT), None)
        np.testing.assert_allclose(clip.spacing_mm, (0.4, 0.3), atol=1e-9)
        np.testing.assert_allclose(clip.rate_hz, 20, rtol=1e-4)

    def test_frames_and_poses_come_back_from_the_scene(self) -> None:
        """A sweep put into the scene is the sweep that is read from it."""
        from DualTrackSlicerLib.scene import sweepFromBrowser

        sweep = syntheticSweep()
        read = sweepFromBrowser(addSweep(slicer.mrmlScene, sweep, "clip")).sweep
        np.testing.assert_array_equal(read.window(0, FRAMES), sweep.frames)
        np.testing.assert_allclose(read.tracked.poses, sweep.tracked.poses, atol=1e-9)

    def test_the_settings_stay_in_the_scene(self) -> None:
        """What is set on the parameter node is what a run is asked for."""
        from DualTrackSlicerLib.parameters import Area, givenSpacing, runSettings

        parameters = self.logic.getParameterNode()
        parameters.area = Area.FOUND
        parameters.voxelSize = 0.5
        parameters.firstFrame = 2
        again = self.logic.getParameterNode()
        settings = runSettings(again)
        assert (settings.fan, settings.voxel_mm, settings.first_frame) == ("auto", 0.5, 2)
        again.spacingX = again.spacingY = 0.2
        assert givenSpacing(again, (0.2, 0.2)) is None

    def test_a_tracked_clip_becomes_a_volume(self) -> None:
        """The worker process places the frames by their tracking, and the results are in the scene."""
        from DualTrackCore.run.settings import RunSettings

        self.requirePackages()
        browser = addSweep(slicer.mrmlScene, syntheticSweep(), "clip")
        nodes = self.logic.run(browser, settings=RunSettings(poses="tracked", voxel_mm=0.5))
        array = slicer.util.arrayFromVolume(nodes.volume)
        assert array.shape == (FRAMES, round((HEIGHT - 1) * 0.3 / 0.5) + 1, round((WIDTH - 1) * 0.4 / 0.5) + 1)
        middle = array[FRAMES // 2, array.shape[1] // 2, array.shape[2] // 2]
        assert middle > 150
        assert nodes.transform_sequence.GetNumberOfDataNodes() == FRAMES

    def test_an_estimated_path_comes_with_its_error(self) -> None:
        """With the model that ships: the whole way from a clip to results, where model and packages are there."""
        self.requirePackages()
        shipped = [choice for choice in self.logic.models() if choice.installed is not None and choice.installed.ships]
        assert shipped, "This installation lacks the model that ships with DualTrack; install it again."
        browser = addSweep(slicer.mrmlScene, syntheticSweep(), "clip")
        nodes = self.logic.run(browser, model=shipped[0].name)
        assert nodes.transform_sequence.GetNumberOfDataNodes() == FRAMES
        assert nodes.volume is not None

    def test_the_script_of_the_panel_is_python(self) -> None:
        """The scripting tab's text compiles and names what differs from the defaults."""
        from DualTrackCore.run.settings import RunSettings
        from DualTrackSlicerLib.parameters import consoleScript

        script = consoleScript("my clip", RunSettings(voxel_mm=0.4), (0.2, 0.25))
        compile(script, "script", "exec")
        for part in ("voxel_mm=0.4", "spacing_mm=(0.2, 0.25)", "'my clip'"):
            assert part in script
