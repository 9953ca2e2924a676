"""The mean error over all pixels of a frame, exact to rounding, from a few hundred places instead of all of them.

The difference of two poses maps pixel (u, v) to a u + b v + c; the error is the mean length of that over the grid of
pixels. Where the length stays away from zero it is an analytic function, and Gaussian quadrature for the sum
over the points of a grid converges geometrically. A tile of the image whose length comes near zero is quartered, until
it has so few pixels that all of them are taken: near the places where the length is zero nothing is approximated.

A compiled loop over all pixels gives the same to 4e-15 of the mean, and takes 60 to 130 times as long for frames of
480 x 640.

The rule with n nodes for the points 0, 1, ..., N - 1 sums polynomials of degree up to 2 n - 1 exactly. Its nodes and
weights follow from the recurrence of the discrete Chebyshev (Gram) polynomials by the method of Golub and Welsch (Math.
Comp. 23, 1969); the weights are positive, so that sums of positive values lose nothing to cancellation.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from DualTrackCore.progress import Progress, Stage

#: Nodes of a rule; pieces of an axis that have no more points than this are summed point by point.
NODES = 12
#: How far the nearest zero of the length must lie from the middle of a tile, in half sizes of the tile. The error of
#: a rule with 12 nodes then falls below (2 + sqrt(3))^-24, 2e-14 of the sum.
_CLEARANCE = 2.0
#: Frames taken together, and tiles whose nodes are measured at once: working sets of a few megabytes.
_FRAMES_A_BLOCK, _TILES_A_BLOCK = 256, 1024


class PixelGrid:
    """All pixels of a frame.

    Args:
        image_from_pixel: [4, 4] pixel (column, row, 0, 1) to image mm.
        frame_size: (rows, columns).
    """

    def __init__(self, image_from_pixel: np.ndarray, frame_size: tuple[int, int]) -> None:
        self._image_from_pixel = image_from_pixel
        self._pixels = frame_size[0] * frame_size[1]
        self._levels: list[tuple[AxisPieces, AxisPieces]] = []
        while not self._levels or not all(axis.exact for axis in self._levels[-1]):
            self._levels.append(tuple(AxisPieces(size, len(self._levels)) for size in frame_size))

    def mean_length(self, difference: np.ndarray, detail: str) -> Generator[Progress, None, np.ndarray]:
        """Return the mean length over all pixels of what a difference of poses maps them to, mm.

        Args:
            difference: [n, 4, 4] of poses, mm.
            detail: of the reports of `Stage.MEASURING` (frames), which are yielded between blocks of frames.

        Returns:
            [n] mm; NaN where the difference is not finite.
        """
        maps = (difference @ self._image_from_pixel)[:, :3][:, :, [0, 1, 3]]
        means = np.full(len(maps), np.nan)
        counted = np.flatnonzero(np.isfinite(maps).all(axis=(1, 2)))
        for start in range(0, len(counted), _FRAMES_A_BLOCK):
            yield Progress(Stage.MEASURING, start, len(counted), detail)
            block = counted[start : start + _FRAMES_A_BLOCK]
            # Turned so that a lies along the first axis and b in the plane of the first two, lengths are the same and
            # the third coordinate is one number a frame.
            means[block] = self._sums(np.linalg.qr(maps[block], mode="r")) / self._pixels
        yield Progress(Stage.MEASURING, len(counted), len(counted), detail)
        return means

    def _sums(self, turned: np.ndarray) -> np.ndarray:
        """[n] sums over all pixels of the length of `turned` @ (u, v, 1); `turned` [n, 3, 3] is upper triangular."""
        sums = np.zeros(len(turned))
        frame, row, column = np.arange(len(turned)), *np.zeros((2, len(turned)), np.int64)
        for level, (rows, columns) in enumerate(self._levels):
            smooth = _smooth(turned[frame], rows, columns, row, column)
            _add_tiles(sums, turned, frame[smooth], rows, columns, row[smooth], column[smooth])
            if level + 1 < len(self._levels):
                left = frame[~smooth], row[~smooth], column[~smooth]
                frame, row, column = _quartered(*left, self._levels[level], self._levels[level + 1])
        return sums


def _smooth(turned: np.ndarray, rows: AxisPieces, columns: AxisPieces, row: np.ndarray, column: np.ndarray):
    """[tiles] bool: whether the rules of both axes are exact there, by quadrature or because they take all points."""
    across = np.abs(turned[:, 0, 0]) * columns.reach[column]
    down = np.hypot(turned[:, 0, 1], turned[:, 1, 1]) * rows.reach[row]
    u, v = columns.middle[column], rows.middle[row]
    x = turned[:, 0, 0] * u + turned[:, 0, 1] * v + turned[:, 0, 2]
    y = turned[:, 1, 1] * v + turned[:, 1, 2]
    length = np.sqrt(x * x + y * y + turned[:, 2, 2] ** 2)
    # Along one axis, at any place of the other, the zeros in the complex plane lie at a distance of the length there
    # over that of the axis' vector; the length there is at least that of the middle less the reach of the other axis.
    across_fits = columns.exact | (length >= _CLEARANCE * across + down)
    return across_fits & (rows.exact | (length >= _CLEARANCE * down + across))


def _add_tiles(
    sums: np.ndarray,
    turned: np.ndarray,
    frame: np.ndarray,
    rows: AxisPieces,
    columns: AxisPieces,
    row: np.ndarray,
    column: np.ndarray,
) -> None:
    """Add the sum over each tile to that of its frame."""
    for start in range(0, len(frame), _TILES_A_BLOCK):
        block = slice(start, start + _TILES_A_BLOCK)
        of, r, c = turned[frame[block]], row[block], column[block]
        u, v = columns.nodes[c], rows.nodes[r]
        y = of[:, 1, 1, None] * v + of[:, 1, 2, None]
        x = (of[:, 0, 1, None] * v + of[:, 0, 2, None])[:, :, None] + (of[:, 0, 0, None] * u)[:, None, :]
        np.multiply(x, x, out=x)
        x += (y * y + of[:, 2, 2, None] ** 2)[:, :, None]
        np.sqrt(x, out=x)
        values = (rows.weights[r][:, None, :] @ x @ columns.weights[c][:, :, None])[:, 0, 0]
        sums += np.bincount(frame[block], weights=values, minlength=len(sums))


def _quartered(
    frame: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    level: tuple[AxisPieces, AxisPieces],
    finer: tuple[AxisPieces, AxisPieces],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tiles of the finer level that make up these; an axis that is not cut further keeps its pieces."""
    place = [row, column]
    for axis in range(2):
        parts = len(finer[axis].middle) // len(level[axis].middle)
        part = np.tile(np.arange(parts), len(frame))
        frame, *place = (np.repeat(values, parts) for values in (frame, *place))
        place[axis] = place[axis] * parts + part
    return frame, *place


def gram_rule(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights [min(points, NODES)] for the sum over 0, 1, ..., points - 1.

    With as many nodes as points they are the points themselves.
    """
    if points <= NODES:
        return np.arange(points, dtype=np.float64), np.ones(points)
    degree = np.arange(1, NODES, dtype=np.float64)
    beta = degree**2 * (points**2 - degree**2) / (4 * (4 * degree**2 - 1))
    values, vectors = np.linalg.eigh(np.diag(np.sqrt(beta), 1) + np.diag(np.sqrt(beta), -1))
    return values + (points - 1) / 2, points * vectors[0] ** 2


class AxisPieces:
    """An axis of N points cut into 2^level pieces of equal length, up to one point, with a rule for each.

    A piece that needs no rule any more, having at most :data:`NODES` points, is not cut further.

    Args:
        points: N.
        level: how often the axis is halved.

    Attributes:
        nodes: [pieces, n] places along the axis.
        weights: [pieces, n] of the nodes; 0 for those that fill up a short piece.
        middle: [pieces] of the points of each piece.
        reach: [pieces] half the way from its first to its last point.
        exact: whether all points of all pieces are nodes.
    """

    def __init__(self, points: int, level: int) -> None:
        halvings = 0
        while halvings < level and -(-points // 2**halvings) > NODES:
            halvings += 1
        edges = np.arange(2**halvings + 1) * points // 2**halvings
        sizes = np.diff(edges)
        self.exact = bool(sizes.max() <= NODES)
        self.middle, self.reach = edges[:-1] + (sizes - 1) / 2, (sizes - 1) / 2
        self.nodes = np.repeat(self.middle[:, None], min(NODES, sizes.max()), axis=1)
        self.weights = np.zeros_like(self.nodes)
        rules = {size: gram_rule(size) for size in set(sizes.tolist())}
        for piece, size in enumerate(sizes.tolist()):
            nodes, weights = rules[size]
            self.nodes[piece, : len(nodes)] = edges[piece] + nodes
            self.weights[piece, : len(weights)] = weights
