"""Times of the frames of a DICOM clip, from the best of the elements that may state them.

Elements are those of DICOM PS3.3, Cine (C.7.6.5), Multi-frame (C.7.6.6) and Frame Content (C.7.6.16.2.2) modules.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from DualTrackCore.io.dicom_file import number, numbers

if TYPE_CHECKING:
    from pydicom import Dataset

#: Elements with one step between frames, ms (True), or a rate, 1/s (False); the first one above zero counts.
_STEPS = (
    ("FrameTime", True),
    ("CineRate", False),
    ("ActualFrameDuration", True),
    ("RecommendedDisplayFrameRate", False),
)

#: [N] seconds from the first frame, and the element that states them; None without times.
_Times = tuple[np.ndarray | None, str | None]


def frame_times(dataset: Dataset, count: int, notes: list[str]) -> _Times:
    """Time of each frame, s, and the element that states it; `notes` receives sentences for the user.

    First the times of each frame of an enhanced object, then a vector of steps, then one step or rate for all. Elements
    with another number of times than frames, or with times that do not rise, are noted and ignored.
    """
    if count < 2:
        return None, None
    times, name = _of_each_frame(dataset, count, notes)
    if times is None:
        times, name = _vector(dataset, count, notes), "FrameTimeVector"
    if times is not None:
        return times, name
    useless = []
    for name, is_step in _STEPS:
        value = number(dataset, name, notes)
        if value is not None and value > 0:
            step_s = value / 1000 if is_step else 1 / value
            return np.arange(count) * step_s, name
        useless += [] if value is None else [f"{name} {value:g}"]
    step_s = _usual_step(dataset, notes)
    if step_s is not None:
        return np.arange(count) * step_s, "median of FrameTimeVector"
    if useless:
        notes.append(f"The frame rate is unknown: the file says {', '.join(useless)}.")
    return None, None


def series_times(datasets: Sequence[Dataset], notes: list[str]) -> _Times:
    """:func:`frame_times` for objects of one frame each, first by their times of acquisition."""
    for name in ("AcquisitionDateTime", "AcquisitionTime", "ContentTime"):
        seconds = _advancing([dataset.get(name) for dataset in datasets])
        if seconds is not None:
            return seconds, name
    return frame_times(datasets[0], len(datasets), notes)


def _of_each_frame(dataset: Dataset, count: int, notes: list[str]) -> _Times:
    """Times from the functional groups of an enhanced object."""
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    contents = [(group.get("FrameContentSequence") or [{}])[0] for group in groups]
    ways: tuple[tuple[str, Callable[[list[Any]], np.ndarray | None]], ...] = (
        ("FrameAcquisitionDateTime", _advancing),
        ("FrameReferenceDateTime", _advancing),
        ("FrameAcquisitionDuration", _summed),
    )
    for name, times_of in ways:
        values = [content.get(name) for content in contents]
        if all(value is None for value in values):
            continue
        if len(values) != count:
            notes.append(f"Left out {name}: it is there for {len(values)} frames of {count}.")
            continue
        times = times_of(values)
        if times is not None:
            return times, name
        notes.append(f"Left out {name}: it is missing for some frames, or does not advance.")
    return None, None


def _vector(dataset: Dataset, count: int, notes: list[str]) -> np.ndarray | None:
    """Times from FrameTimeVector; its first step is before the first frame and does not count."""
    steps = np.array(numbers(dataset, "FrameTimeVector", notes))
    if len(steps) == count:
        if (steps[1:] > 0).all():
            return (np.cumsum(steps) - steps[0]) / 1000
        notes.append("Left out FrameTimeVector: its times do not advance.")
    elif len(steps) == count - 1 and (steps > 0).all():
        notes.append(f"FrameTimeVector has {len(steps)} entries for {count} frames; took them as steps between these.")
        return np.concatenate([[0.0], np.cumsum(steps)]) / 1000
    elif len(steps):
        notes.append(f"Left out FrameTimeVector: it has {len(steps)} entries for {count} frames.")
    return None


def _usual_step(dataset: Dataset, notes: list[str]) -> float | None:
    """The median step of an otherwise unusable FrameTimeVector, s."""
    steps = [step for step in numbers(dataset, "FrameTimeVector", notes) if step > 0]
    return float(np.median(steps)) / 1000 if steps else None


def _summed(durations: list[Any]) -> np.ndarray | None:
    """Times of consecutive frames with these durations, ms."""
    steps = np.array([duration if isinstance(duration, int | float) else 0 for duration in durations], float)
    return (np.cumsum(steps) - steps) / 1000 if (steps > 0).all() else None


def _moment(value: object) -> datetime.datetime | None:
    """A DICOM date with time, or time of day, as a datetime; None for anything else."""
    whole, _, rest = str(value or "").strip().partition(".")
    fraction = rest[: len(rest) - len(rest.lstrip("0123456789"))][:6]
    for form in ("%Y%m%d%H%M%S", "%H%M%S"):
        with contextlib.suppress(ValueError):
            return datetime.datetime.strptime(whole[:14], form).replace(microsecond=int(fraction.ljust(6, "0")))
    return None


def _advancing(values: Sequence[object]) -> np.ndarray | None:
    """Seconds from the first moment; None if one is missing or times do not rise."""
    moments = list(map(_moment, values))
    if len(moments) < 2 or None in moments:
        return None
    times = np.array([(moment - moments[0]).total_seconds() for moment in moments])
    return times if (np.diff(times) > 0).all() else None
