"""Observations of a path as residuals in units of their accuracy, and how they change with the frames.

A frame changes by a twist in frame0 (:mod:`~DualTrackCore.uncertainty`): its place p by moment + turn x p. Each
observation compares a frame with another frame of the path, or with a pose in a world whose place is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np
from scipy.spatial.transform import Rotation

from DualTrackCore.corrections.knowledge import KnownPoses, SamePlace, SamePoint
from DualTrackCore.uncertainty import cross_matrices

#: Share of good observations that count in full; those beyond are taken linearly (Huber).
_IN_FULL = 0.95
#: Marks of one point up to which each is compared with each other one.
_ALL_PAIRS = 6


@dataclass(frozen=True, eq=False)
class Observations:
    """m observations of one kind.

    Attributes:
        names: m texts, for people.
        nodes: [m] frames.
        others: [m] the frames that they are compared with; None where that is a world.
        points, other_points: [m, 3] image coordinates of what coincides, mm.
        poses: [m, 4, 4] world_from_image of the same frames; None without a world.
        accuracy_mm: [m] of positions; None where they say nothing.
        accuracy_deg: [m] of orientations; None where they say nothing.
    """

    names: tuple[str, ...]
    nodes: np.ndarray
    others: np.ndarray | None
    points: np.ndarray
    other_points: np.ndarray
    poses: np.ndarray | None = None
    accuracy_mm: np.ndarray | None = None
    accuracy_deg: np.ndarray | None = None
    limit: float = field(init=False)

    def __post_init__(self) -> None:
        from scipy.special import chdtri

        object.__setattr__(self, "limit", float(np.sqrt(chdtri(self.residuals_each, 1 - _IN_FULL))))

    @property
    def joins(self) -> bool:
        """Whether frames of the path are compared with each other."""
        return self.others is not None

    @property
    def residuals_each(self) -> int:
        """Residuals of one observation: 3 or 6."""
        return 3 * (self.accuracy_mm is not None) + 3 * (self.accuracy_deg is not None)

    def _both(self, path: np.ndarray, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[m, 4, 4] the frames, and what they are compared with, in frame0."""
        return path[self.nodes], world @ self.poses if self.others is None else path[self.others]

    def misses(self, path: np.ndarray, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[m, 3] mm and [m, 3] degrees by which the observations are missed, in frame0; path [n, 4, 4]."""
        one, other = self._both(path, world)
        turns = np.rad2deg(Rotation.from_matrix(one[:, :3, :3] @ np.swapaxes(other[:, :3, :3], 1, 2)).as_rotvec())
        return _places(one, self.points) - _places(other, self.other_points), turns

    def residuals(self, path: np.ndarray, world: np.ndarray) -> np.ndarray:
        """[m, 3 or 6] the misses in units of the accuracy."""
        accuracies = self.accuracy_mm, self.accuracy_deg
        parts = zip(self.misses(path, world), accuracies, strict=True)
        return np.concatenate([miss / sd[:, None] for miss, sd in parts if sd is not None], axis=1)

    def changes(self, path: np.ndarray, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[m, 3 or 6, 6] of the residuals with the twist of the frame, and with that of the other, or of the world."""
        one, other = self._both(path, world)
        return self._change(_places(one, self.points)), -self._change(_places(other, self.other_points))

    def _change(self, places: np.ndarray) -> np.ndarray:
        eye = np.broadcast_to(np.eye(3), (len(places), 3, 3))
        rows = []
        if self.accuracy_mm is not None:
            rows.append(np.concatenate([eye, -cross_matrices(places)], axis=2) / self.accuracy_mm[:, None, None])
        if self.accuracy_deg is not None:
            turns = np.rad2deg(np.concatenate([np.zeros_like(eye), eye], axis=2))
            rows.append(turns / self.accuracy_deg[:, None, None])
        return np.concatenate(rows, axis=1)

    def weights(self, residuals: np.ndarray, tail: int = 2) -> np.ndarray:
        """[m] from 0 to 1: what each observation counts.

        Beyond the limit the pull stays the same with tail 1 (Huber), and with 2 it falls, which needs a good start.
        """
        size = np.linalg.norm(residuals, axis=1)
        return np.minimum(1, self.limit / np.maximum(size, 1e-300)) ** tail

    def cost(self, residuals: np.ndarray, tail: int) -> float:
        """The sum that is the least where every observation counts its weight."""
        size = np.linalg.norm(residuals, axis=1) / self.limit
        beyond = 2 * size - 1 if tail == 1 else 1 + 2 * np.log(np.maximum(size, 1e-300))
        return float(self.limit**2 * np.where(size <= 1, size**2, beyond).sum())

    def first_world(self, path: np.ndarray) -> np.ndarray:
        """[4, 4] frame0_from_world that a search begins with."""
        world = np.eye(4)
        if self.others is not None:
            return world
        if self.accuracy_deg is not None:
            return path[self.nodes[0]] @ np.linalg.inv(self.poses[0])
        ours, theirs = path[self.nodes, :3, 3], self.poses[:, :3, 3]
        left, _, right = np.linalg.svd((ours - ours.mean(0)).T @ (theirs - theirs.mean(0)))
        world[:3, :3] = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
        world[:3, 3] = ours.mean(0) - world[:3, :3] @ theirs.mean(0)
        return world


def _places(poses: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.einsum("nij,nj->ni", poses[:, :3, :3], points) + poses[:, :3, 3]


def of_points(points: list[SamePoint], nodes: np.ndarray, first_frame: int) -> Observations:
    """Every two marks of a point coincide: as good as a place of its own for each point (for many marks, neighbours).

    Args:
        points: what is known.
        nodes: [N] the place of each frame in the path that is solved for.
        first_frame: what is added to frames in names.
    """
    found = []
    for point in points:
        count = len(point.frames)
        every = count <= _ALL_PAIRS
        for a, b in combinations(range(count), 2) if every else pairwise(np.argsort(point.frames)):
            frames = point.frames[a], point.frames[b]
            name = f"{point.name} in frames {frames[0] + first_frame} and {frames[1] + first_frame}"
            marks = point.points_mm[a], point.points_mm[b]
            found.append((name, frames, marks, point.accuracy_mm * np.sqrt(count if every else 2)))
    names, frames, marks, accuracy = zip(*found, strict=True)
    marks = np.pad(np.array(marks), ((0, 0), (0, 0), (0, 1)))
    ends = nodes[np.array(frames)]
    return Observations(names, ends[:, 0], ends[:, 1], marks[:, 0], marks[:, 1], None, np.array(accuracy))


def of_places(places: list[SamePlace], nodes: np.ndarray, first_frame: int) -> Observations:
    """Frames that lie at one place; arguments as above."""
    names = tuple(f"frames {a + first_frame} and {b + first_frame}" for a, b in (place.frames for place in places))
    ends, centre = nodes[np.array([place.frames for place in places])], np.zeros((len(places), 3))
    accuracies = np.array([(place.accuracy_mm, place.accuracy_deg) for place in places]).T
    return Observations(names, ends[:, 0], ends[:, 1], centre, centre, None, *accuracies)


def of_poses(known: KnownPoses, nodes: np.ndarray, first_frame: int) -> Observations:
    """Poses in a world of their own; arguments as above."""
    count, centre = len(known.frames), np.zeros((len(known.frames), 3))
    names = tuple(f"frame {frame + first_frame}" for frame in known.frames)
    accuracies = (None if sd is None else np.full(count, sd) for sd in (known.accuracy_mm, known.accuracy_deg))
    return Observations(names, nodes[known.frames], None, centre, centre, known.poses, *accuracies)
