"""How a probe can have moved, and knowledge that cannot be used."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from drifting_paths import MODEL, motions, pair

from DualTrackCore.corrections import KnownLength, KnownPoses, Limits, SamePlace, SamePoint, correct
from DualTrackCore.errors import InputError, OutOfMemoryError
from DualTrackCore.files import plain_values
from DualTrackCore.path_error import CORRECTIONS, path_error
from DualTrackCore.trajectory import Trajectory


def entry_of(path, number=None):
    if number is not None:
        return path.provenance[CORRECTIONS][number]
    (entry,) = path.provenance[CORRECTIONS]
    return entry


@pytest.mark.parametrize("way", [1, -1])
def test_a_probe_that_never_moves_back_does_not_and_the_path_gets_no_longer(way):
    rng = np.random.default_rng(0)
    jitter = motions()
    jitter[:, 2] = way * 0.05 + rng.normal(0, 0.08, 119)
    given = Trajectory.from_parameters(jitter, MODEL)
    path = correct(given, [Limits(monotone=True)], first_frame=10)
    assert (path.parameters[:, 2] * way >= -1e-9).all()
    assert path.centres_mm[-1, 2] == pytest.approx(given.centres_mm[-1, 2], abs=0.3)
    rising = np.maximum.accumulate(way * given.centres_mm[:, 2])
    assert np.std(path.centres_mm[:, 2] - given.centres_mm[:, 2]) < 0.7 * np.std(rising - way * given.centres_mm[:, 2])
    back = np.flatnonzero(jitter[:, 2] * way < 0) + 11
    assert entry_of(path)["counts"] == {"moved back": len(back)}
    assert entry_of(path)["frames"]["moved back"] == back[:12].tolist()
    assert f"moved back at {back[0]}, {back[1]}" in entry_of(path)["text"]


def test_steps_and_turns_beyond_the_limits_are_cut_and_named():
    wild = motions()
    wild[30, :3], wild[70, 3:] = [0, 3, 4], [0, 20, 0]
    path = correct(Trajectory.from_parameters(wild, MODEL), [Limits(most_step_mm=1, most_turn_deg=2)])
    np.testing.assert_allclose(path.parameters[30, :3], [0, 0.6, 0.8], atol=1e-9)
    np.testing.assert_allclose(path.parameters[70, 3:], [0, 2, 0], atol=1e-9)
    others = np.setdiff1d(np.arange(119), [30, 70])
    np.testing.assert_allclose(path.parameters[others], wild[others], atol=1e-9)
    assert entry_of(path)["frames"] == {"longer step": [31], "larger turn": [71]}
    assert entry_of(path)["given"]["most_step_mm"] == 1


def test_limits_hold_after_the_path_was_scaled_to_its_length():
    wild = motions()
    wild[30, 2] = 5
    path = correct(Trajectory.from_parameters(wild, MODEL), [KnownLength(60), Limits(most_step_mm=1.0)])
    assert path.path_length_mm == pytest.approx(60, rel=1e-9)
    assert np.linalg.norm(path.parameters[:, :3], axis=1).max() < 1.001
    assert path.provenance[CORRECTIONS][0]["frames"] == {"longer step": [31]}


def test_limits_hold_against_what_a_tracker_says():
    wild = motions()
    wild[30, 2] = 5
    path = Trajectory.from_parameters(wild, MODEL)
    known = [Limits(most_step_mm=1.0), KnownPoses("tracker", np.arange(120), path.poses, 0.1, 0.5)]
    found = correct(path, known)
    assert np.linalg.norm(found.parameters[:, :3], axis=1).max() < 1.011
    assert 31 in entry_of(found, 0)["frames"]["longer step"]


def test_frames_in_which_the_probe_stood_still_are_at_one_place():
    given = pair(0)[1]
    path = correct(given, [Limits(stops=((20, 40), (60, 61)))])
    np.testing.assert_array_equal(path.poses[20:41], np.tile(path.poses[20], (21, 1, 1)))
    np.testing.assert_array_equal(path.poses[60], path.poses[61])
    np.testing.assert_allclose(path.parameters[41:60], given.parameters[41:60], atol=1e-9)
    assert (path.sigma[20:40] == 0).all()
    assert (path.sigma[41:60] > 0).all()
    assert entry_of(path)["counts"] == {"stood still": 21}
    assert path_error(path).end_length_mm < path_error(given).end_length_mm


def test_frames_without_a_pose_stay_as_they_are():
    truth, given = pair(0)
    valid = np.ones(120, bool)
    valid[[0, 50, 51]] = False
    sigma = given.sigma.copy()
    sigma[[0, 49, 50, 51]] = np.nan
    given = Trajectory(given.poses, valid, provenance=MODEL, sigma=sigma)
    path = correct(given, [KnownPoses("tracker", np.array([1, 60, 119]), truth.poses[[1, 60, 119]], 0.5, 0.5)])
    np.testing.assert_array_equal(path.valid, valid)
    np.testing.assert_array_equal(path.poses[~valid], given.poses[~valid])
    np.testing.assert_array_equal(path.poses[1], given.poses[1])
    np.testing.assert_array_equal(np.isnan(path.sigma), np.isnan(sigma))
    assert np.isnan(path.path_covariance[50]).all()
    aligned = given.poses[1] @ np.linalg.inv(truth.poses[1]) @ truth.poses
    assert np.linalg.norm((aligned - path.poses)[valid][:, :3, 3], axis=1).mean() < 0.6


@pytest.mark.parametrize("by_rule", [False, True])
def test_pictures_that_were_shown_again_stay_at_their_place(by_rule):
    truth, given = pair(0)
    given = replace(given, sigma=None) if by_rule else given
    frames = np.sort(np.r_[np.arange(120), [30, 30, 90]])
    repeated = given.chosen(frames)
    known = [KnownLength(truth.path_length_mm), SamePlace((20, 60))]
    path = correct(repeated, known)
    np.testing.assert_array_equal(path.poses[30:33], np.tile(path.poses[30], (3, 1, 1)))
    alone = correct(given, [known[0], SamePlace((20, 58))])
    np.testing.assert_allclose(path.poses, alone.poses[frames], atol=1e-6)


def test_a_second_correction_adds_its_entries_and_all_of_them_are_plain_values():
    truth, given = pair(0)
    once = correct(given, [KnownLength(50.0)])
    place = np.array([0, 119])
    known = [
        KnownPoses("positions", place, truth.poses[place], 0.5),
        SamePlace((3, 5)),
        SamePoint("vessel", (3, 5), np.array([[1.0, 2], [1, 2]])),
        Limits(monotone=True),
    ]
    twice = correct(once, known)
    kinds = [entry["kind"] for entry in twice.provenance[CORRECTIONS]]
    assert kinds == ["known length", "limits", "same points", "same places", "positions"]
    said = plain_values(twice.provenance[CORRECTIONS])
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    for entry in said:
        assert entry["text"].endswith(".")
        assert entry["given"]
    assert said[2]["residuals_mm"].keys() == {"vessel in frames 3 and 5"}
    assert said[4]["mean_mm"] < said[4]["mean_before_mm"]


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (lambda: KnownLength(50, frames=(0, 120)), "frame 125, which has no pose: the path has the frames 5 to 124"),
        (lambda: Limits(stops=((3, 500),)), "frame 505"),
        (lambda: SamePlace((0, 4000)), "frame 4005"),
        (lambda: SamePlace((4, 4)), "name two different frames"),
        (lambda: KnownLength(-3), "above 0"),
        (lambda: KnownLength(30, accuracy_mm=0), "above 0"),
        (lambda: KnownLength(30, frames=(2, 2)), "to itself"),
        (lambda: SamePoint("p", (3,), np.zeros((1, 2))), "two or more"),
        (lambda: SamePoint("p", (3, 3), np.zeros((2, 2))), "two or more"),
        (lambda: SamePoint("p", (3, 4), np.full((2, 2), np.nan)), "finite"),
        (lambda: Limits(stops=((9, 3),)), "cannot stand still"),
        (lambda: Limits(most_step_mm=0), "above 0"),
        (lambda: KnownPoses("tracker", np.array([1]), np.eye(4)[None], 1.0), "two or more"),
        (lambda: KnownPoses("tracker", np.array([1, 2]), np.tile(np.eye(4), (2, 1, 1))), "give an accuracy"),
    ],
)
def test_knowledge_that_cannot_be_is_refused_in_a_sentence(known, words):
    with pytest.raises(InputError, match=words) as refusal:
        correct(pair(0)[1], [known()], first_frame=5)
    assert str(refusal.value).count(". ") <= 1


def test_measured_paths_still_paths_and_two_lengths_are_refused():
    truth, path = pair(0)
    with pytest.raises(InputError, match="simulated and are not corrected"):
        correct(truth, [KnownLength(50)])
    with pytest.raises(InputError, match="More than one known length"):
        correct(path, [KnownLength(50), KnownLength(51)])
    with pytest.raises(InputError, match="does not move"):
        correct(path, [Limits(stops=((0, 119),))])
    with pytest.raises(InputError, match="fewer than two"):
        correct(replace(path, valid=np.arange(120) == 3), [KnownLength(50)])
    many = [SamePlace((0, k)) for k in range(1, 119)] * 2
    with pytest.raises(InputError, match="the limit is 1000"):
        correct(path, many)


def test_poses_from_elsewhere_of_frames_without_a_pose_are_left_out():
    truth, path = pair(0)
    lost = replace(path, valid=np.arange(120) % 10 > 0)
    known = KnownPoses("tracker", np.arange(120), truth.poses, 0.5, 0.5)
    assert entry_of(correct(lost, [known]))["given"]["observations"] == 108
    with pytest.raises(InputError, match="two or more different frames"):
        correct(lost, [KnownPoses("tracker", np.array([0, 10, 11]), truth.poses[:3], 0.5)])


def test_a_path_that_jumps_is_refused_with_the_frame():
    wild = motions()
    wild[30, 4] = 88
    with pytest.raises(InputError, match="turns by 88 degrees at frame 36, and at most 75"):
        correct(Trajectory.from_parameters(wild, MODEL), [KnownLength(50)], first_frame=5)


def test_too_little_memory_is_said_before_it_is_taken(monkeypatch):
    monkeypatch.setattr("DualTrackCore.memory.available_memory_bytes", lambda: 100_000)
    correct(pair(0, frames=5)[1], [SamePlace((0, 4))])
    with pytest.raises(OutOfMemoryError, match="Correcting the path needs"):
        correct(pair(0)[1], [SamePlace((0, 30))])


def test_numbers_that_cannot_be_computed_with_end_in_a_sentence():
    path = replace(pair(0)[1], sigma=np.full((119, 6), 1e160))
    with pytest.raises(InputError, match="cannot be brought together"), np.errstate(all="ignore"):
        correct(path, [SamePlace((0, 30))])
