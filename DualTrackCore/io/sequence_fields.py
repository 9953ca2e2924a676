"""Per-frame text fields of a sequence metafile: times, statuses and transforms."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import NamedTuple

import numpy as np

_KEY = re.compile(r"Seq_Frame([0-9]{1,9})_(\S+)")
_TRANSFORM = re.compile(r"([A-Za-z0-9]+?)To([A-Z][A-Za-z0-9]*)Transform")
_STATUS_SUFFIX = "Status"
_OK = "OK"


class TransformTrack(NamedTuple):
    """One transform over all frames: `matrices` [N, 4, 4], NaN where not `valid` [N]."""

    matrices: np.ndarray
    valid: np.ndarray


class FrameFields:
    """The fields `Seq_FrameNNNN_Name = text` of a file, by name and frame; frames may lack any of them."""

    def __init__(self) -> None:
        self._texts: dict[str, dict[int, str]] = defaultdict(dict)

    def add(self, key: str, text: str) -> bool:
        """Keep `text` if `key` names a per-frame field, and tell whether it does."""
        match = _KEY.fullmatch(key)
        if match is not None:
            self._texts[match[2]][int(match[1])] = text.strip()
        return match is not None

    def __len__(self) -> int:
        return len(self._texts)

    def frames_without_fields(self, count: int) -> int:
        """How many of the first `count` frames have no field at all."""
        return count - len({i for texts in self._texts.values() for i in texts if i < count})

    def numbers(self, name: str, count: int) -> np.ndarray:
        """[count] float64, NaN where the field is missing or no finite number."""
        values = np.full(count, np.nan)
        for index, text in self._texts.get(name, {}).items():
            if index < count:
                values[index] = _number(text)
        return values

    def ok(self, name: str, count: int) -> np.ndarray:
        """[count] bool: false where the status field `name` says anything but OK."""
        valid = np.ones(count, bool)
        for index, text in self._texts.get(name, {}).items():
            if index < count:
                valid[index] = text.upper() == _OK
        return valid

    def image_ok(self, count: int) -> np.ndarray:
        """[count] bool: false where the image is marked as missing; NRRD files name the field `Status`."""
        return self.ok("ImageStatus", count) & self.ok("Status", count)

    def transforms(self, count: int) -> dict[tuple[str, str], TransformTrack]:
        """All transforms by (from, to); p_to = matrix @ p_from.

        A frame is invalid where its status says anything but OK, and where the 16 numbers are missing or not finite.
        """
        tracks = {}
        for name, texts in list(self._texts.items()):
            match = _TRANSFORM.fullmatch(name)
            if match is None:
                continue
            matrices = np.full((count, 4, 4), np.nan)
            for index, text in texts.items():
                if index < count:
                    matrices[index] = _matrix(text)
            valid = np.isfinite(matrices).all(axis=(1, 2)) & self.ok(name + _STATUS_SUFFIX, count)
            matrices[~valid] = np.nan
            tracks[match[1], match[2]] = TransformTrack(matrices, valid)
        return tracks

    def times(self, count: int) -> tuple[np.ndarray | None, list[str]]:
        """Times of the frames in s, [count] float64 or None where most are unknown, and what to tell the reader."""
        for name in ("Timestamp", "UnfilteredTimestamp"):
            times = self.numbers(name, count)
            known = np.flatnonzero(np.isfinite(times))
            if len(known) == count:
                return times, []
            if len(known) >= 2 and 2 * len(known) > count:
                missing = count - len(known)
                filled = _filled(times, known)
                return filled, [f"Filled in the times of {missing} of {count} frames from their neighbours."]
        return None, []


def _filled(times: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Missing times on the line through their neighbours; beyond the ends at the median step a frame."""
    frames = np.arange(len(times))
    filled = np.interp(frames, known, times[known])
    step = float(np.median(np.diff(times[known]) / np.diff(known)))
    filled += step * (np.minimum(frames - known[0], 0) + np.maximum(frames - known[-1], 0))
    return filled


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return np.nan
    return value if np.isfinite(value) else np.nan


def _matrix(text: str) -> np.ndarray:
    values = [_number(word) for word in text.split()]
    return np.reshape(values, (4, 4)) if len(values) == 16 else np.full((4, 4), np.nan)
