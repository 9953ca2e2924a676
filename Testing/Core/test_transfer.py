"""Frames come to the device in order, each read once, while those before are at work."""

import numpy as np
import pytest
import torch
from oracle import noise_sweep

from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking.device import FramesAhead

CPU = torch.device("cpu")


class Watched:
    """Frames that note what is read of them, and can refuse once."""

    def __init__(self, pixels):
        self.pixels, self.shape, self.dtype = pixels, pixels.shape, pixels.dtype
        self.read, self.refuse_at = [], None

    def __getitem__(self, key):
        if key.start == self.refuse_at:
            self.refuse_at = None
            raise MemoryError
        self.read.append((key.start, key.stop))
        return self.pixels[key]


@pytest.fixture
def watched():
    return Watched(noise_sweep(20, 8, 8).window(0, 20))


def sweep_of(frames) -> Sweep:
    return Sweep(frames, (1.0, 1.0))


def test_frames_arrive_in_order_and_the_next_ones_are_read_ahead(watched):
    with FramesAhead(sweep_of(watched), CPU) as ahead:
        first = ahead.take(0, 8)
        parts = [first, ahead.take(8, 8), ahead.take(16, 8)]
    assert [len(part) for part in parts] == [8, 8, 4]
    np.testing.assert_array_equal(torch.cat(parts).numpy(), watched.pixels)
    assert watched.read == [(0, 8), (8, 16), (16, 20)]


def test_smaller_pieces_of_what_was_read_are_not_read_again(watched):
    with FramesAhead(sweep_of(watched), CPU) as ahead:
        ahead.take(0, 8)
        parts, start = [], 0
        while start < 20:
            parts.append(ahead.take(start, 3))
            start += len(parts[-1])
    np.testing.assert_array_equal(torch.cat(parts).numpy(), watched.pixels)
    assert sum(stop - start for start, stop in watched.read) == 20


def test_a_failure_to_read_ahead_is_met_when_the_frames_are_taken_and_can_be_tried_again(watched):
    watched.refuse_at = 8
    with FramesAhead(sweep_of(watched), CPU) as ahead:
        ahead.take(0, 8)
        with pytest.raises(MemoryError):
            ahead.take(8, 8)
        np.testing.assert_array_equal(ahead.take(8, 4).numpy(), watched.pixels[8:12])
