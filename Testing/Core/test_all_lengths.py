"""Sweeps of every length from 2 to 70 frames, however their pixels lie in memory, run with every option."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import noise_sweep, tiny_model

from DualTrackCore.run import RunSettings, run
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import estimate_trajectory
from DualTrackCore.trajectory import Trajectory

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")

SIZE = (48, 56)
MODEL = tiny_model(crop_size=32, global_size=32)


class FromFile:
    """Frames of an array that only slices give, as a file does."""

    def __init__(self, pixels):
        self.shape, self.dtype, self._pixels = pixels.shape, pixels.dtype, pixels

    def __getitem__(self, key):
        return self._pixels[key]


#: The same frames, lying otherwise in memory.
LAYOUTS = {
    "rows": lambda frames: frames,
    "last frame first": lambda frames: frames[::-1].copy()[::-1],
    "right to left": lambda frames: frames[:, :, ::-1].copy()[:, :, ::-1],
    "bottom to top": lambda frames: frames[:, ::-1].copy()[:, ::-1],
    "columns": np.asfortranarray,
    "every other frame": lambda frames: np.repeat(frames, 2, axis=0)[::2],
    "read only": lambda frames: np.frombuffer(frames.tobytes(), np.uint8).reshape(frames.shape),
    "last first in a file": lambda frames: FromFile(frames[::-1].copy()[::-1]),
    "mirrored in a file": lambda frames: FromFile(frames[:, :, ::-1].copy()[:, :, ::-1]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [1, 3])
def test_a_window_has_its_rows_one_after_the_other_however_the_source_has_them(layout, count):
    frames = noise_sweep(5, *SIZE).frames
    window = Sweep(LAYOUTS[layout](frames)).window(1, 1 + count)
    np.testing.assert_array_equal(window, frames[1 : 1 + count])
    assert window.strides[1:] == (SIZE[1], 1)
    assert window.strides[0] >= 0


def test_a_window_of_an_array_that_lies_well_is_not_copied():
    frames = noise_sweep(5, *SIZE).frames
    assert np.shares_memory(Sweep(frames).window(1, 3), frames)


options = st.fixed_dictionaries(
    {
        "test_time_augmentation": st.sampled_from([1, 2, 4]),
        "chunk_frames": st.one_of(st.just("auto"), st.integers(1, 70)),
        "evaluate": st.booleans(),
        "hole_filling": st.sampled_from(["stick", "none", "nearest", "distance", "gaussian"]),
        "interpolation": st.sampled_from(["linear", "nearest"]),
        "compounding": st.sampled_from(["mean", "maximum", "latest"]),
        "clip": st.sampled_from([None, (3, 4, 40, 30), (0, 0, 1, 48)]),
        "reconstruct": st.booleans(),
    }
)


@pytest.mark.parametrize("length", range(2, 71))
@settings(max_examples=2)
@given(data=st.data(), layout=st.sampled_from([*LAYOUTS]), chosen=options)
def test_every_length_runs_with_every_option_and_gives_what_the_plain_frames_give(length, data, layout, chosen):
    """The range of frames that is used has the length; the file is up to five frames longer at either end."""
    first, behind = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))
    motions = np.tile([0.1, 0, 0.5, 0, 0.2, 0], (first + length + behind - 1, 1))
    tracked = Trajectory.from_parameters(motions, origin="measured")
    sweep = noise_sweep(first + length + behind, *SIZE, tracked=tracked)
    given_sweep = Sweep(LAYOUTS[layout](sweep.frames), sweep.spacing_mm, tracked=tracked)
    last = None if behind == 0 else first + length - 1
    wanted = RunSettings(first_frame=first, last_frame=last, device="cpu", voxel_mm=2.0, **chosen)
    result = run(given_sweep, wanted, models=lambda _: MODEL)
    plain = sweep.slice(first, first + length)
    views = chosen["test_time_augmentation"]
    expected = estimate_trajectory(plain, MODEL, device="cpu", test_time_augmentation=views)
    np.testing.assert_allclose(result.trajectory.parameters, expected.parameters, atol=1e-4)
    assert len(result.trajectory) == length
    assert (result.evaluation is not None) == chosen["evaluate"]
    assert (result.volume is not None) == chosen["reconstruct"]
    if chosen["reconstruct"]:
        assert result.reconstruction.frames_used == length
        assert result.reconstruction.filled.any() <= (chosen["hole_filling"] != "none")


@pytest.mark.parametrize("last_chunk", [1, 2, 15])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_four_views_take_a_last_chunk_of_any_length(last_chunk, layout):
    frames = noise_sweep(16 + last_chunk, *SIZE).frames
    spacing = noise_sweep(2).spacing_mm
    one, other = (
        estimate_trajectory(Sweep(pixels, spacing), MODEL, chunk_frames=chunk, test_time_augmentation=4, device="cpu")
        for pixels, chunk in ((LAYOUTS[layout](frames), 16), (frames, 31))
    )
    np.testing.assert_allclose(one.parameters, other.parameters, atol=1e-4)
