"""Sweeps in HDF5: the DualTrack layout, read and written here, and the TUS-REC layout.

The DualTrack layout has `images` [N, H, W] uint8; `tracking` [N, 4, 4], image (mm) to world; `spacing`
(across, down, 1) in mm; `dimensions` (W, H, 1); `pixel_to_image` [4, 4], whose origin is the image centre.
Files written here may also have `timestamps` [N] in seconds, `frame_valid` [N], `tracking_sigma` [N - 1, 6], the
standard deviations of the motions (mm, degrees), and `tracking_covariance` [N, 7] of a corrected path. Attributes of
`tracking` state the origin of the poses; without them, poses count as measured.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.files import replacing
from DualTrackCore.io.calibration import as_text, choose_pixel_size, split_affine
from DualTrackCore.io.hdf5_frames import Hdf5Frames, member, opened, read_table
from DualTrackCore.io.pose_marks import FIELDS, marked, origin_marks
from DualTrackCore.io.sequence_parts import SCANNER_FIELDS, scanner_facts
from DualTrackCore.io.tracked_poses import trajectory_from_tracker
from DualTrackCore.io.tus_rec import read_tus_rec
from DualTrackCore.progress import Reporter, Stage
from DualTrackCore.sweep import Sweep, validated_spacing
from DualTrackCore.trajectory import PoseOrigin, Trajectory

if TYPE_CHECKING:
    from DualTrackCore.io.calibration_files import CalibrationSource

FORMAT = "DualTrack HDF5"

_SIGNATURE = b"\x89HDF\r\n\x1a\n"

_SIGMA, _COVARIANCE = "tracking_sigma", "tracking_covariance"

#: Possible sizes of the user block at the begin of an HDF5 file.
_OFFSETS = (0, 512, 1024, 2048)

_WINDOW_FRAMES = 16

#: Attribute of `images`: true for frames of the simulation.
_SIMULATED = "simulated"

#: Largest difference between `pixel_to_image` and the map from spacing and image centre, mm.
_ORIGIN_TOLERANCE_MM = 1e-3


def recognises(path: Path, head: bytes) -> bool:
    """Whether the file is HDF5."""
    return any(head[offset:].startswith(_SIGNATURE) for offset in _OFFSETS)


def read(path: Path, *, calibration: CalibrationSource | None, spacing_mm: tuple[float, float] | None) -> Sweep:
    """The sweep of a DualTrack or TUS-REC file; frames are read on demand.

    Raises InputError: a damaged file, another layout, other numbers of poses, or a calibration for a file that has one.
    """
    with opened(path) as file:
        names = set(file)
    if "images" in names:
        return _read_dualtrack(path, calibration, spacing_mm)
    if "frames" in names:
        return read_tus_rec(path, calibration=calibration, spacing_mm=spacing_mm)
    if "tforms" in names:
        raise InputError(f"{path.name} holds tracked poses but no frames; open the file under frames instead.")
    if "TransformGroup" in names:
        raise InputError(f"{path.name} is a transform file of Slicer or ITK, no sweep; give it as a calibration.")
    listed = ", ".join(sorted(map(str, names))[:8]) or "nothing"
    raise InputError(
        f"{path.name} holds neither images nor frames (it holds {listed}), so it is no sweep; "
        "call the data set of the frames images."
    )


def _read_dualtrack(path: Path, calibration: CalibrationSource | None, spacing_mm: tuple[float, float] | None) -> Sweep:
    with opened(path) as file:
        images = member(file, "images")  # None if a damaged file lists it but does not hold it
        simulated = images and images.attrs.get(_SIMULATED)  # only a boolean counts
        facts: dict[str, Any] = {"simulated": True} if isinstance(simulated, bool | np.bool_) and simulated else {}
        facts |= scanner_facts({name: images.attrs.get(name) for name in SCANNER_FIELDS} if images else {})
        world_from_image = read_table(file, "tracking", (None, 4, 4))
        marks = {} if world_from_image is None else {name: file["tracking"].attrs.get(name) for name in FIELDS}
        errors = read_table(file, _SIGMA, (None, 6)), read_table(file, _COVARIANCE, (None, 7))
        spacing = read_table(file, "spacing", (None,))
        dimensions = read_table(file, "dimensions", (None,))
        image_from_pixel = read_table(file, "pixel_to_image", (4, 4))
        timestamps = read_table(file, "timestamps", (None,))
        frame_valid = read_table(file, "frame_valid", (None,))
    per_frame = [values for values in (world_from_image, timestamps, frame_valid) if values is not None]
    stated = None if dimensions is None else tuple(dimensions[1::-1].tolist())
    frames, notes = Hdf5Frames(path, "images", count=len(per_frame[0]) if per_frame else None, size=stated).grey()
    count, height, width = frames.shape
    if calibration is not None and world_from_image is not None:
        raise InputError(f"The tracking of {path.name} is calibrated already; leave the calibration out.")
    if dimensions is not None and list(dimensions[:2]) != [width, height]:
        stated = " x ".join(f"{n:g}" for n in dimensions[:2])
        raise InputError(f"{path.name} says {stated} pixels and holds images of {width} x {height}.")
    for name, values in (("poses", world_from_image), ("timestamps", timestamps), ("flags", frame_valid)):
        if values is not None and len(values) != count:
            raise InputError(f"{path.name} has {count} frames and {len(values)} {name}; the numbers must be equal.")
    if timestamps is not None and not np.isfinite(timestamps).all():
        raise InputError(f"{path.name} has timestamps that are not finite numbers; correct or remove them.")
    in_file, skew_deg, own_from_file, pixel_notes = _pixels(path, spacing, image_from_pixel, (height, width))
    notes = [*notes, *pixel_notes]
    size = choose_pixel_size(in_file, calibration, spacing_mm)
    if size.calibration is None:
        size = replace(size, skew_deg=skew_deg)
    tracked = None
    if world_from_image is not None:
        poses = world_from_image if own_from_file is None else world_from_image @ own_from_file
        tracked, pose_notes = trajectory_from_tracker(poses, {"source": path.name})
        tracked, origin_notes = marked(
            tracked, marks, PoseOrigin.SIMULATED if "simulated" in facts else PoseOrigin.MEASURED, *errors
        )
        notes += pose_notes + origin_notes
    if timestamps is not None:
        facts["rate_field"] = "timestamps"
    valid = None if frame_valid is None else frame_valid != 0
    return size.sweep(frames, path, FORMAT, notes, facts, timestamps_s=timestamps, frame_valid=valid, tracked=tracked)


def _pixels(
    path: Path, spacing: np.ndarray | None, file_from_pixel: np.ndarray | None, frame_size: tuple[int, int]
) -> tuple[tuple[float, float] | None, float, np.ndarray | None, list[str]]:
    """Spacing, skew, the rigid map from this package's image frame to that of the file (None if equal), and notes."""
    notes: list[str] = []
    in_file = None
    if spacing is not None:
        if len(spacing) < 2 or not np.isfinite(spacing[:2]).all() or (spacing[:2] <= 0).any():
            notes.append("The pixel spacing in the file is no positive number; it counts as unknown.")
        else:
            in_file = validated_spacing(spacing[:2])
    if file_from_pixel is None:
        return in_file, 0.0, None, notes
    if not np.isfinite(file_from_pixel).all() or not np.linalg.norm(file_from_pixel[:3, :2], axis=0).all():
        raise InputError(f"{path.name} holds a pixel_to_image that maps no pixels; correct or remove it.")
    split = split_affine(file_from_pixel, frame_size)
    mapped = validated_spacing(split.spacing_mm)
    if in_file is None:
        in_file = mapped
    elif (np.abs(np.divide(mapped, in_file) - 1) > 1e-3).any():
        raise InputError(
            f"The spacing {as_text(in_file)} of {path.name} contradicts its pixel_to_image ({as_text(mapped)}); "
            "correct one of the two."
        )
    if np.abs(split.x_from_image - np.eye(4)).max() <= _ORIGIN_TOLERANCE_MM:
        return in_file, float(split.skew_deg), None, notes
    notes.append("Moved the image origin of the tracking to the image centre, as pixel_to_image says.")
    return in_file, float(split.skew_deg), split.x_from_image, notes


def write(sweep: Sweep, path: Path, trajectory: Trajectory | None, reporter: Reporter) -> None:
    """Write the DualTrack layout, without data sets for unknown values.

    Args:
        trajectory: one pose per frame, written as `tracking`, invalid ones as NaN; or None.

    Raises:
        InputError: no images.
        OutputError: the file cannot be written; an existing file does not change.
        Cancelled: the caller asked to stop.
    """
    sweep.require_images()
    height, width = sweep.frame_size
    with replacing(path) as temporary, _written(temporary) as file:
        # One frame per chunk, so that any frame can be read without its neighbours; gzip at its fastest level.
        images = file.create_dataset("images", sweep.frames.shape, np.uint8, chunks=(1, height, width), compression=1)
        if sweep.is_simulated:
            images.attrs[_SIMULATED] = True
        images.attrs.update(scanner_facts(sweep.provenance.get("scanner") or {}).get("scanner", {}))
        for start, window in sweep.windows(_WINDOW_FRAMES):
            reporter.report(Stage.WRITING, start, len(sweep))
            images[start : start + len(window)] = window
        file["dimensions"] = np.array([width, height, 1])
        file["frame_valid"] = sweep.frame_valid.astype(np.uint8)
        if sweep.spacing_mm is not None:
            file["spacing"] = np.array([*sweep.spacing_mm, 1.0])
            file["pixel_to_image"] = sweep.image_from_pixel
        if sweep.timestamps_s is not None:
            file["timestamps"] = sweep.timestamps_s
        if trajectory is not None:
            world = np.eye(4) if trajectory.reference_from_frame0 is None else trajectory.reference_from_frame0
            file["tracking"] = np.where(trajectory.valid[:, None, None], world @ trajectory.poses, np.nan)
            file["tracking"].attrs.update(origin_marks(trajectory))
            if trajectory.sigma is not None:
                file[_SIGMA] = trajectory.sigma
            if trajectory.path_covariance is not None:
                file[_COVARIANCE] = trajectory.path_covariance
    reporter.report(Stage.WRITING, len(sweep), len(sweep))


@contextlib.contextmanager
def _written(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file at `path`, closed at the end.

    Raises OSError: the first error of writing.
    """
    with _Sink(path) as sink:
        try:
            with h5py.File(sink, "w") as file:
                yield file
                file.flush()
                sink.require_success()
        except RuntimeError as error:
            sink.require_success()  # raises the cause in place of HDF5's error
            raise OSError(str(error)) from error
        except OSError:
            sink.require_success()
            raise
        sink.require_success()


class _Sink(io.FileIO):
    """A binary file that stores its first error and ignores all later writes.

    HDF5 cannot close a file after a failed flush, and crashes at the end of the program.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._failure: OSError | None = None

    def require_success(self) -> None:
        """Raises OSError: the first error, if there was one."""
        if self._failure is not None:
            raise self._failure

    def write(self, data: memoryview) -> int:
        """Write all of `data`; after an error, drop it."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self._failure is None:
            try:
                done += super().write(view[done:])
            except OSError as error:
                self._failure = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the length, or store the error."""
        try:
            return super().truncate(size)
        except OSError as error:
            self._failure = self._failure or error
            return size or 0
