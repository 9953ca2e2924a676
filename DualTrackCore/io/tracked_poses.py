"""Poses in files: from the named transforms and the header of a recording to pixel size and trajectory of its frames.

Transforms named `<From>To<To>` and the calibration (Image to Probe) form a graph of coordinate systems. For each frame,
those along the shortest path from pixels to the reference are multiplied; poses that are not rigid become invalid.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.io.calibration import (
    UNNAMED,
    PixelSize,
    as_text,
    contradicts,
    image_pose,
    require_agreement,
    several_devices,
    split_affine,
    untracked_size,
    validated_calibration,
)
from DualTrackCore.io.sequence_parts import NO_TRANSFORMS, FrameFields, TransformTrack
from DualTrackCore.settings import short_list
from DualTrackCore.sweep import image_from_pixel, validated_spacing
from DualTrackCore.trajectory import (
    RAS_FROM_LPS,
    RIGID_TOLERANCE,
    PoseOrigin,
    Trajectory,
    rigid_error,
)


def trajectory_from_tracker(
    world_from_image: np.ndarray, provenance: Mapping[str, Any] | None = None
) -> tuple[Trajectory, list[str]]:
    """A measured trajectory with poses that are not rigid marked invalid, and sentences on these.

    Args:
        world_from_image: [N, 4, 4], image (centre, mm) to the tracker's world (mm); any numbers, also NaN.
    """
    world = np.array(world_from_image, dtype=np.float64)
    finite = np.isfinite(world).all(axis=(1, 2))
    world[~finite] = np.nan
    valid = finite & rigid(world)
    notes = []
    if not valid.all():
        reasons = f"{int((~finite).sum())} not finite, {int((finite & ~valid).sum())} not rigid"
        notes.append(f"Marked {int((~valid).sum())} of {len(world)} poses invalid ({reasons}).")
    return Trajectory.from_reference(world, valid, provenance, PoseOrigin.MEASURED), notes


def rigid(poses: np.ndarray) -> np.ndarray:
    """[N] bool: whether each matrix of [N, 4, 4] is rigid to within :data:`RIGID_TOLERANCE`."""
    plausible = np.isfinite(poses).all(axis=(1, 2)) & (np.abs(poses[:, :3, :3]).max(axis=(1, 2), initial=0.0) < 2)
    return plausible & (rigid_error(np.where(plausible[:, None, None], poses, np.eye(4))) <= RIGID_TOLERANCE)


#: Names of world coordinate systems, the preferred first.
_WORLDS = ("Reference", "Tracker", "World")
_IMAGE, _PROBE, _CROPPED = "Image", "Probe", "CroppedImage"
#: The image in mm, upright, its centre at the origin, RAS: its place by the header of this project's files for Slicer.
_PLACED = "PlacedImage"

Tracks = Mapping[tuple[str, str], TransformTrack]


class ImageChain(NamedTuple):
    """The transforms of the pixels of a recording.

    Attributes:
        world_from_pixel: from stored pixels to the world, or None without a path.
        probe_from_pixel: [4, 4] from stored pixels to the probe if it is the same in all frames, or None.
        way: the coordinate systems on the path to the world, or () without one.
        probe: the device of the calibration.
    """

    world_from_pixel: TransformTrack | None
    probe_from_pixel: np.ndarray | None
    way: tuple[str, ...]
    probe: str = _PROBE


def trace_image(tracks: Tracks, count: int, devices: Mapping[str, np.ndarray]) -> ImageChain:
    """Find the path from the stored pixels to the world.

    Cropped recordings have ImageToCroppedImage: their stored pixels are those of the cropped image, but a calibration
    is for the whole image. A given calibration replaces transforms of the image in the file.

    Args:
        tracks: transforms by (from, to).
        count: number of frames.
        devices: given calibrations, [4, 4] from pixels of the whole image to mm, by the name of their device.

    Raises InputError: more than one calibrated device is tracked.
    """
    start = _CROPPED if (_IMAGE, _CROPPED) in tracks else _IMAGE
    calibrated, device = tracks, _PROBE
    if devices:
        calibrated = {step: track for step, track in tracks.items() if _IMAGE not in step or _CROPPED in step}
        device, matrix = _calibrated_device(calibrated, devices)
        calibrated[_IMAGE, device] = _fixed(matrix, count)
    probe = _along(calibrated, _way(calibrated, start, device), count)
    probe_from_pixel = None if probe is None else _constant(probe.matrices[probe.valid])
    for some in (calibrated, tracks):
        for world in _WORLDS:
            if way := _way(some, start, world):
                return ImageChain(_along(some, way, count), probe_from_pixel, way, device)
    return ImageChain(None, probe_from_pixel, (), device)


def _calibrated_device(tracks: Tracks, devices: Mapping[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """The one candidates device, or the only one, and its calibration."""
    named = {_PROBE if device == UNNAMED else device: matrix for device, matrix in devices.items()}
    candidates = [device for device in named if any(_way(tracks, device, world) for world in _WORLDS)] or list(named)
    if len(candidates) > 1:
        raise several_devices("The calibration file", candidates)
    return candidates[0], named[candidates[0]]


def _fixed(matrix: np.ndarray, count: int) -> TransformTrack:
    return TransformTrack(np.broadcast_to(matrix, (count, 4, 4)), np.ones(count, bool))


def _way(tracks: Tracks, start: str, goal: str) -> tuple[str, ...]:
    """Coordinate systems on the shortest path with both ends; () without a path."""
    neighbours = defaultdict(list)
    for source, target in tracks:
        neighbours[source].append(target)
        neighbours[target].append(source)
    ways, queue = {start: (start,)}, deque([start])
    while queue:
        here = queue.popleft()
        for there in neighbours[here]:
            if there not in ways:
                ways[there] = (*ways[here], there)
                queue.append(there)
    way = ways.get(goal, ())
    return way if len(way) > 1 else ()


def _along(tracks: Tracks, way: tuple[str, ...], count: int) -> TransformTrack | None:
    """The product of the transforms along `way`; a frame is valid if all of them are."""
    if not way:
        return None
    matrices, valid = np.broadcast_to(np.eye(4), (count, 4, 4)), np.ones(count, bool)
    for step in pairwise(way):
        track = tracks[step] if step in tracks else _inverse(tracks[step[::-1]])
        matrices, valid = track.matrices @ matrices, valid & track.valid
    matrices[~valid] = np.nan
    return TransformTrack(matrices, valid)


def _inverse(track: TransformTrack) -> TransformTrack:
    determinants = np.linalg.det(np.where(track.valid[:, None, None], track.matrices, np.eye(4)))
    # Pixels of 1 um give 1e-9; a matrix far below maps to a plane and has no inverse.
    valid = track.valid & (np.abs(determinants) > 1e-12)
    inverse = np.linalg.inv(np.where(valid[:, None, None], track.matrices, np.eye(4)))
    inverse[~valid] = np.nan
    return TransformTrack(inverse, valid)


def _constant(matrices: np.ndarray) -> np.ndarray | None:
    """The matrix if all of [n, 4, 4] are equal, else None."""
    if not len(matrices):
        return None
    spread = np.abs(matrices - matrices[0]).max()
    return matrices[0] if spread <= 1e-9 * max(1.0, np.abs(matrices[0]).max()) else None


#: A size measured from rounded poses is replaced by that of the header if they differ by less than this.
_STATED_SPACING_TOLERANCE = 1e-3
_STATED_SKEW_TOLERANCE_DEG = 0.06


def place_frames(
    fields: FrameFields,
    shape: tuple[int, int, int],
    devices: Mapping[str, np.ndarray],
    stated: PixelSize | None,
    given_mm: tuple[float, float] | None,
    source: str,
) -> tuple[PixelSize, Trajectory | None, str, list[str]]:
    """Pixel size and trajectory of a recording.

    The pixel size is that of the transforms, else that of the user, else that of the header.

    Args:
        fields: the per-frame fields.
        shape: (N, H, W) of the frames.
        devices: the user's calibrations, as for :func:`trace_image`.
        stated: the size in the header, or None.
        given_mm: the user's spacing, or None.
        source: the name of the file, for messages.

    Returns:
        The pixel size, the trajectory or None, a sentence on its source or why it is missing, and notes.

    Raises InputError: sizes that contradict each other, or no rigid pose.
    """
    count, frame_size = shape[0], (shape[1], shape[2])
    tracks = fields.transforms(count)
    names = [f"{a}To{b}" for a, b in tracks]
    if stated is not None and any(start == _PLACED for start, _ in tracks):
        placed = RAS_FROM_LPS @ image_from_pixel(stated.spacing_mm, stated.skew_deg, frame_size)
        tracks[_IMAGE, _PLACED] = _fixed(placed, count)
    chain = trace_image(tracks, count, devices)
    measured = _measured(chain, frame_size, stated, source)
    tracking = _sentence(chain, names, bool(devices))
    if measured is None:
        size, notes = untracked_size(stated, given_mm)
        # Transforms to the world without a size are invalid in all frames.
        nowhere = chain.world_from_pixel
        tracked = None if nowhere is None else Trajectory(*nowhere, origin=PoseOrigin.MEASURED)
        return size, tracked, tracking, notes
    require_agreement(measured.spacing_mm, given_mm)
    notes = []
    if stated is not None and contradicts(measured.spacing_mm, stated.spacing_mm):
        used, ignored = as_text(measured.spacing_mm), as_text(stated.spacing_mm)
        notes.append(f"Used the pixel spacing {used} of the transforms in place of {ignored} in the header.")
    tracked = None
    if chain.world_from_pixel is not None:
        tracked = _trajectory(chain.world_from_pixel, measured, frame_size, notes, source)
    origin = "calibration" if devices else "file"
    return replace(measured, source=origin), tracked, tracking, notes


def _measured(
    chain: ImageChain, frame_size: tuple[int, int], stated: PixelSize | None, source: str
) -> PixelSize | None:
    """The pixel size in the transforms: that of the calibration, or the median over the frames; or None."""
    if chain.probe_from_pixel is not None:
        matrix = validated_calibration(chain.probe_from_pixel, f"{source}, ImageToProbe")
        split = split_affine(matrix, frame_size)
        return PixelSize(validated_spacing(tuple(split.spacing_mm.tolist())), float(split.skew_deg))
    if chain.world_from_pixel is None or not chain.world_from_pixel.valid.any():
        return None
    matrices = chain.world_from_pixel.matrices[chain.world_from_pixel.valid]
    plausible = np.linalg.norm(matrices[:, :3, :2], axis=1).all(axis=1)
    if not plausible.any():
        raise InputError(f"{source}: the transforms of the image give its pixels no size; no pose can be used.")
    split = split_affine(matrices[plausible], frame_size)
    spacing = validated_spacing(tuple(np.median(split.spacing_mm, axis=0).tolist()))
    skew = float(np.median(split.skew_deg))
    if stated is None:
        return PixelSize(spacing, skew)
    ratio = np.divide(stated.spacing_mm, spacing)
    if np.abs(ratio - 1).max() <= _STATED_SPACING_TOLERANCE:
        spacing = stated.spacing_mm
        skew = stated.skew_deg if abs(skew - stated.skew_deg) <= _STATED_SKEW_TOLERANCE_DEG else skew
    return PixelSize(spacing, skew)


def _trajectory(
    world_from_pixel: TransformTrack, size: PixelSize, frame_size: tuple[int, int], notes: list[str], source: str
) -> Trajectory:
    with np.errstate(all="ignore"):
        poses = image_pose(world_from_pixel.matrices, size.spacing_mm, size.skew_deg, frame_size)
        valid = world_from_pixel.valid & rigid(poses)
    dropped = int((world_from_pixel.valid & ~valid).sum())
    if dropped and not valid.any():
        raise InputError(
            f"{source}: none of the {dropped} poses that count as good is a rigid motion at the pixel spacing "
            f"{as_text(size.spacing_mm)}; the calibration belongs to another recording."
        )
    if dropped:
        notes.append(f"Marked {dropped} poses invalid that are valid in the file: they are not rigid motions.")
    return Trajectory.from_reference(poses, valid, {"source": source}, PoseOrigin.MEASURED)


def _sentence(chain: ImageChain, names: list[str], calibrated: bool) -> str:
    if chain.way:
        return f"Tracked: {' to '.join(chain.way)}."
    if not names:
        return NO_TRANSFORMS
    remedy = "a calibration (Image to Probe) is needed to use them"
    if calibrated:
        remedy = (
            f"none of them leads from {chain.probe} to {', '.join(_WORLDS[:-1])} or {_WORLDS[-1]}: if another device "
            "carries the transducer, name that one"
        )
    return f"Not tracked: the file holds {short_list(sorted(names))}, and {remedy}."
