"""What is known of a sweep takes the drift out of its path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drifting_paths import IN_PLANE, MODEL, gpe_mm, mark, motions, pair, pairs
from scipy.spatial.transform import Rotation

from DualTrackCore.corrections import KnownLength, KnownPoses, SamePlace, SamePoint, correct
from DualTrackCore.errors import InputError
from DualTrackCore.path_error import CORRECTIONS, path_error
from DualTrackCore.trajectory import Trajectory


def test_without_knowledge_the_path_is_the_same_object():
    path = pair(0)[1]
    assert correct(path, []) is path


@pytest.mark.parametrize("errors", ["as stated", "by rule of thumb"])
def test_a_wrong_scale_is_corrected_by_the_known_length(errors):
    true = motions()
    truth = Trajectory.from_parameters(true)
    wrong = true * [1, 1, 0.4, 0.4, 0.4, 1]
    sigma = np.full_like(true, 0.01) if errors == "as stated" else None
    path = correct(Trajectory.from_parameters(wrong, MODEL, sigma=sigma), [KnownLength(truth.path_length_mm)])
    assert path.path_length_mm == pytest.approx(truth.path_length_mm, rel=1e-12)
    np.testing.assert_allclose(path.centres_mm, truth.centres_mm, atol=0.01 * truth.path_length_mm)
    (entry,) = path.provenance[CORRECTIONS]
    assert entry["factor"] == pytest.approx(2.5, rel=0.01)
    assert entry["text"].startswith("Scaled the elevational motion by 2.5: the path is 47.")
    assert "scaled by 2.5" in path.provenance["warnings"][-1]


def test_a_path_with_much_motion_in_its_plane_has_the_known_length_to_rounding():
    wrong = motions() + np.array([0.3, 0.1, 0, 0, 0, 0])
    for length in (60.0, 97.123456789):
        path = correct(Trajectory.from_parameters(wrong, MODEL), [KnownLength(length)])
        assert path.path_length_mm == pytest.approx(length, rel=1e-12)
        np.testing.assert_allclose(path.parameters[:, :2], wrong[:, :2], atol=1e-12)


def test_the_whole_motion_is_scaled_where_it_is_asked_for():
    path = correct(Trajectory.from_parameters(motions(), MODEL), [KnownLength(60, scale="all")])
    factor = path.provenance[CORRECTIONS][0]["factor"]
    assert factor == pytest.approx(60 / Trajectory.from_parameters(motions()).path_length_mm)
    np.testing.assert_allclose(path.parameters, motions() * ([factor] * 3 + [1] * 3), atol=1e-9)


def test_the_known_distance_of_two_frames_is_met():
    path = correct(pair(1)[1], [KnownLength(20.0, frames=(90, 30))], first_frame=5)
    assert np.linalg.norm(path.centres_mm[90] - path.centres_mm[30]) == pytest.approx(20, rel=1e-9)
    assert "the way from frame 95 to frame 35 is 20.0 mm long" in path.provenance[CORRECTIONS][0]["text"]


@pytest.mark.parametrize("length", [4.0, 4000.0])
@pytest.mark.parametrize("frames", [None, (0, 119)])
def test_a_length_that_cannot_be_is_refused_with_the_limits(length, frames):
    with pytest.raises(InputError, match=r"scaled by 0.2 to 5 it is .* mm, not the known") as refusal:
        correct(pair(0)[1], [KnownLength(length, frames)])
    assert len(str(refusal.value)) < 300


def test_only_unusual_factors_are_warned_of():
    path = pair(0)[1]
    for part, count in ((0.7, 0), (1.9, 0), (2.2, 1), (0.4, 1)):
        warnings = correct(path, [KnownLength(part * path.path_length_mm)]).provenance.get("warnings", [])
        assert len(warnings) == count, part


def test_two_landmarks_at_the_ends_of_a_sweep_that_came_back_take_out_the_drift():
    before, after = [], []
    for seed in range(8):
        truth, path = pair(seed, way="back", sigma=IN_PLANE)
        ends = 0, 118
        points = [SamePoint(str(p), ends, mark(truth, ends, p, 0.3, seed), 0.5) for p in ((-15, -20), (12, 20))]
        before.append(gpe_mm(path, truth))
        after.append(gpe_mm(correct(path, points), truth))
    assert sum(after) < 0.3 * sum(before)


def test_places_of_the_first_and_the_last_frame_take_out_the_drift():
    before, after = [], []
    for truth, path in pairs(8):
        ends = np.array([0, len(truth) - 1])
        before.append(gpe_mm(path, truth))
        after.append(gpe_mm(correct(path, [KnownPoses("places", ends, truth.poses[ends], 0.5, 0.5)]), truth))
    assert sum(after) < 0.3 * sum(before)


def test_a_wrong_click_costs_little_and_is_named():
    clean, spoilt = [], []
    for seed in range(8):
        truth, path = pair(seed, way="back", sigma=IN_PLANE)
        rng = np.random.default_rng(seed)
        points = []
        for k, frame in enumerate((2, 10, 22, 30, 41, 50)):
            place = tuple(rng.uniform((-18, -22), (18, 22)))
            ends = (frame, 118 - frame)
            points.append(SamePoint(f"point {k}", ends, mark(truth, ends, place, 0.3, seed), 0.5))
        wrong = points[3].points_mm + np.array([[0, 0], [14.2, 14.2]])
        clean.append(gpe_mm(correct(path, points), truth))
        found = correct(path, [*points[:3], replace(points[3], points_mm=wrong), *points[4:]])
        spoilt.append(gpe_mm(found, truth))
        assert found.provenance[CORRECTIONS][0]["down_weighted"] == ["point 3 in frames 30 and 88"]
        assert "do not fit the others: point 3 in frames 30 and 88" in found.provenance["warnings"][-1]
    assert sum(spoilt) < 1.2 * sum(clean)


def test_a_closed_loop_takes_out_the_drift():
    before, after = [], []
    for truth, path in pairs(8, way="back", sigma=IN_PLANE):
        before.append(gpe_mm(path, truth))
        after.append(gpe_mm(correct(path, [SamePlace((0, 118), 0.5, 0.5)]), truth))
    assert sum(after) < 0.3 * sum(before)


def noisy(poses, mm, degrees, seed):
    rng = np.random.default_rng(seed)
    found = poses.copy()
    found[:, :3, :3] @= Rotation.from_rotvec(np.deg2rad(rng.normal(0, degrees, (len(poses), 3)))).as_matrix()
    found[:, :3, 3] += rng.normal(0, mm, (len(poses), 3))
    return found


def turn_errors(path, truth):
    apart = np.swapaxes(truth.poses[:, :3, :3], 1, 2) @ path.poses[:, :3, :3]
    return np.rad2deg(Rotation.from_matrix(apart).magnitude()).mean()


def test_orientations_of_an_imu_with_a_noise_of_one_degree_take_out_the_turns():
    before, after, moved, corrected = [], [], [], []
    world = Rotation.from_euler("xyz", [100, 40, -70], degrees=True).as_matrix()
    for seed in range(8):
        truth, path = pair(seed)
        seen = noisy(truth.poses, 0, 1.0, seed)
        seen[:, :3, :3] = world @ seen[:, :3, :3]
        seen[:, :3, 3] = 1e6  # nothing of the places may count
        found = correct(path, [KnownPoses("orientations", np.arange(120), seen, None, 1.0)])
        before.append(turn_errors(path, truth))
        after.append(turn_errors(found, truth))
        moved.append(gpe_mm(path, truth))
        corrected.append(gpe_mm(found, truth))
    assert sum(after) < 0.35 * sum(before)
    assert sum(corrected) < sum(moved)


def test_a_tracker_with_dropouts_is_filled_by_the_estimate():
    for seed in range(4):
        truth, path = pair(seed)
        rng = np.random.default_rng(seed)
        frames = np.sort(rng.permutation(120)[:84])  # 30 % of the frames are lost
        frames = frames[(frames < 60) | (frames > 80)]
        elsewhere = np.linalg.inv(noisy(truth.poses[:1], 50, 30, 3)[0])
        seen = elsewhere @ noisy(truth.poses[frames], 0.5, 0.5, seed)
        found = correct(path, [KnownPoses("tracker", frames, seen, 0.5, 0.5)])
        assert gpe_mm(found, truth) < min(0.6, 0.25 * gpe_mm(path, truth))


def test_positions_alone_take_out_the_drift_in_any_world():
    truth, path = pair(3)
    frames = np.arange(0, 120, 7)
    seen = np.diag([-1.0, -1, 1, 1]) @ noisy(truth.poses[frames], 0.3, 90, 2)
    found = correct(path, [KnownPoses("positions", frames, seen, 0.3)])
    apart = [np.linalg.norm(one.centres_mm - truth.centres_mm, axis=1).mean() for one in (path, found)]
    assert apart[1] < 0.2 * apart[0]
    assert path_error(found).end_length_mm < 0.5 * path_error(path).end_length_mm
