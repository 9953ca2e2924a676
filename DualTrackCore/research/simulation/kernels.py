"""The kernel that reads speckle: import it by :func:`~DualTrackCore.compilation.kernel_module`."""

from __future__ import annotations

import numpy as np

from DualTrackCore.compilation import kernel

_INDEX = np.uintp  # signed indices need a test for negative values at every access


@kernel(inline="always")
def _between(near: float, far: float, share: float) -> float:
    return near + (far - near) * share


@kernel()
def add_fields(
    fields: np.ndarray,
    direction: np.ndarray,
    x_mm: np.ndarray,
    y_mm: np.ndarray,
    origin: np.ndarray,
    level: np.ndarray,
    weights: np.ndarray,
    chosen: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add blended fields, read by trilinear interpolation, to samples of a picture.

    Args:
        fields: [widths, side, side, side, 2] float32 over (width, z, y, x, real and imaginary part), periodic; side is
            a power of two.
        direction: [3, 2] float32 steps on the fields' grid (x, y, z) per mm along the picture's columns and rows.
        x_mm, y_mm: [samples, beams] float32 places in the picture.
        origin: [samples, 3] float32 place of the picture's origin on the grid.
        level: [samples] int64 index of the first of the two blended widths.
        weights: [samples, 2] float32 of both; a field of weight 0 is not read.
        chosen: [samples, beams] bool, the samples to read.
        out: [samples, beams, 2] float32, to which the fields are added.
    """
    mask = fields.shape[1] - 1
    for i in range(x_mm.shape[0]):
        for j in range(x_mm.shape[1]):
            if not chosen[i, j]:
                continue
            x = direction[0, 0] * x_mm[i, j] + direction[0, 1] * y_mm[i, j] + origin[i, 0]
            y = direction[1, 0] * x_mm[i, j] + direction[1, 1] * y_mm[i, j] + origin[i, 1]
            z = direction[2, 0] * x_mm[i, j] + direction[2, 1] * y_mm[i, j] + origin[i, 2]
            left, top, front = np.floor(x), np.floor(y), np.floor(z)
            fx, fy, fz = x - left, y - top, z - front
            x0, y0, z0 = _INDEX(int(left) & mask), _INDEX(int(top) & mask), _INDEX(int(front) & mask)
            x1, y1, z1 = _INDEX((int(left) + 1) & mask), _INDEX((int(top) + 1) & mask), _INDEX((int(front) + 1) & mask)
            for width in range(2):
                weight = weights[i, width]
                if weight == 0:
                    continue
                field = fields[level[i] + width]
                for part in range(2):
                    near = _between(
                        _between(field[z0, y0, x0, part], field[z0, y0, x1, part], fx),
                        _between(field[z0, y1, x0, part], field[z0, y1, x1, part], fx),
                        fy,
                    )
                    far = _between(
                        _between(field[z1, y0, x0, part], field[z1, y0, x1, part], fx),
                        _between(field[z1, y1, x0, part], field[z1, y1, x1, part], fx),
                        fy,
                    )
                    out[i, j, part] += weight * _between(near, far, fz)
