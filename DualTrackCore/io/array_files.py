"""Arrays of analysis programs: NumPy (.npy) and NIfTI (.nii, .nii.gz); similar formats are refused with a remedy.

NIfTI-1 and -2 as in nifti1.h and nifti2.h of the NIfTI working group. Their headers are parsed here, as SimpleITK reads
whole files only, and gives black pixels for a truncated file.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.errors import InputError, reason_of
from DualTrackCore.grey import grey_frames
from DualTrackCore.io.calibration import choose_pixel_size
from DualTrackCore.io.metafile import SequenceFile, sweep_from_sequence
from DualTrackCore.io.pose_marks import FIELDS
from DualTrackCore.io.sequence_parts import GZIP, FrameFields, Payload, require_plausible_clip
from DualTrackCore.io.stack_axes import stack_axes
from DualTrackCore.path_error import TRUST
from DualTrackCore.pixels import Converted, FilePixels
from DualTrackCore.sweep import Sweep

if TYPE_CHECKING:
    from DualTrackCore.io.calibration_files import CalibrationSource

FORMAT = "NumPy or NIfTI array"

_NPY, _GZIP_HEAD, _ZIP = b"\x93NUMPY", b"\x1f\x8b", b"PK\3\4"

#: Known files that are not read: their first bytes, what they are, and what to do.
_REFUSED = {
    b"# vtk DataFile": ("a VTK file", "open it in Slicer and save it as .nrrd"),
    b"<VTKFile": ("a VTK file", "open it in Slicer and save it as .nrrd"),
    b"#Insight Transform File": ("a transform file of Slicer or ITK", "give it as a calibration"),
    b"<PlusConfiguration": ("a PLUS configuration", "give it as a calibration"),
    b"MATLAB 5.0 MAT-file": (
        "a MATLAB file of an older kind",
        "save it in MATLAB as save('clip.mat', 'images', '-v7.3'), where images is rows x columns x frames",
    ),
}

#: Fields of the header (offset and `struct` format), by the size of the header in bytes, which is its first number.
_NIFTI = {
    348: {"magic": (344, "4s"), "dim": (40, "8h"), "type": (70, "h"), "pixdim": (76, "8f"), "offset": (108, "f")}
    | {
        "units": (123, "b"),
        "note": (148, "80s"),
        "qform": (252, "h"),
        "sform": (254, "h"),
        "quatern": (256, "5f"),
        "srow": (280, "8f"),
    },
    540: {"magic": (4, "4s"), "dim": (16, "8q"), "type": (12, "h"), "pixdim": (104, "8d"), "offset": (168, "q")}
    | {
        "units": (500, "i"),
        "note": (240, "80s"),
        "qform": (344, "i"),
        "sform": (348, "i"),
        "quatern": (352, "5d"),
        "srow": (400, "8d"),
    },
}
_NIFTI_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 128: "u1", 256: "i1", 512: "u2", 768: "u4"}
_NIFTI_RGB = 128
#: Millimetres and seconds in the units of a header.
_LENGTH_UNITS, _TIME_UNITS = {1: 1000.0, 3: 0.001}, {8: 1.0, 16: 1e-3, 24: 1e-6}


def recognises(path: Path, head: bytes) -> bool:
    """Whether this is a NumPy or NIfTI file, or one that :func:`read` refuses with a remedy."""
    return head.startswith(_NPY) or _refused(head) is not None or _is_archive(head) or _nifti_start(head) is not None


def read(path: Path, *, calibration: CalibrationSource | None, spacing_mm: tuple[float, float] | None) -> Sweep:
    """The sweep of an array file; frames are read in windows if the file stores them one after the other.

    Raises InputError: damaged, no stack of pictures, or pictures of unknown orientation.
    """
    with path.open("rb") as stream:
        head = stream.read(4096)
    if (refused := _refused(head)) is not None:
        raise InputError(f"{path.name} is {refused[0]} and not read as a sweep; {refused[1]}.")
    if _is_archive(head):
        raise InputError(
            f"{path.name} is an archive of NumPy arrays; save the frames alone, in Python: "
            f"numpy.save('frames.npy', numpy.load('{path.name}')['NAME']) with the name of the array."
        )
    if head.startswith(_NPY):
        return _read_npy(path, calibration, spacing_mm)
    sweep = sweep_from_sequence(_nifti(path, head), calibration, spacing_mm)
    # The header gives the orientation for viewers, not that of the probe.
    return replace(sweep, provenance={**sweep.provenance, "orientation": None})


def _refused(head: bytes) -> tuple[str, str] | None:
    """The kind of a refused file, and what to do; None for others."""
    body = head.partition(b"?>")[2].lstrip() if head.startswith(b"<?xml") else head
    return next((refusal for start, refusal in _REFUSED.items() if body.startswith(start)), None)


def _is_archive(head: bytes) -> bool:
    return head.startswith(_ZIP) and head[30 : 30 + int.from_bytes(head[26:28], "little")].endswith(b".npy")


def _read_npy(path: Path, calibration: CalibrationSource | None, spacing_mm: tuple[float, float] | None) -> Sweep:
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except MemoryError:
        raise
    except Exception as error:  # the parser of the header raises many types
        raise InputError(
            f"{path.name} cannot be read as a NumPy array, it is cut short or holds no numbers ({reason_of(error)})."
        ) from None
    shape, dtype, offset, is_plain = mapped.shape, mapped.dtype, mapped.offset, mapped.flags.c_contiguous
    del mapped  # a memory map ends the program with a signal if the file becomes shorter meanwhile
    if dtype.kind not in "biuf":
        raise InputError(f"{path.name} holds {dtype}; frames must hold whole or real numbers.")
    axes, notes = stack_axes(shape, path.name)
    frames, rows, columns = (shape[len(shape) - 1 - axis] for axis in (axes.frames, axes.down, axes.across))
    require_plausible_clip(path, frames, rows, columns, dtype.itemsize)
    if is_plain and axes.frames == len(shape) - 1:
        pixels = Converted(FilePixels(path, offset, shape, dtype), axes.arranged)
    else:  # Fortran order, or frames that are not stored one after the other
        stored = np.asarray(FilePixels(path, offset, shape if is_plain else shape[::-1], dtype))
        pixels = axes.arranged(stored if is_plain else stored.T)
    grey, grey_notes = grey_frames(pixels, has_colour=axes.colour is not None)
    return choose_pixel_size(None, calibration, spacing_mm).sweep(grey, path, FORMAT, [*notes, *grey_notes])


def _nifti_start(head: bytes) -> tuple[bytes, str, int] | None:
    """The decompressed header, its byte order and its size; None for other files."""
    if head.startswith(_GZIP_HEAD):
        try:
            head = zlib.decompressobj(GZIP).decompress(head, 1024)
        except zlib.error:
            return None
    for order in "<>":
        for size, fields in _NIFTI.items():
            place, _ = fields["magic"]
            if head[:4] == struct.pack(f"{order}i", size) and head[place : place + 2] in (b"n+", b"ni"):
                return head, order, size
    return None


def _nifti(path: Path, head: bytes) -> SequenceFile:
    """The parsed header of a NIfTI file."""
    start, order, size = _nifti_start(head)
    try:
        fields = {name: struct.unpack_from(order + form, start, at) for name, (at, form) in _NIFTI[size].items()}
    except struct.error:
        raise InputError(f"{path.name} ends within its header; copy the file again.") from None
    if fields["magic"][0].startswith(b"ni"):
        raise InputError(f"{path.name} is one of a pair of files (.hdr and .img); save them as one .nii file.")
    (kind,), (offset,), (units,) = fields["type"], fields["offset"], fields["units"]
    if kind not in _NIFTI_TYPES:
        raise InputError(f"{path.name} has pixels of type {kind}; grey and RGB of 8 to 64 bits can be read.")
    dim, pixdim = fields["dim"], fields["pixdim"]
    if not 2 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1 or not size <= offset < 1 << 40:
        raise InputError(f"{path.name} has a damaged header; copy the file again.")
    entries = (*dim[1 : dim[0] + 1], *(1,) * 7)[:7]
    stack = [axis for axis in (2, 3, 4, 5, 6) if entries[axis] > 1]
    kinds = ["domain", "domain", *("list" for _ in stack)]
    sizes = [entries[axis] for axis in (0, 1, *stack)]
    unit = _LENGTH_UNITS.get(units & 7, 1.0)
    mm = [*(float(f"{abs(step) * unit:.7g}") for step in pixdim[1:3]), *(1.0 for _ in stack)]
    if len(stack) > 1 and stack[-1] == 4 and entries[4] in (3, 4):  # colour as ITK writes it
        kinds[-1] = "vector"
    if kind == _NIFTI_RGB:
        kinds, sizes, mm = ["vector", *kinds], [3, *sizes], [1.0, *mm]
    step_s = float(pixdim[4]) * _TIME_UNITS.get(units & 56, 0.0)
    return SequenceFile(
        path=path,
        format_name=FORMAT,
        sizes=tuple(sizes),
        kinds=tuple(kinds),
        dtype=np.dtype(order + _NIFTI_TYPES[kind]),
        payload=_nifti_payload(path, head, int(offset)),
        axis_spacing=tuple(mm),
        fields=FrameFields(),
        header={FIELDS[TRUST]: fields["note"][0].rstrip(b"\0").decode("utf-8", errors="replace")},
        orientation=_nifti_orientation(path, fields),
        index_times_s=np.arange(entries[3]) * step_s if stack[:1] == [3] and 0 < step_s < 1e3 else None,
    )


def _nifti_payload(path: Path, head: bytes, offset: int) -> Payload:
    if head.startswith(_GZIP_HEAD):
        return Payload(path, compression=GZIP, skipped=offset)
    return Payload(path, offset)


def _nifti_orientation(path: Path, fields: dict[str, tuple]) -> str:
    """The orientation code of pictures as viewers show them: patient left to the right, posterior at the bottom.

    Raises InputError: the affine is that of a plain array of Python, whose first axis may be the rows.
    """
    srow = np.array(fields["srow"]).reshape(2, 4)  # to the patient's right and front, in mm
    if fields["sform"][0] > 0 and np.isfinite(srow).all():
        to_right_front, is_said = srow[:, :2], (srow[:, :2] < 0).any() or srow[:, 3].any()
    else:
        b, c, d, *place = fields["quatern"]
        a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
        to_right_front = np.array(
            [[a * a + b * b - c * c - d * d, 2 * (b * c - a * d)], [2 * (b * c + a * d), a * a + c * c - b * b - d * d]]
        )
        is_said = fields["qform"][0] > 0 and (any(place) or (to_right_front < 0).any())
    if not is_said:
        raise InputError(
            f"{path.name} does not say how its pictures lie (its affine is that of a plain array), so they might be "
            "read on their side; save the frames in Python with numpy.save('frames.npy', frames), where frames is "
            "[frames, rows, columns]."
        )
    (right_i, right_j), (front_i, front_j) = to_right_front
    if abs(right_i) + abs(front_j) < abs(right_j) + abs(front_i):  # the first axis of the array goes down
        return ("N" if front_i > 0 else "F") + ("U" if right_j > 0 else "M")
    return ("U" if right_i > 0 else "M") + ("N" if front_j > 0 else "F")
