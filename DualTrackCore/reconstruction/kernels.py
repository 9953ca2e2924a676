"""The inner loops of compounding, compiled by numba.

Every kernel of compounding puts frames into one slab of the grid: the voxels whose index along one axis lies in a given
range. Slabs share no voxel, so each thread can fill one without locks. A kernel goes through frames, rows and columns
in their order, so every voxel receives its pixels in that order, however the grid is cut. The sums are therefore the
same, to the last bit, at any number of threads.

The columns where a row of pixels enters and leaves the slab are computed once a row, with the same expression that
places the pixels: base + step * column. The loops over columns then need no check. They place all pixels of a row first
and visit the voxels afterwards, because only the placing can be done for several pixels at a time.

Arguments that these kernels share:
    frames: [n, H, W] uint8, read only.
    matrices: [n, 4, 4] float64, voxel_from_pixel.
    runs: [r, 3] int64, (row, first column, column after the last) of the pixels that count, in their order.
    box: [3, 2] float64, along x, y, z: pixels lie at or above the first and below the second, in voxels (with the shift
        of the nearest voxel). The slab is in it.
    slab: [3] int64, (axis, first voxel, voxel after the last); at least two voxels where it ends with the grid, so that
        the last cell is not shared.
    size: [3] int64, (nx, ny, nz) of the grid.
    threshold: darker pixels are left out.
"""

from __future__ import annotations

import numpy as np
from numba import float32, float64, int64, types, uint8

from DualTrackCore.compilation import kernel

#: Nearest voxel: pixels midway between voxel centres go to the upper one, whatever the rounding of their position.
_NEAREST_SHIFT = 0.5 + 1e-9
#: Nearest voxel, mean: one int64 a voxel holds the sum of grey values in the lower bits and the number of pixels in the
#: upper ones, at most 2^27, because most time goes into reaching the voxel in memory.
_COUNT_SHIFT = 36
_ONE_PIXEL = 1 << _COUNT_SHIFT
_SUM_BITS = _ONE_PIXEL - 1
#: Linear, latest and maximum: corners of smaller weight are left alone, as in IGSIO.
_LEAST_CORNER = np.float32(0.125 - 1e-6)
#: Linear, mean: a voxel whose weights sum to less counts as unseen, as in IGSIO.
_LEAST_MEAN = np.float32(1.0 / 512.0)
_INDEX = np.uintp  # signed indices cost a test for negative ones, at every access
#: Which of the two voxels along the axis of the slab a pixel may change: both, or one where the other is a neighbour's.
_BOTH, _LOWER, _UPPER = -1, 0, 1
_kernel = kernel(error_model="numpy")


@_kernel
def _crossing(base, step, limit, low, high):
    """First column of low to high from which base + step * column is at or above the limit, or below it if falling."""
    column = np.int64(min(max((limit - base) / step, np.float64(low)), np.float64(high)))
    # The quotient is rounded; the comparison decides, as it rises or falls with the column, rounding included.
    if step > 0:
        while column > low and base + step * (column - 1) >= limit:
            column -= 1
        while column < high and base + step * column < limit:
            column += 1
    else:
        while column > low and base + step * (column - 1) < limit:
            column -= 1
        while column < high and base + step * column >= limit:
            column += 1
    return column


@_kernel
def _within(base, step, least, limit, low, high):
    """(first, after last) of the columns low to high where least <= base + step * column < limit."""
    if low >= high:
        return low, low
    if step == 0:
        return (low, high) if least <= base < limit else (low, low)
    if step > 0:
        start = _crossing(base, step, least, low, high)
        return start, _crossing(base, step, limit, start, high)
    start = _crossing(base, step, limit, low, high)
    return start, _crossing(base, step, least, start, high)


@_kernel
def _row_of(matrix, row, shift):
    """Position (x, y, z) of column 0, and what each column adds: voxels."""
    x = matrix[0, 1] * row + (matrix[0, 3] + shift)
    y = matrix[1, 1] * row + (matrix[1, 3] + shift)
    z = matrix[2, 1] * row + (matrix[2, 3] + shift)
    return x, y, z, matrix[0, 0], matrix[1, 0], matrix[2, 0]


@_kernel
def _columns(line, box, low, high):
    """(first, after last) of the columns low to high that lie in the box."""
    x, y, z, step_x, step_y, step_z = line
    low, high = _within(z, step_z, box[2, 0], box[2, 1], low, high)
    low, high = _within(y, step_y, box[1, 0], box[1, 1], low, high)
    return _within(x, step_x, box[0, 0], box[0, 1], low, high)


@_kernel
def _place_nearest(line, low, high, size, index):
    """Flat index of the voxel of each column low to high."""
    x, y, z, step_x, step_y, step_z = line
    nx, nxy = size[0], size[0] * size[1]
    for place in range(high - low):
        u = np.float64(place + low)
        # Not below 0 within the box, where cutting to whole numbers is the floor.
        i, j, k = np.int64(x + step_x * u), np.int64(y + step_y * u), np.int64(z + step_z * u)
        index[_INDEX(place)] = k * nxy + j * nx + i


@_kernel
def _place_linear(line, low, high, size, index, parts):
    """Flat index of the lowest corner of the cell of each column low to high, and the position within the cell."""
    x, y, z, step_x, step_y, step_z = line
    last_x, last_y, last_z = np.float64(size[0] - 1), np.float64(size[1] - 1), np.float64(size[2] - 1)
    # A pixel on the last voxel centre belongs to the last cell, with all its weight on the upper corner.
    top_x, top_y, top_z = max(last_x - 1, 0.0), max(last_y - 1, 0.0), max(last_z - 1, 0.0)
    nx, nxy = np.float64(size[0]), np.float64(size[0] * size[1])
    for place in range(high - low):
        u = np.float64(place + low)
        p = min(max(x + step_x * u, 0.0), last_x)
        q = min(max(y + step_y * u, 0.0), last_y)
        r = min(max(z + step_z * u, 0.0), last_z)
        i, j, k = min(np.floor(p), top_x), min(np.floor(q), top_y), min(np.floor(r), top_z)
        at = _INDEX(place)
        index[at] = np.int64(k * nxy + j * nx + i)
        parts[0, at], parts[1, at], parts[2, at] = np.float32(p - i), np.float32(q - j), np.float32(r - k)


@_kernel
def _steps(size):
    """What the upper corner along x, y, z adds to the flat index; 0 along an axis of a single voxel."""
    return (
        _INDEX(1 if size[0] > 1 else 0),
        _INDEX(size[0] if size[1] > 1 else 0),
        _INDEX(size[0] * size[1] if size[2] > 1 else 0),
    )


@_kernel
def _seams(line, slab, size, low, high):
    """(first, after last) of the columns whose cell lies in the slab with both of its sides.

    The columns before and after lie in a cell that is shared with a neighbouring slab.
    """
    base, step = (line[0], line[3]) if slab[0] == 0 else (line[1], line[4]) if slab[0] == 1 else (line[2], line[5])
    least = np.float64(slab[1]) if slab[1] > 0 else -np.inf
    limit = np.float64(slab[2] - 1) if slab[2] < size[slab[0]] else np.inf
    return _within(base, step, least, limit, low, high)


@_kernel
def _side(line, slab, column):
    """Which side of its cell a pixel in a shared cell may change."""
    base, step = (line[0], line[3]) if slab[0] == 0 else (line[1], line[4]) if slab[0] == 1 else (line[2], line[5])
    return _UPPER if base + step * column < slab[1] else _LOWER


@_kernel
def _corner(number, parts, place, steps):
    """(offset, weight along z and y, weight along x) of corner `number`, whose bits 0, 1, 2 are x, y, z."""
    one, offset = np.float32(1), _INDEX(0)
    x, y, z = parts[0, place], parts[1, place], parts[2, place]
    if number & 1:
        offset += steps[0]
    else:
        x = one - x
    if number & 2:
        offset += steps[1]
    else:
        y = one - y
    if number & 4:
        offset += steps[2]
    else:
        z = one - z
    return offset, z * y, x


@_kernel
def _owned(number, axis, side):
    """Whether corner `number` lies on the side that may be changed."""
    return side == _BOTH or (number >> axis) & 1 == side


@_kernel
def nearest_mean(frames, matrices, runs, box, slab, size, threshold, packed):
    """Add sums and counts to `packed` [voxels] int64: grey values in the lower bits, pixels in the upper ones."""
    index = np.empty(frames.shape[2], np.int64)
    for frame in range(frames.shape[0]):
        for run in range(runs.shape[0]):
            line = _row_of(matrices[frame], runs[run, 0], _NEAREST_SHIFT)
            low, high = _columns(line, box, runs[run, 1], runs[run, 2])
            _place_nearest(line, low, high, size, index)
            pixels = frames[frame, runs[run, 0]]
            for place in range(high - low):
                grey = pixels[_INDEX(place + low)]
                if grey >= threshold:
                    packed[_INDEX(index[_INDEX(place)])] += np.int64(grey) + _ONE_PIXEL


@_kernel
def nearest_one(frames, matrices, runs, box, slab, size, threshold, brightest, values, weights):
    """Keep the last or the brightest pixel in `values` [voxels] uint8, count pixels in `weights` [voxels] float32."""
    index = np.empty(frames.shape[2], np.int64)
    for frame in range(frames.shape[0]):
        for run in range(runs.shape[0]):
            line = _row_of(matrices[frame], runs[run, 0], _NEAREST_SHIFT)
            low, high = _columns(line, box, runs[run, 1], runs[run, 2])
            _place_nearest(line, low, high, size, index)
            pixels = frames[frame, runs[run, 0]]
            for place in range(high - low):
                grey = pixels[_INDEX(place + low)]
                if grey >= threshold:
                    voxel = _INDEX(index[_INDEX(place)])
                    values[voxel] = max(values[voxel], grey) if brightest else grey
                    weights[voxel] += np.float32(1)


@_kernel
def _add(sums, at, weight, weighted):
    sums[at] += weight
    sums[at + _INDEX(1)] += weighted


@_kernel
def _spread(sums, pixels, threshold, index, parts, steps, low, start, stop):
    """Add the pixels at places start to stop to all eight voxels around them."""
    one = np.float32(1)
    dx, dy, dz = _INDEX(2) * steps[0], _INDEX(2) * steps[1], _INDEX(2) * steps[2]
    for number in range(start, stop):
        place = _INDEX(number)
        grey = pixels[_INDEX(number + low)]
        if grey < threshold:
            continue
        x, y, z = parts[0, place], parts[1, place], parts[2, place]
        at = _INDEX(index[place]) * _INDEX(2)
        high_part = x * np.float32(grey)
        low_part = np.float32(grey) - high_part
        rest_x, rest_y, rest_z = one - x, one - y, one - z
        for upper, to in ((rest_z * rest_y, _INDEX(0)), (rest_z * y, dy), (z * rest_y, dz), (z * y, dz + dy)):
            _add(sums, at + to, upper * rest_x, upper * low_part)
            _add(sums, at + to + dx, upper * x, upper * high_part)


@_kernel
def _spread_to_one_side(sums, pixels, threshold, index, parts, steps, low, start, stop, axis, side):
    """The same for pixels in a cell that is shared with another slab: only to the side that is in this one."""
    for number in range(start, stop):
        place = _INDEX(number)
        grey = np.float32(pixels[_INDEX(number + low)])
        if grey < threshold:
            continue
        high_part = parts[0, place] * grey
        for corner in range(8):
            if _owned(corner, axis, side):
                offset, upper, x = _corner(corner, parts, place, steps)
                share = high_part if corner & 1 else grey - high_part
                _add(sums, (_INDEX(index[place]) + offset) * _INDEX(2), upper * x, upper * share)


@_kernel
def linear_mean(frames, matrices, runs, box, slab, size, threshold, sums):
    """Add weights and weighted grey values to `sums` [2 * voxels] float32, side by side; slab = (axis, first, stop)."""
    index, parts = np.empty(frames.shape[2], np.int64), np.empty((3, frames.shape[2]), np.float32)
    steps = _steps(size)
    for frame in range(frames.shape[0]):
        for run in range(runs.shape[0]):
            line = _row_of(matrices[frame], runs[run, 0], 0.0)
            low, high = _columns(line, box, runs[run, 1], runs[run, 2])
            _place_linear(line, low, high, size, index, parts)
            inner, outer = _seams(line, slab, size, low, high)
            pixels = frames[frame, runs[run, 0]]
            for start, stop in ((low, inner), (inner, outer), (outer, high)):
                if start == inner and stop == outer:
                    _spread(sums, pixels, threshold, index, parts, steps, low, start - low, stop - low)
                elif start < stop:
                    side = _side(line, slab, start)
                    _spread_to_one_side(
                        sums, pixels, threshold, index, parts, steps, low, start - low, stop - low, slab[0], side
                    )


@_kernel
def linear_one(frames, matrices, runs, box, slab, size, threshold, brightest, values, weights):
    """As `nearest_one`, for the voxels around each pixel whose weight is large enough."""
    index, parts = np.empty(frames.shape[2], np.int64), np.empty((3, frames.shape[2]), np.float32)
    steps = _steps(size)
    for frame in range(frames.shape[0]):
        for run in range(runs.shape[0]):
            line = _row_of(matrices[frame], runs[run, 0], 0.0)
            low, high = _columns(line, box, runs[run, 1], runs[run, 2])
            _place_linear(line, low, high, size, index, parts)
            inner, outer = _seams(line, slab, size, low, high)
            pixels = frames[frame, runs[run, 0]]
            for column in range(low, high):
                grey, place = pixels[_INDEX(column)], _INDEX(column - low)
                if grey < threshold:
                    continue
                side = _BOTH if inner <= column < outer else _side(line, slab, column)
                for corner in range(8):
                    offset, upper, x = _corner(corner, parts, place, steps)
                    if upper * x >= _LEAST_CORNER and _owned(corner, slab[0], side):
                        voxel = _INDEX(index[place]) + offset
                        values[voxel] = max(values[voxel], grey) if brightest else grey
                        weights[voxel] += upper * x


@_kernel
def finish_nearest_mean(packed, volume, coverage, start, stop):
    """Mean rounded to the nearest grey value, halves up, and number of pixels, of voxels start to stop."""
    for place in range(start, stop):
        at = _INDEX(place)
        count = packed[at] >> _COUNT_SHIFT
        total = packed[at] & _SUM_BITS
        volume[at] = np.uint8(np.float64(total) / np.float64(max(count, 1)) + 0.5)
        coverage[at] = np.float32(count)


@_kernel
def finish_linear_mean(sums, volume, coverage, start, stop):
    """Mean rounded to the nearest grey value, and weight, of voxels start to stop; next to no weight is unseen."""
    for place in range(start, stop):
        at = _INDEX(place)
        weight, total = sums[_INDEX(2) * at], sums[_INDEX(2) * at + _INDEX(1)]
        seen = weight >= _LEAST_MEAN
        mean = total / max(weight, _LEAST_MEAN) + np.float32(0.5)
        volume[at] = np.uint8(min(max(mean, np.float32(0)), np.float32(255))) if seen else np.uint8(0)
        coverage[at] = weight if seen else np.float32(0)


_PLACING = (
    types.Array(uint8, 3, "C", readonly=True),
    float64[:, :, ::1],
    int64[:, ::1],
    float64[:, ::1],
    int64[::1],
    int64[::1],
    int64,
)
_ONE = (types.boolean, uint8[::1], float32[::1])
_FINISHED = (uint8[::1], float32[::1], int64, int64)
#: The kernels that are called from Python, with the types of their arguments.
SIGNATURES = {
    nearest_mean: (*_PLACING, int64[::1]),
    nearest_one: (*_PLACING, *_ONE),
    linear_mean: (*_PLACING, float32[::1]),
    linear_one: (*_PLACING, *_ONE),
    finish_nearest_mean: (int64[::1], *_FINISHED),
    finish_linear_mean: (float32[::1], *_FINISHED),
}
