"""Checks of a data set: missing, truncated and inconsistent files."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from DualTrackCore.errors import DatasetError, InputError, OutOfMemoryError, SweepError, named
from DualTrackCore.files import file_identity
from DualTrackCore.memory import is_out_of_memory
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter, Stage
from DualTrackCore.research.datasets.dataset import COPY_AGAIN, Dataset, Entry, Finding, overlaps
from DualTrackCore.research.datasets.entries import SimulatedEntry
from DualTrackCore.research.datasets.opening import declared, find_layout
from DualTrackCore.sweep import Sweep

#: Errors while reading a file that are findings about the file.
_FAULTS = (InputError, OutOfMemoryError, OSError)
#: Frames are read in windows of about this many bytes.
_WINDOW_BYTES = 1 << 24


def check_dataset(
    place: str | Path,
    *,
    split: str | None = None,
    calibration: str | Path | None = None,
    poses_are: str | None = None,
    deep: bool = False,
    tolerated: float = 0.0,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> list[Finding]:
    """Check every file of a data set.

    Args:
        place, split, calibration, poses_are: as for
            :func:`~DualTrackCore.research.datasets.open_dataset`, without simulated sweeps.
        deep: read every frame; else only the first, the middle and the last one of each sweep. All tables, poses and
            landmarks are always read. Memory holds one window of frames at a time.
        tolerated: largest fraction of frames of a sweep without a pose or an image, 0 to 1.
        progress: receives `Stage.CHECKING` (sweeps).
        cancelled: asked before every window of frames.

    Returns:
        The findings, first those of the set, then sweep by sweep; empty for a data set without faults.

    Raises:
        DatasetError: there is no data set at the place, or `tolerated` is out of range.
        Cancelled: the caller asked to stop.
    """
    _require_fraction(tolerated)
    layout, reporter = find_layout(place, calibration=calibration), Reporter(progress, cancelled)
    entries = declared(layout.entries(), poses_are)
    findings = [*layout.findings(), *overlaps(entries)]
    if split is not None:
        entries = tuple(entry for entry in entries if entry.split == split)
        if not entries:
            findings.append(Finding(Path(place), None, f"the split {split} is empty", "add sweeps to it"))
    sizes: list[tuple[Entry, tuple[int, int]]] = []
    contents: dict[bytes, Entry] = {}
    for entry in _each(entries, reporter):
        problems, sweep = examine(layout.examined(entry), deep, tolerated, reporter)
        first = entry if problems or sweep is None else contents.setdefault(content_of(sweep), entry)
        if first is not entry and file_identity(first.path) != file_identity(
            entry.path
        ):  # the same file is among the overlaps
            problem = f"it shows and moves as {first.name} ({first.path}) does: one is a copy"
            problems = [Finding(entry.path, entry.name, problem, "keep one of the two")]
        findings += problems
        if sweep is not None:
            sizes.append((entry, sweep.frame_size))
    return findings + _odd_sizes(sizes)


def content_of(sweep: Sweep) -> bytes:
    """What a sweep and its copies have in common, whatever their names and formats: first frame, number, path."""
    said = f"{sweep.frames.shape} {sweep.tracked.path_length_mm:.3f}".encode()
    return hashlib.sha256(said + sweep.window(0, 1).tobytes()).digest()


def usable(
    dataset: Dataset,
    on_bad: str = "refuse",
    *,
    deep: bool = False,
    tolerated: float = 0.0,
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> tuple[Dataset, list[Finding]]:
    """The usable sweeps of a data set, and findings about the others.

    Args:
        dataset: its simulated sweeps are not checked.
        on_bad: "refuse" raises if a sweep cannot be used; "skip" leaves such sweeps out and names them.
        deep, tolerated, progress, cancelled: as for :func:`check_dataset`.

    Raises DatasetError: a sweep cannot be used and `on_bad` is "refuse", or no sweep can be used.
    """
    if on_bad not in ("refuse", "skip"):
        raise DatasetError(f"on_bad is {on_bad!r}; choose refuse or skip.")
    _require_fraction(tolerated)
    reporter = Reporter(progress, cancelled)
    problems = {entry.name: examine(entry, deep, tolerated, reporter)[0] for entry in _each(dataset, reporter)}
    findings = [finding for of_sweep in problems.values() for finding in of_sweep]
    good = [name for name, of_sweep in problems.items() if not of_sweep]
    if findings and on_bad == "refuse":
        raise DatasetError(
            f"{len(dataset) - len(good)} of {len(dataset)} sweeps of {dataset.name} cannot be used, the first: "
            f"{findings[0]} Mend them, or leave them out with {named('on_bad', 'skip')}."
        )
    if not good:
        raise DatasetError(f"None of the {len(dataset)} sweeps of {dataset.name} can be used, the first: {findings[0]}")
    return dataset.subset(good), findings


def _each(entries: Collection[Entry], reporter: Reporter) -> Iterator[Entry]:
    """Yield the entries and report the progress."""
    for done, entry in enumerate(entries):
        reporter.report(Stage.CHECKING, done, len(entries))
        yield entry
    reporter.report(Stage.CHECKING, len(entries), len(entries))


def examine(entry: Entry, deep: bool, tolerated: float, reporter: Reporter) -> tuple[list[Finding], Sweep | None]:
    """Findings about one sweep, and the sweep, None if it cannot be opened or is simulated.

    Raises Cancelled: the caller asked to stop.
    """
    if isinstance(entry, SimulatedEntry):
        return [], None
    try:
        sweep = entry.load()
    except _FAULTS as error:
        return [_fault(entry, error)], None
    findings = _of_poses(entry, sweep, tolerated)
    try:
        _read_frames(sweep, deep, reporter)
    except _FAULTS as error:
        findings.append(_fault(entry, error))
    try:
        entry.landmarks(sweep)
    except _FAULTS as error:
        findings.append(_fault(entry, error, getattr(entry, "landmark_file", None)))
    return findings, sweep


def _of_poses(entry: Entry, sweep: Sweep, tolerated: float) -> list[Finding]:
    """Findings about the number of frames, and about frames without a pose or an image."""
    tracked, count = sweep.tracked, len(sweep)
    if count < 2:
        return [Finding(entry.path, entry.name, "it has 1 frame, and a trajectory needs 2", "leave the sweep out")]
    bad = ~tracked.valid | ~sweep.frame_valid
    lost = int(bad.sum())
    if lost <= tolerated * count and count - lost >= 2:
        return []
    not_finite = int((~tracked.valid & ~np.isfinite(tracked.poses).all(axis=(1, 2))).sum())
    reasons = {
        "poses that are not finite": not_finite,
        "poses that are invalid or not rigid": int((~tracked.valid).sum()) - not_finite,
        "frames marked as missing": int((~sweep.frame_valid).sum()),
    }
    counted = ", ".join(f"{number} {what}" for what, number in reasons.items() if number)
    problem = f"{lost} of {count} frames cannot be used, the first is frame {int(np.argmax(bad))} ({counted})"
    return [Finding(entry.path, entry.name, problem, "cut these frames off, leave the sweep out, or tolerate them")]


def _read_frames(sweep: Sweep, deep: bool, reporter: Reporter) -> None:
    """Read all frames in windows, or three frames; raises the error of what cannot be read."""
    height, width = sweep.frame_size
    size = max(1, _WINDOW_BYTES // (height * width))
    starts = range(0, len(sweep), size) if deep else sorted({0, len(sweep) // 2, len(sweep) - 1})
    for start in starts:
        reporter.check()
        window = sweep.window(start, min(start + (size if deep else 1), len(sweep)))
        window.max()  # reads the pages of a mapped file


def _fault(entry: Entry, error: Exception, path: Path | None = None) -> Finding:
    """The finding for an error."""
    path = entry.path if path is None else path
    if is_out_of_memory(error):
        remedy = f"close other programs, or allow more ({named('memory_gb')})"
        return Finding(path, entry.name, "needs more memory than there is", remedy, str(error))
    if isinstance(error, SweepError):
        return Finding(path, entry.name, error.problem, error.remedy, error.reason)
    return Finding(path, entry.name, "cannot be read", COPY_AGAIN, str(error))


def _odd_sizes(sizes: list[tuple[Entry, tuple[int, int]]]) -> list[Finding]:
    """Findings about sweeps whose frame size differs from that of most."""
    if not sizes:
        return []
    height, width = Counter(size for _, size in sizes).most_common(1)[0][0]
    findings = []
    for entry, size in sizes:
        if size != (height, width):
            problem = f"its frames have {size[1]} x {size[0]} pixels, those of most sweeps {width} x {height}"
            findings.append(Finding(entry.path, entry.name, problem, "crop them alike, or leave the sweep out"))
    return findings


def _require_fraction(tolerated: float) -> None:
    if not 0 <= tolerated <= 1:
        raise DatasetError(f"The tolerated fraction of frames without a pose is {tolerated}; it must lie in 0 to 1.")
