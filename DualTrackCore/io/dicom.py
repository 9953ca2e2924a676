"""Ultrasound clips in DICOM: a multi-frame object, a series of single frames in a folder, or a DICOMDIR of them.

Frames are unpacked once, one by one, and :func:`~DualTrackCore.grey.grey_clip` stores their grey values: decoders only
go forwards, and so every frame is checked before the work begins.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DualTrackCore.errors import Doubt, DualTrackError, InputError, named, reason_of
from DualTrackCore.grey import grey_clip
from DualTrackCore.io.calibration import choose_pixel_size
from DualTrackCore.io.dicom_codecs import is_video
from DualTrackCore.io.dicom_file import BoundedFile, SpooledBytes, is_dicom, number, opened
from DualTrackCore.io.dicom_pixels import channels, declared_range, require_pixels, valued_frames
from DualTrackCore.io.dicom_region import Region, choose_region
from DualTrackCore.io.dicom_series import Series, find_series, frame_count, holds_dicom, is_directory
from DualTrackCore.io.dicom_times import frame_times, series_times
from DualTrackCore.io.sequence_parts import require_plausible_clip, scanner_facts
from DualTrackCore.memory import naming_memory
from DualTrackCore.pixels import Converted, Spool, WindowSource
from DualTrackCore.sweep import Sweep

if TYPE_CHECKING:
    from pydicom import Dataset

    from DualTrackCore.io.calibration_files import CalibrationSource

FORMAT = "DICOM"

#: Objects with slices of a volume, or of other modalities.
_VOLUME_CLASS = "1.2.840.10008.5.1.4.1.1.6.2"
_OTHER_MODALITIES = {"CT": "a CT image", "MR": "an MR image", "PT": "a PET image", "NM": "a nuclear medicine image"}

#: Bytes of a video stream that are copied at a time.
_COPIED_BYTES = 1 << 20


def recognises(path: Path, head: bytes) -> bool:
    """Whether a file is DICOM, with or without preamble, or a folder holds mostly such files."""
    return is_dicom(head) if head else path.is_dir() and holds_dicom(path)


def read(
    path: Path,
    *,
    calibration: CalibrationSource | None,
    spacing_mm: tuple[float, float] | None,
    series: str | None = None,
) -> Sweep:
    """The sweep of one object, of a folder or of a DICOMDIR: its 2D picture as 8-bit grey, without tracking.

    Args:
        series: the chosen one, if a folder or DICOMDIR holds several.

    Raises:
        InputError: damaged files, objects other than a sweep of B-mode frames, several series and none chosen, or an
            unsupported encoding of pixels.
        MissingDependencyError: a compression that needs the extra `dicom` or `video`.
    """
    try:
        with naming_memory(f"Reading {path.name}"):
            objects = _series(path, series)
            with opened(objects.paths[0]) as (dataset, file):
                notes = [*objects.notes]
                count = _require_readable(objects.paths[0], dataset, notes)
                region = choose_region(objects.paths[0].name, dataset)
                notes += region.notes
                scanner = _scanner(dataset)
                times = None
                syntax = dataset.file_meta.get("TransferSyntaxUID", "")
                if is_video(syntax):
                    frames, region, times = _video(objects.paths[0], file, dataset, region, count, notes)
                else:
                    notes += require_pixels(objects.paths[0], file, dataset, count)
                    frames = _grey(path, dataset, region, objects, notes)
            if len(objects.paths) > 1:
                stated, rate_field = series_times(objects.heads, notes)
            else:
                stated, rate_field = frame_times(dataset, len(frames), notes)
    except DualTrackError:
        raise
    except Exception as error:  # a damaged element raises many types when its value is first read
        raise InputError(f"{path.name} holds DICOM values that cannot be read ({reason_of(error)}).") from error
    _require_picture(path, frames)
    size = choose_pixel_size(region.spacing_mm, calibration, spacing_mm)
    facts: dict[str, object] = {"is_video": True, **scanner} if is_video(syntax) else scanner
    times, facts = (times, facts) if stated is None else (stated, facts | {"rate_field": rate_field})
    sweep = size.sweep(frames, path, FORMAT, list(dict.fromkeys(notes)), facts, timestamps_s=times)
    return sweep if objects.paths == [path] else replace(sweep, files=tuple(map(os.path.abspath, objects.paths)))


def _series(path: Path, wanted: str | None) -> Series:
    """The objects of the sweep in a file, a folder or a DICOMDIR."""
    if path.is_dir() or is_directory(path):
        return find_series(path, wanted)
    if wanted is not None:
        raise InputError(f"{path.name} is one clip; leave out {named('series')}, which is for a folder or a DICOMDIR.")
    return Series([path], [], [])


def scanner_in(path: str | os.PathLike) -> dict[str, object]:
    """Facts on scanner and probe in a DICOM file for a provenance; empty if it cannot be read. Pixels stay unread."""
    with contextlib.suppress(Exception):  # pydicom raises many types
        from pydicom import dcmread

        return _scanner(dcmread(path, stop_before_pixels=True))
    return {}


def _scanner(dataset: Dataset) -> dict[str, object]:
    """Facts on scanner and probe for the provenance; empty if they are damaged."""
    with contextlib.suppress(Exception):  # pydicom's conversion raises many types
        names = ("Manufacturer", "ManufacturerModelName", "TransducerData")
        maker, kind, probe = (" ".join(map(str, np.atleast_1d(dataset.get(name) or ""))) for name in names)
        regions = dataset.get("SequenceOfUltrasoundRegions") or []
        khz = max((number(region, "TransducerFrequency", []) or 0 for region in regions), default=0)
        facts = {"device": f"{maker} {kind}", "transducer": probe, "frequency_mhz": khz / 1000}
        return scanner_facts({**facts, "depth_mm": number(dataset, "DepthOfScanField", [])})
    return {}


def _require_readable(path: Path, dataset: Dataset, notes: list[str]) -> int:
    """The number of frames. Raises InputError: no sweep of B-mode frames, or an implausible size."""
    kind = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    modality = _OTHER_MODALITIES.get(dataset.get("Modality"))
    if kind == _VOLUME_CLASS or modality:
        what = modality or "an ultrasound volume (Enhanced US Volume)"
        raise InputError(f"{path.name} is {what} and no sweep of B-mode frames; choose a 2D ultrasound clip.")
    missing = [name for name in ("Rows", "Columns", "BitsAllocated") if dataset.get(name) is None]
    missing += [] if "PixelData" in dataset else ["PixelData"]
    if missing:
        named = f" ({kind.name})" if kind and kind.name != kind else ""
        raise InputError(f"{path.name} is DICOM{named} without {' and '.join(missing)}; choose an image or a clip.")
    count = frame_count(dataset, notes)
    pixel_bytes = channels(dataset) * max(int(dataset.BitsAllocated) // 8, 1)
    require_plausible_clip(path, count, int(dataset.Rows), int(dataset.Columns), pixel_bytes)
    return count


def _grey(path: Path, first: Dataset, region: Region, objects: Series, notes: list[str]) -> np.ndarray | WindowSource:
    """[N, H, W] uint8 of the region; `notes` receives the conversions of the pixels."""
    inverted = first.PhotometricInterpretation == "MONOCHROME1"
    frames, conversions = grey_clip(
        _images(objects, first, region, notes),
        source=path.name,
        expected=max(len(objects.paths), frame_count(first, [])),
        declared=declared_range(first),
        inverted=inverted,
    )
    notes += conversions
    if inverted:
        notes.append("Inverted the grey values (MONOCHROME1).")
    return frames


def _video(
    path: Path, file: BoundedFile, dataset: Dataset, region: Region, count: int, notes: list[str]
) -> tuple[np.ndarray | WindowSource, Region, np.ndarray | None]:
    """The frames of encapsulated video from the reader of videos, their region, and their times."""
    from pydicom.encaps import parse_basic_offsets, parse_fragments

    from DualTrackCore.io import video

    file.seek(dataset.get_item("PixelData", keep_deferred=True).value_tell)
    parse_basic_offsets(file)
    spool, total = Spool(path.name), 0
    spool.require_room(file.size)
    for start in parse_fragments(file)[1]:
        file.seek(start + 4)
        left = int.from_bytes(file.read(4), "little")
        while piece := file.read(min(left, _COPIED_BYTES)):
            spool.write(piece)
            left, total = left - len(piece), total + len(piece)
    stream = io.BufferedReader(SpooledBytes(spool.finished((total,), np.dtype(np.uint8))))
    if not video.recognises(path, stream.peek(video.HEAD_BYTES)):
        raise InputError(f"{path.name} holds video of a kind that is not read; export it in another format.")
    sweep = video.read(path, calibration=None, spacing_mm=None, inner=stream)
    doubtful = sweep.provenance.get("warnings", ())
    notes += [Doubt(note) if note in doubtful else note for note in sweep.provenance["conversions"]]
    if len(sweep) != count:
        notes.append(f"The file announces {count} frames and its video has {len(sweep)}; took these.")
    height, width = sweep.frame_size
    region = region.scaled(width / int(dataset.Columns), height / int(dataset.Rows))
    frames = sweep.frames if region.bounds is None else Converted(sweep.frames, region.crop)
    return frames, region, sweep.timestamps_s


def _images(objects: Series, first: Dataset, region: Region, notes: list[str]) -> Iterator[np.ndarray]:
    """The frames of all objects of a sweep. Raises InputError: objects of different kinds."""
    for path in objects.paths:
        with opened(path) as (dataset, file):
            count = _require_readable(path, dataset, notes)
            require_pixels(path, file, dataset, count)
            own = choose_region(path.name, dataset)
            alike = (own.bounds, own.spacing_mm) == (region.bounds, region.spacing_mm)
            if not alike or dataset.PhotometricInterpretation != first.PhotometricInterpretation:
                raise InputError(
                    f"{path.name} has another region, pixel size or kind of pixels than {objects.paths[0].name}; "
                    "all frames of a sweep must be alike."
                )
            yield from valued_frames(path, file, dataset, region, count, notes)


def _require_picture(path: Path, frames: np.ndarray | WindowSource) -> None:
    """Raises InputError: all pixels of the clip have the same grey value."""
    grey = frames[:1].flat[0]
    if all((frames[index : index + 1] == grey).all() for index in range(len(frames))):
        raise InputError(
            f"All pixels of {path.name} are of one grey, {grey} of 255, so there is no picture in it; export it again."
        )
