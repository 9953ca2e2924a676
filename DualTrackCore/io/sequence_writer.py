"""Writes sequence metafiles that this project, PLUS, SlicerIGSIO, Slicer and SimpleITK read.

Pixels are compressed window by window into the file, so a sweep need not fit into memory.

Slicer places an image node by its header, in RAS, and then applies the parent transforms; PLUS uses transforms of the
image as maps from pixels. So there are two kinds of file (Docs/frames.md):

- .mha and .igs.nrrd, as of PLUS: the header places pixel (u, v) at (u, v) mm, and ImageToReference maps pixels to mm.
  Without poses only :data:`~DualTrackCore.io.metafile.SPACING_FIELD` states the pixel size.
- any other .nrrd, for Slicer itself: the header places the image in mm, upright, its centre at the origin, and the
  rigid PlacedImageToReference moves it from there.

Transforms are RAS numbers, in the tracker's reference if there is one, else in frame0.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from DualTrackCore.errors import InputError, named
from DualTrackCore.files import replacing
from DualTrackCore.io.metafile import (
    FORMAT_VERSION,
    SIMULATED_FIELD,
    SIMULATED_VALUE,
    SKEW_FIELD,
    SPACING_FIELD,
    VERSION_FIELD,
)
from DualTrackCore.io.pose_marks import AXES, AXES_FIELD, COVARIANCE_FIELD, SIGMA_FIELD, header_marks
from DualTrackCore.io.sequence_parts import GZIP, SCANNER_FIELDS, ZLIB, scanner_facts
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import RAS_FROM_LPS, Trajectory

#: Frames compressed at a time.
_WINDOW_FRAMES = 16

#: Higher levels save less than 1 % on ultrasound frames and take twice the time.
_COMPRESSION_LEVEL = 3

#: Field of the compressed size, and the number of digits reserved for it until it is known.
_SIZE_FIELD, _SIZE_DIGITS = "CompressedDataSize = ", 20


def write_metafile(sweep: Sweep, path: Path, trajectory: Trajectory | None, reporter: Reporter) -> None:
    """Write a MetaImage sequence metafile.

    Args:
        sweep: N frames; a recording of tracking alone is written with frames of 0 x 0 pixels.
        path: the file; it appears complete or not at all.
        trajectory: N poses, written as ImageToReference (pixel to mm) with statuses; or None.
        reporter: receives `Stage.WRITING` (frames).

    Raises:
        InputError: poses of a sweep whose pixel spacing is unknown.
        OutputError: the file cannot be written.
    """
    transforms = _transforms(sweep, trajectory, from_pixels=True)
    header = "\n".join([*_metafile_header(sweep), *_own_fields(sweep, trajectory, " = "), ""])
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(header.encode())
        _write_lines(stream, _frame_fields(sweep, trajectory, transforms, " = ", "ImageStatus"))
        _write_lines(stream, ["ElementDataFile = LOCAL"])
        if sweep.has_images:
            size = _write_compressed(sweep, stream, ZLIB, reporter)
            stream.seek(header.index(_SIZE_FIELD) + len(_SIZE_FIELD))
            stream.write(str(size).ljust(_SIZE_DIGITS).encode())


def write_nrrd(sweep: Sweep, path: Path, trajectory: Trajectory | None, reporter: Reporter) -> None:
    """Write an NRRD sequence metafile with the four axes (columns, rows, 1, frames) that Slicer needs.

    Arguments and errors as for :func:`write_metafile`; also raises InputError for tracking without images. The suffix
    .igs.nrrd is for PLUS, any other one for Slicer.
    """
    if not sweep.has_images:
        raise InputError("NRRD cannot hold tracking without images; write an .igs.mha file.")
    from_pixels = path.name.lower().endswith(".igs.nrrd")
    transforms = _transforms(sweep, trajectory, from_pixels)
    unit, values = frame_index(sweep)
    index = " ".join(f"{value:.15g}" for value in values)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        _write_lines(stream, _nrrd_header(sweep, unit, from_pixels) + _own_fields(sweep, trajectory, ":="))
        _write_lines(stream, _frame_fields(sweep, trajectory, transforms, ":=", "Status"))
        # Some readers stop at a long line, so it is the last one.
        _write_lines(stream, ["axis 3 index type:=numeric", f"axis 3 index values:={index}", ""])
        _write_compressed(sweep, stream, GZIP, reporter)


def write_transforms(sweep: Sweep, path: Path, trajectory: Trajectory) -> None:
    """Write only the poses, as a MetaImage of 0 x 0 pixels, which Slicer reads as a sequence of transforms.

    Transforms and index are those of :func:`write_nrrd` for Slicer, so that both files play together.
    """
    bare = replace(sweep, frames=np.zeros((len(sweep), 0, 0), np.uint8), timestamps_s=frame_index(sweep)[1])
    fields = _frame_fields(bare, trajectory, _transforms(sweep, trajectory, from_pixels=False), " = ", "ImageStatus")
    with replacing(path) as temporary, temporary.open("wb") as stream:
        _write_lines(stream, [*_metafile_header(bare), *_own_fields(sweep, trajectory, " = "), *fields])
        _write_lines(stream, ["ElementDataFile = LOCAL"])


def frame_index(sweep: Sweep) -> tuple[str, np.ndarray]:
    """Unit and values [N] of the index of the frames in Slicer: times in s, or frame numbers without a unit.

    Frame numbers are used if two times are too close: Slicer rounds times to 0.001 and merges equal ones.
    """
    times = sweep.timestamps_s
    if times is not None and (np.diff(np.round(times, 3)) > 0.0015).all():
        return "s", times
    return "", np.arange(len(sweep), dtype=np.float64)


def _metafile_header(sweep: Sweep) -> list[str]:
    height, width = sweep.frame_size
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
        "ElementSpacing = 1 1 1",
        "ElementType = MET_UCHAR",
        "Kinds = domain domain list",
        "Offset = 0 0 0",
        "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        "UltrasoundImageOrientation = MFA",
        "UltrasoundImageType = BRIGHTNESS",
    ]


def _nrrd_header(sweep: Sweep, unit: str, from_pixels: bool) -> list[str]:
    height, width = sweep.frame_size
    placed = np.eye(4) if from_pixels or sweep.spacing_mm is None else sweep.image_from_pixel
    *directions, origin = (f"({','.join(map(_text, column))})" for column in placed[:3].T)
    return [
        "NRRD0004",
        "type: uint8",
        "dimension: 4",
        f"space: {'right-anterior-superior' if from_pixels else 'left-posterior-superior'}",
        f"sizes: {width} {height} 1 {len(sweep)}",
        f"space directions: {' '.join(directions)} none",
        "kinds: domain domain domain list",
        f'labels: "" "" "" "{"time" if unit else "frame"}"',
        f'units: "" "" "" "{unit}"',
        "endian: little",
        "encoding: gzip",
        f"space origin: {origin}",
        "ultrasound image orientation:=MFA",
        "ultrasound image type:=BRIGHTNESS",
        "DataNodeClassName:=vtkMRMLScalarVolumeNode",
    ]


def _own_fields(sweep: Sweep, trajectory: Trajectory | None, separator: str) -> list[str]:
    """This project's header fields: version, spacing, skew, simulated frames, origin of poses."""
    fields = {VERSION_FIELD: str(FORMAT_VERSION), **header_marks(trajectory)}
    scanner = scanner_facts(sweep.provenance.get("scanner") or {}).get("scanner", {})
    fields |= {SCANNER_FIELDS[name]: str(value) for name, value in scanner.items()}
    if sweep.is_simulated:
        fields[SIMULATED_FIELD] = SIMULATED_VALUE
    if trajectory is not None:
        fields[AXES_FIELD] = AXES["frame0" if trajectory.reference_from_frame0 is None else "reference"]
    if sweep.spacing_mm is not None:
        fields[SPACING_FIELD] = " ".join(map(_text, sweep.spacing_mm))
        fields[SKEW_FIELD] = _text(sweep.skew_deg)
    return [f"{name}{separator}{value}" for name, value in fields.items()]


def _frame_fields(
    sweep: Sweep, trajectory: Trajectory | None, transforms: tuple[str, np.ndarray], separator: str, status_name: str
) -> Iterator[str]:
    name, matrices = transforms
    for frame, image_valid in enumerate(sweep.frame_valid):
        prefix = f"Seq_Frame{frame:04d}_"
        if trajectory is not None:
            matrix = " ".join(map(_text, matrices[frame].ravel()))
            status = "OK" if trajectory.valid[frame] else "INVALID"
            yield f"{prefix}{name}Transform{separator}{matrix}"
            yield f"{prefix}{name}TransformStatus{separator}{status}"
            if trajectory.sigma is not None and frame:
                yield f"{prefix}{SIGMA_FIELD}{separator}{' '.join(map(_text, trajectory.sigma[frame - 1]))}"
            if trajectory.path_covariance is not None:
                yield f"{prefix}{COVARIANCE_FIELD}{separator}{' '.join(map(_text, trajectory.path_covariance[frame]))}"
        if sweep.timestamps_s is not None:
            yield f"{prefix}Timestamp{separator}{_text(sweep.timestamps_s[frame])}"
        yield f"{prefix}{status_name}{separator}{'OK' if image_valid else 'INVALID'}"


def _transforms(sweep: Sweep, trajectory: Trajectory | None, from_pixels: bool) -> tuple[str, np.ndarray]:
    """Name and matrices [N, 4, 4] of the transforms of a file, mm, RAS; no matrices without poses."""
    name = "ImageToReference" if from_pixels else "PlacedImageToReference"
    if trajectory is None:
        return name, np.empty((0, 4, 4))
    if sweep.spacing_mm is None:
        raise InputError(
            "Poses are written as maps to mm, and the pixel spacing of this sweep is unknown; "
            f"load it with {named('spacing_mm')} or {named('calibration')}, or write the trajectory as .csv."
        )
    return name, _ras_from_image(trajectory) @ sweep.image_from_pixel if from_pixels else placed_transforms(trajectory)


def placed_transforms(trajectory: Trajectory) -> np.ndarray:
    """[N, 4, 4] rigid, RAS, mm: PlacedImageToReference, from the place of the image in files for Slicer to its pose."""
    return _ras_from_image(trajectory) @ RAS_FROM_LPS


def _ras_from_image(trajectory: Trajectory) -> np.ndarray:
    """[N, 4, 4]: image (centre, mm) to the world of `trajectory.ras_from_frame0`.

    An invalid pose is replaced by the valid one before it, or at the begin after it, as some readers ignore the status.
    """
    good = np.flatnonzero(trajectory.valid)
    if len(good) == 0:
        return np.broadcast_to(trajectory.ras_from_frame0, (len(trajectory), 4, 4))
    latest = good[np.maximum(np.searchsorted(good, np.arange(len(trajectory)), side="right") - 1, 0)]
    return trajectory.ras_from_frame0 @ trajectory.poses[latest]


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
