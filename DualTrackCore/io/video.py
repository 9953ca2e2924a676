"""Video files, decoded with PyAV (the extra `video`).

A video is decoded once, forwards; :func:`~DualTrackCore.grey.grey_clip` stores its grey frames as players show them.
Seeking would need less space. But in containers without an index, with open groups of pictures or with edit lists it
gives other frames than a player, and damaged frames would appear only during the work. Decoders conceal damage; so the
first run stops at damage, and only a damaged file is decoded a second time.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from DualTrackCore.errors import Doubt, DualTrackError, InputError
from DualTrackCore.grey import Conversion, grey_clip, to_grey_uint8
from DualTrackCore.io.calibration import choose_pixel_size
from DualTrackCore.io.sequence_parts import require_plausible_clip, require_plausible_frame
from DualTrackCore.io.video_containers import HEAD_BYTES, TIMELESS, declared_bytes, demuxer, goes_on
from DualTrackCore.io.video_display import Display
from DualTrackCore.memory import importing, naming_memory
from DualTrackCore.pixels import Converted, WindowSource
from DualTrackCore.sweep import Sweep

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

    from DualTrackCore.io.calibration_files import CalibrationSource

FORMAT = "Video"

#: Bytes that FFmpeg reads at a time.
_BUFFER_BYTES = 1 << 18

#: Grey formats of more than 8 bits that need no conversion.
_NATIVE_GREY = ("gray9le", "gray10le", "gray12le", "gray14le", "gray16le")

#: Bytes of a pixel while it is unpacked: three channels of 16 bits.
_STORED_BYTES = 6

#: Frames that decoders may drop at the ends of an undamaged file (open groups of pictures).
_DROPPED_FRAMES = 2

#: Black and white of the limited range of video, overshoot by coding, and largest part of pixels beyond that.
_LIMITED, _OVERSHOOT, _FEW = (16, 235), 4, 1 / 100

#: FFmpeg's value for the limited range.
_MPEG_RANGE = 1


class _UndecodableError(InputError):
    """FFmpeg cannot decode the content of a file."""


def recognises(path: Path, head: bytes) -> bool:
    """Whether the first bytes are those of a known video container."""
    return demuxer(path, head) is not None


def read(
    path: Path,
    *,
    calibration: CalibrationSource | None,
    spacing_mm: tuple[float, float] | None,
    inner: BinaryIO | None = None,
) -> Sweep:
    """The sweep of the largest video stream as players show it, as 8-bit grey, without tracking; sound is ignored.

    Args:
        inner: the open video, if it is only a part of the file at `path`.

    Raises:
        MissingDependencyError: PyAV is not installed.
        InputError: a damaged file, one without video, frames of changing or implausible size.
    """
    size = choose_pixel_size(None, calibration, spacing_mm)
    with inner or path.open("rb") as file:  # an open file: FFmpeg could read its name as an address
        clip = _Clip(path, file, size.spacing_mm, is_strict=True)
        try:
            frames = clip.decode()
        except _UndecodableError:
            sure = len(clip.times)
            clip = _Clip(path, file, size.spacing_mm, is_strict=False)
            frames = clip.decode()
            clip.notes.append(
                Doubt(
                    f"The file is damaged: frames from about frame {sure} on may be wrong or missing. Look at them, or "
                    "copy the file again."
                )
            )
    times = clip.timestamps_s()
    return size.sweep(frames, path, FORMAT, clip.notes, {"is_video": True}, timestamps_s=times)


@contextlib.contextmanager
def _as_sentence(path: Path) -> Iterator[None]:
    """Context that turns any error of FFmpeg and PyAV into an InputError of one sentence."""
    try:
        with naming_memory(f"Decoding {path.name}"):
            yield
    except DualTrackError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None)
        raise _UndecodableError(
            f"{path.name} cannot be decoded as video, it is damaged or cut short"
            + (f" ({reason}); copy it again." if isinstance(reason, str) else "; copy it again.")
        ) from error


class _Clip:
    """Decodes a video file, and collects times and notes.

    Args:
        path: the file, for messages.
        file: the same, open.
        spacing_mm: the user's size of the shown pixels, or None.
        is_strict: whether to stop at damage that a decoder can conceal.

    Attributes:
        times: seconds of each frame so far, None without a time.
        notes: sentences for the user.
    """

    def __init__(self, path: Path, file: BinaryIO, spacing_mm: tuple[float, float] | None, *, is_strict: bool) -> None:
        self._path, self._file, self._spacing_mm, self._is_strict = path, file, spacing_mm, is_strict
        self.times: list[float | None] = []
        self.notes: list[str] = []
        file.seek(0)
        head = file.read(HEAD_BYTES)
        self._kind = demuxer(path, head)
        self._is_short = self._lacks_bytes(head)
        self._interlaced = self._limited = self._beyond = 0

    def decode(self) -> np.ndarray | WindowSource:
        """[N, H, W] uint8; call it once.

        Raises:
            _UndecodableError: damage.
            InputError: no video, lost frames, frames of changing or implausible size.
        """
        what = f"PyAV 17 or later, which is needed to read the video {self._path.name},"
        with importing(what, 'install it: pip install "dualtrack[video]"'):
            import av.index  # missing in earlier versions
        self._file.seek(0)
        with _as_sentence(self._path):
            container = av.open(
                self._file,
                format=self._kind,
                options={"protocol_whitelist": "none"},
                metadata_errors="ignore",
                buffer_size=_BUFFER_BYTES,
            )
        with container:
            stream = self._stream(container)
            stream.thread_type = "AUTO"
            if self._is_strict:
                stream.codec_context.options = {"err_detect": "explode"}
            require_plausible_frame(self._path, stream.height, stream.width)
            announced = self._announced(stream)
            pictures = self._pictures(container, stream)
            frames, notes = grey_clip(pictures, source=self._path.name, expected=stream.frames)
            self.notes += notes
            self._require_all(announced, stream.frames)
        return self._full_range(frames)

    def timestamps_s(self) -> np.ndarray | None:
        """[N] seconds from the first frame; None, with a note, if times are missing or do not rise."""
        if len(self.times) < 2:
            return None
        if None in self.times or self._kind in TIMELESS:
            self.notes.append("Some frames carry no time; the times count as unknown.")
            return None
        # AVI has times in the order of storage; frames come in the order of display.
        seconds = np.array(sorted(self.times) if self._kind == "avi" else self.times)
        if (np.diff(seconds) <= 0).any():
            self.notes.append("The times of the frames do not advance; they count as unknown.")
            return None
        return seconds - seconds[0]

    def _lacks_bytes(self, head: bytes) -> bool:
        """Whether an AVI file is shorter than its header states, with a note.

        Raises InputError: a Matroska file is shorter than it states.
        """
        declared, held = declared_bytes(head), self._file.seek(0, io.SEEK_END)
        if self._kind == "avi" and declared != held and not goes_on(self._file, declared):
            self.notes.append(f"The header says that the file has {declared} bytes, and it has {held}.")
            return declared > held
        if declared > held:
            raise InputError(
                f"{self._path.name} announces {declared} bytes and holds {held}; it is cut short: copy it again."
            )
        return False

    def _stream(self, container: InputContainer) -> av.VideoStream:
        """The video stream with the largest pictures, except cover pictures; of several the longest, then the first."""
        from av.stream import Disposition

        picture = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
        streams = [stream for stream in container.streams.video if not stream.disposition & picture]
        if not streams:
            what = "a cover picture and no video" if container.streams.video else "no video"
            raise InputError(f"{self._path.name} holds {what}.")
        decodable = [stream for stream in streams if stream.codec_context is not None]
        if not decodable:
            raise InputError(
                f"{self._path.name} holds video of a kind that PyAV cannot decode; convert it, for example to H.264 in "
                "mp4."
            )
        chosen = max(decodable, key=lambda stream: (stream.width * stream.height, stream.frames))
        if len(streams) > 1:
            sizes = ", ".join(f"{stream.width} x {stream.height}" for stream in decodable)
            self.notes.append(
                f"The file holds {len(streams)} video streams ({sizes} pixels); read number "
                f"{streams.index(chosen) + 1}, the largest."
            )
        return chosen

    def _announced(self, stream: av.VideoStream) -> float:
        """Number of frames that a player shows; 0 if the file does not state it.

        Edit lists leave frames out, and recorders write empty frames into AVI files if there is no new picture.
        """
        if self._is_short:
            return stream.frames or math.inf
        if stream.frames and self._kind in ("mov", "avi"):
            return sum(not entry.is_discard for entry in stream.index_entries) or stream.frames
        return stream.frames

    def _require_all(self, announced: float, counted: int) -> None:
        """Raises InputError: announced frames are missing (a few may be missing in a file of full length)."""
        count = len(self.times)
        if not count:
            raise InputError(f"{self._path.name} has no frames that can be decoded.")
        if count + (0 if self._is_short else _DROPPED_FRAMES) < announced:
            what = f"{announced} frames" if counted else "more bytes than it holds"
            raise InputError(
                f"{self._path.name} announces {what} and only {count} frames can be decoded; it is cut short: "
                "copy it again."
            )
        if announced < counted:
            self.notes.append(f"Of {counted} frames in the file {count} are to be shown; read these.")
        if self._interlaced:
            self.notes.append(
                Doubt(
                    f"{self._interlaced} of {count} frames are marked as interlaced: their even and odd lines are of "
                    "two moments, and edges that move look like combs. Record progressive video."
                )
            )

    def _pictures(self, container: InputContainer, stream: av.VideoStream) -> Iterator[np.ndarray]:
        """Each frame as players show it, grey [H, W] or colour [H, W, 3], uint8."""
        size = first = display = None
        for index, frame in enumerate(self._decoded(container, stream)):
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise InputError(
                    f"Frame {index} of {self._path.name} has {frame.width} x {frame.height} pixels and the first "
                    f"{size[0]} x {size[1]}; all must be of one size."
                )
            matrix = frame.side_data.get("DISPLAYMATRIX")
            turned = None if matrix is None else bytes(matrix)
            if display is None:
                display = Display(turned, stream.sample_aspect_ratio, size[::-1], self._spacing_mm)
                self.notes += display.notes
                first = turned
            if turned not in (None, first):
                raise InputError(
                    f"Frame {index} of {self._path.name} is turned in another way than the first; cut the clip there."
                )
            self._interlaced += frame.interlaced_frame
            self.times.append(
                None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
            )
            # Memory is checked once, as this reads files of the system.
            require_plausible_clip(self._path, len(self.times), *display.size, 0 if index else _STORED_BYTES)
            with _as_sentence(self._path):
                picture = self._picture(frame)
            yield display(picture)

    def _decoded(self, container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
        frames = (frame for packet in self._packets(container, stream) for frame in packet.decode())
        while True:
            with _as_sentence(self._path):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def _packets(self, container: InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
        for packet in container.demux(stream):
            if packet.is_corrupt and self._is_strict:
                raise _UndecodableError(f"{self._path.name} has lost data near frame {len(self.times)}; copy it again.")
            yield packet

    def _picture(self, frame: av.VideoFrame) -> np.ndarray:
        """Grey or colour of 8 bits; pictures of more bits become grey, scaled by their bit depth, with notes."""
        is_grey = frame.format.name.startswith("gray")
        bits = max(component.bits for component in frame.format.components)
        if bits <= 8:
            picture = frame.to_ndarray(format="gray" if is_grey else "rgb24")
        else:
            if frame.format.name in _NATIVE_GREY:
                deep, most = frame.to_ndarray(), 2**bits - 1
            else:  # the library converts to the full range of 16 bits
                deep, most = frame.to_ndarray(format="gray16le" if is_grey else "rgb48le"), 2**16 - 1
            grey, notes = to_grey_uint8(deep[None], colour_axis=None if is_grey else 3, declared=(0, most))
            picture, notes = grey[0], [*notes[:-1], f"Scaled the {bits} bits of the video to 8."]
            self.notes += [note for note in notes if note not in self.notes]
        if is_grey and frame.color_range == _MPEG_RANGE:
            self._limited += picture.size
            low, high = _LIMITED[0] - _OVERSHOOT, _LIMITED[1] + _OVERSHOOT
            self._beyond += np.count_nonzero((picture < low) | (picture > high))
        return picture

    def _full_range(self, frames: np.ndarray | WindowSource) -> np.ndarray | WindowSource:
        """The frames with black at 0 and white at 255; pictures in colour already have this range.

        Encoders mark some grey pictures of full range as limited, so the pixels decide.
        """
        if not self._limited or self._beyond > _FEW * self._limited:
            return frames
        self.notes.append("The greys have the limited range of video; scaled {} to {} to 0 to 255.".format(*_LIMITED))
        stretch = Conversion(False, _LIMITED)
        return stretch(frames) if isinstance(frames, np.ndarray) else Converted(frames, stretch)
