"""Tracking while frames arrive: provisional poses soon, and in the end what the offline call gives."""

import threading
import time

import numpy as np
import pytest
import torch
from oracle import anatomical_model, noise_sweep

from DualTrackCore.errors import Cancelled, InputError, OutOfMemoryError
from DualTrackCore.network.fast import StreamingTrunk
from DualTrackCore.progress import Reporter
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import LiveTracker, TrackingWarning, estimate_trajectory, motions_in_windows
from DualTrackCore.tracking.provisional import ProvisionalPath
from DualTrackCore.trajectory import Trajectory

CPU = torch.device("cpu")

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")


@pytest.fixture(scope="module")
def model():
    return anatomical_model()


def live(model, sweep: Sweep, **options) -> LiveTracker:
    return LiveTracker(model, sweep.frame_size, sweep.spacing_mm, device="cpu", **options)


def pieces(sweep: Sweep, size: int) -> list[np.ndarray]:
    return [frames for _, frames in sweep.windows(size)]


@pytest.mark.parametrize(("frames", "size"), [(41, 1), (90, 7), (64, 64), (2, 1)])
def test_finish_gives_the_offline_trajectory_however_the_frames_came(model, frames, size):
    sweep = noise_sweep(frames, timestamps_s=np.arange(frames) / 10)
    offline = estimate_trajectory(sweep, model, device="cpu", chunk_frames=4)
    tracker = live(model, sweep)
    for piece in pieces(sweep, size):
        tracker.push(piece)
    finished = tracker.finish(timestamps_s=sweep.timestamps_s)
    np.testing.assert_array_equal(finished.poses, offline.poses)
    own, other = dict(finished.provenance), dict(offline.provenance)
    assert own.pop("estimated_at") >= other.pop("estimated_at")
    assert own == other


def test_the_chunk_of_a_live_tracker_changes_the_result_by_rounding_only(model):
    sweep = noise_sweep(40)
    offline = estimate_trajectory(sweep, model, device="cpu")
    tracker = live(model, sweep, chunk_frames=1)
    tracker.push(sweep.window(0, 40))
    np.testing.assert_allclose(tracker.finish().poses, offline.poses, atol=1e-5)


def test_the_first_pose_of_a_live_stream_comes_within_40_frames(model):
    sweep = noise_sweep(40)
    with live(model, sweep) as tracker:
        for frame in pieces(sweep, 1):
            tracker.push(frame)
            if poses := tracker.wait():
                break
    # The trunk is 17 frames behind, a motion takes two frames, chunks are of 4, and one frame is held back.
    assert len(tracker) == 21
    assert [pose.frame for pose in poses] == [0, 1, 2]
    np.testing.assert_array_equal(poses[0].frame0_from_image, np.eye(4))


def test_every_frame_that_the_trunk_has_passed_has_a_pose_near_the_final_one(model):
    sweep = noise_sweep(61)
    tracker, latest = live(model, sweep), {}
    for frame in pieces(sweep, 1):
        tracker.push(frame)
        latest |= {pose.frame: pose.frame0_from_image for pose in tracker.wait()}
    assert sorted(latest) == list(range(60 - 17))
    seen = Trajectory(np.stack([latest[frame] for frame in sorted(latest)])).parameters
    final = tracker.finish().parameters
    assert np.abs(seen - final[: len(seen)]).max() < np.abs(final).max()
    # Attention saw 43 of the 61 frames.
    assert np.abs(seen[:10] - final[:10]).max() < 0.5 * np.abs(final[:10]).max()


def features(network, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(frames, 16, generator=generator), torch.randn(-(-frames // 16), 8, generator=generator)


@torch.inference_mode()
def test_before_the_window_is_full_provisional_poses_are_those_of_the_network(model):
    tokens, pooled = features(model.network, 50)
    path = ProvisionalPath(model.session(CPU), 64)
    path.add(tokens[:20], [pooled[:2]])
    assert path.update() == 0
    path.add(tokens[20:], [pooled[2:]])
    assert path.update() == 1
    motions = model.network.poses_from_features(tokens[None], pooled[None])[0]
    np.testing.assert_allclose(path.poses(0), Trajectory.from_parameters(motions.numpy()).poses, atol=1e-9)


@pytest.mark.parametrize("step", [1, 5, 48, 112])
@torch.inference_mode()
def test_full_windows_are_stitched_as_those_of_long_sweeps(model, step):
    network = model.network
    tokens, pooled = features(network, 112)  # two windows of 64, 48 frames apart

    def motions(start: int, stop: int) -> torch.Tensor:
        return network.poses_from_features(tokens[None, start:stop], pooled[None, start // 16 : -(-stop // 16)])[0]

    expected = motions_in_windows(112, 64, 16, motions, Reporter())
    path = ProvisionalPath(model.session(CPU), 64)
    for start in range(0, 112, step):
        path.add(tokens[start : start + step], [pooled[-(-start // 16) : -(-(start + step) // 16)]])
        path.update()
    np.testing.assert_allclose(path.poses(0), Trajectory.from_parameters(expected.numpy()).poses, atol=1e-4)


@torch.inference_mode()
def test_an_update_works_on_one_window_however_long_the_sweep(model, monkeypatch):
    network, path, seen = model.network, ProvisionalPath(model.session(CPU), 32), []
    original = network.output_from_features
    monkeypatch.setattr(network, "output_from_features", lambda x, c: (seen.append(x.shape[1]), original(x, c))[1])
    tokens, pooled = features(network, 400)
    for start in range(0, 400, 4):
        path.add(tokens[start : start + 4], [pooled[-(-start // 16) : -(-(start + 4) // 16)]])
        seen.clear()
        first = path.update()
        assert sum(seen) <= 2 * 32
        assert sum(map(len, path._tokens)) <= 32
        assert start + 4 - first <= 32 + 4
    assert len(path) == 400


def test_frames_are_let_go_once_the_network_has_seen_them(model):
    sweep = noise_sweep(64)
    with live(model, sweep, max_lag_frames=8) as tracker:
        for piece in pieces(sweep, 16):
            tracker.push(piece)
            assert tracker.behind_frames <= 8
            assert len(tracker._waiting) <= 4
            assert tracker._waiting.base is None
        tracker.wait()
        assert tracker.behind_frames == 0


def test_a_tracker_says_that_it_falls_behind_and_then_makes_the_source_wait(model, monkeypatch):
    original = StreamingTrunk.push
    monkeypatch.setattr(
        StreamingTrunk, "push", lambda self, images, last=False: (time.sleep(0.05), original(self, images, last))[1]
    )
    sweep = noise_sweep(40)
    with live(model, sweep, max_lag_frames=12) as tracker:
        behind = []
        for frame in pieces(sweep, 1):
            tracker.push(frame)
            behind.append(tracker.behind_frames)
    assert max(behind) == 12


def test_where_chunks_wait_poses_come_with_every_fourth(model, monkeypatch):
    updates, original = [], ProvisionalPath.update
    monkeypatch.setattr(
        ProvisionalPath, "update", lambda path, *more: (updates.append(len(path)), original(path, *more))[1]
    )
    sweep = noise_sweep(128)
    with live(model, sweep) as tracker:
        updates.clear()
        monkeypatch.setattr(LiveTracker, "behind_frames", property(lambda self: 1))
        tracker.push(sweep.frames)
        tracker.wait()
    steps = np.diff([length for length in updates if length])
    assert steps.tolist() == [16] * len(steps)
    assert len(steps) >= 2


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((1, 97, 128), np.uint8), r"shape \(1, 97, 128\); this tracker takes \[n, 96, 128\]"),
        (np.zeros((96, 128), np.uint8), r"shape \(96, 128\)"),
        (np.zeros((1, 96, 128), np.float32), "float32; the tracker takes 8-bit grey frames"),
    ],
)
def test_frames_of_another_kind_are_refused_and_the_tracker_goes_on(model, frames, message):
    sweep = noise_sweep(20)
    with live(model, sweep) as tracker:
        tracker.push(sweep.window(0, 10))
        with pytest.raises(InputError, match=message):
            tracker.push(frames)
        tracker.push(sweep.window(10, 20))
        assert len(tracker.finish()) == 20


def test_a_finished_tracker_takes_no_more_frames(model):
    sweep = noise_sweep(20)
    tracker = live(model, sweep)
    tracker.push(sweep.window(0, 20))
    tracker.finish()
    for call in (lambda: tracker.push(sweep.window(0, 1)), tracker.wait, tracker.finish):
        with pytest.raises(InputError, match="has finished or was closed"):
            call()


def test_a_live_sweep_of_one_frame_has_no_trajectory(model):
    with live(model, noise_sweep(2)) as tracker:
        tracker.push(noise_sweep(2).window(0, 1))
        with pytest.raises(InputError, match="1 frames; a trajectory needs at least two"):
            tracker.finish()


def test_a_cancelled_tracker_stops_with_the_chunk_at_hand(model):
    sweep, stop = noise_sweep(40), []
    tracker = live(model, sweep, cancelled=lambda: bool(stop))
    tracker.push(sweep.window(0, 20))
    tracker.wait()
    stop.append(True)
    with pytest.raises(Cancelled):
        tracker.push(sweep.window(20, 40)), tracker.wait()
    with pytest.raises(InputError, match="was closed"):
        tracker.push(sweep.window(0, 1))


def test_memory_that_runs_out_in_the_thread_is_a_sentence(model, monkeypatch):
    def full(self, images, last=False):
        raise torch.OutOfMemoryError("fake")

    tracker = live(model, noise_sweep(20))
    monkeypatch.setattr(StreamingTrunk, "push", full)
    with pytest.raises(OutOfMemoryError, match="cpu has too little memory"):
        tracker.push(noise_sweep(20).window(0, 20)), tracker.wait()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_frames": 20}, "20 frames; for this model it must have 32 to 64"),
        ({"window_frames": 65}, "for this model it must have 32 to 64"),
        ({"chunk_frames": 0}, "chunk_frames is 0"),
        ({"chunk_frames": 8, "max_lag_frames": 7}, r"max_lag_frames is 7; .* at least one chunk \(8\)"),
    ],
)
def test_options_out_of_range_are_refused(model, options, message):
    with pytest.raises(InputError, match=message):
        live(model, noise_sweep(2), **options)


def test_a_live_tracker_needs_the_pixel_spacing(model):
    with pytest.raises(InputError, match="pixel spacing of this sweep is unknown"):
        LiveTracker(model, (96, 128), None)


def test_the_warnings_of_the_offline_call_are_given_at_the_end(model):
    sweep = noise_sweep(20)
    tracker = live(model, sweep)
    tracker.push(sweep.window(0, 20))
    with pytest.warns(TrackingWarning, match="untrained"):
        tracker.finish()


@pytest.mark.parametrize(("chunk", "sent"), [(1, 2), (4, 4), (20, 20)])
def test_a_new_tracker_has_sent_frames_through_everything_and_kept_nothing_of_them(model, monkeypatch, chunk, sent):
    pushed, updated = [], []
    push, update = StreamingTrunk.push, ProvisionalPath.update

    def counted_push(self, images, last=False):
        pushed.append(len(images))
        return push(self, images, last)

    def counted_update(self):
        updated.append(len(self._tokens))
        return update(self)

    monkeypatch.setattr(StreamingTrunk, "push", counted_push)
    monkeypatch.setattr(ProvisionalPath, "update", counted_update)
    with live(model, noise_sweep(8), chunk_frames=chunk) as tracker:
        assert pushed == [sent]
        assert len(updated) == 1
        assert len(tracker) == tracker.behind_frames == 0
        assert tracker.wait() == []


def test_a_tracker_that_cannot_warm_up_says_so_when_it_is_made(model, monkeypatch):
    def full(self, images, last=False):
        raise MemoryError

    monkeypatch.setattr(StreamingTrunk, "push", full)
    before = threading.active_count()
    with pytest.raises(OutOfMemoryError, match="cpu has too little memory"):
        live(model, noise_sweep(8))
    assert threading.active_count() == before
