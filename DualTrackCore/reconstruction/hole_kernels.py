"""The inner loops of filling holes, compiled by numba.

A kernel goes through rows of voxels along x. What decides whether a hole can be filled is found for all columns between
the first and the last hole of a row, several at a time, from whole rows around it; only holes that have a value are
then looked at one by one. So most time goes where holes are filled, and next to none where nothing was seen.

Arguments that these kernels share:
    volume: [nz, ny, nx] uint8, grey values, read only.
    seen: [nz, ny, nx] uint8, 1 where pixels reached, else 0, read only.
    result, filled: [nz, ny, nx] uint8, written where a hole gets a value; voxels that are filled already stay.
    start, stop: rows z * ny + y to work on.
    size: width of the cube around a hole.
    least: more voxels than this must be seen in it.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, types, uint8

from DualTrackCore.compilation import kernel

#: Added before a value is cut to a whole number, so that rounding in float32 cannot cost a grey level.
_CUT_TOLERANCE = np.float32(1e-3)
_kernel = kernel(error_model="numpy")


@_kernel
def _fill(result, filled, value):
    """Give a hole its value, cut to a whole grey level; both arrays of one element."""
    result[0] = np.uint8(min(np.floor(value + _CUT_TOLERANCE), np.float32(255)))
    filled[0] = 1


@_kernel
def _holes(seen, filled):
    """(first, after last) column between which the holes of a row lie."""
    first, last = 0, len(seen)
    while first < last and seen[first] | filled[first]:
        first += 1
    while last > first and seen[last - 1] | filled[last - 1]:
        last -= 1
    return first, last


@_kernel
def _add_ring(volume, seen, z, y, ring, first, counts, totals):
    """Add number and grey values of the seen voxels of the rows at distance `ring` from row (z, y), along z or y.

    counts, totals: uint32, of the columns from `first` on, which may lie outside.
    """
    nz, ny, nx = seen.shape
    low, high = max(first, 0), min(first + len(counts), nx)
    for k in range(max(z - ring, 0), min(z + ring + 1, nz)):
        step = 1 if abs(k - z) == ring else max(2 * ring, 1)
        for j in range(y - ring, y + ring + 1, step):
            if 0 <= j < ny:
                known, greys = seen[k, j, low:high], volume[k, j, low:high]
                number, total = counts[low - first : high - first], totals[low - first : high - first]
                for x in range(len(known)):
                    number[x] += known[x]
                    total[x] += np.uint32(greys[x]) * known[x]


@_kernel
def fill_nearest(volume, seen, result, filled, start, stop, size, least):
    """Fill by the mean of the smallest cube that holds a seen voxel."""
    half, nx = size // 2, seen.shape[2]
    counts, totals = np.empty(nx + 2 * half, np.uint32), np.empty(nx + 2 * half, np.uint32)
    waiting = np.empty(nx, np.int64)
    for row in range(start, stop):
        z, y = row // seen.shape[1], row % seen.shape[1]
        low, high = _holes(seen[z, y], filled[z, y])
        number, total = counts[: high - low + 2 * half], totals[: high - low + 2 * half]
        number[:], total[:] = 0, 0
        left = 0
        for x in range(low, high):
            if not seen[z, y, x] | filled[z, y, x]:
                waiting[left] = x
                left += 1
        for ring in range(half + 1):
            if left == 0:
                break
            _add_ring(volume, seen, z, y, ring, low - half, number, total)
            if ring and number.any():
                left = _fill_waiting(result[z, y], filled[z, y], waiting, left, low - half, ring, number, total, least)


@_kernel
def _fill_waiting(result, filled, waiting, left, first, ring, counts, totals, least):
    """Fill those of the `left` waiting holes whose cube of that size holds a seen voxel; how many go on waiting."""
    still = 0
    for place in range(left):
        x = waiting[place]
        count, total = np.uint32(0), np.uint32(0)
        for column in range(x - first - ring, x - first + ring + 1):
            count += counts[column]
            total += totals[column]
        if count == 0:
            waiting[still] = x
            still += 1
        elif count > least:
            _fill(result[x:], filled[x:], np.float32(total) / np.float32(count))
    return still


@_kernel
def _among_known(seen, filled, z, y, half, least, counts, chosen):
    """How many holes of row (z, y) have enough seen voxels around them; `chosen` receives their columns."""
    nz, ny, nx = seen.shape
    low, high = _holes(seen[z, y], filled[z, y])
    if low == high:
        return 0
    counts[: high - low + 2 * half] = 0
    first, last = max(low - half, 0), min(high + half, nx)
    number = counts[first - low + half : last - low + half]
    for k in range(max(z - half, 0), min(z + half + 1, nz)):
        for j in range(max(y - half, 0), min(y + half + 1, ny)):
            known = seen[k, j, first:last]
            for x in range(len(known)):
                number[x] += known[x]
    found, window = 0, 0
    for column in range(2 * half):
        window += counts[column]
    for x in range(high - low):
        window += counts[x + 2 * half]
        if window > least and not seen[z, y, low + x] | filled[z, y, low + x]:
            chosen[found] = low + x
            found += 1
        window -= counts[x]
    return found


@_kernel
def _add_alike(volume, seen, z, y, apart, beside, first, known, greys):
    """Add whether voxels are seen, and their grey values if so, of the rows `apart` and `beside` from (z, y), any way.

    known, greys: uint16, of the columns from `first` on, which may lie outside.
    """
    nz, ny, nx = seen.shape
    low, high = max(first, 0), min(first + len(known), nx)
    number, total = known[low - first : high - first], greys[low - first : high - first]
    for turn in range(1 if apart == beside else 2):
        along_z, along_y = (beside, apart) if turn else (apart, beside)
        for k in range(z - along_z, z + along_z + 1, max(2 * along_z, 1)):
            for j in range(y - along_y, y + along_y + 1, max(2 * along_y, 1)):
                if 0 <= k < nz and 0 <= j < ny:
                    here, grey = seen[k, j, low:high], volume[k, j, low:high]
                    for x in range(len(here)):
                        number[x] += here[x]
                        total[x] += np.uint16(here[x] * grey[x])


@_kernel
def fill_by_distance(volume, seen, result, filled, start, stop, size, least, weights):
    """Fill by the mean of the seen voxels of a cube, by weights [half + 1, half + 1, half + 1] of the steps along z, y
    and x, in any order. Voxels that lie alike are added up first, as whole numbers.
    """
    half, (_, ny, nx) = size // 2, seen.shape
    counts, chosen = np.empty(nx + 2 * half, np.uint16), np.empty(nx, np.int64)
    alike, sums = np.empty((2, nx + 2 * half), np.uint16), np.empty((2, nx))
    for row in range(start, stop):
        z, y = row // ny, row % ny
        found = _among_known(seen, filled, z, y, half, least, counts, chosen)
        if found == 0:
            continue
        first, wide = chosen[0], chosen[found - 1] + 1 - chosen[0]
        sums[:, :wide] = 0
        for apart in range(half + 1):
            for beside in range(apart + 1):
                alike[:, : wide + 2 * half] = 0
                known, greys = alike[0, : wide + 2 * half], alike[1, : wide + 2 * half]
                _add_alike(volume, seen, z, y, apart, beside, first - half, known, greys)
                for steps in range(half + 1):
                    weight = weights[apart, beside, steps]
                    for what in range(2):
                        left, right = alike[what, half - steps :], alike[what, half + steps :]
                        target, factor = sums[what, :wide], weight if steps else weight / 2  # the middle is added twice
                        for x in range(wide):
                            target[x] += factor * (left[x] + right[x])
        for place in range(found):
            x = chosen[place]
            _fill(result[z, y, x:], filled[z, y, x:], np.float32(sums[1, x - first] / sums[0, x - first]))


@_kernel
def _weighted(lines, at, apart, profile, sums, target):
    """Sum of 2 half + 1 runs around `at` in the flat `lines`, `apart` from each other, by a symmetric profile.

    The outermost first, in float64, to float32. profile: [half + 1], from the middle outwards.
    """
    middle = lines[at : at + len(target)]
    for x in range(len(target)):
        sums[x] = middle[x] * profile[0]
    for distance in range(len(profile) - 1, 0, -1):
        before, after, factor = at - distance * apart, at + distance * apart, profile[distance]
        left, right = lines[before : before + len(target)], lines[after : after + len(target)]
        for x in range(len(target)):
            sums[x] += (np.float64(left[x]) + np.float64(right[x])) * factor
    for x in range(len(target)):
        target[x] = np.float32(sums[x])


@_kernel
def fill_by_profile(volume, seen, result, filled, start, stop, size, least, profile):
    """Fill by the mean of the seen voxels of a cube, weighted along each axis by a symmetric profile [size // 2 + 1].

    One axis after the other, z first, sums in float64 and results in float32, as scipy.ndimage does it.
    """
    half, (_, ny, nx) = size // 2, seen.shape
    counts, chosen = np.empty(nx + 2 * half, np.uint16), np.empty(nx, np.int64)
    column, sums = np.zeros((2, size * nx), np.uint8), np.empty(nx)
    # Of weights and of weighted grey values; what lies outside of the volume is zero.
    along_z = np.zeros((2, (ny + 2 * half) * nx), np.float32)
    along_y, along_x = np.zeros((2, nx + 2 * half), np.float32), np.empty((2, nx), np.float32)
    done = np.full(ny, -1)  # for which slice a row has had its first pass
    for row in range(start, stop):
        z, y = row // ny, row % ny
        found = _among_known(seen, filled, z, y, half, least, counts, chosen)
        if found == 0:
            continue
        for j in range(max(y - half, 0), min(y + half + 1, ny)):
            if done[j] != z:
                done[j] = z
                _gather(volume, seen, z, j, half, column)
                for what in range(2):
                    target = along_z[what, (j + half) * nx : (j + half + 1) * nx]
                    _weighted(column[what], half * nx, nx, profile, sums, target)
        for what in range(2):
            _weighted(along_z[what], (y + half) * nx, nx, profile, sums, along_y[what, half : half + nx])
            first, last = chosen[0], chosen[found - 1] + 1
            _weighted(along_y[what], half + first, 1, profile, sums, along_x[what, first:last])
        for place in range(found):
            x = chosen[place]
            if along_x[0, x] > 0:
                _fill(result[z, y, x:], filled[z, y, x:], along_x[1, x] / along_x[0, x])


@_kernel
def _gather(volume, seen, z, y, half, column):
    """The rows (z - half to z + half, y): whether a voxel is seen, and its grey value if so; zeros outside."""
    nz, _, nx = seen.shape
    for k in range(z - half, z + half + 1):
        place = (k - z + half) * nx
        known, grey = column[0, place : place + nx], column[1, place : place + nx]
        if 0 <= k < nz:
            for x in range(nx):
                known[x] = seen[k, y, x]
                grey[x] = seen[k, y, x] * volume[k, y, x]
        else:
            known[:], grey[:] = 0, 0


_READ, _WRITTEN = types.Array(uint8, 3, "C", readonly=True), uint8[:, :, ::1]
_SHARED = (_READ, _READ, _WRITTEN, _WRITTEN, int64, int64)
#: The kernels that are called from Python, with the types of their arguments.
SIGNATURES = {
    fill_nearest: (*_SHARED, int64, float64),
    fill_by_distance: (*_SHARED, int64, float64, float64[:, :, ::1]),
    fill_by_profile: (*_SHARED, int64, float64, float64[::1]),
}
