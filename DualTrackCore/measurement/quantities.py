"""Length of a line through points, area and volume of a surface of triangles, and what moving a point does to each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from DualTrackCore.errors import InputError

#: Name of a quantity, as the sentences about it have it.
Kind = Literal["length", "area", "volume"]


@dataclass(frozen=True, eq=False)
class Quantity:
    """Something to measure between points.

    Attributes:
        kind: what it is.
        of: values [...] of points [..., K, 3], mm, mm squared or mm cubed.
        slope: [K, 3] of points [K, 3]: how much it grows for each mm that a point moves along x, y, z.
    """

    kind: Kind
    of: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]

    @property
    def unit(self) -> str:
        """ "mm", "mm2" or "mm3"."""
        return {"length": "mm", "area": "mm2", "volume": "mm3"}[self.kind]


def length(closed: bool = False) -> Quantity:
    """The length of the straight line from point to point, and back to the first one where it is `closed`."""

    def steps(points: np.ndarray) -> np.ndarray:
        after = np.roll(points, -1, axis=-2) - points
        return after if closed else after[..., :-1, :]

    def slope(points: np.ndarray) -> np.ndarray:
        along = steps(points)
        size = np.linalg.norm(along, axis=1, keepdims=True)
        along = along / np.where(size > 0, size, 1)
        grown = np.zeros_like(points)
        grown[: len(along)] -= along
        return grown + np.roll(np.concatenate([along, np.zeros((len(points) - len(along), 3))]), 1, axis=0)

    return Quantity("length", lambda points: np.linalg.norm(steps(points), axis=-1).sum(axis=-1), slope)


def area(triangles: np.ndarray) -> Quantity:
    """The area of triangles [T, 3], whole numbers that say which points are their corners."""

    def corners(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        first, second, third = (points[..., triangles[:, corner], :] for corner in range(3))
        return second - first, third - first, np.cross(second - first, third - first)

    def slope(points: np.ndarray) -> np.ndarray:
        along, other, normal = corners(points)
        size = np.linalg.norm(normal, axis=1, keepdims=True)
        normal = normal / np.where(size > 0, 2 * size, 1)
        second, third = np.cross(other, normal), np.cross(normal, along)
        return _at_points((-second - third, second, third), triangles, len(points))

    return Quantity("area", lambda points: np.linalg.norm(corners(points)[2], axis=-1).sum(axis=-1) / 2, slope)


def volume(triangles: np.ndarray) -> Quantity:
    """The volume inside a closed surface of triangles [T, 3].

    Raises InputError: the surface has a hole, or its triangles do not all turn the same way.
    """
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    there, back = (np.unique(pairs, axis=0, return_counts=True) for pairs in (edges, edges[:, ::-1]))
    if there[0].shape != back[0].shape or (there[0] != back[0]).any() or max(there[1].max(), back[1].max()) > 1:
        raise InputError(
            "The surface is not closed: at some edge not exactly two triangles meet, or they turn opposite ways; "
            "close its holes, or measure its area."
        )

    def signed(points: np.ndarray) -> np.ndarray:
        first, second, third = (points[..., triangles[:, corner], :] for corner in range(3))
        return (first * np.cross(second, third)).sum(axis=(-2, -1)) / 6

    def slope(points: np.ndarray) -> np.ndarray:
        first, second, third = (points[triangles[:, corner]] for corner in range(3))
        grown = np.cross(second, third), np.cross(third, first), np.cross(first, second)
        return np.sign(signed(points)) / 6 * _at_points(grown, triangles, len(points))

    def of(points: np.ndarray) -> np.ndarray:
        return np.abs(signed(points - points.mean(axis=-2, keepdims=True)))  # near the origin sums lose no digits

    return Quantity("volume", of, slope)


def _at_points(of_corners: tuple[np.ndarray, ...], triangles: np.ndarray, count: int) -> np.ndarray:
    """[count, 3]: sums at each point of what its triangles say of their three corners, each [T, 3]."""
    values, index = np.concatenate(of_corners), triangles.T.ravel()
    return np.stack([np.bincount(index, values[:, axis], count) for axis in range(3)], axis=1)
