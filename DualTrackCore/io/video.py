"""Video files, decoded with PyAV (the extra `video`).

A video is decoded once, forwards, and :func:`~DualTrackCore.grey.grey_clip` keeps its grey frames. Seeking would hold
less, but containers without an index, open groups of pictures and edit lists make it land on other frames than those
that a player shows, and a frame that cannot be decoded would be found in the middle of the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.errors import DualTrackError, InputError, MissingDependencyError
from DualTrackCore.grey import grey_clip, to_grey_uint8
from DualTrackCore.io.calibration import choose_pixel_size
from DualTrackCore.io.sequence_parts import require_plausible_clip, require_plausible_frame
from DualTrackCore.memory import naming_memory
from DualTrackCore.pixels import WindowSource
from DualTrackCore.sweep import Sweep

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

FORMAT = "Video"

#: Identifiers of the elements that every Matroska file begins with.
_EBML, _EBML_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"

#: A transport stream repeats this byte at the start of every packet.
_TS_SYNC, _TS_PACKET_BYTES = b"\x47", 188

#: Grey of more than 8 bits that comes as it is stored.
_NATIVE_GREY = ("gray9le", "gray10le", "gray12le", "gray14le", "gray16le")

#: Of a pixel while it is unpacked: three channels of 16 bits.
_STORED_BYTES = 6

#: Decoders may drop this many frames at the ends of an undamaged file (edit lists, open groups of pictures).
_DROPPED_FRAMES = 2


def recognises(path: Path, head: bytes) -> bool:
    """Whether the file begins like one of the known video containers."""
    return _demuxer(head) is not None


def _demuxer(head: bytes) -> str | None:
    """The one demuxer that may read a file, by its first bytes.

    Naming it keeps FFmpeg from trying its playlist formats, which open other files.
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:4] == _EBML:
        return "matroska"
    if head[:4] == b"\x00\x00\x01\xba":
        return "mpeg"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    syncs = head[: 4 * _TS_PACKET_BYTES : _TS_PACKET_BYTES]
    return "mpegts" if len(syncs) == 4 and syncs == _TS_SYNC * 4 else None


def _declared_bytes(head: bytes) -> int:
    """How long the file says it is; 0 where it does not say. FFmpeg plays what is left of these formats in silence."""
    if _demuxer(head) == "avi":
        return 8 + int.from_bytes(head[4:8], "little")
    if _demuxer(head) != "matroska":
        return 0
    length, start = _ebml_size(head, len(_EBML))
    segment = start + (length or 0)
    if length is None or head[segment : segment + 4] != _EBML_SEGMENT:
        return 0
    length, start = _ebml_size(head, segment + 4)
    return 0 if length is None else start + length


def _ebml_size(head: bytes, at: int) -> tuple[int | None, int]:
    """A size of the variable length of EBML (RFC 8794) and where it ends; None where unknown, as in live streams."""
    if at >= len(head) or head[at] == 0:
        return None, at
    width = 9 - head[at].bit_length()
    mask = (1 << 7 * width) - 1
    value = int.from_bytes(head[at : at + width], "big") & mask
    return None if value == mask else value, at + width


def read(path: Path, *, calibration: Path | np.ndarray | None, spacing_mm: tuple[float, float] | None) -> Sweep:
    """The sweep of the first video stream, as 8-bit grey, without tracking; sound is ignored.

    Raises:
        MissingDependencyError: PyAV is not installed.
        InputError: a damaged file, one without video, frames of changing or absurd size.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            f'Reading the video {path.name} needs PyAV; install it with: pip install "dualtrack[video]"'
        ) from error
    with path.open("rb") as file:
        head = file.read(4 * _TS_PACKET_BYTES)
    declared, held = _declared_bytes(head), path.stat().st_size
    if declared > held:
        raise InputError(f"{path.name} announces {declared} bytes and holds {held}; it is cut short: copy it again.")
    try:
        with (
            naming_memory(f"Decoding {path.name}"),
            av.open(str(path), format=_demuxer(head), options={"protocol_whitelist": "file"}) as container,
        ):
            frames, times, notes = _decode(path, container)
    except DualTrackError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path.name} cannot be decoded as video, it is damaged or cut short ({error}).") from error
    timestamps, time_notes = _timestamps(times)
    size = choose_pixel_size(None, calibration, spacing_mm)
    return size.sweep(frames, path, FORMAT, notes + time_notes, timestamps_s=timestamps)


def _decode(path: Path, container: InputContainer) -> tuple[np.ndarray | WindowSource, list[float | None], list[str]]:
    """[N, H, W] uint8, the time of each frame in seconds, and what was converted."""
    if not container.streams.video:
        raise InputError(f"{path.name} holds no video.")
    stream = container.streams.video[0]
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
    if len(times) + _DROPPED_FRAMES < stream.frames:
        raise InputError(
            f"{path.name} announces {stream.frames} frames and only {len(times)} can be decoded; it is cut short: "
            "copy it again."
        )
    return frames, times, notes + colour_notes


def _images(
    path: Path, container: InputContainer, stream: av.VideoStream, times: list[float | None], notes: list[str]
) -> Iterator[np.ndarray]:
    """Each frame as grey [H, W] or colour [H, W, 3], uint8; its time in seconds is added to `times`."""
    size = None
    for index, frame in enumerate(container.decode(stream)):
        size = size or (frame.width, frame.height)
        if (frame.width, frame.height) != size:
            raise InputError(
                f"Frame {index} of {path.name} has {frame.width} x {frame.height} pixels and the first "
                f"{size[0]} x {size[1]}; all must be of one size."
            )
        times.append(None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base))
        # The memory is asked for once: files of the system are read for it.
        require_plausible_clip(path, len(times), frame.height, frame.width, 0 if index else _STORED_BYTES)
        image, new_notes = _image(frame)
        notes += [note for note in new_notes if note not in notes]
        yield image


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
