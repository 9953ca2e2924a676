"""Calibration files: PLUS configurations, ITK transform files, matrices as text.

A calibration is `device_from_pixel` [4, 4]: pixel (column, row, 0, 1) to mm on the tracked device that carries the
transducer. A PLUS configuration may hold several, with the names of their devices; other files hold one without a name.
"""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from DualTrackCore.errors import InputError, reason_of
from DualTrackCore.io.calibration import UNNAMED, several_devices, validated_calibration
from DualTrackCore.settings import short_list

#: Largest size of a calibration file; PLUS configurations have some kilobytes.
_MAX_BYTES = 16 * 1024 * 1024

_KINDS = "a PLUS configuration (XML), an ITK transform file (.tfm, .h5, .txt) or a text file with a 4x4 matrix"

#: Image axes of ITK files (LPS) from those of Slicer and PLUS (RAS), and the other way round.
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


class DeviceCalibration(NamedTuple):
    """A calibration together with the name of the tracked device that carries the transducer.

    Attributes:
        source: as for :func:`read_calibration`.
        probe: name of the device in the recording and in a PLUS configuration.
    """

    source: str | PathLike | np.ndarray
    probe: str


CalibrationSource = str | PathLike | np.ndarray | DeviceCalibration


def read_calibration(source: CalibrationSource, probe: str | None = None) -> np.ndarray:
    """The one calibration of a file or an array.

    Files: a PLUS configuration (XML with a `Transform From="Image" To="Probe"` at any depth, with any name of the
    device), a transform file of ITK or Slicer (.tfm, .h5, .txt), or a text file with the 16 numbers of the matrix row
    by row, separated by blanks or commas, with `#` comments; brackets and `;` are ignored.

    Args:
        source: path, [4, 4] array, or either with the name of a device.
        probe: name of the device, if a configuration holds calibrations of several.

    Returns:
        [4, 4] float64 device_from_pixel, pixel (column, row, 0, 1) to mm.

    Raises InputError: the file cannot be read, holds no calibration or several, or the matrix cannot be one.
    """
    if isinstance(source, DeviceCalibration):
        source, probe = source
    devices = read_devices(source if probe is None else DeviceCalibration(source, probe))
    first, *others = devices.values()
    if any(not np.array_equal(first, other) for other in others):
        raise several_devices(calibration_name(source), list(devices))
    return first


def read_devices(source: CalibrationSource) -> dict[str, np.ndarray]:
    """All calibrations of a file or an array, by the name of their device (:data:`UNNAMED` if it has none).

    Raises InputError: as for :func:`read_calibration`.
    """
    if isinstance(source, DeviceCalibration):
        source, probe = source
        devices = read_devices(source)
        if probe not in devices and len(devices) > 1:
            raise several_devices(calibration_name(source), list(devices))
        return {probe: devices.get(probe, next(iter(devices.values())))}
    if not isinstance(source, (str, PathLike)):
        try:
            matrix = np.array(source, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError("The calibration is neither a path nor a 4x4 array of numbers.") from None
        return {UNNAMED: validated_calibration(matrix, "The given array")}
    path = Path(source)
    head = _head(path)
    if head.startswith(b"\x89HDF"):
        _require_sound_hdf5(path)
    if head.startswith(b"\x89HDF") or head.lstrip().startswith(b"#Insight Transform File"):
        return {UNNAMED: validated_calibration(_matrix_from_itk(path), str(path))}
    text = calibration_text(path)
    if text.lstrip().startswith("<"):
        return _devices_from_xml(text, path)
    without_comments = " ".join(line.split("#", 1)[0] for line in text.splitlines())
    return {UNNAMED: validated_calibration(_numbers(without_comments, path), str(path))}


def calibration_name(calibration: CalibrationSource) -> str:
    """The name of a calibration in the provenance."""
    if isinstance(calibration, DeviceCalibration):
        return f"{calibration_name(calibration.source)} ({calibration.probe})"
    return Path(calibration).name if isinstance(calibration, (str, PathLike)) else "a given matrix"


def calibration_text(path: Path) -> str:
    """The text of a calibration file. Raises InputError: it cannot be read, or is not text."""
    try:
        _head(path)
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"Cannot read the calibration {path}: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is no calibration that can be read; give {_KINDS}.") from None


def _head(path: Path) -> bytes:
    """The first bytes of a file. Raises InputError: it cannot be read, or is too large for a calibration."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} has more than {_MAX_BYTES >> 20} MiB and cannot be a calibration.")
        with path.open("rb") as stream:
            return stream.read(64)
    except OSError as error:
        raise InputError(f"Cannot read the calibration {path}: {error.strerror or error}.") from None


def _require_sound_hdf5(path: Path) -> None:
    """Read every value once with h5py, which reports damage in one sentence; ITK would print pages."""
    from h5py import Dataset

    from DualTrackCore.io.hdf5_frames import opened

    def read(name: str, item: object) -> None:
        if isinstance(item, Dataset):
            if item.size is None or item.size > _MAX_BYTES or item.is_virtual or item.external:
                raise InputError(f"{path} is no transform file of Slicer or ITK; give {_KINDS}.")
            item[()]

    with opened(path) as file:
        file.visititems(read)


def _matrix_from_itk(path: Path) -> np.ndarray:
    """The map from pixels of an ITK transform file, in RAS numbers, as in Slicer and PLUS.

    Points in these files are LPS. Slicer writes the inverse of the map, for the resampling of images; other programs
    write the map itself. The direction with the smaller pixels is taken: ultrasound pixels are far below 1 mm, and far
    above in the other direction.
    """
    import SimpleITK as sitk

    try:
        transform = sitk.ReadTransform(str(path))
        if transform.GetDimension() != 3 or not transform.IsLinear():
            raise InputError(f"{path} holds a transform that is no 4x4 matrix; save the calibration as a linear one.")
        origin, *ends = (np.array(transform.TransformPoint(point)) for point in np.eye(4, 3, -1))
    except (RuntimeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as an ITK transform file; give {_KINDS}.") from error
    matrix = np.eye(4)
    matrix[:3] = np.column_stack([*(end - origin for end in ends), origin])
    matrix = _FLIP @ matrix @ _FLIP
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise InputError(f"{path} holds a transform without an inverse, which is no calibration.")
    return min(np.linalg.inv(matrix), matrix, key=lambda m: float(np.linalg.norm(m[:3, :2])))


def _devices_from_xml(text: str, path: Path) -> dict[str, np.ndarray]:
    """Calibrations by device: transforms from Image, or without it from another image."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{path} declares a document type, which no PLUS configuration does; it is not read.")
    try:
        transforms = list(ElementTree.fromstring(text).iter("Transform"))
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(
            f"{path} is not well-formed XML ({reason_of(error)}); choose the PLUS configuration again."
        ) from None
    named = [(t.get("From") or "", t.get("To") or "", t.get("Matrix") or "") for t in transforms]
    images = {a for a, _, _ in named if re.search("image|video", a, re.IGNORECASE)}
    images = sorted(images, key=lambda image: (image != "Image", image))
    if not images:
        names = sorted({f"{a} to {b}" for a, b, _ in named}) or ["no transform"]
        raise InputError(f"{path} holds no transform from Image to a probe (found: {short_list(names)}).")
    if images[0] != "Image" and len(images) > 1:
        raise InputError(f"{path} holds calibrations of {' and '.join(images[:4])}; call the right one Image.")
    devices: dict[str, np.ndarray] = {}
    for image, device, numbers in named:
        # TransducerOriginPixel of PLUS is a place in the picture, no tracked device.
        if image != images[0] or device == "TransducerOriginPixel":
            continue
        matrix = _numbers(numbers, path)
        if not np.array_equal(devices.setdefault(device, matrix), matrix):
            raise InputError(f"{path} holds different transforms from {image} to {device}; keep one.")
    if not devices:
        raise InputError(f"{path} holds no transform from {images[0]} to a probe (found: {images[0]} to {device}).")
    return {device: validated_calibration(matrix, str(path)) for device, matrix in devices.items()}


def _numbers(text: str, path: Path) -> np.ndarray:
    words = re.sub(r"[\[\](),;]", " ", text).split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise InputError(
            f"The calibration in {path} holds words that are not numbers; expected a 4x4 matrix."
        ) from None
    if len(values) != 16:
        raise InputError(f"The calibration in {path} has {len(values)} numbers; a 4x4 matrix has 16, row by row.")
    return np.array(values).reshape(4, 4)
