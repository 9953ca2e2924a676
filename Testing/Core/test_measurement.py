"""Lengths, areas and volumes between points of a volume, and how far each may be off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from test_uncertainty import curved, drawn_poses

from DualTrackCore.corrections import KnownLength, correct
from DualTrackCore.errors import InputError
from DualTrackCore.measurement import Measurements, quantities
from DualTrackCore.measurement.draws import drawing_motions, rigid_of_twists
from DualTrackCore.path_error import DRIFT_BY_RULE, OUTSIDE, TRUST, UNSURE, path_error
from DualTrackCore.progress import finished
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import STEP_ERROR_CORRELATION, Trajectory
from DualTrackCore.uncertainty import STEP_ERROR_FREEDOM, position_covariances

SPACING = (0.2, 0.3)
SAYS = {"model": "toy", "model_trained": True, "guess": False, OUTSIDE: []}
ALONG = np.tile([0, 0, 0.5, 0, 0, 0.0], (40, 1))
LITTLE = np.array([0.01, 0.01, 0.03, 0.02, 0.02, 0.02])


def sweep_of(frames, size=(80, 100), valid=None):
    return Sweep(np.zeros((frames, *size), np.uint8), SPACING, frame_valid=valid)


def measurements(motions=ALONG, sigma=LITTLE, correlation=0.5, draws=200, seed=0, **source):
    source = {**SAYS, STEP_ERROR_CORRELATION: [correlation] * 6, **source}
    sigma = None if sigma is None else np.broadcast_to(sigma, motions.shape)
    path = Trajectory.from_parameters(motions, source, source.pop("origin", "unknown"), sigma)
    return Measurements(path, sweep_of(len(path)), draws=draws, seed=seed)


def width(band):
    return band[1] - band[0]


def shares_held(correlation, freedom=None):
    """Which part of the true lengths between random points lies in the bands of 68 and 95 %."""
    motions, sigma = curved(41)
    said = {**SAYS, STEP_ERROR_CORRELATION: [correlation] * 6, STEP_ERROR_FREEDOM: freedom}
    path = Trajectory.from_parameters(motions, said, sigma=sigma)
    larger = 1.0
    if freedom is not None:
        larger = np.sqrt((freedom - 2) / np.random.default_rng(8).chisquare(freedom, (1500, 1)))
    true = drawn_poses(motions, sigma[:, None] * larger, np.full(6, correlation), draws=1500)
    sweep, rng, held = sweep_of(41), np.random.default_rng(3), []
    for seed in range(40):
        measure = Measurements(path, sweep, seed=seed)
        frames, pixels = rng.choice(41, 2, replace=False), rng.uniform(0, 79, (2, 2))
        measured = measure.distance(*measure.planes.points_of(frames, pixels), frames=frames)
        # Who marks a point hits a pixel, and the place itself lies somewhere in it.
        flat = np.tile([0, 0, 0, 1.0], (1500, 2, 1))
        flat[..., :2] = pixels + rng.uniform(-0.5, 0.5, (1500, 2, 2))
        places = np.einsum("kdij,jl,dkl->dki", true[frames], sweep.image_from_pixel, flat)[..., :3]
        lengths = np.linalg.norm(places[:, 0] - places[:, 1], axis=1)
        held.append(
            [((lengths >= low) & (lengths <= high)).mean() for low, high in (measured.band_68, measured.band_95)]
        )
    return np.mean(held, axis=0)


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_bands_of_lengths_between_random_points_hold_the_share_of_true_paths_that_they_say(correlation):
    held_68, held_95 = shares_held(correlation)
    assert 0.63 <= held_68 <= 0.73
    assert 0.92 <= held_95 <= 0.98


def test_bands_hold_where_some_paths_err_far_more_than_others_and_are_not_those_of_normal_errors():
    held_68, held_95 = shares_held(0.7, freedom=2.5)
    assert 0.63 <= held_68 <= 0.73
    assert 0.92 <= held_95 <= 0.98
    scattered, normal = (
        measurements(**{STEP_ERROR_FREEDOM: value}).distance([0, 0, 0], [0, 0, 20]) for value in (2.5, None)
    )
    assert width(scattered.band_68) < 0.75 * width(normal.band_68)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 1.0])
def test_places_on_drawn_paths_scatter_as_the_closed_form_says(correlation):
    motions, sigma = curved(61)
    poses, shares = Trajectory.from_parameters(motions).poses, np.full(6, correlation)
    frames = np.array([0, 7, 33, 60])
    motion = finished(drawing_motions(poses, sigma / 5, shares, frames, 4000, 0))
    places = motion[..., :3, :] @ poses[frames, None, :, 3:]
    found = [np.cov(of_frame[..., 0].T) for of_frame in places]
    wanted = position_covariances(poses, sigma / 5, shares)[frames]
    np.testing.assert_allclose(found, wanted, atol=0.06 * wanted[-1].max())
    np.testing.assert_allclose(np.linalg.det(motion[..., :3, :3]), 1, atol=1e-9)


def test_a_turn_by_a_large_error_stays_a_turn():
    quarter = rigid_of_twists(np.array([[0, -5.0, 0, 0, 0, np.pi / 2], [1, 2, 3, 0, 0, 0]]))
    np.testing.assert_allclose(quarter[0] @ [0, 0, 0, 1], [10 / np.pi, -10 / np.pi, 0, 1], atol=1e-9)
    np.testing.assert_allclose(quarter[1] @ [0, 0, 0, 1], [1, 2, 3, 1])


def test_a_path_that_all_errors_bend_to_one_side_becomes_an_arc_with_its_chord():
    motions = np.tile([0, 0, 0.5, 0, 0, 0.0], (80, 1))
    bent = measurements(motions, [0, 0, 0, 0.4, 0, 0], correlation=1, draws=4000).distance([0, 0, 0], [0, 0, 40])
    # Of 100 paths 2.5 bend by more than 2.24 standard deviations.
    half = np.deg2rad(80 * 0.4 * 2.2414) / 2
    assert bent.band_95[0] == pytest.approx(40 * np.sin(half) / half, abs=0.5)


def test_points_of_one_picture_have_the_band_of_the_pixel_spacing_whatever_the_path():
    sure, unsure = (measurements(sigma=LITTLE * factor) for factor in (1, 50))
    points = sure.planes.points_of([20, 20], [[10, 10], [70, 10]])
    one, other = sure.distance(*points), unsure.distance(*points)
    assert one == other
    assert one.value == pytest.approx(60 * 0.2)
    assert (one.basis, one.level) == ("pixel spacing alone", "measure")
    assert "one picture" in one.reason
    # Two ends, each anywhere within 0.2 mm: a triangle of 0.4 mm, of which 95 % reach 0.155 mm to either side.
    np.testing.assert_allclose(np.array(one.band_95) - one.value, [-0.155, 0.155], atol=0.02)
    np.testing.assert_allclose(np.array(one.band_68) - one.value, [-0.087, 0.087], atol=0.02)


def test_points_in_one_plane_between_two_frames_count_as_in_one_picture():
    measure = measurements(np.tile([0, 0, 2.0, 0, 0, 0], (10, 1)), sigma=LITTLE * 50)
    assert measure.distance([-5, 0, 7.1], [5, 3, 7.1]).basis == "pixel spacing alone"
    assert measure.distance([-5, 0, 7.1], [5, 3, 7.6]).basis == "as the model says"


def test_points_of_two_pictures_that_lie_side_by_side_in_one_plane_do_not():
    aside = measurements(np.tile([1.0, 0, 0, 0, 0, 0], (60, 1)), sigma=LITTLE * 20)
    assert aside.distance([-8, 0, 0], [65, 0, 0]).basis == "as the model says"
    assert aside.distance([-8, 0, 0], [8, 0, 0]).basis == "pixel spacing alone"


def test_the_band_of_a_length_along_the_path_is_that_of_the_path():
    measure = measurements(draws=4000)
    length = measure.distance([0, 0, 0], [0, 0, 20])
    stated = path_error(measure._trajectory).end_length_mm
    assert length.value == pytest.approx(20)
    assert width(length.band_95) == pytest.approx(2 * 1.96 * stated, rel=0.08)
    assert width(length.band_68) == pytest.approx(2 * 0.9945 * stated, rel=0.08)


def test_a_length_counts_only_the_errors_between_its_points():
    sigma = np.tile(LITTLE, (40, 1))
    sigma[:10] = 5
    wild, calm = measurements(sigma=sigma, correlation=0), measurements(correlation=0)
    assert wild.distance([0, 0, 10], [3, 0, 20]) == calm.distance([0, 0, 10], [3, 0, 20])
    assert wild.distance([0, 0, 2], [3, 0, 20]).band_95 != calm.distance([0, 0, 2], [3, 0, 20]).band_95


def test_an_error_of_scale_cancels_where_the_probe_came_back():
    there_and_back = ALONG * np.where(np.arange(40) < 20, 1, -1)[:, None]
    measure = measurements(there_and_back, [0, 0, 0.2, 0, 0, 0], correlation=1)
    ends = measure.planes.points_of([0, 40], [[10, 10], [70, 10]])
    half = measure.planes.points_of([0, 20], [[10, 10], [70, 10]])
    assert width(measure.distance(*ends, frames=[0, 40]).band_95) < 0.5
    assert width(measure.distance(*half, frames=[0, 20]).band_95) > 5


def test_a_length_between_two_sparse_frames_carries_its_part_of_their_error():
    measure = measurements(np.tile([0, 0, 4.0, 0, 0, 0], (10, 1)), [0, 0, 1.0, 0, 0, 0], draws=2000)
    whole, half = (measure.distance([0, 0, 8], [0, 0, 8 + far]) for far in (4, 2))
    assert width(half.band_68) == pytest.approx(width(whole.band_68) / 2, rel=0.1)


def test_the_same_seed_gives_the_same_band_in_either_order_and_another_one_another():
    ends = [-3, 2, 1.3], [4, -2, 17.7]
    one = measurements().distance(*ends)
    assert one == measurements().distance(*ends) == measurements().distance(*reversed(ends))
    assert one.band_95 != measurements(seed=1).distance(*ends).band_95


def test_without_stated_errors_the_rule_of_thumb_makes_the_band_and_is_named():
    measure = measurements(sigma=None, draws=4000, **{DRIFT_BY_RULE: 20.0})
    length = measure.distance([0, 0, 2], [0, 0, 12])
    assert length.basis == "by rule of thumb"
    assert width(length.band_68) == pytest.approx(2 * 0.9945 * 2, rel=0.08)
    assert (length.level, length.reason) == ("rough", length.reason)
    assert "by rule of thumb" in length.reason


def test_errors_that_a_correction_found_rest_on_what_was_known_before():
    ends = [0, 0, 2], [0, 0, 12]
    for sigma, basis in ((None, "by rule of thumb"), (LITTLE, "as the model says")):
        path = measurements(sigma=sigma)._trajectory
        corrected = correct(path, [KnownLength(25.0)])
        assert Measurements(corrected, sweep_of(41)).distance(*ends).basis == basis


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9])
def test_a_length_that_is_known_is_measured_as_surely_as_it_is_known(correlation):
    before = measurements(sigma=[0.02, 0.02, 0.2, 0.1, 0.1, 0.1], correlation=correlation)
    path = correct(before._trajectory, [KnownLength(20.0, accuracy_mm=0.2)])
    after, sure = Measurements(path, sweep_of(41), draws=2000), path_error(path).length_mm
    for frame in (40, 20):
        ends = path.centres_mm[[0, frame]]
        # Half a pixel at either end is on top, and the turns of the path; before it was wider by far.
        assert width(after.distance(*ends).band_95) == pytest.approx(2 * 1.96 * sure[frame], rel=0.15, abs=0.1)
    assert width(before.distance(*before._trajectory.centres_mm[[0, 40]]).band_95) > 4 * 1.96 * sure[40]


@pytest.mark.parametrize("correlation", [0.0, 0.4, 1.0])
def test_the_length_of_a_corrected_path_that_nothing_is_known_of_errs_as_before(correlation):
    motions, sigma = curved(61)
    path = Trajectory.from_parameters(motions, {**SAYS, STEP_ERROR_CORRELATION: [correlation] * 6}, sigma=sigma)
    error = path_error(path)
    covariance = np.concatenate([error.length_mm[:, None] ** 2, np.zeros((61, 6))], axis=1)
    same = replace(path, path_covariance=covariance)
    for ends in ([0, 60], [10, 50], [33, 40]):
        points = path.centres_mm[ends] + [[1, 2, 0], [-3, 1, 0]]
        one, other = (Measurements(of, sweep_of(61), draws=4000).distance(*points) for of in (path, same))
        np.testing.assert_allclose(one.band_68, other.band_68, atol=0.12 * width(one.band_68))


def test_frames_without_a_pose_do_not_hide_the_rule_of_thumb_and_hide_stated_errors():
    path = measurements(sigma=None, **{DRIFT_BY_RULE: 20.0})._trajectory
    gap = replace(path, valid=np.arange(41) != 17)
    across = [0, 0, 2], [0, 0, 12]
    assert Measurements(gap, sweep_of(41)).distance(*across).band_95 is not None
    stated = Measurements(replace(gap, sigma=np.tile(LITTLE, (40, 1))), sweep_of(41))
    unknown = stated.distance(*across)
    assert (unknown.band_68, unknown.band_95, unknown.level) == (None, None, "rough")
    assert unknown.reason == "How far the length is off is not known."
    assert "not known" in unknown.text
    assert stated.distance([0, 0, 10], [0, 0, 15]).band_95 is not None


@pytest.mark.parametrize(
    ("origin", "level", "said"),
    [
        ("measured", "measure", "measured by a tracker"),
        ("simulated", "measure", "simulated"),
        ("unknown", "rough", "not known"),
    ],
)
def test_poses_that_nobody_estimated_have_the_band_of_the_pixels_and_the_reason_says_so(origin, level, said):
    path = Trajectory.from_parameters(ALONG, origin=origin)
    length = Measurements(path, sweep_of(41)).distance([0, 0, 0], [0, 5, 20])
    assert (length.basis, length.level) == ("pixel spacing alone", level)
    assert said in length.reason


@pytest.mark.parametrize(
    ("factor", "source", "level", "said"),
    [
        (1, {}, "measure", "95 of 100 true values differ by no more than"),
        (6, {}, "rough", "The length may be off by"),
        (30, {}, "do not measure", "The length may be off by"),
        (1, {"model_trained": False}, "do not measure", "The weights are untrained."),
        (1, {"guess": True}, "rough", "simulated sweeps"),
        (1, {TRUST: "rough guide: The pictures run back."}, "rough", "The pictures run back."),
        (1, {TRUST: "do not measure: The length may be off by 90 % (as the model says)."}, "measure", "95 of 100"),
        (1, {"direction": UNSURE}, "measure", "95 of 100"),
        (1, {TRUST: "rough guide: It is unsure which way the sweep runs."}, "measure", "95 of 100"),
    ],
)
def test_trust_of_a_length_goes_by_its_own_band_and_by_what_speaks_against_the_path(factor, source, level, said):
    length = measurements(sigma=LITTLE * factor, **source).distance([0, 0, 0], [0, 5, 20])
    assert length.level == level
    assert said in length.reason
    assert length.trust == f"{level}: {length.reason}"


def test_points_a_pixel_apart_are_not_to_be_measured():
    measure = measurements()
    assert measure.distance(*measure.planes.points_of([3, 3], [[5, 5], [6, 5]])).level == "do not measure"
    assert measure.distance(*measure.planes.points_of([3, 3], [[5, 5], [8, 5]])).level == "rough"


def test_a_curve_is_as_long_as_its_parts_and_a_closed_one_goes_back():
    points = [[0, 0, 1], [3, 4, 1], [3, 4, 11]]
    measure = measurements()
    assert measure.length(points).value == pytest.approx(15)
    assert measure.length(points, closed=True).value == pytest.approx(15 + np.hypot(5, 10))


def ball(radius=4.0, centre=(0, 0, 10), points=300):
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(points, 3))
    corners = directions / np.linalg.norm(directions, axis=1, keepdims=True) * radius
    hull = ConvexHull(corners)
    triangles = hull.simplices.copy()
    inward = (
        np.einsum(
            "ti,ti->t",
            np.cross(*(corners[triangles[:, k]] - corners[triangles[:, 0]] for k in (1, 2))),
            hull.equations[:, :3],
        )
        < 0
    )
    triangles[inward] = triangles[inward][:, ::-1]
    return corners + centre, triangles, hull


def test_area_and_volume_are_those_of_the_surface_with_bands_that_the_path_makes():
    points, triangles, hull = ball()
    calm, wild = measurements(), measurements(sigma=LITTLE * 5)
    for kind, unit, wanted in (("area", "mm2", hull.area), ("volume", "mm3", hull.volume)):
        measured, wide = (getattr(measure, kind)(points, triangles) for measure in (calm, wild))
        assert measured.value == pytest.approx(wanted)
        assert (measured.kind, measured.unit, measured.basis) == (kind, unit, "as the model says")
        assert measured.band_95[0] < measured.band_68[0] < measured.value < measured.band_68[1] < measured.band_95[1]
        assert width(wide.band_68) > 3 * width(measured.band_68)


def test_the_volume_of_a_ball_is_off_by_as_much_as_the_scale_along_the_path():
    points, triangles, hull = ball()
    scale = measurements(sigma=[0, 0, 0.05, 0, 0, 0], correlation=1, draws=1500)  # 10 % of each step
    band = scale.volume(points, triangles).band_68
    assert width(band) == pytest.approx(2 * 0.9945 * 0.1 * hull.volume, rel=0.08)


def test_a_surface_with_a_hole_has_an_area_and_no_volume():
    points, triangles, _ = ball()
    measure = measurements()
    assert measure.area(points, triangles[1:]).value > 0
    for wrong in (triangles[1:], np.concatenate([triangles[:1, ::-1], triangles[1:]])):
        with pytest.raises(InputError, match=r"not closed.*close its holes, or measure its area\.$"):
            measure.volume(points, wrong)


@pytest.mark.parametrize("name", ["line", "loop", "area", "volume"])
def test_what_moving_a_point_does_is_the_slope_of_the_value(name):
    points, triangles, _ = ball(points=30)
    quantity = {
        "line": quantities.length(), "loop": quantities.length(True),
        "area": quantities.area(triangles), "volume": quantities.volume(triangles),
    }[name]  # fmt: skip
    slope = quantity.slope(points)
    for place in (0, 7, 29):
        for axis in range(3):
            moved = np.array([points, points])
            moved[:, place, axis] += [-1e-4, 1e-4]
            assert slope[place, axis] == pytest.approx(np.diff(quantity.of(moved))[0] / 2e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([[0, 0, 0], [0, 0, 0]], "All points lie in one place"),
        ([[0, 0, 0]], "All points lie in one place"),
        ([[0, 0, 0], [0, 0, np.nan]], "not three finite numbers"),
        ([[0, 0], [0, 1]], "not three finite numbers"),
        ([["a", 0, 0], [0, 0, 1]], "not three finite numbers"),
        ([], "not three finite numbers"),
        ([[0, 0, 0], [0, 0, 31.0]], r"R, A, S = 0\.0, 0\.0, 31\.0 mm lies 11\.0 mm away.*limit is 5\.0 mm; choose"),
        ([[30, 0, 0], [0, 0, 1.0]], r"R, A, S = -30\.0, 0\.0, 0\.0 mm lies 20\.0 mm away"),
    ],
)
def test_points_that_cannot_be_measured_are_refused_in_one_sentence(points, said):
    with pytest.raises(InputError, match=said) as refused:
        measurements().length(points)
    assert "\n" not in str(refused.value)


def test_triangles_and_frames_that_are_not_there_are_refused():
    points, triangles, _ = ball()
    measure = measurements()
    with pytest.raises(InputError, match="A triangle names the point 900; there are the points 0 to 299"):
        measure.area(points, np.where(triangles == 5, 900, triangles))
    with pytest.raises(InputError, match="expected \\[triangles, 3\\] whole numbers"):
        measure.area(points, triangles[:, :2])
    with pytest.raises(InputError, match="There is no frame 41; the sweep has the frames 0 to 40"):
        measure.planes.points_of([41], [[0, 0]])


def test_a_repeated_frame_lies_where_the_frame_before_it_lies():
    motions, sigma = np.tile([0, 0, 4.0, 0, 0, 0], (10, 1)), np.tile([0, 0, 1.0, 0, 0, 0], (10, 1))
    motions[4], sigma[4] = 0, 0
    measure = measurements(motions, sigma, draws=2000)
    ties = measure.planes.tie(np.array([[0, 0, 17.0], [0, 0, 2.0]]))
    assert set(ties.frames[0]) == {4, 6}
    assert ties.share[0] == pytest.approx(0.25)
    assert measure.planes.pixels_of(ties)[0] == pytest.approx([49.5, 39.5])


def in_pieces(work):
    """What work gives, and how many pieces it was done in."""
    count = 1
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value, count
        count += 1


def test_a_measurement_in_pieces_is_that_at_once_and_no_piece_holds_the_whole():
    measure = measurements(np.tile([0, 0, 0.05, 0, 0, 0.0], (1600, 1)))
    points, triangles, _ = ball(centre=(0, 0, 40))
    for quantity, at, whole in (
        (quantities.length(), points[:2], measure.distance(*points[:2])),
        (quantities.volume(triangles), points, measure.volume(points, triangles)),
    ):
        measured, count = in_pieces(measure.measuring(quantity, at))
        assert measured == whole
        assert count > len(at) * 1600 // 200_000 + 200 * len(at) * 3 // 50_000
