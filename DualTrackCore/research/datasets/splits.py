"""Which sweeps are for training and which for validation: as a file says, or dealt by subject.

Never by the name of a folder: those of the challenges name their contents, not the use that is made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from DualTrackCore.errors import DatasetError, named
from DualTrackCore.research.datasets.dataset import Dataset, Entry
from DualTrackCore.research.datasets.opening import NAME_COLUMN, SPLIT_COLUMN, SUBJECT_COLUMN, table_rows

#: Word in place of a split: the subjects are dealt.
BY_SUBJECT = "by-subject"
TRAINING, VALIDATION, TEST = "train", "val", "test"


def with_said_splits(dataset: Dataset, path: str | Path) -> Dataset:
    """The data set with the splits, the subjects or both that a CSV file says.

    Args:
        path: has the columns `split`, `subject` or both, and `sweep_id` where rows name sweeps and not subjects. Rows
            of others than those in the data set are ignored; an empty field keeps what the data set says.

    Raises DatasetError: the file cannot be read, lacks the columns, says two things of one name, or leaves a sweep out.
    """
    said: dict[str, dict[str, str]] = {}
    rows = table_rows(Path(path))
    columns = set(rows[0] if rows else ())
    key = NAME_COLUMN if NAME_COLUMN in columns else SUBJECT_COLUMN
    if key not in columns or not columns & ({SPLIT_COLUMN, SUBJECT_COLUMN} - {key}):
        raise DatasetError(f"{path} needs the column {NAME_COLUMN} or {SUBJECT_COLUMN}, and the column {SPLIT_COLUMN}.")
    for row in rows:
        row = {name: (value or "").strip() for name, value in row.items() if name}
        if said.setdefault(row[key], row) != row:
            raise DatasetError(f"{path} says two things of {row[key]}; keep one of the rows.")
    entries = []
    for entry in dataset:
        row = said.get(entry.name if key == NAME_COLUMN else entry.subject or "")
        if row is None:
            who = "" if key == NAME_COLUMN else f", of the subject {entry.subject or 'that its name does not tell'},"
            raise DatasetError(f"{path} has no row for the sweep {entry.name}{who}; add one.")
        split, subject = row.get(SPLIT_COLUMN) or entry.split, row.get(SUBJECT_COLUMN) or entry.subject
        entries.append(replace(entry, split=split, subject=subject))
    return Dataset(dataset.name, entries)


def dealt(entries: Sequence[Entry], folds: int, seed: int) -> list[dict[str, str]]:
    """For each fold, the split of every sweep by its name: validation for a part of the subjects, else training.

    Every subject is in the validation of one fold; the parts differ by one subject at most, and depend on the names of
    the subjects and the seed alone. Sweeps of the split "test" stay what they are.

    Raises DatasetError: a sweep without a subject, fewer than 2 folds, or more than subjects.
    """
    entries = [entry for entry in entries if entry.split != TEST]
    if nameless := [entry.name for entry in entries if entry.subject is None]:
        raise DatasetError(
            f"Nothing says of whom the sweep {nameless[0]} is; put the recordings of each subject into a folder of its "
            f"own, or give {named('splits')}, a CSV file of {NAME_COLUMN} and {SUBJECT_COLUMN}."
        )
    subjects = sorted({entry.subject for entry in entries})
    if not 2 <= folds <= len(subjects):
        raise DatasetError(f"{folds} folds were asked for, of {len(subjects)} subjects; give 2 folds to one a subject.")
    turn = {subject: i % folds for i, subject in enumerate(np.random.default_rng(seed).permutation(subjects).tolist())}
    return [
        {entry.name: VALIDATION if turn[entry.subject] == fold else TRAINING for entry in entries}
        for fold in range(folds)
    ]
