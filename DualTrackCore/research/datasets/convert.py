"""Conversion of a data set of any layout into DualTrack files with a table."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from DualTrackCore.errors import DatasetError, InputError, named
from DualTrackCore.files import replacing, require_apart
from DualTrackCore.io import load_sweep, save_sweep
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage
from DualTrackCore.research.datasets import opening
from DualTrackCore.research.datasets.check import examine, usable
from DualTrackCore.research.datasets.dataset import Dataset, Entry, Finding, overlaps
from DualTrackCore.research.datasets.entries import FileEntry, write_landmarks_csv
from DualTrackCore.research.datasets.splits import TRAINING, dealt
from DualTrackCore.run.preparation import Box, prepare
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.sweep import Sweep

_COLUMNS = (
    *("index", opening.NAME_COLUMN, opening.PATH_COLUMN, opening.SPLIT_COLUMN),
    *(opening.SUBJECT_COLUMN, opening.LANDMARKS_COLUMN),
)
#: A finished file holds the same sweep if poses differ by at most this, in mm and in direction cosines.
_SAME_POSES = 1e-6


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    Attributes:
        table: the metadata CSV; where subjects were dealt, the one of the first fold.
        written: names of the sweeps that were written now.
        kept: names of those from an earlier run.
        skipped: findings about the sweeps that were left out.
    """

    table: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]
    skipped: tuple[Finding, ...]


def convert_dataset(
    dataset: Dataset,
    folder: str | Path,
    *,
    on_bad: str = "refuse",
    tolerated: float = 0.0,
    default_split: str = TRAINING,
    folds: int = 0,
    seed: int = 0,
    mask: tuple[Box, ...] | Literal["auto", "none"] = "auto",
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> Conversion:
    """Write a data set as DualTrack files, `metadata.csv`, and a CSV of landmarks beside each sweep with landmarks.

    A file gets its final name only when it is complete. So an interrupted conversion continues: finished files of the
    same sweep are kept. The table is written last; its rows of other sweeps stay. With folds there is also a table of
    each, `fold-0.csv`, `fold-1.csv`, ..., and `metadata.csv` is the first of them.

    Args:
        dataset: the data set to convert; frames are read in windows.
        folder: for the results; created if missing.
        on_bad: "refuse" writes nothing if a sweep cannot be used; "skip" leaves such sweeps out. Damage that appears
            only when frames are copied stops the conversion, or leaves that sweep out.
        tolerated: as for :func:`~DualTrackCore.research.datasets.check_dataset`.
        default_split: split of sweeps without one.
        folds: if not 0, deal the subjects of the whole table anew (:func:`~DualTrackCore.research.datasets.dealt`).
        seed: of the dealing.
        mask: what is blacked out in every sweep, as of a run: text beside the ultrasound, nothing, or rectangles.
        progress: receives `Stage.CHECKING` and `Stage.CONVERTING` (sweeps).
        cancelled: asked every few frames.

    Raises:
        InputError: an output is a file of the data set, also through a link.
        DatasetError: sweeps cannot be used, two would get the same file name, a subject would be in two splits, the
            subjects cannot be dealt, the folder holds sweeps of the data set itself, or it holds files of other sweeps
            under the same names.
        OutputError: the folder cannot be written.
        Cancelled: the caller asked to stop; finished files stay.
    """
    folder, reporter = Path(folder), Reporter(progress, cancelled)
    targets, others = _targets(dataset, folder), _other_rows(dataset, folder)
    settings = RunSettings(mask=mask)

    def tables(names: Collection[str]) -> dict[str, list[Entry]]:
        rows = [_row(entry, targets[entry.name], default_split) for entry in dataset if entry.name in names]
        return _tables(folder, others + rows, folds, seed)

    tables(dataset.names)  # what cannot be is said before the work
    dataset, skipped = usable(dataset, on_bad, tolerated=tolerated, progress=progress, cancelled=cancelled)
    written, kept = [], []
    for done, entry in enumerate(dataset):
        reporter.report(Stage.CONVERTING, done, len(dataset))
        target = targets[entry.name]
        if _is_finished(entry, target, settings):
            kept.append(entry.name)
            continue
        try:
            _write(entry, target, settings, cancelled)
            written.append(entry.name)
        except InputError as error:
            skipped.append(_damage(entry, tolerated, error, reporter))
            if on_bad == "refuse":
                raise DatasetError(
                    f"{skipped[-1]} {done} of {len(dataset)} sweeps are finished and stay; "
                    f"{named('on_bad', 'skip')} leaves it out."
                ) from error
    made = tables({*written, *kept})
    for name, rows in made.items():
        _write_table(folder / name, rows)
    for path in set(folder.glob("fold-*.csv")) - {folder / name for name in made}:
        path.unlink()  # of more folds than now
    reporter.report(Stage.CONVERTING, len(dataset), len(dataset))
    return Conversion(folder / opening.TABLE_NAME, tuple(written), tuple(kept), tuple(skipped))


def _targets(dataset: Dataset, folder: Path) -> dict[str, Path]:
    """The file of each sweep: its name in the folder, with characters replaced that file names cannot have."""
    targets: dict[str, Path] = {}
    owner: dict[str, str] = {}
    for entry in dataset:
        parents = Path(os.path.realpath(entry.path)).parents if folder.exists() else ()
        if any(os.path.samefile(parent, folder) for parent in parents if parent.exists()):
            raise DatasetError(f"{folder} holds {entry.path} of the data set itself; convert into another folder.")
        parts = [re.sub(r"[^\w.+-]", "_", part).strip(".") or "_" for part in re.split(r"[/\\]", entry.name)]
        target = folder.joinpath(*parts[:-1], f"{parts[-1]}.h5")
        other = owner.setdefault(str(target).lower(), entry.name)
        if other != entry.name:
            raise DatasetError(f"The sweeps {other} and {entry.name} would both be written to {target}; rename one.")
        targets[entry.name] = target
    outputs = [*targets.values(), *map(_landmarks_path, targets.values())]
    require_apart(outputs, [entry.path for entry in dataset])
    return targets


def _is_finished(entry: Entry, target: Path, settings: RunSettings) -> bool:
    """Whether an earlier run has written this sweep; a damaged file counts as not written.

    Raises DatasetError: the file holds another sweep.
    """
    if not target.exists():
        return False
    try:
        written = load_sweep(target)
        written.window(len(written) - 1, len(written))
    except InputError:
        return False
    if not _same(prepare(entry.load(), settings).sweep, written):
        raise DatasetError(
            f"{target} holds another sweep than {entry.path}, or was written with another mask; remove it or choose "
            "another folder."
        )
    return True


def _same(one: Sweep, other: Sweep) -> bool:
    """Whether two sweeps have the same poses and their origin, pixel spacing and first frame."""
    if one.frames.shape != other.frames.shape or other.tracked is None or other.spacing_mm is None:
        return False
    poses, other_poses = one.tracked.relative, other.tracked.relative
    return (
        np.allclose(one.spacing_mm, other.spacing_mm, rtol=1e-6)
        and np.array_equal(one.tracked.valid, other.tracked.valid)
        and one.tracked.origin is other.tracked.origin
        and np.allclose(poses, other_poses, rtol=0, atol=_SAME_POSES, equal_nan=True)
        and np.array_equal(one.window(0, 1), other.window(0, 1))
    )


def _write(entry: Entry, target: Path, settings: RunSettings, cancelled: CancelledCallback | None) -> None:
    sweep = prepare(entry.load(), settings).sweep
    landmarks = entry.landmarks(sweep)
    if landmarks is not None:  # first, so that every finished sweep has its landmarks
        write_landmarks_csv(landmarks, _landmarks_path(target))
    save_sweep(sweep, target, cancelled=cancelled)


def _damage(entry: Entry, tolerated: float, error: InputError, reporter: Reporter) -> Finding:
    """The first finding of a deep check of a sweep that could not be copied."""
    findings, _ = examine(entry, True, tolerated, reporter)
    findings.append(Finding(entry.path, entry.name, "cannot be converted", "copy the file again", str(error)))
    return findings[0]


def _landmarks_path(target: Path) -> Path:
    return target.with_name(f"{target.stem}.landmarks.csv")


def _row(entry: Entry, path: Path, default_split: str) -> FileEntry:
    marks = _landmarks_path(path)
    split = entry.split or default_split
    return FileEntry(entry.name, path, split, entry.subject, landmark_file=marks if marks.is_file() else None)


def _other_rows(dataset: Dataset, folder: Path) -> list[Entry]:
    """Rows of an existing table, without those of the converted sweeps."""
    table = folder / opening.TABLE_NAME
    rows = opening.Table(table).entries() if table.is_file() else ()
    return [row for row in rows if row.name not in dataset.names]


def _tables(folder: Path, rows: list[Entry], folds: int, seed: int) -> dict[str, list[Entry]]:
    """The tables by file names. Raises DatasetError: a subject in two splits, or subjects that cannot be dealt."""
    if not folds and (earlier := sorted(folder.glob("fold-*.csv"))):
        raise DatasetError(f"{earlier[0]} is of subjects that were dealt; deal all of them again.")
    splits = dealt(rows, folds, seed) if folds else [{}]
    made = [[replace(row, split=split.get(row.name, row.split)) for row in rows] for split in splits]
    for finding in overlaps(made[0]):
        raise DatasetError(str(finding))
    named = {f"fold-{number}.csv": table for number, table in enumerate(made)} if folds else {}
    return {opening.TABLE_NAME: made[0], **named}


def _write_table(path: Path, rows: list[Entry]) -> None:
    folder = path.parent

    def below(place: Path | None) -> str:
        return "" if place is None else Path(os.path.relpath(place, folder)).as_posix()

    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for index, row in enumerate(rows):
            fields = [row.name, below(row.path), row.split, row.subject or "", below(row.landmark_file)]
            writer.writerow([index, *fields])
