"""Holes are filled from what was seen, and from nothing else."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.progress import Reporter
from DualTrackCore.reconstruction import HoleFilling, holes
from DualTrackCore.reconstruction.holes import DIRECTIONS, fill_holes, validated_hole_filling

METHODS = ("gaussian", "distance", "nearest", "stick")


def block(seed=0, missing=0.3, size=9):
    random = np.random.default_rng(seed)
    seen = random.random((size, size, size)) > missing
    return random.integers(1, 255, seen.shape).astype(np.uint8) * seen, seen


def known_around(volume, seen, k, j, i, half):
    for z in range(max(0, k - half), min(volume.shape[0], k + half + 1)):
        for y in range(max(0, j - half), min(volume.shape[1], j + half + 1)):
            for x in range(max(0, i - half), min(volume.shape[2], i + half + 1)):
                if seen[z, y, x]:
                    yield float(volume[z, y, x]), np.sqrt((z - k) ** 2 + (y - j) ** 2 + (x - i) ** 2)


def by_kernel(filling, volume, seen, *home):
    known = list(known_around(volume, seen, *home, filling.size // 2))
    if len(known) <= filling.min_known_ratio * filling.size**3:
        return None
    values, distances = np.array(known).T
    if filling.method == "gaussian":
        weights = np.exp(-(distances**2) / (2 * filling.stdev_voxels**2))
    else:
        weights = 1 / distances
    return int((weights * values).sum() / weights.sum() + 1e-3)


def by_nearest(filling, volume, seen, *home):
    for half in range(1, filling.size // 2 + 1):
        known = [value for value, _ in known_around(volume, seen, *home, half)]
        if known:
            return int(np.mean(known) + 1e-3) if len(known) > filling.min_known_ratio * filling.size**3 else None
    return None


def by_stick(filling, volume, seen, k, j, i):
    def walk(direction, sign, limit):
        for step in range(1, limit + 1):
            at = (k + sign * step * direction[2], j + sign * step * direction[1], i + sign * step * direction[0])
            if min(at) < 0 or (np.array(at) >= volume.shape).any():
                return 0, 0
            if seen[at]:
                return step, int(volume[at])
        return 0, 0

    found = []
    for direction in DIRECTIONS:
        f, ahead = walk(direction, 1, filling.stick_length - 1)
        b, behind = walk(direction, -1, filling.stick_length - 1 - f) if f else (0, 0)
        if b:
            value = ((b + 1) * ahead + f * behind) // (f + b + 1)
            found.append((1 / ((f + b + 1) * np.linalg.norm(direction)), value))
    if not found:
        return None
    worst = sorted((score for score, _ in found), reverse=True)[: filling.sticks][-1]
    best = [(score, value) for score, value in found if score >= worst - 1e-9]
    return int(sum(s * v for s, v in best) / sum(s for s, _ in best) + 1e-6)


PLAIN = {"gaussian": by_kernel, "distance": by_kernel, "nearest": by_nearest, "stick": by_stick}


@pytest.mark.parametrize("missing", [0.3, 0.9])
@pytest.mark.parametrize(
    "filling",
    [
        HoleFilling("gaussian"),
        HoleFilling("gaussian", size=3, stdev_voxels=1.5, min_known_ratio=0.05),
        HoleFilling("distance", min_known_ratio=0.02),
        HoleFilling("nearest"),
        HoleFilling("nearest", min_known_ratio=0.03),
        HoleFilling("stick"),
        HoleFilling("stick", stick_length=5, sticks=3),
    ],
    ids=str,
)
def test_each_method_gives_what_its_formula_gives_voxel_by_voxel(filling, missing):
    volume, seen = block(missing=missing)
    result, filled = fill_holes(volume, seen, [filling])
    for home in zip(*np.nonzero(~seen), strict=True):
        expected = PLAIN[filling.method](filling, volume, seen, *home)
        assert filled[home] == (expected is not None)
        assert int(result[home]) == (expected or 0)


@pytest.mark.parametrize(
    "filling",
    [
        HoleFilling("distance", size=7, min_known_ratio=0.1),
        HoleFilling("stick"),
        HoleFilling("stick", stick_length=20),
        HoleFilling("stick", stick_length=64, sticks=13),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(3, 70, 150), (40, 3, 90), (30, 20, 1)], ids=str)
def test_holes_anywhere_in_flat_and_long_volumes_get_what_their_formula_gives(filling, shape):
    random = np.random.default_rng(len(filling.method) + shape[0])
    smooth = ndimage.gaussian_filter(random.random(shape), 1.5)
    seen = (smooth > np.quantile(smooth, 0.6)) & (random.random(shape) > 0.2)
    volume = random.integers(1, 256, shape).astype(np.uint8) * seen
    result, filled = fill_holes(volume, seen, [filling])
    assert filled.any()
    homes = np.argwhere(~seen)
    for home in map(tuple, homes[random.permutation(len(homes))[:300]]):
        expected = PLAIN[filling.method](filling, volume, seen, *home)
        assert (filled[home], int(result[home])) == (expected is not None, expected or 0)


def test_sticks_bridge_all_holes_of_long_slanted_rows_with_a_seen_middle():
    random = np.random.default_rng(4)
    z, y, x = np.mgrid[:6, :7, :130]
    left, right = 4 * y + 3 * z, 129 - 5 * z - y
    seen = (x >= left) & (x <= right) & ((random.random(x.shape) > 0.4) | (abs(x - 60) < 25))
    volume = random.integers(1, 255, seen.shape).astype(np.uint8) * seen
    filling = HoleFilling("stick")
    result, filled = fill_holes(volume, seen, [filling])
    assert filled.sum() > 500
    for home in zip(*np.nonzero(~seen), strict=True):
        expected = by_stick(filling, volume, seen, *home)
        assert filled[home] == (expected is not None)
        assert int(result[home]) == (expected or 0)


@pytest.mark.parametrize("method", METHODS)
def test_what_was_seen_is_never_changed_even_where_it_is_black(method):
    volume, seen = block()
    volume[4] = 0
    seen[4] = True
    result, filled = fill_holes(volume, seen, [HoleFilling(method)])
    np.testing.assert_array_equal(result[seen], volume[seen])
    assert not filled[seen].any()


@pytest.mark.parametrize("method", METHODS)
def test_holes_in_an_even_volume_get_its_grey_value(method):
    seen = block()[1]
    result, filled = fill_holes(np.where(seen, 100, 0).astype(np.uint8), seen, [HoleFilling(method)])
    assert filled.any()
    assert set(np.unique(result[filled])) == {100}


@pytest.mark.parametrize("method", METHODS)
def test_slabs_give_what_the_whole_volume_gives(method, monkeypatch):
    volume, seen = block(missing=0.7, size=12)
    whole = fill_holes(volume, seen, [HoleFilling(method, min_known_ratio=0.05)])
    monkeypatch.setattr(holes, "SLAB_VOXELS", 2 * 12 * 12)
    pieces = fill_holes(volume, seen, [HoleFilling(method, min_known_ratio=0.05)])
    np.testing.assert_array_equal(pieces[0], whole[0])
    np.testing.assert_array_equal(pieces[1], whole[1])


def by_scipy(filling, volume, seen):
    """Gaussian and nearest as passes over the whole volume, in the precision that the kernels promise: to the bit."""

    def convolved(array, profile):
        for axis in range(3):
            array = ndimage.correlate1d(array, profile, axis=axis, mode="constant")
        return array

    known = seen.astype(np.float32)
    least = filling.min_known_ratio * filling.size**3 + 1e-3
    values, has_value, waits = np.zeros(volume.shape, np.float32), np.zeros(volume.shape, bool), ~seen
    widths = range(3, filling.size + 1, 2) if filling.method == "nearest" else [filling.size]
    for width in widths:
        around = np.arange(width) - width // 2
        profile = np.ones(width)
        count = convolved(known, profile)
        if filling.method == "gaussian":
            profile = np.exp(-(around**2) / (2 * filling.stdev_voxels**2))
        weight, total = convolved(known, profile), convolved(known * volume, profile)
        reached = waits & (count > 0.5) if filling.method == "nearest" else ~seen
        fills = reached & (count > least) & (weight > 0)
        np.divide(total, weight, out=values, where=fills)
        has_value |= fills
        waits &= ~reached
    return np.where(has_value, np.floor(values + np.float32(1e-3)), volume).astype(np.uint8), has_value


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "filling",
    [
        HoleFilling("gaussian"),
        HoleFilling("gaussian", size=9, stdev_voxels=3, min_known_ratio=0.02),
        HoleFilling("gaussian", size=3, stdev_voxels=0.02, min_known_ratio=0.0),  # weights that are nothing beside it
        HoleFilling("nearest"),
        HoleFilling("nearest", size=9, min_known_ratio=0.01),
    ],
    ids=str,
)
def test_rows_near_holes_give_what_passes_over_the_whole_volume_give_to_the_byte(filling, threads, monkeypatch):
    random = np.random.default_rng(5)
    smooth = ndimage.gaussian_filter(random.random((13, 30, 71)), 2)
    seen = (smooth > np.median(smooth)) & (random.random(smooth.shape) > 0.1)
    seen[:, 5], seen[:, :, 60:] = False, False  # rows and columns without anything
    seen[3] = True
    volume = random.integers(0, 256, seen.shape).astype(np.uint8)
    volume[~seen] = 0
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    result, filled = fill_holes(volume, seen, [filling])
    expected, has_value = by_scipy(filling, volume, seen)
    np.testing.assert_array_equal(filled, has_value)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("method", METHODS)
def test_any_arrays_are_filled_and_what_stands_in_holes_does_not_count(method):
    volume, seen = block(missing=0.6)
    expected = fill_holes(volume, seen, [HoleFilling(method, min_known_ratio=0.05)])
    volume, seen = np.where(seen, volume, np.uint8(99)).T, seen.T
    for array in (volume, seen):
        array.flags.writeable = False
    result, filled = fill_holes(volume.T[:, ::-1][:, ::-1], seen.T, [HoleFilling(method, min_known_ratio=0.05)])
    np.testing.assert_array_equal(filled, expected[1])
    np.testing.assert_array_equal(result[filled], expected[0][filled])
    assert (result[~seen.T & ~filled] == 99).all()


@pytest.mark.parametrize("second", METHODS)
def test_a_second_method_fills_only_what_the_first_could_not(second):
    volume, seen = block(missing=0.85)
    few, any_number = HoleFilling("gaussian", min_known_ratio=0.15), HoleFilling(second, size=7, min_known_ratio=0.01)
    first, by_first = fill_holes(volume, seen, [few])
    both, by_both = fill_holes(volume, seen, [few, any_number])
    np.testing.assert_array_equal(both[by_first], first[by_first])
    assert 0 < by_first.sum() < by_both.sum()


def test_an_empty_volume_stays_empty():
    empty = np.zeros((4, 5, 6), np.uint8)
    for method in METHODS:
        result, filled = fill_holes(empty, empty > 0, [HoleFilling(method)])
        assert not result.any()
        assert not filled.any()


def test_filling_reports_slabs_and_can_be_cancelled():
    volume, seen = block()
    reports = []
    fill_holes(volume, seen, [HoleFilling("stick")], Reporter(reports.append))
    assert (reports[-1].done, reports[-1].total) == (9, 9)
    with pytest.raises(Cancelled):
        fill_holes(volume, seen, [HoleFilling("stick")], Reporter(cancelled=lambda: True))


@pytest.mark.parametrize(
    "values",
    [
        {"method": "magic"},
        {"size": 4},
        {"size": 1},
        {"stdev_voxels": 0},
        {"stdev_voxels": float("nan")},
        {"min_known_ratio": 1},
        {"stick_length": 2},
        {"sticks": 0},
        {"sticks": 14},
    ],
)
def test_unusable_parameters_are_refused(values):
    with pytest.raises(InputError):
        HoleFilling(**{"method": "gaussian", **values})


def test_names_and_objects_and_lists_are_accepted_as_hole_filling():
    assert validated_hole_filling("none") == ()
    assert validated_hole_filling("stick") == (HoleFilling("stick"),)
    assert validated_hole_filling([HoleFilling("stick"), HoleFilling("nearest")])[1].method == "nearest"
    with pytest.raises(InputError, match="'none' or one of"):
        validated_hole_filling(3)
