"""Sweeps of the TUS-REC challenges: frames and tool poses in HDF5, calibration in a CSV file.

A frame maps to the tracker's camera by `tforms[i] @ tool_from_mm`, where `tool_from_mm` is rigid, from millimetres with
the origin at the centre of the top-left pixel; two scale factors map pixels to these. The CSV file has a header line,
the four rows of the scaling, a header line, and the four rows of `tool_from_mm`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.io.calibration import (
    PixelSize,
    choose_pixel_size,
    require_agreement,
    split_affine,
)
from DualTrackCore.io.calibration_files import (
    CalibrationSource,
    DeviceCalibration,
    calibration_name,
    calibration_text,
    read_calibration,
)
from DualTrackCore.io.hdf5_frames import Hdf5Frames, opened, read_table
from DualTrackCore.io.tracked_poses import rigid, trajectory_from_tracker
from DualTrackCore.sweep import Sweep, validated_spacing

FORMAT = "TUS-REC HDF5"
CALIBRATION_NAME = "calib_matrix.csv"
#: Levels above the folder of a sweep that are searched for the calibration.
_FOLDERS_ABOVE = 3


def read_tus_rec(path: Path, *, calibration: CalibrationSource | None, spacing_mm: tuple[float, float] | None) -> Sweep:
    """The sweep of a file with `frames`, its poses in the same file or in the sibling under `transfs`.

    The calibration is `calibration` (the CSV file, or another file of :func:`read_calibration`, from pixels to the
    tool), else `calib_matrix.csv` beside the sweep or up to three levels above. Without one, the pose of the image is
    unknown, so the sweep is untracked.

    Raises InputError: damaged files, another number of poses than frames, a spacing that contradicts the calibration.
    """
    tool_poses, poses_from = _camera_from_tool(path)
    stored = Hdf5Frames(path, "frames", count=None if tool_poses is None else len(tool_poses))
    frames, notes = stored.grey()
    if tool_poses is not None and len(tool_poses) != frames.shape[0]:
        raise InputError(
            f"{path.name} has {frames.shape[0]} frames and {poses_from} {len(tool_poses)} poses; "
            "the numbers must be equal."
        )
    if poses_from not in (None, path.name):
        notes = [*notes, f"Read the poses from {poses_from}."]
    if calibration is None:
        near = (folder / CALIBRATION_NAME for folder in path.parents[: _FOLDERS_ABOVE + 1])
        calibration = next((file for file in near if file.is_file()), None)
    if calibration is None:
        notes.append(f"Found no {CALIBRATION_NAME}: the pixel spacing and the tracking cannot be known.")
        return choose_pixel_size(None, None, spacing_mm).sweep(frames, path, FORMAT, notes)
    if isinstance(calibration, DeviceCalibration) and str(calibration.source).lower().endswith(".csv"):
        calibration = calibration.source  # the data set has only one tool, so its name is ignored
    is_csv = isinstance(calibration, Path) and calibration.suffix.lower() == ".csv"
    tool_from_pixel = read_calib_matrix(calibration) if is_csv else read_calibration(calibration)
    split = split_affine(tool_from_pixel, frames.shape[1:])
    spacing = validated_spacing(split.spacing_mm)
    require_agreement(spacing, spacing_mm)
    tracked = None
    if tool_poses is None:
        notes.append("Found no tool poses: the sweep is untracked.")
    else:
        tracked, pose_notes = trajectory_from_tracker(tool_poses @ split.x_from_image, {"source": poses_from})
        notes += pose_notes
    size = PixelSize(spacing, float(split.skew_deg), "calibration", calibration_name(calibration))
    return size.sweep(frames, path, FORMAT, notes, tracked=tracked)


def read_calib_matrix(path: Path) -> np.ndarray:
    """[4, 4] float64 tool_from_pixel, pixel (column, row, 0, 1) to mm, of a `calib_matrix.csv`.

    Raises InputError: not two 4x4 matrices, a scaling of other than two factors, or a second matrix that is not rigid.
    """
    rows = _number_rows(path)
    if len(rows) != 8:
        raise InputError(f"{path.name} has {len(rows)} rows of 4 numbers; a TUS-REC calibration has 8.")
    mm_from_pixel, tool_from_mm = np.array(rows[:4]), np.array(rows[4:])
    scales = np.diag(mm_from_pixel)
    if not np.array_equal(mm_from_pixel, np.diag(scales)) or scales[3] != 1:
        raise InputError(f"{path.name} does not begin with the scale factors from pixels to millimetres.")
    if validated_spacing(scales[:2]) is None or not rigid(tool_from_mm[None]).all():
        raise InputError(f"The second matrix of {path.name} is not a rigid motion from image to tool.")
    return tool_from_mm @ mm_from_pixel


def _number_rows(path: Path) -> list[list[float]]:
    rows = []
    for line in calibration_text(path).splitlines():
        try:
            values = [float(word) for word in line.split(",") if word.strip()]
        except ValueError:
            continue  # a header line
        if values:
            rows.append(values)
    if any(len(row) != 4 or not np.isfinite(row).all() for row in rows):
        raise InputError(f"{path.name} has a row that is not 4 finite numbers.")
    return rows


def _camera_from_tool(path: Path) -> tuple[np.ndarray | None, str | None]:
    """[N, 4, 4] tool poses and the name of their file; None for both without poses."""
    places = {path.name: path}
    root = next((folder for folder in path.parents if folder.name == "frames"), None)
    if root is not None:  # .../transfs/050/x.h5 belongs to .../frames/050/x.h5
        places[f"transfs/{path.name}"] = root.with_name("transfs") / path.relative_to(root)
    for name, place in places.items():
        if place.is_file():
            with opened(place) as file:
                poses = read_table(file, "tforms", (None, 4, 4))
            if poses is not None:
                return poses, name
    return None, None
