"""Sweeps as sequences in the scene, and the sample of the module Sample Data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

from DualTrackCore import Sweep
from DualTrackCore.io.metafile import SIMULATED_FIELD, SIMULATED_VALUE
from DualTrackSlicerLib.scene.nodes import to_vtk

#: Image axes in RAS: x to the right, y (down the beam) to inferior, so that a frame stands upright in the coronal view.
RAS_FROM_IMAGE = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
#: Name of the tracking, as PLUS names it.
TRACKING_NAME = "ImageToReference"


def addSweep(scene: slicer.vtkMRMLScene, sweep: Sweep, name: str) -> slicer.vtkMRMLSequenceBrowserNode:
    """A sequence browser with the frames of a sweep and, where it is tracked, its poses as `ImageToReference`.

    Pixels of unknown size become 1 x 1 mm, Slicer's way of not knowing. The index of the sequences is the time in
    seconds, or the frame number where times are unknown.

    Raises:
        InputError: a recording of tracking alone.
    """
    sweep.require_images()
    index = _index(sweep)
    images = _sequence(scene, name, sweep)
    if sweep.is_simulated:
        images.SetAttribute(SIMULATED_FIELD, SIMULATED_VALUE)
    sized = sweep if sweep.spacing_mm is not None else replace(sweep, spacing_mm=1.0, skew_deg=0.0)
    empty = slicer.vtkMRMLScalarVolumeNode()
    empty.SetName(name)
    empty.SetIJKToRASMatrix(to_vtk(RAS_FROM_IMAGE @ sized.image_from_pixel))
    for start, frames in sweep.windows(32):
        for offset, frame in enumerate(frames):
            # An empty node is inserted and given its image afterwards: inserting copies what the node holds.
            stored = images.SetDataNodeAtValue(empty, index(start + offset))
            stored.SetAndObserveImageData(_image_data(frame))
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", name)
    browser.SetAndObserveMasterSequenceNodeID(images.GetID())
    if sweep.tracked is not None:
        tracking = _tracking_sequence(scene, sweep, index)
        browser.AddSynchronizedSequenceNodeID(tracking.GetID())
    if sweep.frame_rate_hz:
        browser.SetPlaybackRateFps(sweep.frame_rate_hz)
    return browser


def _index(sweep: Sweep) -> Callable[[int], str]:
    if sweep.timestamps_s is None:
        return str
    first = float(sweep.timestamps_s[0])
    return lambda number: f"{float(sweep.timestamps_s[number]) - first:.6f}"


def _sequence(scene: slicer.vtkMRMLScene, name: str, sweep: Sweep) -> slicer.vtkMRMLSequenceNode:
    node = scene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
    timed = sweep.timestamps_s is not None
    node.SetIndexName("time" if timed else "frame")
    node.SetIndexUnit("s" if timed else "")
    return node


def _image_data(frame: np.ndarray) -> vtk.vtkImageData:
    image = vtk.vtkImageData()
    image.SetDimensions(frame.shape[1], frame.shape[0], 1)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(frame).ravel(), deep=True))
    return image


def _tracking_sequence(
    scene: slicer.vtkMRMLScene, sweep: Sweep, index: Callable[[int], str]
) -> slicer.vtkMRMLSequenceNode:
    tracking = _sequence(scene, TRACKING_NAME, sweep)
    transform = slicer.vtkMRMLLinearTransformNode()
    transform.SetName(TRACKING_NAME)
    image_from_ras = np.linalg.inv(RAS_FROM_IMAGE)
    for number, (pose, valid) in enumerate(zip(sweep.tracked.poses, sweep.tracked.valid, strict=True)):
        if valid:
            transform.SetMatrixTransformToParent(to_vtk(RAS_FROM_IMAGE @ pose @ image_from_ras))
            tracking.SetDataNodeAtValue(transform, index(number))
    return tracking


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
        customDownloader=lambda source: [addSample()],
    )
