"""Trajectories as plain tables: one line a frame, in full precision, for spreadsheets and other programs."""

from __future__ import annotations

import csv
from os import PathLike
from pathlib import Path

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.files import replacing
from DualTrackCore.trajectory import Trajectory

_HEADER = ("frame", "timestamp_s", "valid", *(f"m{row}{column}" for row in range(4) for column in range(4)))


def write_trajectory_csv(trajectory: Trajectory, path: str | PathLike, timestamps_s: np.ndarray | None = None) -> None:
    """Write frame, timestamp_s, valid (1 or 0) and the 16 numbers of frame0_from_image, row by row.

    Numbers have 17 significant digits, so that reading gives the same ones back. What is unknown is left empty.

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
        writer.writerow(_HEADER)
        rows = zip(times, trajectory.valid, trajectory.poses.reshape(count, 16), strict=True)
        for frame, (time, valid, pose) in enumerate(rows):
            writer.writerow([frame, time, int(valid), *(f"{value:.17g}" for value in pose)])


def read_trajectory_csv(path: str | PathLike) -> Trajectory:
    """The trajectory of a table that :func:`write_trajectory_csv` wrote.

    Raises:
        InputError: the table cannot be read, has other columns, skips a frame, or holds a pose that is no finite rigid
            motion and is not marked invalid.
    """
    path = Path(path)
    poses, valid = [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream)
            header = tuple(word.strip() for word in next(rows, ()))
            if header != _HEADER:
                raise InputError(f"{path} is not a trajectory table; its first line must be {','.join(_HEADER)}.")
            for row in rows:
                if row:
                    pose, is_valid = _parsed(row, len(poses), f"{path}, line {rows.line_num}")
                    poses.append(pose)
                    valid.append(is_valid)
    except OSError as error:
        raise InputError(f"Cannot read the trajectory {path}: {error.strerror or error}.") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path} is not a trajectory table: it is not text.") from None
    if not poses:
        raise InputError(f"{path} holds no poses; write the trajectory again.")
    try:
        return Trajectory(np.array(poses), np.array(valid), provenance={"source": path.name})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _parsed(row: list[str], frame: int, where: str) -> tuple[np.ndarray, bool]:
    """Pose [4, 4] and validity of one line."""
    if len(row) != len(_HEADER):
        raise InputError(f"{where} has {len(row)} columns; expected {len(_HEADER)}. Copy the file again.")
    if row[0].strip() != str(frame):
        raise InputError(f"{where} is about frame {row[0].strip()[:20]!r}; expected {frame}, every frame in order.")
    if row[2].strip() not in ("0", "1"):
        raise InputError(f"{where} says valid = {row[2][:20]!r}; expected 0 or 1.")
    valid = row[2].strip() == "1"
    try:
        pose = np.array([float(word) for word in row[3:]]).reshape(4, 4)
    except ValueError:
        raise InputError(f"{where} holds a word that is no number.") from None
    if valid and not np.isfinite(pose).all():
        raise InputError(f"{where} holds a pose that is not finite; set valid to 0 to leave it out.")
    return pose, valid
