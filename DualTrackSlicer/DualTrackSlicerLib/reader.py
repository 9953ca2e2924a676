"""Opening what Slicer cannot open itself: sweeps in HDF5, of DualTrack and of TUS-REC."""

from __future__ import annotations

import logging
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackSlicerLib.sweep_nodes import addSweep

#: Signature of HDF5, and where it may stand.
_SIGNATURE, _OFFSETS = b"\x89HDF\r\n\x1a\n", (0, 512, 1024, 2048)
_NEEDED = ("images", "frames")


class FileReader:
    """What Slicer asks of a scripted file reader."""

    def __init__(self, parent: object) -> None:
        self.parent = parent

    def description(self) -> str:
        """What is read, for the list of file types."""
        return _("Ultrasound sweep (DualTrack, TUS-REC)")

    def fileType(self) -> str:
        """Name of the kind of data."""
        return "DualTrackSweep"

    def extensions(self) -> list[str]:
        """Filters of the file dialogue."""
        return [_("Ultrasound sweep") + " (*.h5)", _("Ultrasound sweep") + " (*.hdf5)"]

    def canLoadFileConfidence(self, filePath: str) -> float:
        """How sure it is that this file is a sweep: 0 for no, above 0.5 before general readers."""
        if not self.parent.supportedNameFilters(filePath):
            return 0.0
        try:
            with open(filePath, "rb") as file:
                head = file.read(_OFFSETS[-1] + len(_SIGNATURE))
        except OSError:
            return 0.0
        if not any(head[offset:].startswith(_SIGNATURE) for offset in _OFFSETS):
            return 0.0
        return 0.9 if _holds_frames(filePath) else 0.2

    def load(self, properties: dict) -> bool:
        """Add the sweep to the scene as a sequence."""
        from DualTrackCore.io import load_sweep

        path = Path(properties["fileName"])
        name = slicer.mrmlScene.GenerateUniqueName(properties.get("name") or path.stem)
        try:
            browser = addSweep(slicer.mrmlScene, load_sweep(path), name)
        except (DualTrackError, ImportError) as error:
            message = str(error)
            if isinstance(error, ModuleNotFoundError):
                text = _("Opening {name} needs {package}; press Apply in the module DualTrack once, which installs it.")
                message = text.format(name=path.name, package=error.name)
            logging.error("%s", message)
            self.parent.userMessages().AddMessage(vtk.vtkCommand.ErrorEvent, message)
            return False
        self.parent.loadedNodes = [browser.GetMasterSequenceNode().GetID(), browser.GetID()]
        return True


def _holds_frames(path: str) -> bool:
    """Whether there are frames inside; true where h5py is not there to look."""
    try:
        import h5py
    except ImportError:
        return True
    try:
        with h5py.File(path, "r") as file:
            return any(name in file for name in _NEEDED)
    except OSError:
        return False
