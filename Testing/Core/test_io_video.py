"""Video files through PyAV; the clips are made here."""

import sys

import numpy as np
import pytest

from DualTrackCore.errors import InputError, MissingDependencyError
from DualTrackCore.io import sequence_parts, video

av = pytest.importorskip("av", reason="video needs the extra `video` (PyAV)")

LOSSLESS = {"mkv": ("ffv1", "gray"), "avi": ("ffv1", "gray")}
LOSSY = {
    "mp4": ("mpeg4", "yuv420p"),
    "mov": ("mpeg4", "yuv420p"),
    "mpg": ("mpeg1video", "yuv420p"),
    "ts": ("mpeg2video", "yuv420p"),
}


def load(path, calibration=None, spacing_mm=None):
    return video.read(path, calibration=calibration, spacing_mm=spacing_mm)


def smooth_frames(count=20, height=48, width=64):
    """Frames that survive lossy coding: a ramp that brightens over time, away from black and white."""
    ramp = np.linspace(60, 120, width)[None, None] + np.linspace(0, 40, height)[None, :, None]
    return (ramp + 2 * np.arange(count)[:, None, None]).astype(np.uint8)


def make(path, frames, codec, pixel_format, rate=25, **stream_options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, **stream_options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format="gray" if image.ndim == 2 else "rgb24")
            container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode())


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


@pytest.mark.parametrize(
    "head", [b"", b"RIFF1234WAVE", b"#EXTM3U\n", b"ffconcat version 1.0\n", b"G" + bytes(600), b"\x89PNG"]
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
