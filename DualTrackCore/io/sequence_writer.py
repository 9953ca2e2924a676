"""Writing sequence metafiles that this project, PLUS, SlicerIGSIO, Slicer and SimpleITK read.

Pixels are compressed window by window straight into the file, so a sweep is never held whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.files import replacing
from DualTrackCore.io.metafile import SIMULATED_FIELD, SIMULATED_VALUE, SKEW_FIELD, SPACING_FIELD
from DualTrackCore.io.sequence_parts import GZIP, ZLIB
from DualTrackCore.io.tracked_poses import header_marks
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

#: Frames compressed at a time.
_WINDOW_FRAMES = 16

#: Slower levels make ultrasound frames smaller by less than 1 % and take twice the time.
_COMPRESSION_LEVEL = 3

#: Field of the size that is known only after compression, and the digits that are kept free for it.
_SIZE_FIELD, _SIZE_DIGITS = "CompressedDataSize = ", 20


def write_metafile(sweep: Sweep, path: Path, trajectory: Trajectory | None, reporter: Reporter) -> None:
    """Write a MetaImage sequence metafile.

    Args:
        sweep: N frames; a recording of tracking alone is written with frames of 0 x 0 pixels.
        path: the file; it appears complete or not at all.
        trajectory: N poses, written as ImageToReference (pixel to mm) with statuses; None for none.
        reporter: told about every window of frames.

    Raises:
        InputError: poses of a sweep whose pixel spacing is unknown.
        OutputError: the file cannot be written.
    """
    world_from_pixel = None if trajectory is None else _world_from_pixel(sweep, trajectory)
    header = "\n".join([*_metafile_header(sweep), *_own_fields(sweep, trajectory, " = "), ""])
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(header.encode())
        _write_lines(stream, _frame_fields(sweep, trajectory, world_from_pixel, " = ", "ImageStatus"))
        _write_lines(stream, ["ElementDataFile = LOCAL"])
        if sweep.has_images:
            size = _write_compressed(sweep, stream, ZLIB, reporter)
            stream.seek(header.index(_SIZE_FIELD) + len(_SIZE_FIELD))
            stream.write(str(size).ljust(_SIZE_DIGITS).encode())


def write_nrrd(sweep: Sweep, path: Path, trajectory: Trajectory | None, reporter: Reporter) -> None:
    """Write an NRRD sequence metafile with the four axes (columns, rows, 1, frames) that Slicer asks for.

    Arguments and errors are those of :func:`write_metafile`; the format has no way to hold tracking without images.
    """
    if not sweep.has_images:
        raise InputError("NRRD cannot hold tracking without images; write an .igs.mha file.")
    world_from_pixel = None if trajectory is None else _world_from_pixel(sweep, trajectory)
    times = sweep.timestamps_s
    # Slicer rounds an index to 0.001 and lets a second frame with the same index replace the first.
    if times is not None and (np.diff(np.round(times, 3)) > 0).all():
        unit, index = "s", " ".join(map(_text, times))
    else:
        unit, index = "", " ".join(map(str, range(len(sweep))))
    with replacing(path) as temporary, temporary.open("wb") as stream:
        _write_lines(stream, _nrrd_header(sweep, unit) + _own_fields(sweep, trajectory, ":="))
        _write_lines(stream, _frame_fields(sweep, trajectory, world_from_pixel, ":=", "Status"))
        # Readers with a limited line length stop at a long line, so nothing that they need comes after it.
        _write_lines(stream, ["axis 3 index type:=numeric", f"axis 3 index values:={index}", ""])
        _write_compressed(sweep, stream, GZIP, reporter)


def _metafile_header(sweep: Sweep) -> list[str]:
    height, width = sweep.frame_size
    spacing = sweep.spacing_mm or (1.0, 1.0)
    size_line = [_SIZE_FIELD + " " * _SIZE_DIGITS] if sweep.has_images else []
    return [
        "ObjectType = Image",
        "NDims = 3",
        "AnatomicalOrientation = RAI",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CenterOfRotation = 0 0 0",
        f"CompressedData = {sweep.has_images}",
        *size_line,
        f"DimSize = {width} {height} {len(sweep)}",
        f"ElementSpacing = {_text(spacing[0])} {_text(spacing[1])} 1",
        "ElementType = MET_UCHAR",
        "Kinds = domain domain list",
        "Offset = 0 0 0",
        "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        "UltrasoundImageOrientation = MFA",
        "UltrasoundImageType = BRIGHTNESS",
    ]


def _nrrd_header(sweep: Sweep, unit: str) -> list[str]:
    height, width = sweep.frame_size
    across, down = map(_text, sweep.spacing_mm or (1.0, 1.0))
    return [
        "NRRD0004",
        "type: uint8",
        "dimension: 4",
        "space: left-posterior-superior",
        f"sizes: {width} {height} 1 {len(sweep)}",
        f"space directions: ({across},0,0) (0,{down},0) (0,0,1) none",
        "kinds: domain domain domain list",
        f'labels: "" "" "" "{"time" if unit else "frame"}"',
        f'units: "" "" "" "{unit}"',
        "endian: little",
        "encoding: gzip",
        "space origin: (0,0,0)",
        "ultrasound image orientation:=MFA",
        "ultrasound image type:=BRIGHTNESS",
        "DataNodeClassName:=vtkMRMLScalarVolumeNode",
    ]


def _own_fields(sweep: Sweep, trajectory: Trajectory | None, separator: str) -> list[str]:
    """What the formats have no field for: spacing (1 x 1 mm mean unknown), skew, simulated frames, origin of poses."""
    fields = header_marks(trajectory)
    if sweep.is_simulated:
        fields[SIMULATED_FIELD] = SIMULATED_VALUE
    if sweep.spacing_mm is not None:
        fields[SPACING_FIELD] = " ".join(map(_text, sweep.spacing_mm))
        fields[SKEW_FIELD] = _text(sweep.skew_deg)
    return [f"{name}{separator}{value}" for name, value in fields.items()]


def _frame_fields(
    sweep: Sweep, trajectory: Trajectory | None, world_from_pixel: np.ndarray | None, separator: str, status_name: str
) -> Iterator[str]:
    for frame, image_valid in enumerate(sweep.frame_valid):
        prefix = f"Seq_Frame{frame:04d}_"
        if world_from_pixel is not None:
            matrix = " ".join(map(_text, world_from_pixel[frame].ravel()))
            status = "OK" if trajectory.valid[frame] else "INVALID"
            yield f"{prefix}ImageToReferenceTransform{separator}{matrix}"
            yield f"{prefix}ImageToReferenceTransformStatus{separator}{status}"
        if sweep.timestamps_s is not None:
            yield f"{prefix}Timestamp{separator}{_text(sweep.timestamps_s[frame])}"
        yield f"{prefix}{status_name}{separator}{'OK' if image_valid else 'INVALID'}"


def _world_from_pixel(sweep: Sweep, trajectory: Trajectory) -> np.ndarray:
    """[N, 4, 4] pixel to reference, mm. Invalid poses repeat the one before them, as some readers ignore the status."""
    if sweep.spacing_mm is None:
        raise InputError(
            "Poses are written as maps from pixels to mm, and the pixel spacing of this sweep is unknown; "
            "load it with spacing_mm=... or calibration=..., or write the trajectory as .csv."
        )
    reference = np.eye(4) if trajectory.reference_from_frame0 is None else trajectory.reference_from_frame0
    good = np.flatnonzero(trajectory.valid)
    if len(good) == 0:
        return np.broadcast_to(sweep.image_from_pixel, (len(sweep), 4, 4))
    latest = good[np.maximum(np.searchsorted(good, np.arange(len(sweep)), side="right") - 1, 0)]
    return reference @ trajectory.poses[latest] @ sweep.image_from_pixel


def _write_compressed(sweep: Sweep, stream: BinaryIO, container: int, reporter: Reporter) -> int:
    """Append all frames as one compressed stream, and return its length in bytes."""
    engine = zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, container)
    size = 0
    for start, frames in sweep.windows(_WINDOW_FRAMES):
        reporter.report(Stage.WRITING, start, len(sweep))
        size += stream.write(engine.compress(np.ascontiguousarray(frames)))
    size += stream.write(engine.flush())
    reporter.report(Stage.WRITING, len(sweep), len(sweep))
    return size


def _write_lines(stream: BinaryIO, lines: Iterable[str]) -> None:
    stream.writelines(line.encode() + b"\n" for line in lines)


def _text(value: float) -> str:
    # Adding zero turns -0 into 0.
    return f"{value + 0.0:.17g}"
