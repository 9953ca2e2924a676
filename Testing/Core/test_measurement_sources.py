"""The frames behind a voxel, with the weights that they had in it; and the place of a pixel in the volume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_volume_builder import MODES, TURNS, turned_sweep

from DualTrackCore.errors import InputError
from DualTrackCore.path_error import turned_over
from DualTrackCore.reconstruction import Fan, PlacedFrames, Reconstruction, VoxelGrid, plan_grid, reconstruct_volume
from DualTrackCore.reconstruction import sources as searching
from DualTrackCore.run import RunSettings, run
from DualTrackCore.sweep import Sweep, image_from_pixel
from DualTrackCore.trajectory import PoseOrigin, Trajectory, matrices_from_parameters
from DualTrackCore.worker.job import read_result, write_result

FAN = Fan((15, -4), (-38, 35), (7, 27))


def seen_voxels(volume, count=40):
    """(i, j, k) of some voxels that pixels reached, those at the border of the grid among them."""
    places = np.argwhere(volume.coverage > 0)[:, ::-1]
    border = ((places == 0) | (places == np.array(volume.grid.size) - 1)).any(axis=1)
    random = np.random.default_rng(0)
    return [*random.permutation(places[border])[: count // 2], *random.permutation(places[~border])[:count]]


def centre_of(volume, voxel):
    return (volume.grid.frame0_from_voxel @ [*voxel, 1])[:3]


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_weights_of_the_frames_behind_a_voxel_add_up_to_its_coverage(interpolation, turn):
    sweep, trajectory, grid = turned_sweep(turn)
    volume = reconstruct_volume(sweep, trajectory, grid, interpolation=interpolation, fan=FAN)
    for voxel in seen_voxels(volume):
        found = volume.sources(centre_of(volume, voxel))
        assert found.voxel == tuple(voxel)
        assert found.weights.sum() == pytest.approx(volume.coverage[tuple(voxel[::-1])], abs=1e-4)
        assert (np.diff(found.weights) <= 0).all()


@pytest.mark.parametrize("reject_below", [0, 90])
@pytest.mark.parametrize(("interpolation", "compounding"), MODES)
def test_the_grey_value_of_a_voxel_is_made_of_its_sources_as_the_weights_say(interpolation, compounding, reject_below):
    sweep, trajectory, grid = turned_sweep((20, 30, 40))
    # One grey value a frame, so that a frame's weight tells its part.
    greys = np.array([40, 200, 120, 80, 250, 100, 160], np.uint8)
    sweep = replace(sweep, frames=np.broadcast_to(greys[:, None, None], sweep.frames.shape))
    how = {"interpolation": interpolation, "compounding": compounding, "reject_below": reject_below}
    volume = reconstruct_volume(sweep, trajectory, grid, **how)
    several = 0
    for voxel in seen_voxels(volume, 60):
        found = volume.sources(centre_of(volume, voxel), sweep.frames)
        mean = np.average(greys[found.frames], weights=found.weights)
        assert mean == pytest.approx(volume.volume[tuple(voxel[::-1])], abs=0.51)
        several += len(found.frames) > 1
    assert (several > 10) == (compounding == "mean")


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_the_pixel_of_a_source_lies_in_the_voxel_and_the_way_back_leads_there(interpolation, turn):
    sweep, trajectory, grid = turned_sweep(turn)
    volume = reconstruct_volume(sweep, trajectory, grid, interpolation=interpolation)
    reach = np.array(grid.spacing_mm) * (1 if interpolation == "linear" else 0.5)
    for voxel in seen_voxels(volume):
        centre = centre_of(volume, voxel)
        found = volume.sources(centre)
        for frame, pixel, distance in zip(found.frames, found.pixels, found.distances_mm, strict=True):
            place = volume.point_of(frame, pixel)
            assert (np.abs(place - centre) <= reach + 1e-6).all()
            expected = trajectory.poses[frame] @ sweep.image_from_pixel @ [*pixel, 0, 1]
            np.testing.assert_allclose(place, expected[:3], atol=1e-9)
            across = (np.linalg.inv(trajectory.poses[frame]) @ [*centre, 1])[2]
            assert distance == pytest.approx(abs(across), abs=1e-6)


def test_of_the_pixels_of_a_frame_that_made_the_voxel_the_nearest_is_named():
    sweep, trajectory, grid = turned_sweep((20, 30, 40))
    volume = reconstruct_volume(sweep, trajectory, grid, interpolation="linear")
    rows, columns = np.mgrid[:26, :31]
    flat = np.stack([columns, rows, np.zeros_like(rows), np.ones_like(rows)], axis=-1)
    for voxel in seen_voxels(volume, 10):
        found = volume.sources(centre_of(volume, voxel))
        for frame, (column, row) in zip(found.frames, found.pixels, strict=True):
            matrix = grid.voxel_from_frame0 @ trajectory.poses[frame] @ sweep.image_from_pixel
            at = (flat @ matrix.T)[..., :3]
            counts = (np.abs(at - voxel) < 1).all(axis=-1) & ((at >= 0) & (at <= np.array(grid.size) - 1)).all(axis=-1)
            apart = np.linalg.norm((at - voxel) * grid.spacing_mm, axis=-1)
            assert apart[row, column] == pytest.approx(apart[counts].min(), abs=1e-9)


@pytest.mark.parametrize("options", [{"axes": "principal"}, {"frame": "reference"}])
def test_sources_are_asked_for_in_frame0_whatever_the_grid_lies_in(options):
    sweep, trajectory, _ = turned_sweep((20, 30, 40))
    world = Trajectory.from_reference(trajectory.poses, origin="measured")
    grid = plan_grid(sweep, world, spacing_mm=0.3, **options)
    volume = reconstruct_volume(sweep, world, grid, interpolation="nearest")
    point = volume.point_of(3, (15, 12))
    found = volume.sources(point)
    assert 3 in found.frames
    assert found.weights.sum() == volume.coverage[found.voxel[::-1]]


def test_a_sweep_in_one_plane_has_sources():
    sweep = Sweep(np.full((3, 20, 30), 9, np.uint8), 0.3)
    volume = reconstruct_volume(sweep, Trajectory(np.tile(np.eye(4), (3, 1, 1))))
    found = volume.sources([0.4, -0.4, 0])
    assert volume.grid.size[2] == 1
    assert sorted(found.frames) == [0, 1, 2]
    assert found.weights.sum() == pytest.approx(volume.coverage[found.voxel[::-1]], abs=1e-4)


def test_a_voxel_that_nothing_reached_has_no_sources():
    sweep, trajectory, _ = turned_sweep((0, 0, 0))
    volume = reconstruct_volume(sweep, trajectory, plan_grid(sweep, trajectory, spacing_mm=0.2), fan=FAN)
    unseen = np.argwhere(volume.coverage == 0)[0][::-1]
    found = volume.sources(centre_of(volume, unseen))
    assert len(found.frames) == len(found.pixels) == len(found.weights) == len(found.distances_mm) == 0


def test_places_outside_frames_that_are_not_there_and_missing_pictures_are_refused():
    sweep, trajectory, grid = turned_sweep((0, 0, 0))
    volume = reconstruct_volume(sweep, trajectory, grid, compounding="maximum")
    centre = centre_of(volume, seen_voxels(volume)[0])
    for point in ([1e6, 0, 0], centre_of(volume, [-1, 2, 2]), centre_of(volume, grid.size)):
        with pytest.raises(InputError, match="lies outside of the volume of"):
            volume.sources(point)
    with pytest.raises(InputError, match="not three finite numbers"):
        volume.sources([0, np.nan, 0])
    with pytest.raises(InputError, match="made without frame 7"):
        volume.point_of(7, (0, 0))
    with pytest.raises(InputError, match=r"the brightest pixel counts.*give the frames of the sweep"):
        volume.sources(centre)
    with pytest.raises(InputError, match="dark pixels are left out"):
        reconstruct_volume(sweep, trajectory, grid, reject_below=3).sources(centre)
    with pytest.raises(InputError, match="does not know which frames"):
        replace(volume, placed=None).sources(centre)


def test_sources_of_the_volume_turned_over_are_those_of_its_mirror_image():
    sweep, trajectory, grid = turned_sweep((0, 0, 0))
    trajectory = replace(trajectory, origin=PoseOrigin.ESTIMATED)
    volume = reconstruct_volume(sweep, trajectory, grid)
    over = volume.turned_over(turned_over(trajectory))
    for voxel in seen_voxels(volume, 10):
        centre = centre_of(volume, voxel)
        one, other = volume.sources(centre), over.sources(centre * [1, 1, -1])
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_allclose(one.weights, other.weights)


def test_frames_of_a_run_are_counted_as_in_its_sweep_though_repeats_are_left_out_also_from_another_process(tmp_path):
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (6, 30, 40)).astype(np.uint8)[[0, 1, 1, 1, 2, 3, 4, 5]]
    poses = np.tile(np.eye(4), (8, 1, 1))
    poses[:, 2, 3] = [0, 1, 1, 1, 2, 3, 4, 5]
    sweep = Sweep(frames, 0.3, tracked=Trajectory(poses, origin="measured"))
    result = run(sweep, RunSettings(poses="tracked", voxel_mm=0.5, evaluate=False))
    write_result(tmp_path / "result", result)
    for volume in (result.reconstruction, read_result(tmp_path / "result", sweep).reconstruction):
        assert volume.placed.numbers.tolist() == [0, 1, 4, 5, 6, 7]
        assert volume.sources([0, 0, 4.0]).frames[0] == 6
        np.testing.assert_allclose(volume.point_of(6, (19.5, 14.5)), [0, 0, 4.0], atol=1e-9)


def brute_force(grid, placed, how, voxel, frames):
    """{frame: (weight, its named pixels)} from all pixels of all frames, as the definition has it."""
    rows, columns = (
        np.concatenate(parts)
        for parts in zip(
            *((np.full(stop - first, row), np.arange(first, stop)) for row, first, stop in placed.runs), strict=True
        )
    )
    linear, last = how["interpolation"] == "linear", np.array(grid.size) - 1
    found, order = {}, []
    for number, matrix in zip(placed.numbers.tolist(), grid.voxel_from_frame0 @ placed.frame0_from_pixel, strict=True):
        at = np.outer(columns, matrix[:3, 0]) + np.outer(rows, matrix[:3, 1]) + matrix[:3, 3]
        away = np.abs(at - voxel)
        weight = np.maximum(1 - away, 0).prod(axis=1) if linear else np.all(np.floor(at + 0.5 + 1e-9) == voxel, axis=1)
        weight = weight * np.all((at > -1e-6) & (at < last + 1e-6), axis=1) if linear else weight.astype(float)
        weight[weight < (0.125 - 1e-6 if linear and how["compounding"] != "mean" else 1e-300)] = 0
        grey = frames[number][rows, columns]
        weight[grey < how["reject_below"]] = 0
        apart = np.linalg.norm(away * grid.spacing_mm, axis=1)
        if weight.any():
            nearest = apart <= apart[weight > 0].min() + 1e-9
            found[number] = weight.sum(), set(zip(columns[nearest].tolist(), rows[nearest].tolist(), strict=True))
        order += [(int(grey[i]), number, (int(columns[i]), int(rows[i]))) for i in np.flatnonzero(weight)]
    if order and how["compounding"] != "mean":
        one = max(order, key=lambda entry: entry[0]) if how["compounding"] == "maximum" else order[-1]
        return {one[1]: (1.0, {one[2]})}
    return found


def standing(frames, spacing_mm, voxel_mm, size=(48, 64), runs=None):
    """(grid, placed frames) of a probe that stood still, but for the noise of its path."""
    poses = matrices_from_parameters(np.random.default_rng(2).normal(0, 0.03, (frames, 6)))
    matrices = poses @ image_from_pixel((spacing_mm, spacing_mm), 0.0, size)
    extent = np.array([size[1] * spacing_mm, size[0] * spacing_mm, 3 * voxel_mm])
    grid = VoxelGrid(-extent / 2, voxel_mm, tuple(np.ceil(extent / voxel_mm).astype(int) + 1))
    runs = np.array([[row, 0, size[1]] for row in range(size[0])]) if runs is None else runs
    return grid, PlacedFrames(np.arange(frames), matrices, runs)


@pytest.mark.parametrize("reject_below", [0, 120])
@pytest.mark.parametrize(("interpolation", "compounding"), MODES)
def test_of_frames_that_stood_still_the_sources_are_those_of_brute_force(interpolation, compounding, reject_below):
    fan = [[row, 12 - row // 3, 30 + row // 3] for row in range(0, 26)]
    grid, placed = standing(60, 0.2, 0.5, (26, 48), np.array(fan))
    pictures = np.random.default_rng(0).integers(0, 256, (60, 26, 48)).astype(np.uint8)
    how = {"interpolation": interpolation, "compounding": compounding, "reject_below": reject_below}
    full = 0
    for voxel in ([10, 5, 1], [0, 5, 1], [3, 9, 2], [10, 10, 1], [1, 0, 1], [19, 2, 1]):
        found = searching.find_sources(grid, placed, how, (grid.frame0_from_voxel @ [*voxel, 1])[:3], pictures)
        wanted = brute_force(grid, placed, how, voxel, pictures)
        assert set(found.frames.tolist()) == set(wanted)
        for frame, pixel, weight in zip(found.frames.tolist(), found.pixels.tolist(), found.weights, strict=True):
            assert weight == pytest.approx(wanted[frame][0], abs=1e-9)
            assert tuple(pixel) in wanted[frame][1]
        full += len(wanted) > (20 if compounding == "mean" else 0)
    assert full >= 3


class Work:
    """Counts the pixels that are weighed, and in how many steps; and the pictures that are read."""

    def __init__(self, monkeypatch):
        self.pixels = self.steps = self.pictures = 0
        self._weights = searching._weights
        monkeypatch.setattr(searching, "_weights", self.weights)

    def weights(self, *where):
        weight, apart = self._weights(*where)
        self.pixels, self.steps = self.pixels + weight.size, self.steps + 1
        return weight, apart

    def __getitem__(self, which):
        self.pictures += which.stop - which.start
        return np.full((which.stop - which.start, 480, 640), 200, np.uint8)


MEAN = {"interpolation": "linear", "compounding": "mean", "reject_below": 0}


def test_a_voxel_that_4096_frames_pass_costs_no_more_than_so_many_pixels_in_few_steps(monkeypatch):
    grid, placed = standing(4096, 0.1, 0.3, (480, 640))
    work = Work(monkeypatch)
    found = searching.find_sources(grid, placed, MEAN, [3.3, -2.2, 0.05], None)
    assert len(found.frames) > 4000
    assert (found.left_out, found.note) == (0, "")
    assert work.pixels <= 4096 * 9**2
    assert work.steps <= 4096 * 9**2 / searching._TOGETHER + 2


def test_of_a_moving_probe_only_the_frames_that_pass_are_weighed(monkeypatch):
    _, placed = standing(4096, 0.1, 0.3, (480, 640))
    placed.frame0_from_pixel[:, 2, 3] += np.linspace(0, 200, 4096)
    grid = VoxelGrid([-32, -24, 0], 0.3, (213, 160, 667))
    work = Work(monkeypatch)
    found = searching.find_sources(grid, placed, MEAN, [3.3, -2.2, 100.0], None)
    assert 5 < len(found.frames) < 40
    assert (work.steps, work.pixels <= 40 * 9**2) == (1, True)


def test_where_too_many_frames_pass_the_nearest_are_listed_with_their_weights_and_the_others_counted(monkeypatch):
    grid, placed = standing(4096, 0.05, 1.0, (480, 640))
    work, point = Work(monkeypatch), [3.0, -2.0, 0.5]
    found = searching.find_sources(grid, placed, MEAN, point, None)
    assert work.pixels <= searching.MOST_PIXELS
    assert len(found.frames) + found.left_out == 4096
    assert found.note.startswith(f"{found.left_out} more frames pass this voxel")
    distances = searching._plane_distances(placed.frame0_from_pixel, found.point_mm)
    others = np.setdiff1d(np.arange(4096), found.frames)
    assert distances[found.frames].max() <= distances[others].min() + 1e-2
    few = found.frames[[0, 50, -1]]
    alone = PlacedFrames(few, placed.frame0_from_pixel[few], placed.runs)
    wanted = brute_force(grid, alone, MEAN, found.voxel, {int(frame): np.zeros((480, 640), np.uint8) for frame in few})
    for place in (0, 50, -1):
        assert found.weights[place] == pytest.approx(wanted[found.frames[place]][0], rel=1e-9)


def test_where_grey_values_decide_few_pictures_are_read(monkeypatch):
    grid, placed = standing(4096, 0.1, 0.3, (480, 640))
    work = Work(monkeypatch)
    found = searching.find_sources(grid, placed, {**MEAN, "reject_below": 20}, [3.3, -2.2, 0.05], work)
    assert len(found.frames) <= work.pictures <= searching.MOST_PICTURES
    assert found.left_out > 4000


def test_no_index_is_kept_that_grows_with_the_voxels():
    sweep, trajectory, _ = turned_sweep((0, 0, 0))
    sizes = []
    for spacing in (0.5, 0.1):
        volume = reconstruct_volume(sweep, trajectory, plan_grid(sweep, trajectory, spacing_mm=spacing))
        sizes.append(sum(array.nbytes for array in volume.placed))
    assert sizes[0] == sizes[1]


def test_a_volume_made_by_hand_needs_no_frames():
    grid = VoxelGrid([0, 0, 0], 1.0, (2, 2, 2))
    volume = Reconstruction(*(np.zeros((2, 2, 2), kind) for kind in (np.uint8, np.float32, bool)), grid, 0, 0)
    assert volume.placed is None
