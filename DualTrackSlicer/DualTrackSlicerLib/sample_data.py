"""The sample clip: a small simulated sweep that comes with DualTrack."""

from __future__ import annotations

import hashlib
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from DualTrackSlicerLib.sweep_nodes import addSweep

SAMPLE_NAME = "DualTrackSample"


def addSample(scene: slicer.vtkMRMLScene | None = None) -> slicer.vtkMRMLSequenceBrowserNode:
    """The sample in the scene; the one that is there already, if it is.

    Raises:
        InputError: this installation lacks the file.
    """
    from DualTrackCore.sample import sample_sweep

    scene = scene or slicer.mrmlScene
    existing = scene.GetFirstNode(SAMPLE_NAME, "vtkMRMLSequenceBrowserNode")
    return existing or addSweep(scene, sample_sweep(), SAMPLE_NAME)


def registerSample(thumbnail: Path) -> None:
    """List the sample in the module Sample Data."""
    import SampleData

    from DualTrackCore.sample import sample_path

    path = sample_path()
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=_("Ultrasound"),
        sampleName=SAMPLE_NAME,
        thumbnailFileName=str(thumbnail),
        uris=path.as_uri(),
        fileNames=path.name,
        checksums=f"SHA256:{digest}" if digest else None,
        nodeNames=SAMPLE_NAME,
        loadFileType="SequenceFile",
        customDownloader=_download,
    )


def _download(source: object) -> list[slicer.vtkMRMLNode]:
    """What the module Sample Data calls instead of a download."""
    return [addSample()]
