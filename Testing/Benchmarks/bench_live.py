"""A live stream in real time: latency from a frame's arrival to its pose, frames dropped, and the offline rate of mini.

Latency holds the frames that the trunk looks ahead (9 for mini), the wait for a chunk of four to fill, and computing.
The source drops a frame where the tracker is a whole second behind, as a screen grabber would.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

from DualTrackCore.network import load_model
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import LiveTracker, TrackingWarning, estimate_trajectory
from DualTrackCore.tracking.preprocessing import Preprocessor

SECONDS = 10
#: A sweep at mini's own spacing, and a larger one that shows about as much and is resampled to it.
SWEEPS = {"128x160": ((128, 160), 0.25), "480x640": ((480, 640), 0.0667)}


@pytest.fixture(scope="module")
def mini():
    return load_model("mini")


def noise(frames: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, *size), dtype=np.uint8)


class Stream:
    """Frames pushed by the clock, and when each got its first pose."""

    def __init__(self, model, size: tuple[int, int], spacing_mm: float, rate_hz: float) -> None:
        self.frames = noise(32, size)
        self.rate_hz = rate_hz
        self.tracker = LiveTracker(model, size, spacing_mm, device="cpu", simulated=True)
        self.arrived: list[float] = []
        self.latency_s: dict[int, float] = {}
        self.dropped, self.max_lag_frames, self.first_pose_frames = 0, 0, 0

    def run(self) -> Stream:
        """Feed the tracker for the time of one benchmark and let it finish."""
        begin = time.perf_counter()
        for index in itertools.count():
            due = begin + index / self.rate_hz
            if due > begin + SECONDS:
                break
            while (rest := due - time.perf_counter()) > 0:
                time.sleep(min(rest, 0.005))
                self._note(self.tracker.push(self.frames[:0]))
            self._offer(self.frames[index % len(self.frames)], due)
        self._note(self.tracker.wait())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TrackingWarning)
            self.tracker.finish()
        return self

    def _offer(self, frame: np.ndarray, due: float) -> None:
        self.max_lag_frames = max(self.max_lag_frames, self.tracker.behind_frames)
        if self.tracker.behind_frames > self.rate_hz:
            self.dropped += 1
            return
        self.arrived.append(due)
        self._note(self.tracker.push(frame[None]))

    def _note(self, poses: list) -> None:
        now = time.perf_counter()
        if poses and not self.latency_s:
            self.first_pose_frames = len(self.tracker)
        for pose in poses:
            self.latency_s.setdefault(pose.frame, now - self.arrived[pose.frame])


@pytest.mark.parametrize("rate_hz", [20, 30])
@pytest.mark.parametrize("name", SWEEPS)
def test_live_stream(ratio, mini, name, rate_hz):
    size, spacing_mm = SWEEPS[name]
    timing = ratio(
        lambda: Stream(mini, size, spacing_mm, rate_hz).run(),
        what=f"mini, live at {rate_hz} frames/s, {name}",
        rounds=1,
        warm_up=0,
        note="real time: seconds are those of the stream and its end",
    )
    stream = timing.result
    for percent in (50, 95, 99):
        timing.figures[f"latency p{percent}, ms"] = 1e3 * np.percentile(list(stream.latency_s.values()), percent)
    timing.figures["first pose after frames"] = stream.first_pose_frames
    timing.figures["dropped frames"] = stream.dropped
    timing.figures["most frames behind"] = stream.max_lag_frames
    assert 0 < stream.first_pose_frames <= 40


def _quiet(work: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore", TrackingWarning)
            return work()

    return run


@pytest.mark.parametrize("name", SWEEPS)
def test_mini_end_to_end(ratio, mini, name):
    size, spacing_mm = SWEEPS[name]
    frames = 200
    sweep = Sweep(noise(frames, size), spacing_mm, provenance={"simulated": True})
    card, network = mini.card, mini.network
    prepare = Preprocessor(
        sweep.frame_size, sweep.require_spacing(), card.spacing_mm, network.crop_size, network.global_size
    )

    def preprocess() -> None:
        for start, window in sweep.windows(16):
            images = torch.from_numpy(window)
            prepare.local(images)
            prepare.global_image(images[-start % network.global_every :: network.global_every])

    timing = ratio(
        _quiet(lambda: estimate_trajectory(sweep, mini, device="cpu")),
        {"preprocessing alone": _quiet(preprocess)},
        what=f"mini, offline, {name}, {frames} frames",
    )
    timing.figures["frames/s"] = frames / timing.seconds
    share = timing.reference_seconds["preprocessing alone"] / timing.seconds
    timing.figures["preprocessing, %"] = 100 * share
