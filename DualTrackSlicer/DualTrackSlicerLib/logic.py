"""What the module does, without its panel: usable from Slicer's Python console."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from DualTrackCore import __version__
from DualTrackCore.errors import DualTrackError, InputError
from DualTrackCore.network import installation
from DualTrackCore.network.catalogue import models_folder
from DualTrackCore.progress import Progress
from DualTrackCore.run.settings import RunSettings
from DualTrackSlicerLib import models
from DualTrackSlicerLib import scene as scenes
from DualTrackSlicerLib.dependencies import Dependencies
from DualTrackSlicerLib.parameters import DualTrackSlicerParameterNode
from DualTrackSlicerLib.preview import Preview
from DualTrackSlicerLib.process import slicerPython
from DualTrackSlicerLib.run import Run
from DualTrackSlicerLib.worker import Job, Worker

#: Keys of the application's settings; these belong to the computer, not to the scene.
MODELS_FOLDER_KEY, DEVICE_KEY = "DualTrack/ModelsFolder", "DualTrack/Device"


class Logic(ScriptedLoadableModuleLogic):
    """Clips to trajectories and volumes in the scene.

    Attributes:
        dependencies: finds and installs what a run needs.
        readiness: what the last check of this computer gave; empty before the first.
        preview: what a run will make of the pictures of a clip.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moduleName = "DualTrackSlicer"
        self.dependencies = Dependencies()
        self.readiness: dict[str, Any] = {}
        self._known_clips: dict[object, Any] = {}
        self._worker: Worker | None = None
        self._folder: Path | None = None
        self.preview = Preview(self.worker)

    def getParameterNode(self) -> DualTrackSlicerParameterNode:
        """The settings of the panel in the current scene."""
        return DualTrackSlicerParameterNode(super().getParameterNode())

    def clips(self) -> list[scenes.Clip]:
        """What can be chosen in the current scene."""
        return scenes.clips(slicer.mrmlScene, self._known_clips)

    def sequenceFromVolume(self, volumeNode: slicer.vtkMRMLVolumeNode) -> slicer.vtkMRMLSequenceBrowserNode:
        """A clip whose frames are the slices of a volume."""
        return scenes.sequenceFromVolume(volumeNode)

    def run(
        self,
        browserNode: slicer.vtkMRMLSequenceBrowserNode,
        model: str = "mini",
        *,
        sequenceNode: slicer.vtkMRMLSequenceNode | None = None,
        settings: RunSettings | None = None,
        spacing_mm: float | tuple[float, float] | None = None,
        onProgress: Callable[[Progress], None] | None = None,
        onDone: Callable[[Run], None] | None = None,
    ) -> scenes.ResultNodes | Run:
        """Track a clip and reconstruct its volume.

        Args:
            browserNode: the clip.
            model: name of an installed model, or a weights file; `settings`, if given, bring their own.
            sequenceNode: which image sequence of the browser; needed only where there are several.
            settings: everything else.
            spacing_mm: pixel size (across columns, down rows) where the scene's is unknown or wrong.
            onProgress: receives reports of progress.
            onDone: called when the run has ended; without it the call waits.

        Returns:
            The nodes of the results; with `onDone` the :class:`Run`, at once.

        Raises:
            InputError: the clip or a setting cannot be used.
            JobFailed, DualTrackError: the run failed (without `onDone`).
            Cancelled: it was cancelled (without `onDone`), or packages are missing and were not to be installed.
        """
        settings = settings or RunSettings(model=model)
        sceneSweep = scenes.sweepFromBrowser(browserNode, sequenceNode, spacing_mm)
        if settings.depth_mm is None:
            sceneSweep.sweep.require_spacing()
        self.dependencies.ensure()
        job = self.worker().submit(sceneSweep.sweep, settings)
        run = Run(job, slicer.mrmlScene, sceneSweep, onProgress, onDone)
        if onDone is not None:
            return run
        if run.wait().failure is not None:
            raise run.failure
        return run.nodes

    def preflight(self, onDone: Callable[[Job], None]) -> Job:
        """Ask the worker process whether this computer is ready; the result of the job is a dict."""

        def checked(job: Job) -> None:
            try:
                self.readiness = dict(job.result)
            except DualTrackError as error:
                self.readiness = {"error": str(error)}
            onDone(job)

        job = self.worker().preflight(self.device())
        job.onEnd = checked
        return job

    def diagnostics(self) -> str:
        """What is known of this computer, for a report."""
        facts = {
            "dualtrack": __version__,
            "slicer": getattr(slicer.app, "applicationVersion", "unknown"),
            "missing": self.dependencies.missing(),
            "models_folder": str(self.modelsFolder()),
            "models": [choice.name for choice in self.models() if choice.installed],
            "device": self.device(),
            "check": self.readiness or "not made",
        }
        return json.dumps(facts, indent=2)

    def models(self) -> list[models.ModelChoice]:
        """Models that can be chosen or downloaded."""
        return models.modelChoices(self.modelsFolder())

    def downloadModel(self, choice: models.ModelChoice) -> models.ModelTask:
        """Download a published model; the caller has shown size and licence and the user has agreed.

        Raises InputError: it is not in the catalogue.
        """
        if choice.entry is None:
            raise InputError(_("{name} cannot be downloaded.").format(name=choice.title))
        self.dependencies.ensure()
        return models.ModelTask(
            ["fetch", choice.name, "--yes"], choice.name, self.modelsFolder(), choice.entry.about_bytes
        )

    def importModel(self, name: str, path: Path) -> models.ModelTask:
        """Install a model from a file; it is loaded strictly before it is installed."""
        self.dependencies.ensure()
        return models.ModelTask(["import", name, str(path)], name, self.modelsFolder())

    def deleteModel(self, choice: models.ModelChoice) -> int:
        """Delete a downloaded or imported model and what is left of its download; returns the bytes that became free.

        Raises InputError, OutputError: it ships, is not there, or a file cannot be deleted.
        """
        self.close()  # the worker may hold its file
        return installation.remove(choice.name, self.modelsFolder())

    def modelsFolder(self) -> Path:
        """The folder that the user has chosen for models, or the usual one."""
        return Path(slicer.util.settingsValue(MODELS_FOLDER_KEY, "") or models_folder())

    def device(self) -> str:
        """The device that the user has chosen on this computer."""
        return slicer.util.settingsValue(DEVICE_KEY, "auto") or "auto"

    def close(self) -> None:
        """End the worker process and remove its files; a later run starts another."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()

    def worker(self) -> Worker:
        """The worker process of this logic; it starts with its first job."""
        folder = self.modelsFolder()
        if self._worker is not None and folder != self._folder:
            self.close()
        if self._worker is None:
            command = (slicerPython(), "-m", "DualTrackCore.worker")
            self._worker, self._folder = Worker(command, models.modelVariables(folder)), folder
        return self._worker


def withLessMemory(settings: RunSettings) -> RunSettings:
    """The same run on the processor with few frames at a time: for when the memory did not suffice."""
    return replace(settings, device="cpu", precision="auto", chunk_frames=4)
