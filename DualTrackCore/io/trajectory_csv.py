"""Trajectories as plain tables: one line per frame, in full precision, for spreadsheets and other programs."""

from __future__ import annotations

import csv
from collections.abc import Generator
from os import PathLike
from pathlib import Path

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.files import replacing
from DualTrackCore.io.pose_marks import BY_RULE, CORRELATION, FIELDS, FREEDOM, ORIGIN, marked, origin_marks
from DualTrackCore.path_error import CORRECTIONS, TRUST
from DualTrackCore.progress import finished
from DualTrackCore.trajectory import PoseOrigin, Trajectory

_HEADER = ("frame", "timestamp_s", "valid", *(f"m{row}{column}" for row in range(4) for column in range(4)))
#: Optional columns: marks of the poses, the origin first. These marks and the errors are written only if known; a table
#: of another program may lack all of them.
_WHERE_KNOWN = (TRUST, CORRELATION, FREEDOM, BY_RULE, CORRECTIONS)
_MARKS = tuple(name for name in FIELDS if name not in _WHERE_KNOWN)
_SIGMA = (*(f"sigma_t{axis}_mm" for axis in "xyz"), *(f"sigma_r{axis}_deg" for axis in "xyz"))
_COVARIANCE = ("variance_length_mm2", *(f"covariance_{axes}_mm2" for axes in ("xx", "xy", "xz", "yy", "yz", "zz")))
#: Lines that are written at a time.
_TOGETHER = 200
_KNOWN = frozenset((*FIELDS, *_SIGMA, *_COVARIANCE))


def write_trajectory_csv(trajectory: Trajectory, path: str | PathLike, timestamps_s: np.ndarray | None = None) -> None:
    """Write frame, timestamp_s, valid (1 or 0), the 16 numbers of frame0_from_image (mm) row by row, and the origin.

    Model, checksum and warnings of estimated poses are in the line of the first frame. If known, the standard
    deviations of the motions follow, each in the line of the frame that the motion leads to; and for a corrected path,
    the variance of its length and the covariance of each position. Numbers have 17 significant digits, so reading gives
    the same values. Unknown values are empty.

    Args:
        trajectory: N poses.
        path: the file; it appears complete or not at all.
        timestamps_s: [N] s, or None if unknown.

    Raises:
        InputError: another number of times than poses.
        OutputError: the file cannot be written.
    """
    finished(writing_trajectory_csv(trajectory, path, timestamps_s))


def writing_trajectory_csv(
    trajectory: Trajectory, path: str | PathLike, timestamps_s: np.ndarray | None = None
) -> Generator[None, None, None]:
    """Do as :func:`write_trajectory_csv` in pieces of some milliseconds."""
    count = len(trajectory)
    times = [""] * count
    if timestamps_s is not None:
        if len(timestamps_s) != count:
            raise InputError(f"{count} poses came with {len(timestamps_s)} times; the numbers must be equal.")
        times = [f"{time:.17g}" for time in timestamps_s]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="ascii") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        marks = origin_marks(trajectory)
        names = [*_MARKS, *(name for name in _WHERE_KNOWN if name in marks)]
        sigma, covariance = trajectory.sigma, trajectory.path_covariance
        columns = *(() if sigma is None else _SIGMA), *(() if covariance is None else _COVARIANCE)
        writer.writerow((*_HEADER, *names, *columns))
        first = [marks.get(name, "") for name in names]
        later = [marks[ORIGIN], *[""] * (len(names) - 1)]
        sigma = np.empty((count, 0)) if sigma is None else np.vstack([np.full(6, np.nan), sigma])
        table = np.hstack([sigma, np.empty((count, 0)) if covariance is None else covariance])
        rows = zip(times, trajectory.valid, trajectory.poses.reshape(count, 16), table, strict=True)
        for frame, (time, valid, pose, errors) in enumerate(rows):
            if frame % _TOGETHER == 0:
                yield
            errors = ("" if np.isnan(value) else f"{value:.17g}" for value in errors)
            poses = (f"{value:.17g}" for value in pose)
            writer.writerow([frame, time, int(valid), *poses, *(later if frame else first), *errors])


def read_trajectory_csv(path: str | PathLike) -> Trajectory:
    """The trajectory of a table of :func:`write_trajectory_csv`, frame0_from_image, mm.

    Its origin is the worst of all lines, and unknown if a line states none.

    Raises InputError: the table cannot be read, has other columns, skips a frame, or a valid pose is not rigid.
    """
    path = Path(path)
    poses, valid, marks_of, errors = [], [], [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream)
            header = tuple(word.strip() for word in next(rows, ()))
            names = header[len(_HEADER) :]
            if header[: len(_HEADER)] != _HEADER or not set(names) <= _KNOWN or len(set(names)) < len(names):
                raise InputError(f"{path} is not a trajectory table; its first line must be {','.join(_HEADER)}.")
            columns = len(header)
            for row in rows:
                if row:
                    where = f"{path}, line {rows.line_num}"
                    pose, is_valid = _parsed(row, columns, len(poses), where)
                    poses.append(pose)
                    valid.append(is_valid)
                    marks_of.append(dict(zip(names, (word.strip() for word in row[len(_HEADER) :]), strict=True)))
                    errors.append([_number(marks_of[-1].get(name) or "nan", where) for name in (*_SIGMA, *_COVARIANCE)])
    except OSError as error:
        raise InputError(f"Cannot read the trajectory {path}: {error.strerror or error}.") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path} is not a trajectory table: it is not text.") from None
    if not poses:
        raise InputError(f"{path} holds no poses; write the trajectory again.")
    table, source = np.array(errors), {"source": path.name}
    sigma = table[1:, :6] if _SIGMA[0] in names else None
    covariance = table[:, 6:] if _COVARIANCE[0] in names else None
    try:
        trajectory = Trajectory(np.array(poses), np.array(valid), None, source, sigma=sigma, path_covariance=covariance)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    marks = {n: " and ".join(dict.fromkeys(filter(None, (row[n] for row in marks_of)))) for n in names if n in FIELDS}
    marks[ORIGIN] = PoseOrigin.worst(row.get(ORIGIN, "") for row in marks_of).value
    return marked(trajectory, marks, PoseOrigin.UNKNOWN, sigma, covariance)[0]


def _parsed(row: list[str], columns: int, frame: int, where: str) -> tuple[np.ndarray, bool]:
    """Pose [4, 4] and validity of one line."""
    if len(row) != columns:
        raise InputError(f"{where} has {len(row)} columns; expected {columns}. Copy the file again.")
    if row[0].strip() != str(frame):
        raise InputError(f"{where} is about frame {row[0].strip()[:20]!r}; expected {frame}, every frame in order.")
    if row[2].strip() not in ("0", "1"):
        raise InputError(f"{where} says valid = {row[2][:20]!r}; expected 0 or 1.")
    valid = row[2].strip() == "1"
    pose = np.array([_number(word, where) for word in row[3 : len(_HEADER)]]).reshape(4, 4)
    if valid and not np.isfinite(pose).all():
        raise InputError(f"{where} holds a pose that is not finite; set valid to 0 to leave it out.")
    return pose, valid


def _number(word: str, where: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise InputError(f"{where} holds a word that is no number.") from None
