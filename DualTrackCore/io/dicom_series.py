"""Folders and directories (DICOMDIR) of DICOM objects, and the choice of one sweep among them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from DualTrackCore.errors import DualTrackError, InputError, named
from DualTrackCore.io.dicom_codecs import is_video
from DualTrackCore.io.dicom_file import is_dicom, number, opened
from DualTrackCore.io.image_stack import natural_key

if TYPE_CHECKING:
    from pydicom import Dataset

#: SOP class of a DICOMDIR.
_DIRECTORY_CLASS = b"1.2.840.10008.1.3.10"

_DIRECTORY = "DICOMDIR"
#: First bytes that identify a DICOM object, and number of series that a message lists.
_HEAD_BYTES, _MOST_LISTED = 4096, 8


@dataclass(frozen=True)
class Series:
    """Objects of one sweep.

    Attributes:
        paths: the files in the order of the frames: one of many frames, or many of one frame.
        heads: each data set without its pixels.
        notes: sentences for the user.
    """

    paths: list[Path]
    heads: list[Dataset]
    notes: list[str]


def holds_dicom(folder: Path) -> bool:
    """Whether a folder has a DICOMDIR, or most of its files are DICOM."""
    files = _files(folder)
    return any(file.name == _DIRECTORY for file in files) or 2 * sum(map(_is_object, files)) > len(files)


def is_directory(path: Path) -> bool:
    """Whether a DICOM file lists others (DICOMDIR)."""
    with path.open("rb") as stream:
        return _DIRECTORY_CLASS in stream.read(_HEAD_BYTES)


def find_series(place: Path, wanted: str | None) -> Series:
    """The only series of a folder or of a DICOMDIR, or the one chosen by `wanted`.

    Args:
        place: the folder, or the DICOMDIR.
        wanted: the number of the series in the list of all, its UID, its description, or the name of its file; or None.

    Raises InputError: nothing to read, several series and none chosen, or none of that name.
    """
    directory = place / _DIRECTORY if place.is_dir() else place
    files = _listed(directory) if directory.is_file() else [file for file in _files(place) if _is_object(file)]
    heads, notes = _heads(files)
    groups = _grouped(heads)
    if not groups:
        raise InputError(f"{place.name} lists or holds no DICOM pictures that are there; copy all of its files.")
    chosen = groups[0] if len(groups) == 1 and wanted is None else _chosen(place, groups, wanted)
    paths, order_notes = _ordered(chosen)
    if len(groups) > 1:
        notes.append(f"Read series {groups.index(chosen) + 1} of {len(groups)}: {_described(chosen)}.")
    return Series(paths, [chosen[path] for path in paths], notes + order_notes)


def frame_count(dataset: Dataset, notes: list[str]) -> int:
    """The number of frames that an object announces."""
    count = number(dataset, "NumberOfFrames", notes)
    return 1 if count is None else int(count)


#: Objects of one sweep by their files.
_Objects = dict[Path, "Dataset"]


def _files(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        files = [entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")]
        return sorted(files, key=lambda file: natural_key(file.name))
    return []


def _is_object(file: Path) -> bool:
    with contextlib.suppress(OSError), file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        return is_dicom(head) and _DIRECTORY_CLASS not in head
    return False


def _listed(directory: Path) -> list[Path]:
    """The existing files that a DICOMDIR names, in its folder or below."""
    with opened(directory) as (dataset, _):
        records = dataset.get("DirectoryRecordSequence") or []
        names = [record.get("ReferencedFileID") for record in records if record.get("ReferencedFileID")]
    root = directory.parent.resolve()
    files = []
    for name in names:
        parts = [name] if isinstance(name, str) else list(name)
        ways = (root.joinpath(*parts), root.joinpath(*map(str.lower, parts)))
        file = next((way for way in ways if way.is_file()), None)
        if file is not None and root in file.resolve().parents and _is_object(file):
            files.append(file)
    return list(dict.fromkeys(files))


def _heads(files: Iterable[Path]) -> tuple[_Objects, list[str]]:
    """Objects with pixels, each once, and notes about the other files."""
    heads: dict[object, tuple[Path, Dataset]] = {}
    left_out, notes = [], []
    for file in files:
        with contextlib.suppress(DualTrackError), opened(file) as (dataset, _):
            if dataset.get("Rows") and dataset.get("Columns") and "PixelData" in dataset:
                del dataset.PixelData
                heads.setdefault(dataset.get("SOPInstanceUID") or file, (file, dataset))
                continue
        left_out.append(file.name)
    if left_out:
        notes.append(f"Left out {len(left_out)} files without pictures that can be read, such as {left_out[0]}.")
    return dict(heads.values()), notes


def _grouped(heads: _Objects) -> list[_Objects]:
    """Sweeps: every object of several frames, and objects of one frame by series and size."""
    groups: dict[object, _Objects] = {}
    for path, head in heads.items():
        alone = frame_count(head, []) > 1 or is_video(str(head.file_meta.get("TransferSyntaxUID")))
        key = path if alone else (head.get("SeriesInstanceUID"), int(head.Rows), int(head.Columns))
        groups.setdefault(key, {})[path] = head
    return sorted(groups.values(), key=_place)


def _place(objects: _Objects) -> tuple[float, float, list[tuple[int, int, str]]]:
    path, head = next(iter(objects.items()))
    first = min((number(head, "InstanceNumber", []) or 0) for head in objects.values())
    return number(head, "SeriesNumber", []) or 0, first, natural_key(path.name)


def _chosen(place: Path, groups: list[_Objects], wanted: str | None) -> _Objects:
    matches = [objects for index, objects in enumerate(groups) if wanted in _names(index, objects)]
    if len(matches) == 1:
        return matches[0]
    listed = "; ".join(f"{index + 1}: {_described(objects)}" for index, objects in enumerate(groups[:_MOST_LISTED]))
    more = f"; and {len(groups) - _MOST_LISTED} more" if len(groups) > _MOST_LISTED else ""
    hint = "" if wanted is None else f", and {wanted!r} names {len(matches)} of them"
    raise InputError(
        f"{place.name} holds {len(groups)} series ({listed}{more}){hint}; choose one by number ({named('series')})."
    )


def _names(index: int, objects: _Objects) -> set[str]:
    """Names of a series: number, UID, description, and for a single file its name."""
    path, head = next(iter(objects.items()))
    names = {str(index + 1), str(head.get("SeriesInstanceUID")), str(head.get("SeriesDescription"))}
    return names | ({path.name, path.stem} if len(objects) == 1 else set())


def _described(objects: _Objects) -> str:
    path, head = next(iter(objects.items()))
    count = frame_count(head, []) if len(objects) == 1 else len(objects)
    name = str(head.get("SeriesDescription") or "").strip()
    frames = "one frame" if count == 1 else f"{count} frames"
    file = f" in {path.name}" if len(objects) == 1 else ""
    return f"{frames} of {head.Columns} x {head.Rows} pixels{file}" + (f", {name}" if name else "")


def _ordered(objects: _Objects) -> tuple[list[Path], list[str]]:
    """The files in the order of their instance numbers, or of their names if instance numbers are not unique."""
    by_name = sorted(objects, key=lambda path: natural_key(os.path.basename(path)))
    if len(by_name) == 1:
        return by_name, []
    numbers = {path: number(head, "InstanceNumber", []) for path, head in objects.items()}
    stated = [value for value in numbers.values() if value is not None]
    if len(set(stated)) < len(by_name):
        return by_name, ["The frames have no instance numbers of their own; took them in the order of their names."]
    missing = int(max(stated) - min(stated)) + 1 - len(stated)
    notes = [f"Instance numbers that are missing between the first and the last: {missing}."] if missing > 0 else []
    return sorted(by_name, key=lambda path: numbers[path]), notes
