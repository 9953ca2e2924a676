"""Sweeps as sequences in the scene: from memory, from files that Slicer cannot open itself, and the sample."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _

from DualTrackCore import Sweep
from DualTrackCore.errors import DualTrackError
from DualTrackCore.files import file_sha256
from DualTrackCore.io.metafile import SIMULATED_FIELD, SIMULATED_VALUE
from DualTrackCore.io.sequence_parts import SCANNER_FIELDS, scanner_facts
from DualTrackCore.trajectory import RAS_FROM_LPS
from DualTrackSlicerLib.scene.display import fitSliceViews
from DualTrackSlicerLib.scene.nodes import set_pose_origin, to_vtk

#: Name of the tracking, as PLUS would name it: it moves the image from where its node lies, in mm.
TRACKING_NAME = "PlacedImageToReference"
SAMPLE_NAME = "DualTrackSample"
#: Signature of HDF5, and where it may stand.
_SIGNATURE, _OFFSETS = b"\x89HDF\r\n\x1a\n", (0, 512, 1024, 2048)


def addSweep(scene: slicer.vtkMRMLScene, sweep: Sweep, name: str) -> slicer.vtkMRMLSequenceBrowserNode:
    """A sequence browser with the frames of a sweep and its poses, if it has any, as `PlacedImageToReference`.

    The image stands upright in Slicer's axial view, its centre at the origin: the image frame, read as LPS. The
    sequence of poses says where they are from. Pixels of unknown size become 1 x 1 mm, Slicer's way of not knowing.
    The index of the sequences is the time in seconds, or the frame number where times are unknown.

    Raises InputError: a recording of tracking alone.
    """
    sweep.require_images()
    index = _index(sweep)
    images = _sequence(scene, name, sweep)
    if sweep.is_simulated:
        images.SetAttribute(SIMULATED_FIELD, SIMULATED_VALUE)
    for fact, value in scanner_facts(sweep.provenance.get("scanner") or {}).get("scanner", {}).items():
        images.SetAttribute(SCANNER_FIELDS[fact], str(value))
    sized = sweep if sweep.spacing_mm is not None else replace(sweep, spacing_mm=1.0, skew_deg=0.0)
    empty = slicer.vtkMRMLScalarVolumeNode()
    empty.SetName(name)
    empty.SetIJKToRASMatrix(to_vtk(RAS_FROM_LPS @ sized.image_from_pixel))
    for start, frames in sweep.windows(32):
        for offset, frame in enumerate(frames):
            # An empty node is inserted and given its image afterwards: inserting copies what the node holds.
            stored = images.SetDataNodeAtValue(empty, index(start + offset))
            slicer.util.updateVolumeFromArray(stored, frame[None])
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


def _tracking_sequence(
    scene: slicer.vtkMRMLScene, sweep: Sweep, index: Callable[[int], str]
) -> slicer.vtkMRMLSequenceNode:
    tracking = _sequence(scene, TRACKING_NAME, sweep)
    set_pose_origin(tracking, sweep.tracked)
    transform = slicer.vtkMRMLLinearTransformNode()
    transform.SetName(TRACKING_NAME)
    for number, (pose, valid) in enumerate(zip(sweep.tracked.poses, sweep.tracked.valid, strict=True)):
        if valid:
            transform.SetMatrixTransformToParent(to_vtk(RAS_FROM_LPS @ pose @ RAS_FROM_LPS))
            tracking.SetDataNodeAtValue(transform, index(number))
    return tracking


#: Name of the kind of data, by which Slicer finds the reader.
FILE_TYPE = "DualTrackSweep"
#: How sure the reader is of files by the end of their names. Slicer's own readers are sure by 0.5, and by 0.01 more for
#: each character of that end, its reader of DICOM by 0.6: they come first where they read the frames themselves, and
#: ours is offered behind them.
_BEHIND = 0.3
#: A sequence with its tracking, of which Slicer's reader of volumes (.mha, .nrrd: up to 0.55) makes one block without
#: it. SlicerIGSIO, which is made for these, comes first (0.58 and more).
_TRACKED = 0.56
#: Nobody else reads them.
_OWN = 0.7
_VIDEO = (
    *("mp4", "m4v", "mov", "3gp", "avi", "mkv", "webm", "wmv", "asf", "flv", "mpg", "mpeg", "ts", "m2ts", "mts", "mxf"),
    *("dv", "ogv", "nut", "ivf", "wtv", "rm", "y4m", "gif", "apng", "h264", "264", "h265", "hevc", "265", "obu", "m2v"),
    *("mjpeg", "mjpg"),
)
FORMATS = {
    "Ultrasound sweep": dict.fromkeys(("h5", "hdf5", "mat"), 0.9),
    "Tracked ultrasound": dict.fromkeys(("igs.mha", "igs.mhd", "igs.nrrd", "igs.nhdr"), _TRACKED),
    "Ultrasound clip": dict.fromkeys((*_VIDEO, "npy"), _OWN),
    "Ultrasound frames": dict.fromkeys(
        ("mha", "mhd", "nrrd", "nhdr", "nii", "nii.gz", "dcm", "png", "jpg", "jpeg", "bmp", "tif", "tiff"), _BEHIND
    ),
}


class FileReader:
    """What Slicer asks of a scripted file reader: it opens every file that holds a sweep, by drag and drop too."""

    def __init__(self, parent: object) -> None:
        self.parent = parent

    def description(self) -> str:
        """What is read, for the list of file types."""
        return _("Ultrasound sweep (DualTrack)")

    def fileType(self) -> str:
        """Name of the kind of data."""
        return FILE_TYPE

    def extensions(self) -> list[str]:
        """Filters of the file dialogue."""
        names = (_("Ultrasound sweep"), _("Tracked ultrasound"), _("Ultrasound clip"), _("Ultrasound frames"))
        return [
            f"{name} ({' '.join(f'*.{ending}' for ending in endings)})"
            for name, endings in zip(names, FORMATS.values(), strict=True)
        ]

    def canLoadFileConfidence(self, filePath: str) -> float:
        """How sure it is that this file is a sweep: 0 for no; the longest end of the name decides (:data:`FORMATS`)."""
        if not self.parent.supportedNameFilters(filePath):
            return 0.0
        name = filePath.lower()
        ends = {end: sure for group in FORMATS.values() for end, sure in group.items() if name.endswith(f".{end}")}
        found = max(ends, key=len, default=None)
        if found not in FORMATS["Ultrasound sweep"]:
            return ends.get(found, 0.0)
        try:
            with open(filePath, "rb") as file:
                head = file.read(_OFFSETS[-1] + len(_SIGNATURE))
        except OSError:
            return 0.0
        if not any(head[offset:].startswith(_SIGNATURE) for offset in _OFFSETS):
            return 0.0
        return ends[found] if _holds_frames(filePath) else 0.2

    def load(self, properties: dict) -> bool:
        """Add the sweep to the scene as a sequence, and show it."""
        from DualTrackCore.io import load_sweep

        path = Path(properties["fileName"])
        name = properties.get("name") or path.stem
        try:
            browser = addSweep(slicer.mrmlScene, load_sweep(path), slicer.mrmlScene.GenerateUniqueName(name))
        except (DualTrackError, ImportError) as error:
            message = str(error)
            if isinstance(error, ModuleNotFoundError):
                text = _("Opening {name} needs {package}; press Apply in the module DualTrack once, which installs it.")
                message = text.format(name=path.name, package=error.name)
            logging.error("%s", message)
            self.parent.userMessages().AddMessage(vtk.vtkCommand.ErrorEvent, message)
            return False
        _show(browser)
        self.parent.loadedNodes = [browser.GetMasterSequenceNode().GetID(), browser.GetID()]
        return True


def _show(browser: slicer.vtkMRMLSequenceBrowserNode) -> None:
    fitSliceViews(browser.GetProxyNode(browser.GetMasterSequenceNode()), slicer.app.applicationLogic())


def _holds_frames(path: str) -> bool:
    """Whether there are frames inside; true where h5py is not there to look."""
    try:
        import h5py
    except ImportError:
        return True
    try:
        with h5py.File(path, "r") as file:
            return "images" in file or "frames" in file
    except OSError:
        return False


def addSample(scene: slicer.vtkMRMLScene | None = None) -> slicer.vtkMRMLSequenceBrowserNode:
    """The sample in the scene, shown in the slice views; the one that is there already, if it is.

    Raises InputError: this installation lacks the file.
    """
    from DualTrackCore.sample import sample_sweep

    scene = scene or slicer.mrmlScene
    existing = scene.GetFirstNode(SAMPLE_NAME, "vtkMRMLSequenceBrowserNode")
    browser = existing or addSweep(scene, sample_sweep(), SAMPLE_NAME)
    _show(browser)
    return browser


def registerSample(thumbnail: Path) -> None:
    """List the sample in the module Sample Data.

    Its button puts the clip into the scene without a copy; `SampleData.downloadSample` copies the file that ships, and
    opens it by the reader of its kind of data. Neither needs a network.
    """
    import SampleData

    from DualTrackCore.sample import sample_path

    path = sample_path()
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=_("Ultrasound"),
        sampleName=SAMPLE_NAME,
        thumbnailFileName=str(thumbnail),
        uris=path.as_uri(),
        fileNames=path.name,
        checksums=f"SHA256:{file_sha256(path)}" if path.is_file() else None,
        nodeNames=SAMPLE_NAME,
        loadFileType=FILE_TYPE,
        customDownloader=lambda source: [addSample()],
    )
