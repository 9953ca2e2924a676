"""Figures of a trajectory against the truth: by hand, by brute force, and what cannot be measured."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.evaluation import evaluate
from DualTrackCore.progress import Stage
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

SPACING = (0.2, 0.35)


def sweep_with(tracked, size=(7, 5), spacing=SPACING):
    return Sweep(np.zeros((len(tracked), *size), np.uint8), spacing, tracked=replace(tracked, origin="measured"))


def random_trajectory(rng, count, valid=None):
    trajectory = Trajectory.from_parameters(rng.normal([0, 0, 1, 0, 0, 0], 1, (count - 1, 6)))
    return trajectory if valid is None else Trajectory(trajectory.poses, valid)


def straight(steps_mm):
    """A trajectory along z with the given steps."""
    parameters = np.zeros((len(steps_mm), 6))
    parameters[:, 2] = steps_mm
    return Trajectory.from_parameters(parameters)


def brute_force(predicted, truth, sweep, reference):
    """GPE and LPE, all pixels and five points, point by point; all frames valid from `reference` on."""
    height, width = sweep.frame_size
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    everywhere = [(u, v) for v in range(height) for u in range(width)]
    five = [(0, 0), (width, 0), (0, height), (width, height), (width // 2, height // 2)]

    def mean_distance(one, other, pixels):
        distances = []
        for pixel in pixels:
            point = np.array([*((np.array(pixel) - centre) * SPACING), 0, 1])
            distances.append(math.dist((one @ point)[:3], (other @ point)[:3]))
        return sum(distances) / len(distances)

    def both(make):
        return [
            np.mean(
                [mean_distance(make(predicted, i), make(truth, i), pixels) for i in range(reference + 1, len(truth))]
            )
            for pixels in (everywhere, five)
        ]

    def in_reference(poses, i):
        return np.linalg.inv(poses[reference]) @ poses[i]

    def to_previous(poses, i):
        return np.linalg.inv(poses[i - 1]) @ poses[i]

    return [*both(in_reference), *both(to_previous)]


@pytest.mark.parametrize("reference", [0, 3])
def test_point_errors_equal_a_sum_pixel_by_pixel(reference):
    rng = np.random.default_rng(1)
    valid = np.arange(9) >= reference
    truth, predicted = random_trajectory(rng, 9, valid), random_trajectory(rng, 9)
    sweep = sweep_with(truth)
    found = evaluate(predicted, sweep)
    expected = brute_force(predicted.poses, truth.poses, sweep, reference)
    names = ("gpe_mm", "gpe_five_point_mm", "lpe_mm", "lpe_five_point_mm")
    np.testing.assert_allclose([found.metrics[name] for name in names], expected, rtol=1e-12)
    assert found.reference_frame == reference
    assert found.frames_used == 9 - reference


def test_a_frame_taller_than_one_block_of_rows_is_measured_whole():
    rng = np.random.default_rng(2)
    truth, predicted = random_trajectory(rng, 3), random_trajectory(rng, 3)
    sweep = sweep_with(truth, size=(150, 3))
    expected = brute_force(predicted.poses, truth.poses, sweep, 0)
    assert evaluate(predicted, sweep).metrics["gpe_mm"] == pytest.approx(expected[0], rel=1e-12)


def test_a_shift_by_hand():
    """Truth steps 2 mm, the estimate 1 mm, along z: every pixel is off by 1, 2, 3 mm."""
    found = evaluate(straight([1, 1, 1]), sweep_with(straight([2, 2, 2])))
    np.testing.assert_allclose(found.global_error_mm, [np.nan, 1, 2, 3])
    np.testing.assert_allclose(found.local_error_mm, [np.nan, 1, 1, 1])
    np.testing.assert_allclose(found.drift_mm, [0, 1, 2, 3])
    expected = {
        "gpe_mm": 2,
        "lpe_mm": 1,
        "gpe_five_point_mm": 2,
        "lpe_five_point_mm": 1,
        "final_drift_mm": 3,
        "max_drift_mm": 3,
        "sum_drift_mm": 6,
        "fdr_percent": 50,
        "fdr_path_percent": 50,
        "adr_percent": 50,
        "adr_path_percent": 50,
        "path_length_mm": 6,
        "straight_distance_mm": 6,
        "hausdorff_mm": 3,
    }
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected)


def test_drift_rates_tell_straight_distance_from_path_length():
    """The truth goes 4 mm out and 3 mm back; the estimate stands still and is 1 mm off at the end."""
    found = evaluate(straight([0, 0]), sweep_with(straight([4, -3])))
    assert found.metrics["fdr_percent"] == pytest.approx(100)
    assert found.metrics["fdr_path_percent"] == pytest.approx(100 / 7)
    assert found.metrics["adr_percent"] == pytest.approx(100)
    assert found.metrics["adr_path_percent"] == pytest.approx((100 + 100 / 7) / 2)
    assert found.metrics["hausdorff_mm"] == pytest.approx(4)


def test_frames_nearer_than_a_tenth_of_a_millimetre_stay_out_of_the_drift_rate():
    found = evaluate(straight([1, 1]), sweep_with(straight([0.05, 1.95])))
    assert found.metrics["adr_percent"] == pytest.approx(0, abs=1e-9)
    assert found.metrics["sum_drift_mm"] == pytest.approx(0.95)


def test_a_rotation_by_hand():
    """A turn about z by 90 degrees moves a pixel at distance r from the centre by sqrt(2) r."""
    truth = Trajectory.from_parameters([[0, 0, 0, 0, 0, 90]])
    found = evaluate(straight([0]), sweep_with(truth, size=(1, 3)))
    assert found.metrics["gpe_mm"] == pytest.approx(math.sqrt(2) * (0.2 + 0 + 0.2) / 3)
    assert found.metrics["final_drift_mm"] == pytest.approx(0)
    assert math.isnan(found.metrics["fdr_percent"])


def test_a_perfect_estimate_has_no_error_and_full_correlation():
    truth = random_trajectory(np.random.default_rng(3), 12)
    found = evaluate(truth, sweep_with(truth))
    for name, value in found.metrics.items():
        if name.startswith("correlation"):
            assert value == pytest.approx(1), name
        elif name == "pixel_score":
            assert value == pytest.approx(1)
        elif name not in ("path_length_mm", "straight_distance_mm", "gle_mm", "lle_mm", "tus_rec_score"):
            assert value == pytest.approx(0, abs=1e-12), name


def test_correlation_follows_the_sign_of_each_component():
    rng = np.random.default_rng(4)
    parameters = rng.normal(size=(40, 6))
    found = evaluate(
        Trajectory.from_parameters(parameters * [1, 1, 2, -1, 1, 1]), sweep_with(Trajectory.from_parameters(parameters))
    )
    signs = [found.metrics[f"correlation_{name}"] for name in ("tx", "ty", "tz", "rx", "ry", "rz")]
    np.testing.assert_allclose(signs, [1, 1, 1, -1, 1, 1], atol=1e-9)


def test_the_identity_baseline_is_the_evaluation_of_no_motion():
    truth = random_trajectory(np.random.default_rng(5), 8)
    sweep = sweep_with(truth)
    still = evaluate(Trajectory(np.tile(np.eye(4), (8, 1, 1))), sweep)
    assert dict(evaluate(truth, sweep).baselines["identity"]) == pytest.approx(dict(still.metrics), nan_ok=True)
    assert still.metrics["gpe_mm"] > 1


def test_the_mean_motion_baseline_is_perfect_for_a_constant_motion():
    found = evaluate(straight([0, 0, 0]), sweep_with(straight([2, 2, 2])))
    assert found.baselines["mean_motion"]["gpe_mm"] == pytest.approx(0, abs=1e-9)
    assert found.baselines["identity"]["gpe_mm"] == pytest.approx(4)


def test_frames_invalid_in_either_never_count_whatever_they_hold():
    truth, predicted = straight([2, 2, 2, 2]), straight([1, 1, 1, 1])
    spoiled_truth, spoiled_predicted = truth.poses.copy(), predicted.poses.copy()
    spoiled_truth[0] = np.nan
    spoiled_predicted[3] = 1e9
    found = evaluate(
        Trajectory(spoiled_predicted, [True, True, True, False, True]),
        sweep_with(Trajectory(spoiled_truth, [False, True, True, True, True])),
    )
    assert (found.frames, found.frames_used, found.reference_frame) == (5, 3, 1)
    np.testing.assert_allclose(found.global_error_mm, [np.nan, np.nan, 1, np.nan, 3])
    np.testing.assert_allclose(found.local_error_mm, [np.nan, np.nan, 1, np.nan, np.nan])
    np.testing.assert_allclose(found.drift_mm, [np.nan, 0, 1, np.nan, 3])


def test_the_result_can_be_written_as_json_without_not_a_number():
    found = evaluate(straight([0, 0]), sweep_with(straight([1, 2])))
    text = json.dumps(found.as_dict(), allow_nan=False)
    plain = json.loads(text)
    assert plain["metrics"]["correlation_tz"] is None
    assert plain["per_frame"]["global_error_mm"] == [None, 1.0, 3.0]
    assert plain["baselines"]["identity"]["gpe_mm"] == 2.0


def test_what_cannot_be_compared_is_refused_with_a_sentence():
    truth = straight([1, 1])
    with pytest.raises(InputError, match="no tracking"):
        evaluate(truth, Sweep(np.zeros((3, 4, 4), np.uint8), SPACING))
    with pytest.raises(InputError, match="4 poses and the sweep 3 frames"):
        evaluate(straight([1, 1, 1]), sweep_with(truth))
    with pytest.raises(InputError, match="spacing"):
        evaluate(truth, sweep_with(truth, spacing=None))
    with pytest.raises(InputError, match="no images"):
        evaluate(truth, sweep_with(truth, size=(0, 0)))
    with pytest.raises(InputError, match="Only 1 of 3 frames"):
        evaluate(Trajectory(truth.poses, [False, True, False]), sweep_with(truth))


def test_a_long_comparison_reports_and_can_be_stopped():
    truth, seen = straight([1] * 40), []
    evaluate(truth, sweep_with(truth), progress=seen.append)
    assert seen[-1].fraction == 1
    assert {report.stage for report in seen} == {Stage.MEASURING}
    assert len({report.detail for report in seen}) == 3
    with pytest.raises(Cancelled):
        evaluate(truth, sweep_with(truth), cancelled=lambda: True)
