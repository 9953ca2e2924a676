"""Trajectories as plain tables: one line a frame, in full precision, for spreadsheets and other programs."""

from __future__ import annotations

import csv
from os import PathLike
from pathlib import Path

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.files import replacing
from DualTrackCore.io.tracked_poses import FIELDS, ORIGIN, marked, origin_marks
from DualTrackCore.trajectory import PoseOrigin, Trajectory

_HEADER = ("frame", "timestamp_s", "valid", *(f"m{row}{column}" for row in range(4) for column in range(4)))
#: Columns that say where poses are from; a table from elsewhere may lack them. The origin stands first.
_MARKS = tuple(FIELDS)


def write_trajectory_csv(trajectory: Trajectory, path: str | PathLike, timestamps_s: np.ndarray | None = None) -> None:
    """Write frame, timestamp_s, valid (1 or 0), the 16 numbers of frame0_from_image row by row, and the origin.

    Model, checksum and warnings of estimated poses stand in the line of the first frame. Numbers have 17 significant
    digits, so that reading gives the same ones back. What is unknown is left empty.

    Args:
        trajectory: N poses.
        path: the file; it appears complete or not at all.
        timestamps_s: [N] s, or None where unknown.

    Raises:
        InputError: another number of times than poses.
        OutputError: the file cannot be written.
    """
    count = len(trajectory)
    times = [""] * count
    if timestamps_s is not None:
        if len(timestamps_s) != count:
            raise InputError(f"{count} poses came with {len(timestamps_s)} times; the numbers must be equal.")
        times = [f"{time:.17g}" for time in timestamps_s]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="ascii") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow((*_HEADER, *_MARKS))
        marks = origin_marks(trajectory)
        said = [marks.get(name, "") for name in _MARKS]
        later = [marks[ORIGIN], *[""] * (len(_MARKS) - 1)]
        rows = zip(times, trajectory.valid, trajectory.poses.reshape(count, 16), strict=True)
        for frame, (time, valid, pose) in enumerate(rows):
            writer.writerow(
                [frame, time, int(valid), *(f"{value:.17g}" for value in pose), *(later if frame else said)]
            )


def read_trajectory_csv(path: str | PathLike) -> Trajectory:
    """The trajectory of a table that :func:`write_trajectory_csv` wrote.

    Its origin is the worst that a line says, and unknown where a line says nothing.

    Raises InputError: the table cannot be read, has other columns, skips a frame, or holds a pose that is no finite
    rigid motion and is not marked invalid.
    """
    path = Path(path)
    poses, valid, said = [], [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream)
            header = tuple(word.strip() for word in next(rows, ()))
            if header not in (_HEADER, (*_HEADER, *_MARKS)):
                raise InputError(f"{path} is not a trajectory table; its first line must be {','.join(_HEADER)}.")
            columns = len(header)
            for row in rows:
                if row:
                    pose, is_valid = _parsed(row, columns, len(poses), f"{path}, line {rows.line_num}")
                    poses.append(pose)
                    valid.append(is_valid)
                    said.append([word.strip() for word in row[len(_HEADER) :]])
    except OSError as error:
        raise InputError(f"Cannot read the trajectory {path}: {error.strerror or error}.") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path} is not a trajectory table: it is not text.") from None
    if not poses:
        raise InputError(f"{path} holds no poses; write the trajectory again.")
    try:
        trajectory = Trajectory(np.array(poses), np.array(valid), provenance={"source": path.name})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    columns = zip(_MARKS, *said, strict=False)
    marks = {name: " and ".join(dict.fromkeys(filter(None, words))) for name, *words in columns}
    marks[ORIGIN] = PoseOrigin.worst(words[0] if words else "" for words in said).value
    return marked(trajectory, marks, PoseOrigin.UNKNOWN)[0]


def _parsed(row: list[str], columns: int, frame: int, where: str) -> tuple[np.ndarray, bool]:
    """Pose [4, 4] and validity of one line."""
    if len(row) != columns:
        raise InputError(f"{where} has {len(row)} columns; expected {columns}. Copy the file again.")
    if row[0].strip() != str(frame):
        raise InputError(f"{where} is about frame {row[0].strip()[:20]!r}; expected {frame}, every frame in order.")
    if row[2].strip() not in ("0", "1"):
        raise InputError(f"{where} says valid = {row[2][:20]!r}; expected 0 or 1.")
    valid = row[2].strip() == "1"
    try:
        pose = np.array([float(word) for word in row[3 : len(_HEADER)]]).reshape(4, 4)
    except ValueError:
        raise InputError(f"{where} holds a word that is no number.") from None
    if valid and not np.isfinite(pose).all():
        raise InputError(f"{where} holds a pose that is not finite; set valid to 0 to leave it out.")
    return pose, valid
