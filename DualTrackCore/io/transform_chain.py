"""From named transforms to the one that a sweep needs: where the pixels of each frame lie in the tracker's world.

A recording names its transforms `<From>To<To>`; together with the calibration (Image to Probe) they form a graph of
coordinate systems. The shortest way from the stored pixels to the reference is multiplied out frame by frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from DualTrackCore.io.sequence_fields import TransformTrack

#: Worlds in which a trajectory can be expressed, the preferred first.
_WORLDS = ("Reference", "Tracker", "World")
_IMAGE, _PROBE, _CROPPED = "Image", "Probe", "CroppedImage"

Tracks = Mapping[tuple[str, str], TransformTrack]


class ImageChain(NamedTuple):
    """What the transforms of a recording tell about its pixels.

    Attributes:
        world_from_pixel: the transform from stored pixels to the world, or None without a way there.
        probe_from_pixel: [4, 4] where the way from pixels to the probe is the same in all frames, or None.
        way: the coordinate systems on the way to the world, or () without one.
    """

    world_from_pixel: TransformTrack | None
    probe_from_pixel: np.ndarray | None
    way: tuple[str, ...]


def trace_image(tracks: Tracks, count: int, calibration: np.ndarray | None) -> ImageChain:
    """Find the way from the stored pixels to the world.

    Cropped recordings carry ImageToCroppedImage, and their stored pixels are those of the cropped image; a calibration
    is about the whole image. A given calibration goes before transforms of the image in the file.

    Args:
        tracks: transforms by (from, to).
        count: number of frames.
        calibration: [4, 4] probe_from_pixel of the whole image, or None.
    """
    start = _CROPPED if (_IMAGE, _CROPPED) in tracks else _IMAGE
    known = dict(tracks)
    if calibration is not None:
        fixed = TransformTrack(np.broadcast_to(calibration, (count, 4, 4)), np.ones(count, bool))
        known = {k: t for k, t in tracks.items() if _IMAGE not in k or _CROPPED in k}
        known[_IMAGE, _PROBE] = fixed
    way = _first_way(known, start)
    probe = _constant(_along(known, _way(known, start, _PROBE), count))
    if not way and calibration is not None:
        known = dict(tracks)
        way = _first_way(known, start)
    return ImageChain(_along(known, way, count), probe, way)


def _first_way(tracks: Tracks, start: str) -> tuple[str, ...]:
    return next((way for world in _WORLDS if (way := _way(tracks, start, world))), ())


def _way(tracks: Tracks, start: str, goal: str) -> tuple[str, ...]:
    """Coordinate systems on the shortest way, both ends included; () where there is none."""
    neighbours: dict[str, list[str]] = {}
    for source, target in tracks:
        neighbours.setdefault(source, []).append(target)
        neighbours.setdefault(target, []).append(source)
    ways, queue = {start: (start,)}, deque([start])
    while queue:
        here = queue.popleft()
        for there in neighbours.get(here, []):
            if there not in ways:
                ways[there] = (*ways[here], there)
                queue.append(there)
    way = ways.get(goal, ())
    return way if len(way) > 1 else ()


def _along(tracks: Tracks, way: tuple[str, ...], count: int) -> TransformTrack | None:
    """The product of the transforms along `way`; a frame is valid where all of them are."""
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
    # Pixels of 1 um would give 1e-9; a matrix far below that maps to a plane and has no inverse.
    valid = track.valid & (np.abs(determinants) > 1e-12)
    inverse = np.linalg.inv(np.where(valid[:, None, None], track.matrices, np.eye(4)))
    inverse[~valid] = np.nan
    return TransformTrack(inverse, valid)


def _constant(track: TransformTrack | None) -> np.ndarray | None:
    if track is None or not track.valid.any():
        return None
    matrices = track.matrices[track.valid]
    spread = np.abs(matrices - matrices[0]).max()
    return matrices[0] if spread <= 1e-9 * max(1.0, np.abs(matrices[0]).max()) else None
