"""Reads and writes sweeps of all formats, trajectories as tables, and calibrations.

The content decides the format on reading, the suffix on writing.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from dataclasses import replace
from importlib import import_module
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore import lazy_exports
from DualTrackCore.errors import DualTrackError, InputError, SweepWarning, named
from DualTrackCore.files import require_apart
from DualTrackCore.memory import naming_memory
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter
from DualTrackCore.staging import restore_interrupted
from DualTrackCore.sweep import Sweep, validated_spacing
from DualTrackCore.trajectory import Trajectory

if TYPE_CHECKING:
    from DualTrackCore.io.calibration import split_affine as split_affine
    from DualTrackCore.io.calibration_files import read_calibration as read_calibration
    from DualTrackCore.io.trajectory_csv import read_trajectory_csv as read_trajectory_csv
    from DualTrackCore.io.trajectory_csv import write_trajectory_csv as write_trajectory_csv

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "calibration": ["split_affine"],
        "calibration_files": ["read_calibration"],
        "trajectory_csv": ["read_trajectory_csv", "write_trajectory_csv"],
    },
)
__all__ += ["load_sweep", "save_sweep"]

#: Modules with `FORMAT`, `recognises` and `read`, in the order of the search.
_READERS = ("metafile", "nrrd", "hdf5", "dicom", "video", "image_stack", "array_files")

_HEAD_BYTES = 4096


def load_sweep(
    path: str | PathLike,
    *,
    calibration: str | PathLike | np.ndarray | None = None,
    spacing_mm: tuple[float, float] | float | None = None,
    probe: str | None = None,
    series: str | None = None,
) -> Sweep:
    """Load a sweep from a file or a folder; the content decides the format, not the name.

    Args:
        path: sequence metafile (MetaImage, NRRD), HDF5 (DualTrack, TUS-REC, MATLAB 7.3), DICOM, video, image,
            NumPy or NIfTI array, or folder of images or of DICOM.
        calibration: from pixels to the tracked probe: a PLUS configuration (XML), a transform file of Slicer or ITK
            (.tfm, .h5, .txt), a text file with a 4x4 matrix, a [4, 4] array (pixel to mm), or for TUS-REC its
            calib_matrix.csv.
        spacing_mm: pixel size (across columns, down rows) in mm, or one number for square pixels. Replaces that of the
            file; must agree with a calibration within 1 %.
        probe: name of the tracked device with the transducer in the recording; needed if the calibration has several
            devices, or another name.
        series: DICOM series in a folder or a DICOMDIR with several: its number in the list of the error, its UID, its
            description, or the name of its file.

    Returns:
        The sweep; frames are read lazily if the format allows. `provenance` holds the facts and conversions.

    Raises:
        InputError: nothing there, an unknown format, damaged content, contradicting sizes.
        OutOfMemoryError: too little memory for a frame.
        OutputError: no room for the temporary file of unpacked frames.
        MissingDependencyError: the format needs an optional package.

    Warns:
        SweepWarning: something about the frames is doubtful, such as a range of grey values that is not declared.
    """
    if not str(path):
        raise InputError("The name of the sweep is empty; give a file or a folder.")
    path = Path(path)
    files = [path]
    if isinstance(calibration, (str, PathLike)):
        calibration = _existing(Path(calibration), "calibration")
        files.append(calibration)
    elif calibration is not None:
        from DualTrackCore.io.calibration_files import read_calibration

        calibration = read_calibration(calibration)
    if probe is not None:
        from DualTrackCore.io.calibration_files import DeviceCalibration

        if calibration is None:
            raise InputError(f"The probe {probe} is named without a calibration of it; give the calibration too.")
        calibration = DeviceCalibration(calibration, probe)
    spacing_mm = validated_spacing(spacing_mm)
    with contextlib.suppress(OSError):  # a read-only folder
        restore_interrupted(path.parent)
    try:
        with naming_memory(f"Reading {path.name}"):
            reader = _reader(path)
            if series is not None and reader.FORMAT != "DICOM":
                raise InputError(f"{path.name} is not DICOM; leave out {named('series')}, which is for DICOM.")
            choice = {} if series is None else {"series": series}
            sweep = reader.read(path, calibration=calibration, spacing_mm=spacing_mm, **choice)
    except DualTrackError:
        raise
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from error
    for doubt in sweep.provenance.get("warnings", ()):
        warnings.warn(doubt, SweepWarning, stacklevel=2)
    return replace(sweep, files=(*map(os.path.abspath, files), *sweep.files))


def save_sweep(
    sweep: Sweep,
    path: str | PathLike,
    *,
    trajectory: Trajectory | None = None,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> None:
    """Save a sweep and its poses.

    The suffix decides the format: `.mha` (also `.igs.mha`, `.seq.mha`) and `.igs.nrrd` are sequence metafiles as of
    PLUS, any other `.nrrd` (`.seq.nrrd`) is an image sequence for Slicer, `.mrb` a scene in which Slicer moves the
    image (write only), `.h5` or `.hdf5` DualTrack HDF5. Docs/frames.md defines their frames of reference.

    Args:
        sweep: read in windows.
        path: the file; it appears complete or not at all.
        trajectory: poses to write; None: `sweep.tracked`.
        progress: called with a :class:`~DualTrackCore.progress.Progress` every few frames.
        cancelled: asked every few frames; true raises :class:`~DualTrackCore.errors.Cancelled`.

    Raises:
        InputError: an unknown suffix, poses without a pixel spacing, another number of poses than frames, or `path` is
            a file of the sweep itself.
        OutputError: the file cannot be written.
    """
    path, reporter = Path(path), Reporter(progress, cancelled)
    require_apart([path], sweep.files)
    trajectory = sweep.tracked if trajectory is None else trajectory
    if trajectory is not None and len(trajectory) != len(sweep):
        raise InputError(f"The sweep has {len(sweep)} frames and the trajectory {len(trajectory)}; they must be equal.")
    suffix = path.suffix.lower()
    if suffix in (".mha", ".nrrd"):
        writer = import_module("DualTrackCore.io.sequence_writer")
        (writer.write_metafile if suffix == ".mha" else writer.write_nrrd)(sweep, path, trajectory, reporter)
    elif suffix == ".mrb":
        import_module("DualTrackCore.io.slicer_bundle").write_bundle(sweep, path, trajectory, reporter)
    elif suffix in (".h5", ".hdf5"):
        import_module("DualTrackCore.io.hdf5").write(sweep, path, trajectory, reporter)
    else:
        raise InputError(f"{path.name} has no suffix that can be written: .igs.mha, .igs.nrrd, .seq.nrrd, .mrb or .h5.")


def _reader(path: Path) -> ModuleType:
    """The module that reads the file or folder at `path`."""
    head = b""
    if not _existing(path, "sweep").is_dir():
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        if not head:
            raise InputError(f"{path} is empty; copy or record it again.")
    formats = []
    for name in _READERS:
        module = import_module(f"DualTrackCore.io.{name}")
        if module.recognises(path, head):
            return module
        formats.append(module.FORMAT)
    if header := next(filter(Path.is_file, map(path.with_suffix, (".mhd", ".nhdr"))), None):
        raise InputError(f"{path} holds the pixels of {header.name}; open that file.")
    raise InputError(f"{path} is not in a supported format; supported: {'; '.join(formats)}.")


def _existing(path: Path, what: str) -> Path:
    try:
        exists = path.exists()
    except (OSError, ValueError):
        exists = False
    if not exists:
        raise InputError(f"There is no {what} at {path}; check the name.")
    return path
