"""Which pictures of a video file make the sweep, and when they were taken; damage that a decoder hides."""

import struct
from fractions import Fraction

import numpy as np
import pytest
from video_files import add_stream, encode, make, smooth_frames

from DualTrackCore.errors import InputError, SweepWarning
from DualTrackCore.io import load_sweep

av = pytest.importorskip("av", reason="video needs the extra `video` (PyAV)")

NOISE = np.random.default_rng(0).integers(0, 256, (20, 48, 64), dtype=np.uint8)
MILLISECONDS = {"time_base": Fraction(1, 1000)}


def test_the_times_of_a_variable_frame_rate_are_kept(tmp_path):
    times = np.cumsum([40, 33, 17, 80] * 5).tolist()
    make(tmp_path / "clip.mkv", NOISE, "ffv1", "gray", times=times, fields=MILLISECONDS)
    sweep = load_sweep(tmp_path / "clip.mkv")
    np.testing.assert_array_equal(sweep.frames, NOISE)
    np.testing.assert_allclose(sweep.timestamps_s, (np.array(times) - times[0]) / 1000, atol=1e-9)


def test_times_that_begin_before_zero_are_kept(tmp_path):
    times = list(range(-200, 600, 40))
    options = {"avoid_negative_ts": "disabled"}
    make(tmp_path / "clip.mkv", NOISE, "ffv1", "gray", times=times, fields=MILLISECONDS, container_options=options)
    with av.open(str(tmp_path / "clip.mkv")) as container:
        assert next(container.decode(video=0)).time == -0.2
    sweep = load_sweep(tmp_path / "clip.mkv")
    np.testing.assert_array_equal(sweep.frames, NOISE)
    np.testing.assert_allclose(sweep.timestamps_s, np.arange(20) / 25, atol=1e-9)


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "ffv1"), ("avi", "ffv1"), ("mov", "png")])
def test_sound_before_the_pictures_changes_nothing(tmp_path, suffix, codec):
    with av.open(str(tmp_path / f"clip.{suffix}"), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        pictures = add_stream(container, NOISE, codec, "gray")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        samples.sample_rate, samples.pts = 8000, 0
        container.mux(sound.encode(samples))
        container.mux(sound.encode())
        encode(container, pictures, NOISE)
    sweep = load_sweep(tmp_path / f"clip.{suffix}")
    np.testing.assert_array_equal(sweep.frames, NOISE)
    np.testing.assert_allclose(sweep.timestamps_s, np.arange(20) / 25, atol=1.1e-3)
    assert sweep.provenance["conversions"] == []


def test_the_largest_of_several_video_streams_is_read_and_all_are_named(tmp_path):
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        clips = [np.ascontiguousarray(NOISE[:, :24, :32]), NOISE, np.ascontiguousarray(NOISE[:, :48, :32])]
        streams = [add_stream(container, frames, "ffv1", "gray") for frames in clips]
        for frames, stream in zip(clips, streams, strict=True):
            encode(container, stream, frames)
    sweep = load_sweep(tmp_path / "clip.mkv")
    np.testing.assert_array_equal(sweep.frames, NOISE)
    note = "The file holds 3 video streams (32 x 24, 64 x 48, 32 x 48 pixels); read number 2, the largest."
    assert sweep.provenance["conversions"] == [note]


def with_cover(path, frames):
    """An mp4 file with a picture larger than the clip, which may be empty."""
    cover = np.full((1, 480, 640), 200, np.uint8)
    with av.open(str(path), "w") as container:
        picture = add_stream(container, cover, "mjpeg", "yuvj420p")
        picture.disposition = av.stream.Disposition.attached_pic
        clip = add_stream(container, frames, "mpeg4", "yuv420p") if len(frames) else None
        container.start_encoding()
        encode(container, picture, cover)
        if clip is not None:
            encode(container, clip, frames)


def test_a_cover_picture_is_passed_over(tmp_path):
    frames = smooth_frames()
    with_cover(tmp_path / "clip.mp4", frames)
    sweep = load_sweep(tmp_path / "clip.mp4")
    assert np.abs(np.asarray(sweep.frames).astype(int) - frames).mean() < 4


def test_a_file_with_a_cover_picture_alone_is_refused(tmp_path):
    with_cover(tmp_path / "clip.mp4", smooth_frames(0))
    with pytest.raises(InputError, match=r"clip\.mp4 holds a cover picture and no video"):
        load_sweep(tmp_path / "clip.mp4")


def with_edit_list(path, length_s, start_s):
    """Let an mp4 file show a part alone."""
    content = bytearray(path.read_bytes())
    place = content.index(b"elst") + 12
    scale = struct.unpack_from(">I", content, content.index(b"mdhd") + 16)[0]
    begin = struct.unpack_from(">i", content, place + 4)[0]
    struct.pack_into(">Ii", content, place, round(length_s * 1000), begin + round(start_s * scale))
    path.write_bytes(content)


@pytest.mark.parametrize(("start", "count"), [(5, 15), (0, 8), (8, 6)])
def test_frames_that_an_edit_list_leaves_out_are_left_out(tmp_path, start, count):
    frames = smooth_frames()
    make(tmp_path / "clip.mp4", frames, "mpeg4", "yuv420p", options={"g": "5", "qmax": "2"})
    with_edit_list(tmp_path / "clip.mp4", count / 25, start / 25)
    sweep = load_sweep(tmp_path / "clip.mp4")
    shown = np.asarray(sweep.frames).astype(int)
    assert shown.shape == (count, 48, 64)
    assert np.abs(shown - frames[start : start + count]).mean() < 1.5
    np.testing.assert_allclose(sweep.timestamps_s, np.arange(count) / 25, atol=1e-6)
    assert f"Of 20 frames in the file {count} are to be shown; read these." in sweep.provenance["conversions"]


def test_a_movie_with_an_edit_list_is_still_refused_when_cut_short(tmp_path):
    options = {"movflags": "faststart"}
    make(tmp_path / "cut.mp4", NOISE, "mpeg4", "yuv420p", container_options=options)
    with_edit_list(tmp_path / "cut.mp4", 15 / 25, 5 / 25)
    content = (tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(InputError, match=r"cut\.mp4 announces 15 frames and only"):
        load_sweep(tmp_path / "cut.mp4")


def avi_chunks(content):
    """Place, name and data of the chunks of pictures."""
    place, chunks = content.index(b"movi") + 4, []
    while content[place + 2 : place + 4] in (b"db", b"dc"):
        size = struct.unpack_from("<I", content, place + 4)[0]
        chunks.append(content[place + 8 : place + 8 + size])
        place += 8 + size + size % 2
    return chunks


def test_empty_frames_of_an_avi_file_are_left_out_and_times_kept(tmp_path):
    make(tmp_path / "clip.avi", NOISE, "rawvideo", "gray")
    content = (tmp_path / "clip.avi").read_bytes()
    pictures, index = b"movi", b""
    for number, data in enumerate(avi_chunks(content)):
        data = b"" if number % 4 == 1 else data
        index += b"00dc" + struct.pack("<III", 0x10 if data else 0, len(pictures), len(data))
        pictures += b"00dc" + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    parts = [(b"LIST", pictures), (b"idx1", index)]
    body = content[8 : content.index(b"movi") - 8] + b"".join(
        name + struct.pack("<I", len(part)) + part for name, part in parts
    )
    (tmp_path / "clip.avi").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    sweep, kept = load_sweep(tmp_path / "clip.avi"), np.arange(20) % 4 != 1
    np.testing.assert_array_equal(sweep.frames, NOISE[kept])
    np.testing.assert_allclose(sweep.timestamps_s, np.flatnonzero(kept) / 25, atol=1e-9)
    assert "Of 20 frames in the file 15 are to be shown; read these." in sweep.provenance["conversions"]


def test_frames_that_an_avi_file_stores_out_of_order_have_their_times(tmp_path):
    if "libx264" not in av.codecs_available:
        pytest.skip("This PyAV cannot write H.264.")
    frames = smooth_frames()
    make(tmp_path / "clip.avi", frames, "libx264", "yuv420p", options={"bf": "2"}, fields={"max_b_frames": 2})
    sweep = load_sweep(tmp_path / "clip.avi")
    assert np.abs(np.asarray(sweep.frames).astype(int) - frames).mean() < 1.5
    np.testing.assert_allclose(sweep.timestamps_s, np.arange(20) / 25, atol=1e-9)


DAMAGED = "The file is damaged: frames from about frame"


def test_damage_that_the_decoder_hides_is_warned_of(tmp_path):
    if "libx264" not in av.codecs_available:
        pytest.skip("This PyAV cannot write H.264.")
    make(tmp_path / "clip.mp4", NOISE, "libx264", "yuv420p", options={"crf": "10"})
    assert "warnings" not in load_sweep(tmp_path / "clip.mp4").provenance
    with av.open(str(tmp_path / "clip.mp4")) as container:
        picture = container.streams.video[0].index_entries[10]
    content = bytearray((tmp_path / "clip.mp4").read_bytes())
    middle = picture.pos + picture.size // 2
    content[middle : middle + 40] = b"\x55" * 40
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.warns(SweepWarning, match=DAMAGED) as caught:
        assert len(load_sweep(tmp_path / "clip.mp4")) == 20
    assert len(caught) == 1


def test_lost_packets_of_a_transport_stream_are_warned_of(tmp_path):
    make(tmp_path / "clip.ts", smooth_frames(), "mpeg2video", "yuv420p")
    assert "warnings" not in load_sweep(tmp_path / "clip.ts").provenance
    content = (tmp_path / "clip.ts").read_bytes()
    lost = len(content) // 188 // 2 * 188
    (tmp_path / "clip.ts").write_bytes(content[:lost] + content[lost + 4 * 188 :])
    with pytest.warns(SweepWarning, match=DAMAGED):
        load_sweep(tmp_path / "clip.ts")
