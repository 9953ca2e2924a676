"""Video files for tests, made with PyAV."""

import contextlib

import numpy as np

with contextlib.suppress(ImportError):  # tests without it skip themselves
    import av


def smooth_frames(count=20, height=48, width=64):
    """Frames that survive lossy coding: a ramp that brightens over time, away from black and white."""
    ramp = np.linspace(60, 120, width)[None, None] + np.linspace(0, 40, height)[None, :, None]
    return (ramp + 2 * np.arange(count)[:, None, None]).astype(np.uint8)


def add_stream(container, frames, codec, pixel_format, rate=25, fields=None, **stream_options):
    """A video stream for frames [N, H, W] or [N, H, W, 3]; `fields` of its codec are set before it opens."""
    stream = container.add_stream(codec, rate=rate, **stream_options)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = pixel_format
    for name, value in (fields or {}).items():
        setattr(stream.codec_context, name, value)
    return stream


def encode(container, stream, frames, times=None):
    """Write frames, each at its time in units of the codec, where given."""
    for index, image in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(image, format="gray" if image.ndim == 2 else "rgb24")
        frame = frame.reformat(format=stream.pix_fmt)
        if times is not None:
            frame.pts, frame.time_base = times[index], stream.codec_context.time_base
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def make(path, frames, codec, pixel_format, container=None, container_options=None, times=None, **stream_options):
    """A file with one video stream; its name tells the container where `container` does not."""
    with av.open(str(path), "w", format=container, options=container_options or {}) as opened:
        encode(opened, add_stream(opened, frames, codec, pixel_format, **stream_options), frames, times)
