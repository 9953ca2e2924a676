"""Video files through PyAV: containers, lengths, safety."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from video_files import make, smooth_frames

from DualTrackCore.errors import InputError, MissingDependencyError, OutOfMemoryError
from DualTrackCore.io import load_sweep, sequence_parts, video

av = pytest.importorskip("av", reason="video needs the extra `video` (PyAV)")

HOSTILE = Path(__file__).parents[1] / "Data" / "hostile"

LOSSLESS = {"mkv": ("ffv1", "gray"), "avi": ("ffv1", "gray")}
LOSSY = {
    "mp4": ("mpeg4", "yuv420p"),
    "mov": ("mpeg4", "yuv420p"),
    "mpg": ("mpeg1video", "yuv420p"),
    "ts": ("mpeg2video", "yuv420p"),
}


def load(path, calibration=None, spacing_mm=None):
    return video.read(path, calibration=calibration, spacing_mm=spacing_mm)


@pytest.mark.parametrize("suffix", sorted(LOSSLESS))
def test_a_lossless_grey_video_is_read_exactly_with_its_times(tmp_path, suffix):
    frames = np.random.default_rng(0).integers(0, 256, (20, 48, 64), dtype=np.uint8)
    make(tmp_path / f"clip.{suffix}", frames, *LOSSLESS[suffix])
    sweep = load(tmp_path / f"clip.{suffix}")
    np.testing.assert_array_equal(sweep.frames, frames)
    np.testing.assert_allclose(sweep.timestamps_s, np.arange(20) / 25, atol=1.1e-3)
    assert sweep.provenance["conversions"] == []
    assert sweep.spacing_mm is None


@pytest.mark.parametrize("suffix", sorted(LOSSY))
def test_a_lossy_video_is_read_to_within_its_losses(tmp_path, suffix):
    frames = smooth_frames()
    make(tmp_path / f"clip.{suffix}", frames, *LOSSY[suffix])
    sweep = load(tmp_path / f"clip.{suffix}", spacing_mm=(0.2, 0.2))
    assert sweep.frames.shape == frames.shape
    assert np.abs(sweep.frames.astype(int) - frames).mean() < 4
    assert sweep.frame_rate_hz == pytest.approx(25, rel=0.01)
    assert sweep.provenance["spacing_source"] == "user"
    assert "colour to grey" in sweep.provenance["conversions"][0]


@pytest.mark.parametrize("suffix", [*LOSSLESS, *LOSSY])
def test_videos_are_recognised_by_content_not_by_name(tmp_path, suffix):
    make(tmp_path / f"clip.{suffix}", smooth_frames(), *{**LOSSLESS, **LOSSY}[suffix])
    renamed = (tmp_path / f"clip.{suffix}").rename(tmp_path / "clip.dat")
    assert video.recognises(renamed, renamed.read_bytes()[:4096])
    assert len(load(renamed)) == 20


#: Containers of scanners, capture boxes and cameras: codec, pixels, demuxer, and whether their frames carry times.
CONTAINERS = {
    "clip.wmv": ("wmv2", "yuv420p", "asf", True),
    "clip.flv": ("flv", "yuv420p", "flv", True),
    "clip.ogv": ("libtheora", "yuv420p", "ogg", True),
    "clip.mxf": ("mpeg2video", "yuv420p", "mxf", True),
    "clip.m2v": ("mpeg2video", "yuv420p", "mpeg2video", True),
    "clip.h264": ("libx264", "yuv420p", "h264", False),
    "clip.hevc": ("libx265", "yuv420p", "hevc", False),
    "clip.mjpeg": ("mjpeg", "yuvj420p", "mjpeg", False),
    "clip.m2ts": ("mpeg2video", "yuv420p", "mpegts", True),
    "clip.3gp": ("mpeg4", "yuv420p", "3gp", True),
    "clip.m4v": ("mpeg4", "yuv420p", "m4v", False),
    "clip.obu": ("libsvtav1", "yuv420p", "obu", False),
    "clip.wtv": ("mpeg2video", "yuv420p", "wtv", True),
    "clip.rm": ("rv10", "yuv420p", "rm", True),
    "clip.ivf": ("libvpx", "yuv420p", "ivf", True),
    "clip.nut": ("ffv1", "gray", "nut", True),
    "clip.y4m": ("wrapped_avframe", "yuv420p", "yuv4mpegpipe", True),
    "clip.png": ("apng", "gray", "apng", True),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_of_scanners_and_cameras_are_read(tmp_path, name):
    codec, pixel_format, container, has_times = CONTAINERS[name]
    if codec not in av.codecs_available:
        pytest.skip(f"This PyAV cannot write {codec}.")
    frames = smooth_frames()
    options = {"mpegts_m2ts_mode": "1"} if name.endswith("m2ts") else {}
    make(tmp_path / "made", frames, codec, pixel_format, container=container, container_options=options)
    sweep = load_sweep((tmp_path / "made").rename(tmp_path / "clip.dat"))
    assert sweep.frames.shape == frames.shape
    assert np.abs(np.asarray(sweep.frames).astype(int) - frames).mean() < 4
    assert (sweep.timestamps_s is not None) == has_times


def test_a_movie_that_begins_with_free_space_is_read(tmp_path):
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    make(tmp_path / "clip.mp4", smooth_frames(), "mpeg4", "yuv420p", container_options=options)
    content = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "clip.mp4").write_bytes(struct.pack(">I", 16) + b"free" + bytes(8) + content)
    assert len(load_sweep(tmp_path / "clip.mp4")) == 20


@pytest.mark.parametrize("name", ["2026-11-27T10:00:00.mp4", "file:other.mp4", "http://clip.mp4", "50%d.mp4", "pipe:0"])
def test_a_name_is_never_an_address(tmp_path, monkeypatch, name):
    if sys.platform == "win32" and (":" in name or "/" in name):
        pytest.skip("Names on Windows have no colon.")
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    make(tmp_path / "other.mp4", np.full((3, 48, 64), 200, np.uint8), "mpeg4", "yuv420p")
    make(tmp_path / "made.mp4", smooth_frames(), "mpeg4", "yuv420p")
    (tmp_path / "made.mp4").rename(name)
    assert len(load_sweep(name)) == 20


def test_a_video_of_an_unknown_codec_is_refused_by_a_sentence():
    with pytest.raises(InputError, match=r"unknown-fourcc\.avi holds video of a kind that PyAV cannot decode"):
        load_sweep(HOSTILE / "unknown-fourcc.avi")


@pytest.mark.parametrize("size", [0, 100, 10**6, 2**32 - 1])
def test_a_wrong_length_in_the_header_of_an_avi_file_is_told_and_all_frames_read(tmp_path, size):
    frames = smooth_frames()
    make(tmp_path / "clip.avi", frames, *LOSSLESS["avi"])
    content = bytearray((tmp_path / "clip.avi").read_bytes())
    content[4:8] = struct.pack("<I", size)
    (tmp_path / "clip.avi").write_bytes(content)
    sweep = load_sweep(tmp_path / "clip.avi")
    np.testing.assert_array_equal(sweep.frames, frames)
    note = f"The header says that the file has {size + 8} bytes, and it has {len(content)}."
    assert sweep.provenance["conversions"] == [note]


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_an_avi_file_that_lost_its_last_frames_is_refused(tmp_path, lost):
    make(tmp_path / "cut.avi", smooth_frames(), "mjpeg", "yuvj420p")
    content = (tmp_path / "cut.avi").read_bytes()
    starts = [i for i in range(len(content)) if content.startswith(b"00dc", i) and i < content.index(b"idx1")]
    (tmp_path / "cut.avi").write_bytes(content[: starts[-lost]])
    with pytest.raises(InputError, match=r"cut\.avi announces 20 frames and only"):
        load_sweep(tmp_path / "cut.avi")


ERRORS = [
    (av.error.InvalidDataError(1, "Invalid data found", "clip"), InputError, r"cut short \(Invalid data found\)"),
    (AttributeError("height"), InputError, "cut short; copy"),
    (OverflowError("too large"), InputError, "cut short; copy"),
    (MemoryError(), OutOfMemoryError, "needs more memory"),
]


@pytest.mark.parametrize(("error", "kind", "message"), ERRORS)
@pytest.mark.parametrize("place", ["open", "decode"])
def test_whatever_pyav_raises_becomes_one_sentence(tmp_path, monkeypatch, error, kind, message, place):
    make(tmp_path / "clip.avi", smooth_frames(), *LOSSLESS["avi"])

    def fail(*_, **__):
        raise error

    if place == "open":
        monkeypatch.setattr(av, "open", fail)
    else:
        monkeypatch.setattr(video, "next", fail, raising=False)
    with pytest.raises(kind, match=message) as caught:
        load_sweep(tmp_path / "clip.avi")
    assert "clip.avi" in str(caught.value)
    assert "[Errno" not in str(caught.value)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"RIFF1234WAVE",
        b"#EXTM3U\n",
        b"ffconcat version 1.0\n",
        b"G" + bytes(600),
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(21) + b"IDATacTL",
        b"\0\0\0\x18ftypheic",
        b"<MPD>",
        b"\0\0\1\0\1\0\x20\x20",
    ],
)
def test_other_content_is_not_taken_for_video(tmp_path, head):
    assert not video.recognises(tmp_path / "clip.mp4", head)


def test_an_animated_gif_is_a_clip(tmp_path):
    frames = smooth_frames(count=6)
    make(tmp_path / "clip.gif", frames, "gif", "gray", rate=10)
    assert video.recognises(tmp_path / "clip.gif", (tmp_path / "clip.gif").read_bytes()[:4096])
    sweep = load(tmp_path / "clip.gif")
    np.testing.assert_array_equal(sweep.frames, frames)
    assert sweep.frame_rate_hz == pytest.approx(10)


def test_colour_becomes_grey_by_the_luma_weights(tmp_path):
    colours = np.zeros((3, 48, 64, 3), np.uint8)
    colours[:] = 200, 100, 50
    make(tmp_path / "clip.mkv", colours, "ffv1", "bgr0")
    sweep = load(tmp_path / "clip.mkv")
    assert set(np.unique(sweep.frames)) == {round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)}


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv"])
@pytest.mark.parametrize("kept", [0.02, 0.6])
def test_a_truncated_video_is_refused_with_its_name(tmp_path, suffix, kept):
    frames = np.random.default_rng(0).integers(0, 256, (40, 48, 64), dtype=np.uint8)
    make(tmp_path / f"cut.{suffix}", frames, *{**LOSSLESS, **LOSSY}[suffix])
    content = (tmp_path / f"cut.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match=rf"cut\.{suffix}"):
        load(tmp_path / f"cut.{suffix}")


def test_an_mp4_with_its_index_in_front_is_refused_when_cut_short(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (40, 48, 64), dtype=np.uint8)
    with av.open(str(tmp_path / "cut.mp4"), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray").reformat(format="yuv420p")))
        container.mux(stream.encode())
    content = (tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(InputError, match=r"cut\.mp4"):
        load(tmp_path / "cut.mp4")


def test_a_video_too_long_for_memory_is_refused_while_it_is_decoded(tmp_path, monkeypatch):
    make(tmp_path / "long.mkv", smooth_frames(), *LOSSLESS["mkv"])
    monkeypatch.setattr(sequence_parts, "MAX_CLIP_BYTES", 10 * 48 * 64)
    with pytest.raises(InputError, match=r"long\.mkv claims 11 frames"):
        load(tmp_path / "long.mkv")


def test_sound_without_pictures_is_refused(tmp_path):
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match=r"sound\.mkv holds no video"):
        load(tmp_path / "sound.mkv")


def test_without_pyav_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom")
    with pytest.raises(MissingDependencyError, match=r'pip install "dualtrack\[video\]"'):
        load(tmp_path / "clip.mp4")
