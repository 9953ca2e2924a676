"""Which frame a point belongs to: the one that it moves with when the path is another."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.progress import finished
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

#: A point farther than this from every picture, mm, belongs to none, unless frames lie farther apart.
FARTHEST_MM = 5.0
#: Share of the way to a neighbour up to which a point lies in a frame's plane: a point of a picture, but for rounding.
_IN_PLANE = 1e-6
#: Points times frames that are compared at a time: a few milliseconds.
_TOGETHER = 200_000


@dataclass(frozen=True, eq=False)
class Ties:
    """Points and the frames that they belong to.

    Attributes:
        points_mm: [K, 3] in frame0, mm.
        frames: [K, 2] the nearest frame, and its neighbour on the other side of the point (or the same frame).
        share: [K] how far towards the neighbour the point lies, 0 to 1.
        distances_mm: [K] of the nearest picture.
        in_one_frame: whether all points lie in one picture, or in one plane beside it.
    """

    points_mm: np.ndarray
    frames: np.ndarray
    share: np.ndarray
    distances_mm: np.ndarray
    in_one_frame: bool


class FramePlanes:
    """The pictures of a sweep in space.

    Args:
        sweep: N frames with known spacing.
        trajectory: N poses; frames without one, or without a picture, count for nothing.

    Raises InputError: no frame can be placed, or the spacing is unknown.
    """

    def __init__(self, sweep: Sweep, trajectory: Trajectory) -> None:
        from DualTrackCore.reconstruction.grid import usable_frames

        frames = usable_frames(sweep, trajectory)
        # A picture that is shown again lies where it lay before.
        moved = (trajectory.poses[frames[1:]] != trajectory.poses[frames[:-1]]).any(axis=(1, 2))
        self.frames = frames[np.concatenate([[True], moved])]
        self._poses, self._image_from_pixel = trajectory.poses, sweep.image_from_pixel
        self._count, (height, width) = len(sweep), sweep.frame_size
        corners = np.array([[-0.5, -0.5, 0, 1], [width - 0.5, height - 0.5, 0, 1]]) @ self._image_from_pixel.T
        self._low, self._high = corners[0, :2], corners[1, :2]
        steps = np.linalg.norm(np.diff(self._poses[self.frames, :3, 3], axis=0), axis=1)
        self._reach_mm = max(FARTHEST_MM, steps.max(initial=0.0))
        self._pixel_mm = max(sweep.require_spacing())
        self._ras_from_frame0 = trajectory.ras_from_frame0

    def points_of(self, frames: object, pixels: object) -> np.ndarray:
        """[K, 3] mm in frame0 of pixels [K, 2], (column, row), in frames [K].

        Raises InputError: other shapes, or a frame that the sweep does not have or whose place is not known.
        """
        frames, pixels = np.asarray(frames), np.asarray(pixels, dtype=np.float64)
        if frames.ndim != 1 or pixels.shape != (len(frames), 2):
            raise InputError(f"Frames {frames.shape} and pixels {pixels.shape} were given; expected [n] and [n, 2].")
        self._require(frames)
        flat = np.concatenate([pixels, np.zeros((len(pixels), 1)), np.ones((len(pixels), 1))], axis=1)
        return np.einsum("kij,jl,kl->ki", self._poses[frames], self._image_from_pixel, flat)[:, :3]

    def pixels_of(self, ties: Ties) -> np.ndarray:
        """[K, 2] (column, row) of where the points lie in their nearest frames, or in front of them."""
        image = self._in_images(ties.points_mm, ties.frames[:, 0])
        flat = np.concatenate([image[:, :2], np.zeros((len(image), 1)), np.ones((len(image), 1))], axis=1)
        return (flat @ np.linalg.inv(self._image_from_pixel).T)[:, :2]

    def tie(self, points_mm: np.ndarray, frames: object = None) -> Ties:
        """The points [K, 3], mm in frame0, with the frames that they belong to.

        Args:
            points_mm: where they lie.
            frames: [K] those that they were marked in, where that is known.

        Raises InputError: a point lies away from every frame, or a frame that the sweep does not have.
        """
        return finished(self.tying(points_mm, frames))

    def tying(self, points_mm: np.ndarray, frames: object = None) -> Generator[None, None, Ties]:
        """Do as :meth:`tie` in small pieces."""
        if frames is not None:
            nearest = np.asarray(frames)
            self._require(nearest)
            distances = np.zeros(len(points_mm))
        else:
            nearest, distances = yield from self._nearest(points_mm)
            far = np.flatnonzero(distances > self._reach_mm)
            if len(far):
                ras = points_mm[far[0]] @ self._ras_from_frame0[:3, :3].T + self._ras_from_frame0[:3, 3]
                raise InputError(
                    f"The point R, A, S = {', '.join(f'{value:.1f}' for value in ras)} mm lies "
                    f"{distances[far[0]]:.1f} mm away from the nearest frame, and the limit is "
                    f"{self._reach_mm:.1f} mm; choose a point inside of the volume."
                )
        for frame in np.unique(nearest[[0, -1]]):
            image = self._in_images(points_mm, np.full(len(points_mm), frame))
            inside = self._outside(image).max() <= self._pixel_mm and np.abs(image[:, 2]).max() <= self._reach_mm
            is_same = inside if frames is None else (nearest == frame).all()
            if is_same and np.ptp(image[:, 2]) <= self._pixel_mm:
                return Ties(points_mm, np.full((len(points_mm), 2), frame), np.zeros(len(points_mm)), distances, True)
        others, share = self._beyond(points_mm, nearest) if frames is None else (nearest, np.zeros(len(nearest)))
        return Ties(points_mm, np.stack([nearest, others], axis=1), share, distances, False)

    def _require(self, frames: np.ndarray) -> None:
        """Refuse frames that have no place."""
        bad = np.flatnonzero(~np.isin(frames, np.arange(self._count)))
        if len(bad):
            raise InputError(f"There is no frame {frames[bad[0]]}; the sweep has the frames 0 to {self._count - 1}.")

    def _nearest(self, points_mm: np.ndarray) -> Generator[None, None, tuple[np.ndarray, np.ndarray]]:
        """([K] frame whose picture is nearest, [K] its distance in mm)."""
        axes, centres = np.moveaxis(self._poses[self.frames, :3, :3], 2, 0), self._poses[self.frames, :3, 3]
        offsets = np.einsum("anj,nj->an", axes, centres)
        best, size = np.empty(len(points_mm), int), max(1, _TOGETHER // len(centres))
        distances = np.empty(len(points_mm))
        for start in range(0, len(points_mm), size):
            yield
            part = slice(start, start + size)
            across, down, apart = (
                points_mm[part] @ axis.T - offset for axis, offset in zip(axes, offsets, strict=True)
            )
            for image, low, high in zip((across, down), self._low, self._high, strict=True):
                beside = np.maximum(np.maximum(low - image, image - high), 0)
                apart = np.hypot(apart, beside)
            best[part], distances[part] = apart.argmin(axis=1), apart.min(axis=1)
        return self.frames[best], distances

    def _outside(self, image_mm: np.ndarray) -> np.ndarray:
        """[...] how far points [..., 3], in image coordinates, lie beside the picture, mm."""
        beside = np.maximum(self._low - image_mm[..., :2], image_mm[..., :2] - self._high)
        return np.linalg.norm(np.maximum(beside, 0), axis=-1)

    def _beyond(self, points_mm: np.ndarray, nearest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """([K] neighbour of the nearest frame on the other side of a point, [K] share of the way towards it)."""
        place = np.searchsorted(self.frames, nearest)
        own = self._in_images(points_mm, nearest)[:, 2]
        others, share = nearest.copy(), np.zeros(len(nearest))
        for step in (-1, 1):
            frames = self.frames[np.clip(place + step, 0, len(self.frames) - 1)]
            beside = self._in_images(points_mm, frames)[:, 2]
            between = own * beside < 0
            part = own / np.where(between, own - beside, 1)
            nearer = between & (part > _IN_PLANE) & ((share == 0) | (part > share))
            others[nearer], share[nearer] = frames[nearer], part[nearer]
        return others, share

    def _in_images(self, points_mm: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """[K, 3] the points as seen from frames [K]: image coordinates, mm."""
        return np.einsum("kij,ki->kj", self._poses[frames, :3, :3], points_mm - self._poses[frames, :3, 3])
