"""From settings and their files to what is known of the frames of a sweep."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from DualTrackCore.corrections import CLIP, Corrections
from DualTrackCore.corrections.knowledge import Knowledge, KnownLength, KnownPoses, Limits, SamePlace, SamePoint
from DualTrackCore.errors import InputError, about, named
from DualTrackCore.io.trajectory_csv import read_trajectory_csv
from DualTrackCore.sweep import Sweep

_QUATERNION = ("qx", "qy", "qz", "qw")
_PLACE = ("x_mm", "y_mm", "z_mm")


def knowledge_of(
    said: Corrections, sweep: Sweep, first_frame: int = 0, corner: tuple[int, int] = (0, 0)
) -> list[Knowledge]:
    """What is known of the frames of a sweep; files are read now. Empty where nothing is said.

    Args:
        said: frames as they count in the clip.
        sweep: the frames that are used.
        first_frame: number in the clip of its first frame.
        corner: (x, y) in the picture before the crop of the first pixel of its frames.

    Raises:
        InputError: a file cannot be read or is no such table, a frame is not used, a point is not in the picture, or
            the sweep has no transforms, times or pixel size where they are needed.
    """
    used = _Used(sweep, first_frame)
    found: list[Knowledge] = []
    if said.monotone or said.most_step_mm or said.most_turn_deg or said.stops:
        with about("stops"):
            stops = tuple(used.pair(pair) for pair in said.stops)
            found.append(Limits(said.monotone, said.most_step_mm, said.most_turn_deg, stops))
    if said.known_length_mm is not None:
        with about("known_length_mm"):
            frames = None if said.known_length_frames is None else used.pair(said.known_length_frames)
            found.append(KnownLength(said.known_length_mm, frames, said.scale, said.known_length_accuracy_mm))
    if said.places is not None:
        with about("places"):
            found += _points(said, used, corner)
    with about("loops"):
        accuracy = said.loops_accuracy_mm, said.loops_accuracy_deg
        found += [SamePlace(used.pair(pair), *accuracy) for pair in said.loops]
    for name, read in (("orientations", _orientations), ("tracker", _tracker)):
        if getattr(said, name) is not None:
            with about(name):
                found.append(read(said, used))
    return found


class _Used:
    """The frames of a sweep by their numbers in the clip."""

    def __init__(self, sweep: Sweep, first_frame: int) -> None:
        self.sweep, self.first = sweep, first_frame

    def pair(self, frames: tuple[int, int]) -> tuple[int, int]:
        """Two frames of the clip as frames of the sweep. Raises InputError: one is not used."""
        last = self.first + len(self.sweep) - 1
        for frame in frames:
            if not self.first <= frame <= last:
                raise InputError(
                    f"Something is known of frame {frame}, and the frames {self.first} to {last} are used; name one "
                    "of these."
                )
        return frames[0] - self.first, frames[1] - self.first

    def among(self, frames: Sequence[float], path: str) -> tuple[np.ndarray, np.ndarray]:
        """Frames of the clip [m] as frames of the sweep, and [m] bool of those that are used.

        Raises InputError: they are no whole numbers from 0, or fewer than two are used.
        """
        numbers = np.array(frames, dtype=np.float64)
        bad = np.flatnonzero((numbers < 0) | (numbers != np.floor(numbers)))
        if len(bad):
            raise InputError(f"{path} names frame {numbers[bad[0]]:g}; frames are whole numbers from 0.")
        within = (numbers >= self.first) & (numbers < self.first + len(self.sweep))
        if within.sum() < 2:
            last = self.first + len(self.sweep) - 1
            raise InputError(
                f"{path} says something of fewer than two of the frames {self.first} to {last} that are used."
            )
        return (numbers - self.first).astype(np.int64), within


def _points(said: Corrections, used: _Used, corner: tuple[int, int]) -> list[SamePoint]:
    sweep, path = used.sweep, said.places if isinstance(said.places, str) else "The list of marks"
    marks = _marks(path) if path == said.places else [astuple(mark) for mark in said.places]
    if not marks:
        raise InputError(f"{path} holds no marks; mark a point in two frames.")
    names, numbers, *pixels = zip(*marks, strict=True)
    frames, within = used.among(numbers, path)
    pixels = np.transpose(pixels) - corner
    height, width = sweep.frame_size
    outside = np.flatnonzero(within & ((pixels < -1) | (pixels > (width, height))).any(axis=1))
    if len(outside):
        x, y = pixels[outside[0]] + corner
        raise InputError(
            f"{path} marks {names[outside[0]]!r} at column {x:g}, row {y:g}, outside of the picture of {width} x "
            f"{height} pixels at {corner[0]}, {corner[1]}; mark it again."
        )
    places = np.column_stack([pixels, np.zeros(len(pixels)), np.ones(len(pixels))]) @ sweep.image_from_pixel.T
    of_point: dict[str, list[int]] = {}
    for at, name in enumerate(names):
        of_point.setdefault(name, []).append(at)
    points = []
    for name, rows in of_point.items():
        used_rows = [at for at in rows if within[at]]
        # A point that is marked once is a mistake; one that is seen again in frames that are not used says nothing.
        if len(used_rows) >= 2 or len(rows) < 2:
            points.append(SamePoint(name, tuple(frames[used_rows]), places[used_rows, :2], said.places_accuracy_mm))
    if not points:
        raise InputError(
            f"{path} marks no point in two of the frames that are used; mark it again, or use more frames."
        )
    return points


def _marks(path: str) -> list[tuple[str, float, float, float]]:
    """Point, frame, column and row of every mark in a table."""
    marks = []
    for row, where in _rows(path, ("point", "frame", "x", "y")):
        if not row["point"]:
            raise InputError(f"{where} names no point; give every mark the name of its point.")
        marks.append((row["point"], *(_number(row[name], where) for name in ("frame", "x", "y"))))
    return marks


def _orientations(said: Corrections, used: _Used) -> KnownPoses:
    path, keys, turns = said.orientations, [], []
    by = "frame"
    for row, where in _rows(path, _QUATERNION, ("frame", "time_s")):
        by = "frame" if "frame" in row else "time_s"
        keys.append(_number(row[by], where))
        turns.append([_number(row[name], where) for name in _QUATERNION])
        if not 0.9 < np.linalg.norm(turns[-1]) < 1.1:
            raise InputError(f"{where} has a quaternion of length {np.linalg.norm(turns[-1]):.3g}; it must be 1.")
    if len(keys) < 2:
        raise InputError(f"{path} has fewer than two orientations; nothing of the path is known by them.")
    rotations = Rotation.from_quat(turns)
    if by == "frame":
        frames, within = used.among(keys, path)
        frames, rotations = frames[within], rotations[within]
    else:
        times = used.sweep.timestamps_s
        if times is None:
            raise InputError(f"{path} is by time, and the sweep has no times; give the frame of each orientation.")
        if not (np.diff(keys) > 0).all():
            raise InputError(f"The times in {path} do not rise; sort its lines.")
        frames = np.flatnonzero((times >= keys[0]) & (times <= keys[-1]))
        if len(frames) < 2:
            raise InputError(
                f"{path} covers {keys[0]:g} to {keys[-1]:g} s and the sweep {times[0]:g} to {times[-1]:g} s; give the "
                "times of both by the same clock."
            )
        rotations = Slerp(keys, rotations)(times[frames])
    poses = np.tile(np.eye(4), (len(frames), 1, 1))
    poses[:, :3, :3] = rotations.as_matrix()
    return KnownPoses("orientations", frames, poses, None, said.orientations_accuracy_deg)


def _tracker(said: Corrections, used: _Used) -> KnownPoses:
    sweep, path = used.sweep, said.tracker
    if path == CLIP:
        tracked, path = sweep.tracked, "The clip"
        if tracked is None:
            raise InputError(f"The clip holds no transforms of a tracker; leave {named('tracker', CLIP)} out.")
    elif set(_PLACE) <= set(_header(_lines(path))):
        return _positions(said, used)
    else:
        tracked = read_trajectory_csv(path)
        if len(tracked) != len(sweep):
            raise InputError(
                f"{path} has {len(tracked)} poses and {len(sweep)} frames are used; they must be equal, with valid 0 "
                "where a pose is missing."
            )
    frames = np.flatnonzero(tracked.valid)
    if len(frames) < 2:
        raise InputError(f"{path} has fewer than two valid poses of the tracker; leave {named('tracker')} out.")
    accuracy = said.tracker_accuracy_mm, said.tracker_accuracy_deg
    return KnownPoses("poses of the tracker", frames, tracked.poses[frames], *accuracy)


def _positions(said: Corrections, used: _Used) -> KnownPoses:
    rows = [[_number(row[name], where) for name in ("frame", *_PLACE)] for row, where in _rows(said.tracker, _PLACE)]
    frames, within = used.among([row[0] for row in rows], said.tracker)
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3, 3] = np.array(rows)[:, 1:]
    return KnownPoses("positions of the tracker", frames[within], poses[within], said.tracker_accuracy_mm)


def _lines(path: str) -> list[tuple[int, list[str]]]:
    """The lines of a table that are not empty, with their numbers, the words without spaces around them."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream)
            return [(rows.line_num, [word.strip() for word in row]) for row in rows if any(row)]
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror or error}.") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path} is no table: it is not text.") from None


def _header(lines: list[tuple[int, list[str]]]) -> list[str]:
    return [name.lower() for name in lines[0][1]] if lines else []


def _rows(
    path: str, columns: Sequence[str], keys: Sequence[str] = ("frame",)
) -> Iterator[tuple[Mapping[str, str], str]]:
    """The lines of a table with these columns, one of the keys among them, and where each stands."""
    lines = _lines(path)
    header = _header(lines)
    missing = [name for name in columns if name not in header]
    if not any(key in header for key in keys):
        missing.insert(0, " or ".join(keys))
    if missing:
        raise InputError(
            f"{path} has no column {missing[0]}; its first line must name {', '.join([*keys[:1], *columns])}."
        )
    for number, row in lines[1:]:
        where = f"{path}, line {number},"
        if len(row) != len(header):
            raise InputError(f"{where} has {len(row)} columns; expected {len(header)}.")
        yield dict(zip(header, row, strict=True)), where


def _number(word: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{where} holds {word[:20]!r}, which is no number.")
    return value
