"""Frames come to the device in order, each read once, while those before are at work."""

import threading

import numpy as np
import pytest
import torch
from oracle import noise_sweep

from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking.device import _sent, frames_ahead

CPU = torch.device("cpu")


class Watched:
    """Frames that note what is read of them, and can refuse."""

    def __init__(self, pixels):
        self.pixels, self.shape, self.dtype = pixels, pixels.shape, pixels.dtype
        self.read, self.refuse_at = [], None

    def __getitem__(self, key):
        if key.start == self.refuse_at:
            raise MemoryError
        self.read.append((key.start, key.stop))
        return self.pixels[key]


@pytest.fixture
def watched():
    return Watched(noise_sweep(20, 8, 8).window(0, 20))


def sweep_of(frames) -> Sweep:
    return Sweep(frames, (1.0, 1.0))


def test_frames_arrive_in_order_and_each_is_read_once(watched):
    parts = list(frames_ahead(sweep_of(watched), CPU, 8))
    assert [len(part) for part in parts] == [8, 8, 4]
    np.testing.assert_array_equal(torch.cat(parts).numpy(), watched.pixels)
    assert watched.read == [(0, 8), (8, 16), (16, 20)]


def test_a_failure_to_read_ahead_is_met_when_the_frames_are_taken_and_leaves_no_thread(watched):
    watched.refuse_at, before = 8, threading.active_count()
    ahead = frames_ahead(sweep_of(watched), CPU, 8)
    assert len(next(ahead)) == 8
    with pytest.raises(MemoryError):
        next(ahead)
    assert threading.active_count() == before


def test_one_who_stops_in_the_middle_leaves_no_thread(watched):
    before, ahead = threading.active_count(), frames_ahead(sweep_of(watched), CPU, 4)
    next(ahead)
    ahead.close()
    assert threading.active_count() == before
    assert len(watched.read) <= 2


@pytest.mark.parametrize("frames", [1, 32, 75])
def test_frames_for_a_graphics_card_arrive_whole_in_pieces(frames):
    pixels = noise_sweep(frames, 6, 10).window(0, frames)
    np.testing.assert_array_equal(_sent(pixels[:, ::-1], CPU).numpy(), pixels[:, ::-1])
