"""The mean error over all pixels of a frame, exact to rounding, from a few hundred places instead of all of them.

The difference of two poses takes pixel (u, v) to a u + b v + c, and what is wanted is the mean length of that over the
grid of pixels. Where the length stays away from zero it is an analytic function, and Gaussian quadrature for the sum
over the points of a grid converges geometrically. A tile of the image whose length comes near zero is quartered, until
it has so few pixels that all of them are taken: near the places where the length is zero nothing is approximated.
"""

from __future__ import annotations

import numpy as np

from DualTrackCore.evaluation.quadrature import AxisPieces
from DualTrackCore.progress import Reporter, Stage

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

    def mean_length(self, difference: np.ndarray, reporter: Reporter, detail: str) -> np.ndarray:
        """Mean over all pixels of the length in mm to which a difference of poses takes them.

        Args:
            difference: [n, 4, 4] of poses, mm.
            reporter: receives `Stage.MEASURING` (frames) with `detail`, between blocks of frames.

        Returns:
            [n] mm; NaN where the difference is not finite.
        """
        maps = (difference @ self._image_from_pixel)[:, :3][:, :, [0, 1, 3]]
        means = np.full(len(maps), np.nan)
        counted = np.flatnonzero(np.isfinite(maps).all(axis=(1, 2)))
        for start in range(0, len(counted), _FRAMES_A_BLOCK):
            reporter.report(Stage.MEASURING, start, len(counted), detail)
            block = counted[start : start + _FRAMES_A_BLOCK]
            # Turned so that a lies along the first axis and b in the plane of the first two, lengths are the same and
            # the third coordinate is one number a frame.
            means[block] = self._sums(np.linalg.qr(maps[block], mode="r")) / self._pixels
        reporter.report(Stage.MEASURING, len(counted), len(counted), detail)
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
    for axis in range(2):
        parts = len(finer[axis].middle) // len(level[axis].middle)
        part = np.tile(np.arange(parts), len(frame))
        frame, row, column = (np.repeat(values, parts) for values in (frame, row, column))
        if axis == 0:
            row = row * parts + part
        else:
            column = column * parts + part
    return frame, row, column
