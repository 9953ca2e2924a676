"""What the module does, without its panel: usable from Slicer's Python console."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from DualTrackCore import __version__
from DualTrackCore.corrections import Corrections
from DualTrackCore.errors import Cancelled, DualTrackError, InputError
from DualTrackCore.network import installation
from DualTrackCore.network.catalogue import models_folder
from DualTrackCore.path_error import direction_of, turned_over, turned_provenance
from DualTrackCore.progress import Progress
from DualTrackCore.remote import consent
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory
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
SERVER_KEY, SERVER_SECRET_KEY = "DualTrack/ServerAddress", "DualTrack/ServerKey"
SERVER_CERTIFICATE_KEY = "DualTrack/ServerCertificate"
#: The device that stands for the server.
SERVER = "server"


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
        self.dependencies = Dependencies(network_is_here=lambda: not self.server())
        self.readiness: dict[str, Any] = {}
        self._known_clips: dict[object, Any] = {}
        self._worker: Worker | None = None
        self._made_for: tuple[Path, dict[str, str]] | None = None
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
        browserNode: slicer.vtkMRMLSequenceBrowserNode | slicer.vtkMRMLVolumeNode,
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
            browserNode: the clip, or a volume whose slices are its frames; a copy of them stays if it gets a result.
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
            Cancelled: it was cancelled (without `onDone`), packages are missing and were not to be installed, or frames
                were not to leave this computer.
        """
        settings = settings or RunSettings(model=model, device=self.device())
        copies: list[slicer.vtkMRMLSequenceBrowserNode] = []

        def reading() -> Generator[object, None, scenes.SceneSweep]:
            browser = browserNode
            if browser is not None and browser.IsA("vtkMRMLVolumeNode"):
                browser = scenes.clipFromVolume(browserNode)
                if browser is None:
                    browser = yield from scenes.copyInPieces(browserNode)
                    copies.append(browser)
            return (yield from scenes.sweepInPieces(browser, sequenceNode, spacing_mm))

        def ended(run: Run) -> None:
            for browser in copies if run.nodes is None else ():
                scenes.removeClip(browser)
            if onDone is not None:
                onDone(run)

        def begin(clip: scenes.SceneSweep) -> Job:
            if settings.depth_mm is None:
                clip.sweep.require_spacing()
            self._ensure(network=not settings.server)
            self._agree(settings.server)
            return self.worker().submit(clip.sweep, settings)

        run = Run(slicer.mrmlScene, reading(), begin, onProgress, ended)
        return run if onDone is not None else _waited(run)

    def correct(
        self,
        nodes: scenes.ResultNodes,
        corrections: Corrections,
        *,
        otherWay: bool = False,
        trackerNode: slicer.vtkMRMLSequenceNode | None = None,
        onProgress: Callable[[Progress], None] | None = None,
        onDone: Callable[[Run], None] | None = None,
    ) -> scenes.ResultNodes | Run:
        """Put what is known of a sweep into the path of a result, as a result of its own; nothing is tracked again.

        Args:
            nodes: the result; it stays as it is.
            corrections: frames as they count in the clip.
            otherWay: turn the path over first.
            trackerNode: the transforms that `corrections.tracker` "clip" means; None for those of the clip.
            onProgress, onDone: as for :meth:`run`.

        Returns, raises: as :meth:`run`.
        """

        def begin(clip: scenes.SceneSweep) -> Job:
            return self._again(nodes, clip, self.worker().submit, corrections, otherWay)

        reading = scenes.clip_in_pieces(nodes, tracker=trackerNode)
        run = Run(slicer.mrmlScene, reading, begin, onProgress, onDone, nodes)
        return run if onDone is not None else _waited(run)

    def findLoops(self, nodes: scenes.ResultNodes, clip: scenes.SceneSweep, onDone: Callable[[Job], None]) -> Job:
        """Look where the probe may have come back; the job gives what `LoopsTask` gives. Raises as :meth:`run`."""
        job = self._again(nodes, clip, self.worker().find_loops)
        job.onEnd = onDone
        return job

    def _again(
        self,
        nodes: scenes.ResultNodes,
        clip: scenes.SceneSweep,
        ask: Callable[..., Job],
        corrections: Corrections = Corrections(),  # noqa: B008
        otherWay: bool = False,
    ) -> Job:
        """A job with the frames and the path of a result."""
        report, sweep = scenes.reportOf(nodes), clip.sweep
        settings, source = RunSettings.from_dict(report.settings), report.trajectory["source"]
        direction = direction_of(turned_provenance(source)) if otherWay else settings.direction
        settings = replace(settings, corrections=corrections, direction=direction)
        if report.sweep["provenance"].get("spacing_source") == "user":
            spacing = report.sweep["spacing_mm"][:: -1 if settings.rotate % 180 else 1]
            sweep = replace(sweep, spacing_mm=spacing, provenance={**sweep.provenance, "spacing_source": "user"})

        def path() -> Generator[None, None, Trajectory]:
            found = yield from scenes.path_in_pieces(nodes, report)
            return turned_over(found) if otherWay else found

        self._ensure(network=False)
        return ask(sweep, settings, path())

    def _ensure(self, network: bool) -> None:
        """Have what is needed here; torch and the like only where the network runs here."""
        replace(self.dependencies, network_is_here=lambda: network).ensure()

    def _agree(self, server: str) -> None:
        """Ask once for each server whether frames may leave this computer. Raises Cancelled: they may not."""
        if not server or consent.is_agreed(server, self.modelsFolder()):
            return
        question = _("{notice}\n\nDo you agree? You will not be asked for this server again.")
        if not slicer.util.confirmOkCancelDisplay(
            question.format(notice=consent.notice(server)), windowTitle=_("DualTrack: frames leave this computer")
        ):
            raise Cancelled(_("Nothing was sent; choose under Run on what this computer has."))
        consent.remember(server, self.modelsFolder())

    def measureScale(self, clip: scenes.Clip, settings: RunSettings, spacing_mm: tuple[float, float] | None) -> Job:
        """Track a clip by the model alone, for a scanner profile: `DualTrackCore.run.profiling.scale_of` goes on.

        Args:
            clip: a sweep of known length, or a tracked one.
            settings: as for :meth:`run`; what is not about clip and model is left out.
            spacing_mm: as for :meth:`run`.

        What is wrong with the clip fails the job. Raises DualTrackError: packages are missing, or frames were not to
        leave this computer.
        """
        from DualTrackCore.run.profiling import profiling

        def reading() -> Generator[object, None, Sweep]:
            if clip.sequence is None:
                return (yield from scenes.framesInPieces(clip, spacing_mm or clip.spacing_mm))
            return (yield from scenes.sweepInPieces(clip.browser, clip.sequence, spacing_mm)).sweep

        self._ensure(network=not settings.server)
        self._agree(settings.server)
        return self.worker().submit_read(reading(), profiling(settings))

    def preflight(self, onDone: Callable[[Job], None]) -> Job:
        """Ask the worker process whether this computer, or the server, is ready; the result of the job is a dict."""

        device = self.device()

        def checked(job: Job) -> None:
            try:
                self.readiness = {**job.result, "device": device}
            except DualTrackError as error:
                self.readiness = {"error": str(error)}
            onDone(job)

        job = self.worker().preflight(device)
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
        """Models that can be chosen or downloaded; those of the server, as far as it has been asked."""
        if self.server():
            offer = self.readiness.get("offer") if self.readiness.get("device") == self.device() else None
            return models.serverChoices(self.modelsFolder(), offer and offer["models"])
        return models.modelChoices(self.modelsFolder())

    def downloadModel(self, choice: models.ModelChoice) -> models.ModelTask:
        """Download a published model; the caller has shown size and licence and the user has agreed.

        Raises InputError: it is not in the catalogue.
        """
        if choice.entry is None:
            raise InputError(_("{name} cannot be downloaded.").format(name=choice.title))
        self._ensure(network=True)
        return models.ModelTask(
            ["fetch", choice.name, "--yes"], choice.name, self.modelsFolder(), choice.entry.about_bytes
        )

    def importModel(self, name: str, path: Path) -> models.ModelTask:
        """Install a model from a file; it is loaded strictly before it is installed."""
        self._ensure(network=True)
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
        """The device that the user has chosen on this computer, or the address of the server."""
        device = slicer.util.settingsValue(DEVICE_KEY, "auto") or "auto"
        if device != SERVER:
            return device
        address = slicer.util.settingsValue(SERVER_KEY, "").strip()
        return address if "://" in address else f"https://{address}"

    def server(self) -> str:
        """The address of the server that the network runs on; empty where that is this computer."""
        device = self.device()
        return device if "://" in device else ""

    def close(self) -> None:
        """End the worker process and remove its files; a later run starts another."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()

    def worker(self) -> Worker:
        """The worker process of this logic; it starts with its first job."""
        folder = self.modelsFolder()
        names = {consent.KEY_VARIABLE: SERVER_SECRET_KEY, consent.CERTIFICATE_VARIABLE: SERVER_CERTIFICATE_KEY}
        own = {variable: slicer.util.settingsValue(key, "").strip() for variable, key in names.items() if self.server()}
        if self._worker is not None and (folder, own) != self._made_for:
            self.close()
        if self._worker is None:
            command = (slicerPython(), "-m", "DualTrackCore.worker")
            self._worker = Worker(command, {**models.modelVariables(folder), **own})
            self._made_for = folder, own
        return self._worker


def _waited(run: Run) -> scenes.ResultNodes:
    """The results of a run, once it has ended."""
    if run.wait().failure is not None:
        raise run.failure
    return run.nodes


def withLessMemory(settings: RunSettings) -> RunSettings:
    """The same run with few frames at a time, on the processor or the server: for when the memory did not suffice."""
    return replace(settings, device=settings.server or "cpu", precision="auto", chunk_frames=4)
