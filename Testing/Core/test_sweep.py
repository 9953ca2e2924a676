"""The sweep: what it accepts and what it derives."""

import re

import numpy as np
import pytest

from DualTrackCore.errors import InputError
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

FRAMES = np.arange(5 * 4 * 6, dtype=np.uint8).reshape(5, 4, 6)


def test_image_coordinates_have_their_origin_at_the_image_centre():
    image_from_pixel = Sweep(FRAMES, (0.5, 0.25)).image_from_pixel
    np.testing.assert_allclose(image_from_pixel @ [2.5, 1.5, 0, 1], [0, 0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(image_from_pixel @ [0, 0, 0, 1], [-1.25, -0.375, 0, 1])


def test_skewed_pixel_axes_keep_their_lengths_and_the_angle_between_them():
    axes = Sweep(FRAMES, (0.5, 0.25), skew_deg=10).image_from_pixel[:2, :2]
    np.testing.assert_allclose(np.linalg.norm(axes, axis=0), [0.5, 0.25])
    np.testing.assert_allclose(axes[:, 0] @ axes[:, 1] / 0.125, np.sin(np.deg2rad(10)))


def test_one_number_is_the_spacing_of_square_pixels():
    assert Sweep(FRAMES, 0.2).spacing_mm == (0.2, 0.2)


def test_duration_and_rate_come_from_the_timestamps():
    sweep = Sweep(FRAMES, timestamps_s=[0.0, 0.1, 0.2, 0.3, 0.9])
    assert sweep.duration_s == 0.9
    assert sweep.frame_rate_hz == pytest.approx(10)
    assert Sweep(FRAMES).duration_s is None
    assert Sweep(FRAMES, timestamps_s=np.zeros(5)).frame_rate_hz is None


def test_windows_cover_all_frames_in_order():
    pieces = list(Sweep(FRAMES).windows(2))
    assert [start for start, _ in pieces] == [0, 2, 4]
    np.testing.assert_array_equal(np.concatenate([frames for _, frames in pieces]), FRAMES)


def test_a_slice_takes_everything_of_its_frames_along():
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 2, 3] = np.arange(5)
    whole = Sweep(FRAMES, 0.2, np.arange(5.0), np.arange(5) != 3, Trajectory.from_reference(poses))
    part = whole.slice(2, 5)
    np.testing.assert_array_equal(part.frames, FRAMES[2:])
    np.testing.assert_array_equal(part.timestamps_s, [2, 3, 4])
    np.testing.assert_array_equal(part.frame_valid, [True, False, True])
    np.testing.assert_allclose(part.tracked.centres_mm[:, 2], [0, 1, 2])


def test_a_recording_of_tracking_alone_is_a_sweep_without_images():
    sweep = Sweep(np.zeros((3, 0, 0), np.uint8))
    assert not sweep.has_images
    with pytest.raises(InputError, match="tracking but no images"):
        sweep.require_images()


@pytest.mark.parametrize(
    ("frames", "changes", "sentence"),
    [
        (FRAMES[0], {}, r"expected \[frames, rows, columns\]"),
        ("frames", {}, r"expected \[frames, rows, columns\]"),
        (FRAMES.astype(np.uint16), {}, "8-bit grey frames"),
        (FRAMES[:0], {}, "no frames"),
        (FRAMES, {"spacing_mm": 0}, "above 0 and at most 10 mm"),
        (FRAMES, {"spacing_mm": (0.1, np.nan)}, "above 0 and at most 10 mm"),
        (FRAMES, {"spacing_mm": (1, 2, 3)}, "not one or two numbers"),
        (FRAMES, {"spacing_mm": "wide"}, "not one or two numbers"),
        (FRAMES, {"timestamps_s": [0.0, 1.0]}, "5 frames and 2 timestamps"),
        (FRAMES, {"timestamps_s": [0, 1, np.nan, 3, 4]}, "timestamps of frame 2 are not finite"),
        (FRAMES, {"frame_valid": [True]}, "5 frames and 1 frame validity flags"),
        (FRAMES, {"tracked": Trajectory.from_parameters(np.zeros((2, 6)))}, "5 frames and 3 tracked poses"),
        (FRAMES, {"skew_deg": 60}, "the limit is 45"),
    ],
)
def test_a_sweep_that_is_none_is_refused_with_its_reason(frames, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        Sweep(frames, **changes)


def test_an_unknown_spacing_is_refused_where_it_is_needed_with_the_remedy():
    with pytest.raises(InputError, match="spacing_mm"):
        _ = Sweep(FRAMES).image_from_pixel


def test_a_sweep_from_an_array_has_spacing_and_times():
    sweep = Sweep.from_array(FRAMES, spacing_mm=0.2, frame_rate_hz=20)
    np.testing.assert_array_equal(sweep.frames, FRAMES)
    assert sweep.spacing_mm == (0.2, 0.2)
    assert sweep.frame_rate_hz == pytest.approx(20)
    assert sweep.provenance["conversions"] == []
    bare = Sweep.from_array(FRAMES)
    assert (bare.spacing_mm, bare.timestamps_s) == (None, None)


def test_an_array_of_colour_or_of_real_numbers_becomes_grey_bytes_and_says_so():
    colour = np.stack([FRAMES] * 3, axis=-1)
    sweep = Sweep.from_array(colour, spacing_mm=(0.2, 0.3))
    np.testing.assert_array_equal(sweep.frames, FRAMES)
    assert sweep.provenance["conversions"] == ["Converted colour to grey (0.299 R + 0.587 G + 0.114 B)."]
    real = Sweep.from_array(FRAMES / FRAMES.max(), spacing_mm=0.2)
    assert (real.frames.dtype, real.frames.min(), real.frames.max()) == (np.uint8, 0, 255)
    assert "grey_range=(0, 1)" in real.provenance["warnings"][-1]
    told = Sweep.from_array(FRAMES / 255, spacing_mm=0.2, grey_range=(0, 1))
    np.testing.assert_array_equal(told.frames, FRAMES)
    assert "warnings" not in told.provenance


@pytest.mark.parametrize(
    ("frames", "line"),
    [
        (FRAMES / 255, "Sweep.from_array(frames, ...) converts them"),
        (np.stack([FRAMES] * 3, axis=-1), "Sweep.from_array(frames, ...), which makes grey of colour"),
    ],
)
def test_frames_that_are_no_grey_bytes_are_refused_with_the_line_that_converts_them(frames, line):
    with pytest.raises(InputError, match=re.escape(line)):
        Sweep(frames, 0.2)


def test_channels_before_the_pixels_are_refused_with_the_line_that_moves_them():
    frames = np.zeros((2, 3, 20, 30), np.uint8)
    with pytest.raises(InputError, match=re.escape("np.moveaxis(frames, 1, -1)")):
        Sweep.from_array(frames, spacing_mm=0.2)
    assert Sweep.from_array(np.moveaxis(frames, 1, -1), spacing_mm=0.2).frame_size == (20, 30)


@pytest.mark.parametrize(
    ("frames", "options", "words"),
    [
        (FRAMES[0], {}, "expected frames, rows, columns"),
        (np.zeros((0, 3, 4)), {}, "no pixels"),
        (np.zeros((2, 3, 4, 7)), {}, "7 channels"),
        (np.full((2, 3, 4), np.nan), {}, "not finite"),
        (np.zeros((2, 3, 4), complex), {}, "must hold whole or real numbers"),
        (np.array([["a"]]), {}, "must hold whole or real numbers"),
        (FRAMES, {"spacing_mm": 0}, "out of range"),
        (FRAMES, {"spacing_mm": (1, 2, 3)}, "not one or two numbers"),
        (FRAMES, {"frame_rate_hz": 0}, "frame rate 0 is out of range"),
        (FRAMES, {"frame_rate_hz": float("inf")}, "out of range"),
        (FRAMES, {"frame_rate_hz": "20"}, "out of range"),
    ],
)
def test_an_array_that_is_no_sweep_is_one_sentence(frames, options, words):
    with pytest.raises(InputError, match=words):
        Sweep.from_array(frames, **options)
