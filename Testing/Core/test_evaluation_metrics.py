"""Every metric against a slow, plain implementation of its formula, and figures worked out by hand."""

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.evaluation import COMPONENTS, METRICS, evaluate
from DualTrackCore.evaluation.all_pixels import NODES, AxisPieces, PixelGrid, gram_rule
from DualTrackCore.evaluation.definitions import hausdorff_mm
from DualTrackCore.landmarks import Landmarks
from DualTrackCore.progress import Reporter
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory, matrices_from_parameters

SPACING = (0.2, 0.35)
STAGE = "measuring"


def sweep_with(tracked, size=(7, 5), spacing=SPACING):
    return Sweep(np.zeros((len(tracked), *size), np.uint8), spacing, tracked=replace(tracked, origin="measured"))


def random_trajectory(rng, count):
    return Trajectory.from_parameters(rng.normal([0, 0, 1, 0, 0, 0], 1, (count - 1, 6)))


def straight(steps_mm):
    return Trajectory.from_parameters([[0, 0, step, 0, 0, 0] for step in steps_mm])


def point_mm(pixel, size):
    """Homogeneous image point of a pixel by the definition of the image frame."""
    return [(pixel[0] - (size[1] - 1) / 2) * SPACING[0], (pixel[1] - (size[0] - 1) / 2) * SPACING[1], 0, 1]


def every_pixel(difference, image_from_pixel, size):
    """Mean length over all pixels, each of them taken."""
    u, v = np.meshgrid(np.arange(size[1]), np.arange(size[0]))
    pixels = np.stack([u.ravel(), v.ravel(), 0 * u.ravel(), 1 + 0 * u.ravel()])
    return np.linalg.norm((difference @ image_from_pixel @ pixels)[:3], axis=0).mean()


def difference_of(*, pose=(0, 0, 0, 0, 0, 0), other=(0, 0, 0, 0, 0, 0)):
    return matrices_from_parameters(np.array(pose, float)) - matrices_from_parameters(np.array(other, float))


HARD = {
    "a shift, the same everywhere": difference_of(pose=(1, 2, 3, 0, 0, 0)),
    "a shift a billionth of a millimetre long": difference_of(pose=(0, 0, 1e-9, 0, 0, 0)),
    "a turn about the centre of the image: zero at one place": difference_of(pose=(0, 0, 0, 0, 0, 7)),
    "a turn about a place between two pixels": difference_of(pose=(0.31, 0.17, 0, 0, 0, 2)),
    "a tilt: zero along a line": difference_of(pose=(0, 0, 0, 4, 0, 0)),
    "a tilt and a shift: zero along a slanting line": difference_of(pose=(0, 0, 0.3, 4, 3, 0)),
    "a tilt that is nearly zero along a line": difference_of(pose=(1e-4, 0, 0.3, 4, 3, 0)),
    "two different poses": difference_of(pose=(3, -2, 8, 1, 5, -3), other=(2, -2, 9, 2, 4, 1)),
    "poses a metre apart": difference_of(pose=(600, 0, 900, 20, 40, 100)),
    "no difference": np.zeros((4, 4)),
}


@pytest.mark.parametrize("size", [(480, 640), (97, 131), (1, 300), (301, 2), (5, 3)], ids=str)
@pytest.mark.parametrize("case", HARD)
def test_the_mean_over_all_pixels_is_the_sum_over_each_of_them(case, size):
    sweep = sweep_with(straight([1]), size)
    found = Reporter().finished(PixelGrid(sweep.image_from_pixel, size).mean_length(HARD[case][None], STAGE))
    expected = every_pixel(HARD[case], sweep.image_from_pixel, size)
    np.testing.assert_allclose(found, [expected], rtol=1e-12, atol=0)


@settings(max_examples=60, derandomize=True)
@given(
    motions=st.lists(st.tuples(*[st.floats(-5, 5)] * 6), min_size=2, max_size=2),
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
)
def test_the_mean_over_all_pixels_holds_for_any_motion_and_size(motions, size):
    sweep = sweep_with(straight([1]), size)
    difference = difference_of(pose=motions[0], other=motions[1])
    found = Reporter().finished(PixelGrid(sweep.image_from_pixel, size).mean_length(difference[None], STAGE))
    expected = every_pixel(difference, sweep.image_from_pixel, size)
    np.testing.assert_allclose(found, [expected], rtol=1e-11, atol=1e-13)


def test_a_rule_with_few_nodes_sums_polynomials_exactly():
    for points in (2, NODES, NODES + 1, 40, 641):
        nodes, weights = gram_rule(points)
        x, places = np.linspace(-1, 1, points), nodes * 2 / (points - 1) - 1
        for degree in range(2 * NODES):
            np.testing.assert_allclose(weights @ places**degree, (x**degree).sum(), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("points", [1, 12, 13, 150, 641])
def test_the_pieces_of_an_axis_share_its_points_out_and_nest(points):
    before = None
    for level in range(8):
        pieces = AxisPieces(points, level)
        assert pieces.weights.sum() == pytest.approx(points)
        first, last = pieces.middle - pieces.reach, pieces.middle + pieces.reach
        assert first[0] == 0
        assert last[-1] == points - 1
        np.testing.assert_array_equal(first[1:], last[:-1] + 1)
        if before is not None:
            assert set(before) <= set(first)
        before = first
    assert pieces.exact


def test_a_long_sweep_of_large_frames_takes_little_memory():
    """Frames of 480 x 640 pixels, 128 of them, hold 300 MB as float64; that is not what measuring them takes."""
    rng = np.random.default_rng(0)
    differences = matrices_from_parameters(rng.normal(size=(128, 6))) - matrices_from_parameters(
        rng.normal(size=(128, 6))
    )
    grid = PixelGrid(sweep_with(straight([1])).image_from_pixel, (480, 640))
    tracemalloc.start()
    try:
        assert (Reporter().finished(grid.mean_length(differences, STAGE)) > 0).all()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6


def test_measuring_can_be_stopped_between_blocks_of_frames():
    asked = iter([False, True])
    grid = PixelGrid(np.eye(4), (20, 20))
    with pytest.raises(Cancelled):
        Reporter(cancelled=lambda: next(asked)).finished(grid.mean_length(np.ones((600, 4, 4)), STAGE))


def reference_metrics(predicted, truth, landmarks, size):
    """All metrics by loops over frames, one formula after another; frame 0 is the reference and all are valid."""
    count = len(truth)
    to_first = [[np.linalg.inv(path[0]) @ path[i] for i in range(count)] for path in (predicted, truth)]
    to_previous = [[np.linalg.inv(path[i - 1]) @ path[i] for i in range(1, count)] for path in (predicted, truth)]

    def error(pair, i, pixel):
        point = point_mm(pixel, size)
        return math.dist((pair[0][i] @ point)[:3], (pair[1][i] @ point)[:3])

    pixels = [(u, v) for v in range(size[0]) for u in range(size[1])]
    width, height = size[1], size[0]
    five = [(0, 0), (width, 0), (0, height), (width, height), (width // 2, height // 2)]
    marks = [(frame, pixel) for frame, pixel in zip(landmarks.frames, landmarks.pixels, strict=True) if frame > 0]
    centres = [[pose[:3, 3] for pose in path] for path in to_first]
    drift = [math.dist(a, b) for a, b in zip(*centres, strict=True)]
    so_far = [sum(math.dist(centres[1][k], centres[1][k + 1]) for k in range(i)) for i in range(count)]
    straight_so_far = [math.dist(centre, centres[1][0]) for centre in centres[1]]
    nearest = [[min(math.dist(a, b) for b in other) for a in one] for one, other in (centres, centres[::-1])]
    return {
        "gpe_mm": np.mean([error(to_first, i, pixel) for i in range(1, count) for pixel in pixels]),
        "lpe_mm": np.mean([error(to_previous, i, pixel) for i in range(count - 1) for pixel in pixels]),
        "gpe_five_point_mm": np.mean([error(to_first, i, pixel) for i in range(1, count) for pixel in five]),
        "lpe_five_point_mm": np.mean([error(to_previous, i, pixel) for i in range(count - 1) for pixel in five]),
        "gle_mm": np.mean([error(to_first, frame, pixel) for frame, pixel in marks]),
        "lle_mm": np.mean([error(to_previous, frame - 1, pixel) for frame, pixel in marks]),
        "final_drift_mm": drift[-1],
        "max_drift_mm": max(drift),
        "sum_drift_mm": sum(drift),
        "fdr_percent": 100 * drift[-1] / straight_so_far[-1],
        "fdr_path_percent": 100 * drift[-1] / so_far[-1],
        "adr_percent": np.mean([100 * d / s for d, s in zip(drift, straight_so_far, strict=True) if s >= 0.1]),
        "adr_path_percent": np.mean([100 * d / s for d, s in zip(drift, so_far, strict=True) if s >= 0.1]),
        "hausdorff_mm": max(max(side) for side in nearest),
        "path_length_mm": so_far[-1],
        "straight_distance_mm": straight_so_far[-1],
    }


def random_landmarks(rng, count, frames, size):
    return Landmarks(rng.integers(0, frames, count), rng.uniform(0, 1, (count, 2)) * [size[1] - 1, size[0] - 1])


@pytest.mark.parametrize("seed", range(3))
def test_all_metrics_equal_their_formulas_written_out(seed):
    rng, size = np.random.default_rng(seed), (8, 6)
    truth, predicted = random_trajectory(rng, 14), random_trajectory(rng, 14)
    landmarks = random_landmarks(rng, 20, 14, size)
    found = evaluate(predicted, sweep_with(truth, size), landmarks=landmarks)
    still = evaluate(Trajectory(np.tile(np.eye(4), (14, 1, 1))), sweep_with(truth, size), landmarks=landmarks)
    expected = reference_metrics(predicted.poses, truth.poses, landmarks, size)
    expected_still = reference_metrics(np.tile(np.eye(4), (14, 1, 1)), truth.poses, landmarks, size)
    shares = [1 - expected[name] / expected_still[name] for name in ("gpe_mm", "lpe_mm", "gle_mm", "lle_mm")]
    expected |= {"tus_rec_score": np.mean(shares), "pixel_score": np.mean(shares[:2])}
    r = np.corrcoef(predicted.parameters.T, truth.parameters.T)
    expected |= {f"correlation_{name}": r[i, i + 6] for i, name in enumerate(COMPONENTS)}
    assert dict(found.metrics) == pytest.approx(expected, rel=1e-10)
    assert still.metrics["tus_rec_score"] == found.baselines["identity"]["tus_rec_score"] == 0
    assert found.landmarks_used == int((landmarks.frames > 0).sum())


def test_every_figure_is_defined_and_none_is_left_out():
    found = evaluate(straight([1, 1]), sweep_with(straight([2, 1])))
    assert list(found.metrics) == list(METRICS) == list(found.baselines["identity"])
    for name, metric in METRICS.items():
        assert name.endswith("_mm") == (metric.unit == "mm"), name
        assert name.endswith("_percent") == (metric.unit == "%"), name
        assert metric.better in ("less", "more", "neither")
        assert metric.definition


def test_landmark_errors_and_the_score_by_hand():
    """Half of steps of 2 mm: landmarks in frames 1 and 3 are off by 1 and 3 mm, without motion by 2 and 6."""
    landmarks = Landmarks([1, 3], [[0, 0], [4, 6]])
    found = evaluate(straight([1, 1, 1]), sweep_with(straight([2, 2, 2])), landmarks=landmarks)
    assert found.metrics["gle_mm"] == pytest.approx(2)
    assert found.metrics["lle_mm"] == pytest.approx(1)
    assert found.metrics["tus_rec_score"] == found.metrics["pixel_score"] == pytest.approx(0.5)


def test_a_landmark_is_where_its_pixel_is():
    """A turn about z by 90 degrees moves a pixel at distance r from the centre by sqrt(2) r."""
    truth = Trajectory.from_parameters([[0, 0, 0, 0, 0, 90]])
    sweep = sweep_with(truth, size=(3, 5))
    for pixel, radius in (((2, 1), 0), ((4, 1), 0.4), ((2, 0), 0.35), ((3.5, 1), 0.3)):
        found = evaluate(straight([0]), sweep, landmarks=Landmarks([1], [pixel]))
        assert found.metrics["gle_mm"] == pytest.approx(math.sqrt(2) * radius)


def test_an_estimate_worse_than_no_motion_has_a_negative_score():
    found = evaluate(straight([-3, -3]), sweep_with(straight([1, 1])), landmarks=Landmarks([1], [[0, 0]]))
    assert found.metrics["tus_rec_score"] == pytest.approx(-3)


def test_without_landmarks_there_is_no_challenge_score_but_one_of_another_name():
    found = evaluate(straight([1, 1]), sweep_with(straight([2, 2])))
    assert all(math.isnan(found.metrics[name]) for name in ("gle_mm", "lle_mm", "tus_rec_score"))
    assert found.metrics["pixel_score"] == pytest.approx(0.5)
    assert found.as_dict()["metrics"]["tus_rec_score"] is None
    assert math.isnan(evaluate(straight([1]), sweep_with(straight([0]))).metrics["pixel_score"])


def test_landmarks_in_frames_that_do_not_count_are_left_out():
    """Frame 0 is not tracked and frame 3 has no estimate: frame 1 is the reference, and frame 4 has no step to it."""
    landmarks = Landmarks([0, 1, 2, 3, 4], np.zeros((5, 2)))
    found = evaluate(
        Trajectory(straight([1, 1, 1, 1]).poses, [True, True, True, False, True]),
        sweep_with(Trajectory(straight([2, 2, 2, 2]).poses, [False, True, True, True, True])),
        landmarks=landmarks,
    )
    assert found.landmarks_used == 2
    assert found.metrics["gle_mm"] == pytest.approx((1 + 3) / 2)
    assert found.metrics["lle_mm"] == pytest.approx(1)
    only_reference = evaluate(straight([1]), sweep_with(straight([2])), landmarks=Landmarks([0], [[0, 0]]))
    assert math.isnan(only_reference.metrics["gle_mm"])
    assert only_reference.landmarks_used == 0


def test_tus_rec_counts_pixels_from_one_and_frames_from_zero():
    landmarks = Landmarks.from_tus_rec(np.array([[3, 1, 1], [4, 640, 480]], np.uint16))
    np.testing.assert_array_equal(landmarks.frames, [3, 4])
    np.testing.assert_array_equal(landmarks.pixels, [[0, 0], [639, 479]])


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Landmarks([[1]], [[0, 0]]), "expected the shapes"),
        (lambda: Landmarks([1, 2], [[0, 0]]), "expected the shapes"),
        (lambda: Landmarks([1], [["left", 0]]), "must be numbers"),
        (lambda: Landmarks([1, -2], np.zeros((2, 2))), "Landmark 1 lies in frame -2"),
        (lambda: Landmarks([0.5], [[0, 0]]), "frame 0.5"),
        (lambda: Landmarks([np.nan], [[0, 0]]), "frame nan"),
        (lambda: Landmarks([1, 1], [[0, 0], [np.inf, 0]]), "pixel of landmark 1 is not finite"),
        (lambda: Landmarks.from_tus_rec(np.zeros((4, 2))), r"expected \[n, 3\]"),
    ],
)
def test_landmarks_that_cannot_be_are_refused_with_a_sentence(make, what):
    with pytest.raises(InputError, match=what):
        make()


def test_landmarks_of_another_sweep_are_refused_with_a_sentence():
    truth = straight([1, 1])
    with pytest.raises(InputError, match="Landmark 1 lies in frame 3 and the sweep has the frames 0 to 2"):
        evaluate(truth, sweep_with(truth), landmarks=Landmarks([0, 3], np.zeros((2, 2))))
    with pytest.raises(InputError, match="column 0, row 9, outside the image of 5 x 7 pixels"):
        evaluate(truth, sweep_with(truth), landmarks=Landmarks([1], [[0, 9]]))


def test_the_distance_between_long_paths_does_not_depend_on_how_they_are_cut():
    rng = np.random.default_rng(7)
    truth, predicted = random_trajectory(rng, 600), random_trajectory(rng, 600)
    one, other = predicted.poses[:, :3, 3], truth.poses[:, :3, 3]
    distances = np.sqrt(((one[:, None] - other) ** 2).sum(axis=2))
    expected = max(distances.min(axis=0).max(), distances.min(axis=1).max())
    assert evaluate(predicted, sweep_with(truth)).metrics["hausdorff_mm"] == pytest.approx(expected)


def test_the_hausdorff_distance_looks_from_both_paths():
    short, long = np.zeros((1, 3)), np.array([[0.0, 0, 0], [0, 0, 10]])
    assert hausdorff_mm(short, long) == hausdorff_mm(long, short) == 10
