"""The sweep: a clip of 2D ultrasound frames with what is known about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from DualTrackCore.errors import InputError, named
from DualTrackCore.summaries import Summarised
from DualTrackCore.trajectory import PoseOrigin, Trajectory

#: Largest time of a frame, s, also if it counts nanoseconds since 1970: beyond it differences mean nothing.
_MOST_SECONDS = 1e30


@runtime_checkable
class FrameSource(Protocol):
    """Frames that are read when they are asked for. A numpy array is one; so is an open HDF5 data set."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __getitem__(self, key: slice) -> np.ndarray:
        """Frames of the slice as [n, H, W] uint8."""


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Summarised):
    """Frames of one sweep, their physical size, times and tracking; immutable.

    Attributes:
        frames: [N, H, W] uint8, rows along the beam (MF orientation: first row near the probe, first column at the
            marked side); an array or a :class:`FrameSource`. H = W = 0 for a recording of tracking alone.
        spacing_mm: (across columns, down rows) in mm, or None where unknown.
        timestamps_s: [N] float64 seconds, or None where unknown.
        frame_valid: [N] bool; false where the source marks the image itself as missing.
        tracked: the poses that came with the frames, or None; its origin says whether a tracker measured them.
        skew_deg: departure of the pixel axes from a right angle; non-zero only for a measured affine calibration.
        provenance: source file, format, what was converted: plain values, written into reports. Frames that come from
            the simulation have `simulated: True` here, and what is doubtful about the frames is under `warnings`.
        files: absolute paths of what it was read from, which no output replaces; empty for a sweep made in memory.
    """

    frames: np.ndarray | FrameSource
    spacing_mm: tuple[float, float] | None = None
    timestamps_s: np.ndarray | None = None
    frame_valid: np.ndarray | None = None
    tracked: Trajectory | None = None
    skew_deg: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.frames, FrameSource) or len(self.frames.shape) != 3:
            raise InputError(
                f"Frames have shape {getattr(self.frames, 'shape', None)}; expected [frames, rows, columns], "
                "or Sweep.from_array(frames, ...), which makes grey of colour."
            )
        if self.frames.dtype != np.uint8:
            raise InputError(
                f"Frames are {self.frames.dtype}; a sweep holds 8-bit grey frames (uint8): "
                "Sweep.from_array(frames, ...) converts them."
            )
        count = self.frames.shape[0]
        if count == 0:
            raise InputError("The sweep has no frames.")
        object.__setattr__(self, "spacing_mm", validated_spacing(self.spacing_mm))
        object.__setattr__(self, "timestamps_s", _per_frame(self.timestamps_s, count, np.float64, "timestamps"))
        valid = np.ones(count, bool) if self.frame_valid is None else self.frame_valid
        object.__setattr__(self, "frame_valid", _per_frame(valid, count, bool, "frame validity flags"))
        if self.tracked is not None and len(self.tracked) != count:
            raise InputError(
                f"The sweep has {count} frames and {len(self.tracked)} tracked poses; the numbers must be equal."
            )
        if not abs(self.skew_deg) < 45:
            raise InputError(f"The pixel axes are {self.skew_deg} degrees off a right angle; the limit is 45.")
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    @classmethod
    def from_array(
        cls,
        frames: np.ndarray,
        *,
        spacing_mm: float | tuple[float, float] | None = None,
        frame_rate_hz: float | None = None,
        grey_range: tuple[float, float] | None = None,
    ) -> Sweep:
        """A sweep of frames that are in memory.

        Args:
            frames: [N, H, W] grey or [N, H, W, 3 or 4] colour, rows along the beam, first row near the probe. uint8 is
                taken as it is, and colour becomes grey. Other types are scaled by `grey_range`, or without it: whole
                numbers of which nearly all are 0 to 255 are taken as they are, other whole numbers are scaled by the
                range of their type, and real numbers by their least and greatest value, with a warning
                (:mod:`DualTrackCore.grey`). `provenance` says what was converted.
            spacing_mm: pixel size in mm: one number, or (across columns, down rows); None where unknown.
            frame_rate_hz: frames a second; None where unknown.
            grey_range: values that become black (0) and white (255), such as (0, 4095) for 12 bits; not for uint8.

        Raises InputError: another shape, pixels that are no finite numbers, a spacing or frame rate out of range.
        """
        from DualTrackCore.errors import Doubt, doubts
        from DualTrackCore.grey import to_grey_uint8

        array = np.asarray(frames)
        if array.ndim == 4 and min(array.shape[2:]) > 4 >= array.shape[1]:
            raise InputError(f"The frames have shape {array.shape}; channels come last: np.moveaxis(frames, 1, -1).")
        if grey_range is not None and not (np.isfinite(grey_range).all() and np.diff(grey_range) > 0):
            raise InputError(f"The grey range {grey_range!r} is not two numbers, the second above the first.")
        grey, notes = to_grey_uint8(array, colour_axis=3 if array.ndim == 4 else None, declared=grey_range)
        if array.dtype.kind == "f" and any(isinstance(note, Doubt) for note in notes):
            notes.append(
                Doubt("If black is 0 and white is 1, say so: Sweep.from_array(frames, ..., grey_range=(0, 1)).")
            )
        times = None
        if frame_rate_hz is not None:
            if not isinstance(frame_rate_hz, int | float | np.number) or not 0 < frame_rate_hz < np.inf:
                raise InputError(f"The frame rate {frame_rate_hz!r} is out of range; it must be a number above 0 Hz.")
            times = np.arange(len(grey)) / float(frame_rate_hz)
        provenance = {"format": "array", "conversions": notes, **doubts(notes)}
        if spacing_mm is not None:
            provenance["spacing_source"] = "user"
        return cls(grey, spacing_mm, times, provenance=provenance)

    def __len__(self) -> int:
        return self.frames.shape[0]

    def _summary(self) -> dict[str, str]:
        rows, columns = self.frame_size
        shown = {
            "frames": f"{len(self)} frames of {columns} x {rows}" if self.has_images else f"{len(self)} poses alone"
        }
        if self.spacing_mm is not None:
            shown["pixel size"] = " x ".join(f"{value:.4g}" for value in dict.fromkeys(self.spacing_mm)) + " mm"
        elif self.has_images:
            shown["pixel size"] = "pixel size unknown"
        if self.timestamps_s is not None and (lasts := float(np.ptp(self.timestamps_s))) > 0:
            shown["time"] = f"{lasts:.3g} s, {(len(self) - 1) / lasts:.3g} frames a second"
        shown["poses"] = "no poses" if self.tracked is None else f"poses {self.tracked.origin.value}"
        if self.is_simulated:
            shown["origin"] = "simulated"
        return shown

    def _thumbnail(self) -> np.ndarray | None:
        middle = len(self) // 2
        return self.frames[middle : middle + 1][0] if self.has_images else None

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.frames.shape[1], self.frames.shape[2]

    @property
    def has_images(self) -> bool:
        """Whether there are pixels at all: recordings of tracking alone have none."""
        return 0 not in self.frame_size

    @property
    def is_simulated(self) -> bool:
        """Whether the frames come from the simulation; true only where the provenance says so expressly."""
        return self.provenance.get("simulated") is True

    @property
    def truth(self) -> Trajectory | None:
        """The poses that errors may be measured against: `tracked` where it was measured or simulated, else None."""
        return self.tracked if self.tracked is not None and self.tracked.origin.is_truth else None

    def require_truth(self) -> Trajectory:
        """The poses that errors may be measured against, or an :class:`InputError` that says why there are none."""
        if self.tracked is None:
            raise InputError("The sweep has no tracking to compare with; choose a tracked sweep.")
        if self.truth is None:
            remedy = "choose a tracked sweep"
            if self.tracked.origin is PoseOrigin.UNKNOWN:
                remedy = f"if a tracker measured them, say so ({named('poses_are', 'measured')})"
            raise InputError(f"The poses of this sweep are {self.tracked.origin_text}, so they are no truth; {remedy}.")
        return self.tracked

    @property
    def duration_s(self) -> float | None:
        """Time from the first to the last frame, s; None where times are unknown."""
        return None if self.timestamps_s is None else float(self.timestamps_s[-1] - self.timestamps_s[0])

    @property
    def frame_rate_hz(self) -> float | None:
        """Frames a second from the median time step; None where times are unknown or do not advance."""
        if self.timestamps_s is None or len(self) < 2:
            return None
        step = float(np.median(np.diff(self.timestamps_s)))
        return 1.0 / step if step > 1 / _MOST_SECONDS else None

    @property
    def image_from_pixel(self) -> np.ndarray:
        """[4, 4] float64: pixel (column, row, 0, 1) to image mm, origin at the image centre.

        Raises InputError: the spacing is unknown.
        """
        return image_from_pixel(self.require_spacing(), self.skew_deg, self.frame_size)

    def require_spacing(self) -> tuple[float, float]:
        """The spacing, or an :class:`InputError` that says how to give it."""
        if self.spacing_mm is None:
            raise InputError(
                "The pixel spacing of this sweep is unknown, and millimetres cannot be estimated without it; "
                f"give it in mm ({named('spacing_mm')}) or give a calibration ({named('calibration')})."
            )
        return self.spacing_mm

    def require_images(self) -> None:
        """Raise :class:`InputError` for a recording of tracking alone."""
        if not self.has_images:
            raise InputError("The sweep holds tracking but no images; choose a recording with frames.")

    def window(self, start: int, stop: int) -> np.ndarray:
        """Frames start to stop - 1 as an array [n, H, W] uint8, read now, one row after the other in memory."""
        images = np.asarray(self.frames[start:stop])
        # An axis of one frame may keep a negative stride and counts as contiguous all the same; torch refuses it.
        return images if images.flags.c_contiguous and min(images.strides) >= 0 else images.copy()

    def windows(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """All frames in pieces of at most `size`: (index of the first, [n, H, W] uint8)."""
        for start in range(0, len(self), size):
            yield start, self.window(start, min(start + size, len(self)))

    def slice(self, start: int, stop: int) -> Sweep:
        """Frames start to stop - 1 as a sweep of their own; frames are read when they are asked for."""
        if (start, stop) == (0, len(self)):
            return self
        array = isinstance(self.frames, np.ndarray)
        return replace(
            self,
            frames=self.frames[start:stop] if array else _PartOfFrames(self.frames, start, stop),
            timestamps_s=None if self.timestamps_s is None else self.timestamps_s[start:stop],
            frame_valid=self.frame_valid[start:stop],
            tracked=None if self.tracked is None else self.tracked.slice(start, stop),
        )

    def chosen(self, indices: np.ndarray) -> Sweep:
        """Some frames, by their rising indices, as a sweep of their own; frames are read when they are asked for.

        Poses stay in the frame0 of the whole sweep.
        """
        return replace(
            self,
            frames=_ChosenFrames(self.frames, indices),
            timestamps_s=None if self.timestamps_s is None else self.timestamps_s[indices],
            frame_valid=self.frame_valid[indices],
            tracked=None if self.tracked is None else self.tracked.chosen(indices),
        )


class _PartOfFrames:
    """Frames start to stop - 1 of a source."""

    def __init__(self, frames: FrameSource, start: int, stop: int) -> None:
        self._frames, self._start = frames, start
        self.shape, self.dtype = (stop - start, *frames.shape[1:]), frames.dtype

    def __getitem__(self, key: slice) -> np.ndarray:
        first, last, _ = key.indices(self.shape[0])
        return self._frames[self._start + first : self._start + max(first, last)]


def image_from_pixel(spacing_mm: tuple[float, float], skew_deg: float, frame_size: tuple[int, int]) -> np.ndarray:
    """`Sweep.image_from_pixel` [4, 4] of frames of (H, W) pixels of this size and skew."""
    height, width = frame_size
    skew = np.deg2rad(skew_deg)
    matrix = np.eye(4)
    matrix[:2, 0] = spacing_mm[0], 0.0
    matrix[:2, 1] = spacing_mm[1] * np.sin(skew), spacing_mm[1] * np.cos(skew)
    matrix[:2, 3] = -matrix[:2, :2] @ [(width - 1) / 2, (height - 1) / 2]
    return matrix


class _ChosenFrames:
    """Some frames of a source, by their rising indices."""

    def __init__(self, frames: FrameSource, indices: np.ndarray) -> None:
        self._frames, self._indices = frames, indices
        self.shape, self.dtype = (len(indices), *frames.shape[1:]), frames.dtype

    def __getitem__(self, key: slice) -> np.ndarray:
        chosen = self._indices[key]
        found = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        # Neighbours are read together, and what lies between others is not read at all.
        for run in np.split(np.arange(len(chosen)), np.flatnonzero(np.diff(chosen) != 1) + 1):
            if len(run):
                found[run[0] : run[-1] + 1] = self._frames[int(chosen[run[0]]) : int(chosen[run[-1]]) + 1]
        return found


def validated_spacing(spacing_mm: object) -> tuple[float, float] | None:
    """A pixel spacing as two floats: one number stands for square pixels, None for unknown.

    Raises InputError: not one or two finite numbers above 0 and at most 10 mm.
    """
    if spacing_mm is None:
        return None
    try:
        values = np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), (2,))
    except (TypeError, ValueError):
        raise InputError(f"The pixel spacing {spacing_mm!r} is not one or two numbers in mm.") from None
    if not (np.isfinite(values).all() and (values > 0).all() and (values <= 10).all()):
        raise InputError(f"The pixel spacing {spacing_mm!r} is out of range; it must lie above 0 and at most 10 mm.")
    return float(values[0]), float(values[1])


def _per_frame(values: object, count: int, dtype: type, what: str) -> np.ndarray | None:
    if values is None:
        return None
    array = np.array(values, dtype=dtype)
    if array.shape != (count,):
        raise InputError(f"The sweep has {count} frames and {array.size} {what}; the numbers must be equal.")
    bad = np.flatnonzero(~(np.abs(array) <= _MOST_SECONDS)) if dtype is not bool else ()
    if len(bad):
        raise InputError(
            f"The {what} of frame {bad[0]} are not finite, or beyond {_MOST_SECONDS:g} s; correct or remove them."
        )
    array.flags.writeable = False
    return array
