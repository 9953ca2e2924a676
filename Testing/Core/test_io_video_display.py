"""Pictures of a video as players show them: turned, mirrored, with square pixels, in the full range, interlaced."""

import struct
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from video_files import make, smooth_frames

from DualTrackCore import pixels
from DualTrackCore.errors import InputError, SweepWarning
from DualTrackCore.io import load_sweep

av = pytest.importorskip("av", reason="video needs the extra `video` (PyAV)")

ONE = 1 << 16

#: The eight ways to lay a rectangle on a rectangle: x' = a x + c y, y' = b x + d y.
MATRICES = [(a, 0, 0, d) for a, d in product((1, -1), repeat=2)] + [(0, b, c, 0) for b, c in product((1, -1), repeat=2)]


def with_matrix(path, a, b, c, d):
    """Write a display matrix into the header of the track of an mp4 file, in place of the one that changes nothing."""
    content = path.read_bytes()
    plain = struct.pack(">9i", ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    place = content.index(plain, content.index(b"tkhd"))
    matrix = struct.pack(
        ">9i", *(round(ONE * value) for value in (a, b)), 0, *(round(ONE * v) for v in (c, d)), *[0] * 3, 1 << 30
    )
    path.write_bytes(content[:place] + matrix + content[place + len(plain) :])
    return path


def laid_out(frames, a, b, c, d):
    """Frames as the matrix shows them, pixel by pixel."""
    height, width = frames.shape[1:]
    rows, columns = np.mgrid[:height, :width]
    across, down = a * columns + c * rows, b * columns + d * rows
    across, down = across - across.min(), down - down.min()
    shown = np.zeros((len(frames), down.max() + 1, across.max() + 1), frames.dtype)
    shown[:, down, across] = frames
    return shown


def difference(sweep, frames):
    assert sweep.frames.shape == frames.shape
    return np.abs(np.asarray(sweep.frames).astype(int) - frames).mean()


@pytest.mark.parametrize("matrix", MATRICES)
def test_frames_are_turned_and_mirrored_as_the_file_says(tmp_path, matrix):
    frames = smooth_frames(6)
    make(tmp_path / "clip.mp4", frames, "mpeg4", "yuv420p")
    sweep = load_sweep(with_matrix(tmp_path / "clip.mp4", *matrix))
    assert difference(sweep, laid_out(frames, *matrix)) < 4
    told = [note for note in sweep.provenance["conversions"] if "as the file tells players" in note]
    assert len(told) == (matrix != (1, 0, 0, 1))


WORDS = {
    (0, 1, -1, 0): "Turned by 90 degrees clockwise,",
    (0, -1, 1, 0): "Turned by 90 degrees counter-clockwise,",
    (-1, 0, 0, 1): "Mirrored left to right,",
    (0, 1, 1, 0): "Turned by 90 degrees clockwise and mirrored left to right,",
}


@pytest.mark.parametrize("matrix", WORDS)
def test_a_note_says_how_frames_were_turned(tmp_path, matrix):
    make(tmp_path / "clip.mp4", smooth_frames(3), "mpeg4", "yuv420p")
    sweep = load_sweep(with_matrix(tmp_path / "clip.mp4", *matrix))
    assert sweep.provenance["conversions"][0].startswith(WORDS[matrix])


def test_a_turn_by_another_angle_is_not_done_and_warned_of(tmp_path):
    frames = smooth_frames(3)
    make(tmp_path / "clip.mp4", frames, "mpeg4", "yuv420p")
    cosine, sine = np.cos(np.deg2rad(30)), np.sin(np.deg2rad(30))
    with pytest.warns(SweepWarning, match="by 30 degrees; only quarter turns are done"):
        sweep = load_sweep(with_matrix(tmp_path / "clip.mp4", cosine, sine, -sine, cosine))
    assert difference(sweep, frames) < 4


def turned_stream(path, frames, degrees):
    """A raw stream that tells the turn at its key frames alone."""
    if "libx264" not in av.codecs_available:
        pytest.skip("This PyAV cannot write H.264.")
    from av.bitstream import BitStreamFilterContext

    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "3"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:], "yuv420p"
        told = BitStreamFilterContext(f"h264_metadata=display_orientation=insert:rotate={degrees}", stream)
        for image in [*frames, None]:
            frame = (
                None if image is None else av.VideoFrame.from_ndarray(image, format="gray").reformat(format="yuv420p")
            )
            for packet in stream.encode(frame):
                container.mux(told.filter(packet))
        container.mux(told.filter(None))
    return path.read_bytes()


def test_a_turn_that_only_key_frames_tell_holds_for_all(tmp_path):
    frames = smooth_frames(6)
    turned_stream(tmp_path / "clip.h264", frames, 90)
    assert difference(load_sweep(tmp_path / "clip.h264"), np.rot90(frames, axes=(1, 2))) < 4


def test_a_clip_whose_turn_changes_is_refused(tmp_path):
    frames = smooth_frames(6)
    parts = [turned_stream(tmp_path / "part.h264", frames, degrees) for degrees in (90, 180)]
    (tmp_path / "clip.h264").write_bytes(b"".join(parts))
    with pytest.raises(InputError, match=r"Frame 6 of clip\.h264 is turned in another way than the first"):
        load_sweep(tmp_path / "clip.h264")


def stretched(frames, axis, factor):
    """Frames with more pixels along an axis, between which the greys run straight."""
    count = frames.shape[axis]
    places = (np.arange(round(count * factor)) + 0.5) / factor - 0.5
    return np.apply_along_axis(lambda line: np.interp(places, range(count), line), axis, frames.astype(float))


@pytest.mark.parametrize(("aspect", "axis", "size"), [("3/2", 2, (48, 96)), ("2/3", 1, (72, 64))])
@pytest.mark.parametrize("spacing_mm", [None, 0.2])
def test_pixels_that_are_not_square_become_square(tmp_path, aspect, axis, size, spacing_mm):
    frames, ratio = smooth_frames(3), Fraction(aspect)
    make(tmp_path / "clip.mp4", frames, "mpeg4", "yuv420p", fields={"sample_aspect_ratio": ratio})
    sweep = load_sweep(tmp_path / "clip.mp4", spacing_mm=spacing_mm)
    assert sweep.frame_size == size
    assert difference(sweep, stretched(frames, axis, float(max(ratio, 1 / ratio)))) < 4
    assert sweep.spacing_mm == (spacing_mm and (spacing_mm, spacing_mm))
    assert (
        f"({aspect.replace('/', ':')}): stretched 64 x 48 to {size[1]} x {size[0]}"
        in sweep.provenance["conversions"][0]
    )


@pytest.mark.parametrize("known", [{"spacing_mm": (0.3, 0.2)}, {"calibration": np.diag([0.31, 0.2, 1, 1])}])
def test_frames_stay_as_stored_where_the_given_pixel_size_is_not_square_either(tmp_path, known):
    frames = smooth_frames(3)
    make(tmp_path / "clip.mp4", frames, "mpeg4", "yuv420p", fields={"sample_aspect_ratio": Fraction(3, 2)})
    sweep = load_sweep(tmp_path / "clip.mp4", **known)
    assert difference(sweep, frames) < 4
    assert "they stay as stored" in sweep.provenance["conversions"][0]


@pytest.mark.parametrize(("spacing_mm", "size"), [(None, (96, 48)), ((0.2, 0.3), (64, 48)), ((0.3, 0.2), (96, 48))])
def test_pixels_are_made_square_before_the_frame_is_turned(tmp_path, spacing_mm, size):
    frames, matrix = smooth_frames(3), (0, 1, -1, 0)
    make(tmp_path / "clip.mp4", frames, "mpeg4", "yuv420p", fields={"sample_aspect_ratio": Fraction(3, 2)})
    sweep = load_sweep(with_matrix(tmp_path / "clip.mp4", *matrix), spacing_mm=spacing_mm)
    assert sweep.frame_size == size
    assert difference(sweep, laid_out(stretched(frames, 2, size[0] / 64), *matrix)) < 4


def test_an_absurd_shape_of_pixels_is_warned_of_and_ignored(tmp_path):
    frames = smooth_frames(3)
    make(tmp_path / "clip.mp4", frames, "mpeg4", "yuv420p", fields={"sample_aspect_ratio": Fraction(8)})
    with pytest.warns(SweepWarning, match="pixels are 8:1, which cannot be"):
        sweep = load_sweep(tmp_path / "clip.mp4")
    assert difference(sweep, frames) < 4


#: Codec, pixels, bits, colour range of FFmpeg (1 limited, 2 full) and whether the greys are stored like that.
RANGES = [
    ("ffv1", "yuv420p", 8, 1, True),
    ("ffv1", "yuv420p", 8, 2, True),
    ("mjpeg", "yuvj422p", 8, 2, True),
    ("ffv1", "yuv422p10le", 10, 1, True),
    ("ffv1", "yuv422p10le", 10, 2, True),
    ("ffv1", "gray", 8, 1, True),
    ("ffv1", "gray", 8, 1, False),
    ("ffv1", "gray", 8, 2, True),
    ("ffv1", "gray10le", 10, 1, True),
    ("ffv1", "gray10le", 10, 1, False),
    ("ffv1", "gray10le", 10, 2, True),
    ("ffv1", "gray12le", 12, 1, True),
    ("ffv1", "gray12le", 12, 2, True),
]


def clip_of_greys(path, codec, pixel_format, bits, colour_range, is_true):
    """Write three frames, and give the greys that players show of them."""
    greys = np.tile(np.arange(256), (32, 1))
    black, white = (16 << bits - 8, 235 << bits - 8) if colour_range == 1 and is_true else (0, 2**bits - 1)
    stored = np.rint(black + greys / 255 * (white - black)).astype(np.uint8 if bits == 8 else np.uint16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *greys.shape, pixel_format
        stream.codec_context.color_range = colour_range
        frame = av.VideoFrame(greys.shape[1], greys.shape[0], pixel_format)
        frame.color_range = colour_range
        for plane, values in zip(frame.planes, [stored, 1 << bits - 1, 1 << bits - 1], strict=False):
            filled = np.empty((plane.height, plane.line_size // stored.itemsize), stored.dtype)
            filled[:, : plane.width] = values
            plane.update(filled.tobytes())
        for count in range(3):
            frame.pts = count
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return greys


@pytest.mark.parametrize(("codec", "pixel_format", "bits", "colour_range", "is_true"), RANGES)
def test_greys_are_right_whatever_range_they_are_stored_in(tmp_path, codec, pixel_format, bits, colour_range, is_true):
    greys = clip_of_greys(tmp_path / "clip.mkv", codec, pixel_format, bits, colour_range, is_true)
    frames = np.asarray(load_sweep(tmp_path / "clip.mkv").frames).astype(int)
    assert np.abs(frames - greys).max() < 2
    assert frames.max() - frames.min() >= 254


def test_greys_of_a_long_clip_are_stretched_when_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "_HELD_BYTES", 0)
    greys = clip_of_greys(tmp_path / "clip.mkv", "ffv1", "gray", 8, 1, True)
    frames = load_sweep(tmp_path / "clip.mkv").frames
    assert isinstance(frames, pixels.Converted)
    assert np.abs(np.asarray(frames[1:2]).astype(int) - greys).max() < 2


def test_interlaced_video_is_warned_of(tmp_path):
    frames = smooth_frames(5)
    make(tmp_path / "clip.mpg", frames, "mpeg2video", "yuv420p", options={"flags": "+ildct+ilme"})
    with pytest.warns(SweepWarning, match="5 of 5 frames are marked as interlaced"):
        assert difference(load_sweep(tmp_path / "clip.mpg"), frames) < 4
