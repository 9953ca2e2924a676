"""Long sweeps: every window is what the network makes of that window alone, with its own anatomy."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from oracle import anatomical_model, noise_sweep

from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import estimate_trajectory, window_starts
from DualTrackCore.tracking.preprocessing import Preprocessor

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")

EVERY, POSITIONS = 16, 64
MODEL = anatomical_model(positions=POSITIONS)


def features(sweep: Sweep) -> tuple[torch.Tensor, torch.Tensor]:
    """Class tokens [1, N, C] of all frames and pooled features [1, K, F] of every 16th, all computed at once."""
    prepare = Preprocessor(sweep.frame_size, sweep.spacing_mm, MODEL.card.spacing_mm, 64, 48)
    frames = torch.from_numpy(sweep.window(0, len(sweep)))
    with torch.inference_mode():
        return (
            MODEL.network.local(prepare.local(frames)[None]),
            MODEL.network.global_encoder.image_features(prepare.global_image(frames[::EVERY])[None]),
        )


def window_alone(tokens: torch.Tensor, pooled: torch.Tensor, start: int) -> np.ndarray:
    """[n - 1, 6]: the network on the frames of one window, with the global features of these frames."""
    stop = min(start + POSITIONS, tokens.shape[1])
    seen = [frame // EVERY for frame in range(0, tokens.shape[1], EVERY) if start <= frame < stop]
    with torch.inference_mode():
        return MODEL.network.poses_from_features(tokens[:, start:stop], pooled[:, seen])[0].double().numpy()


@pytest.mark.parametrize("frames", [65, 80, 96, 150, 161])
def test_every_window_of_a_long_sweep_is_the_network_on_that_window_alone(frames):
    sweep = noise_sweep(frames)
    found = estimate_trajectory(sweep, MODEL, device="cpu").parameters
    tokens, pooled = features(sweep)
    starts = window_starts(frames, POSITIONS, EVERY)
    stops = [min(start + POSITIONS, frames) for start in starts]
    alone = [window_alone(tokens, pooled, start) for start in starts]
    # Where no other window reaches, a window's motions stand as they are.
    edges = [0, *(stop - 1 for stop in stops[:-1])], [*starts[1:], frames - 1]
    for start, part, low, high in zip(starts, alone, *edges, strict=True):
        np.testing.assert_allclose(found[low:high], part[low - start : high - start], atol=1e-4)
    # In an overlap the share of the later one rises from its first frame on, and that of the earlier one falls.
    for (first, one, stop), (second, other, _) in pairwise(zip(starts, alone, stops, strict=True)):
        for step in range(second, stop - 1):
            falling = min(stop - 1 - step, step - first + 1)
            rising = min(step - second + 1, second + len(other) - step)
            expected = (falling * one[step - first] + rising * other[step - second]) / (falling + rising)
            np.testing.assert_allclose(found[step], expected, atol=1e-4)


def test_the_anatomy_of_a_window_matters_to_its_motions():
    """So that the test above can fail: those of another window change the motions by far more than rounding."""
    tokens, pooled = features(noise_sweep(96))
    with torch.inference_mode():
        own, first = (
            MODEL.network.poses_from_features(tokens[:, 32:], part)[0].numpy()
            for part in (pooled[:, 2:], pooled[:, :4])
        )
    assert np.abs(own - first).max() > 30e-4


@pytest.mark.parametrize("chunk", [5, 16, 17])
def test_the_global_encoder_sees_every_16th_frame_from_the_first_and_no_other(chunk):
    sweep = noise_sweep(34)
    plain = motions_with_border(sweep, None, chunk)
    for frame in (1, 15, 17, 33):
        np.testing.assert_array_equal(motions_with_border(sweep, frame, chunk), plain)
    for frame in (0, 16, 32):
        assert np.abs(motions_with_border(sweep, frame, chunk) - plain).max() > 1e-3


def motions_with_border(sweep: Sweep, frame: int | None, chunk: int) -> np.ndarray:
    """Motions of the sweep whose given frame is white outside of the local crop, where the global encoder looks."""
    pixels = sweep.frames.copy()
    if frame is not None:
        outside = np.ones(sweep.frame_size, bool)
        outside[16:-16, 32:-32] = False  # the crop of 64 of 96 x 128 pixels
        pixels[frame][outside] = 255
    changed = Sweep(pixels, sweep.spacing_mm)
    return estimate_trajectory(changed, MODEL, device="cpu", chunk_frames=chunk).parameters
