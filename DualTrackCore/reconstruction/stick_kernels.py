"""The inner loops of filling holes along sticks, compiled by numba.

A stick is the line through a hole between the first seen voxels on both sides. Sticks are sought for blocks of rows,
from margin to margin of a flat array, without conditions, so that tens of voxels are done at once; only holes that have
one are then looked at one by one.
"""

from __future__ import annotations

import numpy as np
from numba import int64, types, uint8

from DualTrackCore.compilation import kernel

#: Larger than the squared length of any stick, 65 steps along a space diagonal; smaller squares are better scores.
_NO_STICK = np.uint16(65535)
#: Voxels for which sticks are sought at a time: enough for long loops, few enough to stay near the processor.
_BLOCK = 8192
_kernel = kernel(error_model="numpy")


@_kernel
def _less(a, b):
    """The smaller number, in its own type, which `min` widens."""
    return a if a < b else b


@_kernel
def _before(count, steps):
    """So many steps before a count of steps, which starts with 1."""
    return np.uint8(max(np.int64(count) - steps, 1))


@_kernel
def _nearest(a, b, c, d, most, x):
    """The least of four values, and of four counts from `most` down where the values are 0."""
    far = _less(np.uint8(a[x] | most), np.uint8(b[x] | _before(most, 1)))
    return _less(far, _less(np.uint8(c[x] | _before(most, 2)), np.uint8(d[x] | _before(most, 3))))


@_kernel
def _steps_to_seen(lines, at, apart, reach, steps):
    """Steps from the voxels at `at` in the flat `lines` to the first seen one, `apart` each; 255: none in the reach.

    Eight at a time, as going through `steps` takes as long as looking.
    """
    for most in range(reach, 0, -8):
        unset, far, near = np.uint8(255 if most == reach else 0), np.uint8(most), _before(most, 4)
        a, b = lines[at + most * apart :], lines[at + _before(most, 1) * apart :]
        c, d = lines[at + _before(most, 2) * apart :], lines[at + _before(most, 3) * apart :]
        e, f = lines[at + _before(most, 4) * apart :], lines[at + _before(most, 5) * apart :]
        g, h = lines[at + _before(most, 6) * apart :], lines[at + _before(most, 7) * apart :]
        for x in range(len(steps)):
            found = _less(_nearest(a, b, c, d, far, x), _nearest(e, f, g, h, near, x))
            steps[x] = _less(np.uint8(steps[x] | unset), found)


@_kernel
def _rank(ahead, behind, longest, squared, bit, ranks, best, chosen):
    """Square of the length of the stick of each voxel along a direction; the least of all directions so far, and which
    directions, as bits, have that.
    """
    for x in range(len(ranks)):
        length = np.uint16(np.uint16(np.uint16(ahead[x]) + np.uint16(behind[x])) + np.uint16(1))
        rank = np.uint16(np.uint16(length * length) * squared)
        rank = rank if length <= longest else _NO_STICK
        which = bit if rank < best[x] else np.uint16(chosen[x] | bit)
        chosen[x] = which if rank <= best[x] else chosen[x]
        best[x] = _less(best[x], rank)
        ranks[x] = rank


@_kernel
def _best_few(ranks, x, sticks):
    """The directions, as bits, that fewer than so many sticks undercut at voxel x."""
    worst, better = np.uint16(0), 0
    while better < sticks:
        following, count = _NO_STICK, 0
        for d in range(len(ranks)):
            rank = ranks[d, x]
            if worst < rank < following:
                following, count = rank, 1
            elif rank == following:
                count += 1
        if following == _NO_STICK:
            break
        worst = following
        better += count
    chosen = 0
    for d in range(len(ranks)):
        chosen |= int(ranks[d, x] <= worst) << d
    return chosen


@_kernel
def _seek(lines, at, wide, room, apart, squared, reach, ahead, behind, ranks, best, chosen):
    """Sticks of `wide` voxels from `at` on in all directions [d].

    room: [d, 2], how far the volume reaches ahead and behind, at most `reach`.
    """
    chosen[:wide] = 0
    for d in range(len(apart)):
        if min(room[d, 0], room[d, 1]) == 0:
            ranks[d, :wide] = _NO_STICK
            continue
        _steps_to_seen(lines, at, apart[d], room[d, 0], ahead[d, :wide])
        _steps_to_seen(lines, at, -apart[d], room[d, 1], behind[d, :wide])
        facts = np.uint16(reach + 1), np.uint16(squared[d]), np.uint16(1 << d)
        _rank(ahead[d], behind[d], *facts, ranks[d, :wide], best[:wide], chosen[:wide])


@_kernel
def _fill(volume, result, filled, at, places, line, chosen, ahead, behind, apart, scores):
    """Fill holes of a row by the mean of the sticks in their `chosen` directions (bits), weighted by scores [d, steps].

    volume, result, filled: flat; the row starts at `at`, the holes are in its columns `places`; apart: [d] from voxel
    to voxel of a stick. What is known of a column x stands at line + x of chosen, ahead [d] and behind [d].
    """
    for x in places:
        total, weighted, bits, d = 0.0, 0.0, np.int64(chosen[line + x]), 0
        while bits:
            if bits & 1:
                f, b = np.int64(ahead[d, line + x]), np.int64(behind[d, line + x])
                there, back = np.uint32(volume[at + x + f * apart[d]]), np.uint32(volume[at + x - b * apart[d]])
                value = np.uint32(np.uint32(b + 1) * there + np.uint32(f) * back) // np.uint32(f + b + 1)
                total += scores[d, f + b]
                weighted += scores[d, f + b] * value
            bits, d = bits >> 1, d + 1
        result[at + x], filled[at + x] = np.uint8(np.floor(weighted / total + 1e-6)), 1


@_kernel
def _rows_with_holes(seen, filled, z, y, limit, pitch, best):
    """The row after the last of those from (z, y) on that all have holes, at most `limit`.

    best: row by row, `pitch` apart, receives what no stick can have for what is no hole, else what any stick undercuts.
    """
    for end in range(y, limit):
        line, holes = best[(end - y) * pitch : (end - y) * pitch + seen.shape[2]], 0
        for x in range(len(line)):
            is_hole = not seen[z, end, x] | filled[z, end, x]
            line[x] = np.uint16(_NO_STICK - 1) if is_hole else np.uint16(0)
            holes += is_hole
        if holes == 0:
            return end
    return limit


@_kernel
def fill_by_sticks(volume, seen, result, filled, start, stop, around, rows, directions, squared, reach, sticks):
    """Fill by the best sticks: score-weighted mean of their values, cut to a whole number.

    volume, seen, result, filled, start, stop: as in :mod:`~DualTrackCore.reconstruction.hole_kernels`; around: 0 where
    seen, else 255, with `reach` more voxels on either side along y and x; rows: [nz, ny] whether a row has seen voxels;
    directions: [d, 3] x, y, z, with the squares of their lengths [d].
    """
    (nz, ny, nx), (_, tall, pitch), count = seen.shape, around.shape, len(directions)
    block = max(1, _BLOCK // pitch)
    ahead, behind = np.empty((count, block * pitch), np.uint8), np.empty((count, block * pitch), np.uint8)
    ranks, best = np.empty((count, block * pitch), np.uint16), np.empty(block * pitch, np.uint16)
    chosen, places, room = np.empty(block * pitch, np.uint16), np.empty(nx, np.int64), np.empty((count, 2), np.int64)
    scores = 1.0 / (np.arange(1, reach + 2) * np.sqrt(squared.astype(np.float64)).reshape(-1, 1))
    lines, flat = around.reshape(-1), (volume.reshape(-1), result.reshape(-1), filled.reshape(-1))
    in_lines = (directions[:, 2] * tall + directions[:, 1]) * pitch + directions[:, 0]
    in_volume = (directions[:, 2] * ny + directions[:, 1]) * nx + directions[:, 0]
    row = start
    while row < stop:
        z, y = row // ny, row % ny
        end = _rows_with_holes(seen, filled, z, y, min(y + block, ny, y + stop - row), pitch, best)
        row += max(end - y, 1)
        if end == y or not rows[max(z - reach, 0) : z + reach + 1, max(y - reach, 0) : end + reach].any():
            continue
        for d in range(count):
            up, above, below = directions[d, 2], min(reach, nz - 1 - z), min(reach, z)
            room[d, 0], room[d, 1] = (reach, reach) if up == 0 else (above, below) if up > 0 else (below, above)
        wide, at = (end - y - 1) * pitch + nx, (z * tall + y + reach) * pitch + reach
        _seek(lines, at, wide, room, in_lines, squared, reach, ahead, behind, ranks, best, chosen)
        for line in range(0, wide, pitch):
            found = 0
            for x in range(nx):  # which have a value, without a condition
                places[found] = x
                found += chosen[line + x] != 0
            for x in places[: found if sticks > 1 else 0]:
                chosen[line + x] = _best_few(ranks, line + x, sticks)
            first = (z * ny + y + line // pitch) * nx
            _fill(*flat, first, places[:found], line, chosen, ahead, behind, in_volume, scores)


_READ, _WRITTEN = types.Array(uint8, 3, "C", readonly=True), uint8[:, :, ::1]
#: The kernel that is called from Python, with the types of its arguments.
SIGNATURES = {
    fill_by_sticks: (
        *(_READ, _READ, _WRITTEN, _WRITTEN, int64, int64, _READ),
        *(types.boolean[:, ::1], int64[:, ::1], int64[::1], int64, int64),
    ),
}
