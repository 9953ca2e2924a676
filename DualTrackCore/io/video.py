"""Video files, decoded with PyAV (the extra `video`).

A video is decoded once, forwards, and :func:`~DualTrackCore.grey.grey_clip` keeps its grey frames. Seeking would hold
less, but containers without an index, open groups of pictures and edit lists make it land on other frames than those
that a player shows, and a frame that cannot be decoded would be found in the middle of the work.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from DualTrackCore.errors import DualTrackError, InputError
from DualTrackCore.grey import grey_clip, to_grey_uint8
from DualTrackCore.io.calibration import choose_pixel_size
from DualTrackCore.io.calibration_files import CalibrationSource
from DualTrackCore.io.sequence_parts import require_plausible_clip, require_plausible_frame
from DualTrackCore.io.video_containers import HEAD_BYTES, declared_bytes, demuxer, goes_on
from DualTrackCore.memory import importing, naming_memory
from DualTrackCore.pixels import WindowSource
from DualTrackCore.sweep import Sweep

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

FORMAT = "Video"

#: Bytes that FFmpeg asks a file for at a time.
_BUFFER_BYTES = 1 << 18

#: Grey of more than 8 bits that comes as it is stored.
_NATIVE_GREY = ("gray9le", "gray10le", "gray12le", "gray14le", "gray16le")

#: Of a pixel while it is unpacked: three channels of 16 bits.
_STORED_BYTES = 6

#: Decoders may drop this many frames at the ends of an undamaged file (edit lists, open groups of pictures).
_DROPPED_FRAMES = 2


def recognises(path: Path, head: bytes) -> bool:
    """Whether the file begins like one of the known video containers."""
    return demuxer(path, head) is not None


def read(path: Path, *, calibration: CalibrationSource | None, spacing_mm: tuple[float, float] | None) -> Sweep:
    """The sweep of the first video stream, as 8-bit grey, without tracking; sound is ignored.

    Raises:
        MissingDependencyError: PyAV is not installed.
        InputError: a damaged file, one without video, frames of changing or absurd size.
    """
    what = f"PyAV, which is needed to read the video {path.name},"
    with importing(what, 'install it: pip install "dualtrack[video]"'):
        import av
    with path.open("rb") as file:  # a file without its name, which FFmpeg would take for an address
        head = file.read(HEAD_BYTES)
        is_short, notes = _length(path, file, head)
        file.seek(0)
        with _as_sentence(path):
            container = av.open(
                file,
                format=demuxer(path, head),
                options={"protocol_whitelist": "none"},
                metadata_errors="ignore",
                buffer_size=_BUFFER_BYTES,
            )
        with container:
            frames, times, decoded_notes = _decode(path, container, is_short)
    notes += decoded_notes
    timestamps, time_notes = _timestamps(times)
    size = choose_pixel_size(None, calibration, spacing_mm)
    return size.sweep(frames, path, FORMAT, notes + time_notes, timestamps_s=timestamps)


def _length(path: Path, file: BinaryIO, head: bytes) -> tuple[bool, list[str]]:
    """Whether an AVI file is shorter than its header says, and what to tell; a Matroska file that is so is refused."""
    declared, held = declared_bytes(head), path.stat().st_size
    if demuxer(path, head) == "avi" and declared != held and not goes_on(file, declared):
        return declared > held, [f"The header says that the file has {declared} bytes, and it has {held}."]
    if declared > held:
        raise InputError(f"{path.name} announces {declared} bytes and holds {held}; it is cut short: copy it again.")
    return False, []


@contextlib.contextmanager
def _as_sentence(path: Path) -> Iterator[None]:
    """Turn whatever FFmpeg and PyAV raise over the content of a file into one sentence."""
    try:
        with naming_memory(f"Decoding {path.name}"):
            yield
    except DualTrackError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None)
        raise InputError(
            f"{path.name} cannot be decoded as video, it is damaged or cut short"
            + (f" ({reason}); copy it again." if isinstance(reason, str) else "; copy it again.")
        ) from error


def _decode(
    path: Path, container: InputContainer, is_short: bool
) -> tuple[np.ndarray | WindowSource, list[float | None], list[str]]:
    """[N, H, W] uint8, the time of each frame in seconds, and what was converted.

    Where the file `is_short` all frames that it announces must be there, elsewhere all but a few that decoders drop.
    """
    if not container.streams.video:
        raise InputError(f"{path.name} holds no video.")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise InputError(
            f"{path.name} holds video of a kind that PyAV cannot decode; convert it, for example to H.264 in mp4."
        )
    stream.thread_type = "AUTO"
    notes = []
    if len(container.streams.video) > 1:
        notes.append(f"Read the first of {len(container.streams.video)} video streams.")
    require_plausible_frame(path, stream.height, stream.width)
    times: list[float | None] = []
    frames, colour_notes = grey_clip(
        _images(path, container, stream, times, notes), source=path.name, expected=stream.frames
    )
    if not times:
        raise InputError(f"{path.name} has no frames that can be decoded.")
    announced = stream.frames or (math.inf if is_short else 0)
    if len(times) + (0 if is_short else _DROPPED_FRAMES) < announced:
        what = f"{stream.frames} frames" if stream.frames else "more bytes than it holds"
        raise InputError(
            f"{path.name} announces {what} and only {len(times)} frames can be decoded; it is cut short: copy it again."
        )
    return frames, times, notes + colour_notes


def _images(
    path: Path, container: InputContainer, stream: av.VideoStream, times: list[float | None], notes: list[str]
) -> Iterator[np.ndarray]:
    """Each frame as grey [H, W] or colour [H, W, 3], uint8; its time in seconds is added to `times`."""
    size = None
    for index, frame in enumerate(_decoded(path, container, stream)):
        size = size or (frame.width, frame.height)
        if (frame.width, frame.height) != size:
            raise InputError(
                f"Frame {index} of {path.name} has {frame.width} x {frame.height} pixels and the first "
                f"{size[0]} x {size[1]}; all must be of one size."
            )
        times.append(None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base))
        # The memory is asked for once: files of the system are read for it.
        require_plausible_clip(path, len(times), frame.height, frame.width, 0 if index else _STORED_BYTES)
        with _as_sentence(path):
            image, new_notes = _image(frame)
        notes += [note for note in new_notes if note not in notes]
        yield image


def _decoded(path: Path, container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    frames = container.decode(stream)
    while True:
        with _as_sentence(path):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def _image(frame: av.VideoFrame) -> tuple[np.ndarray, list[str]]:
    """Grey or colour of 8 bits; deeper frames are scaled by their bit depth and come as grey, with notes."""
    is_grey = frame.format.name.startswith("gray")
    bits = max(component.bits for component in frame.format.components)
    if bits <= 8:
        return frame.to_ndarray(format="gray" if is_grey else "rgb24"), []
    if frame.format.name in _NATIVE_GREY:
        deep, most = frame.to_ndarray(), 2**bits - 1
    else:  # made of 16 bits by the library, over the whole range
        deep, most = frame.to_ndarray(format="gray16le" if is_grey else "rgb48le"), 2**16 - 1
    grey, notes = to_grey_uint8(deep[None], colour_axis=None if is_grey else 3, declared=(0, most))
    return grey[0], [*notes[:-1], f"Scaled the {bits} bits of the video to 8."]


def _timestamps(times: list[float | None]) -> tuple[np.ndarray | None, list[str]]:
    """[N] seconds from the first frame, or None and a note where they are missing or do not advance."""
    if len(times) < 2:
        return None, []
    if None in times:
        return None, ["Some frames carry no time; the times count as unknown."]
    seconds = np.array(times) - times[0]
    if (np.diff(seconds) <= 0).any():
        return None, ["The times of the frames do not advance; they count as unknown."]
    return seconds, []
