"""`dualtrack dataset`: look for what is wrong with a data set, and write it as DualTrack files."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from DualTrackCore.cli.console import Console, plural
from DualTrackCore.errors import Cancelled
from DualTrackCore.files import require_apart
from DualTrackCore.research.datasets import check_dataset, convert_dataset, open_dataset
from DualTrackCore.research.datasets.opening import TABLE_NAME, find_layout


def check(options: Namespace, console: Console) -> bool:
    """Name everything that is wrong; false if anything is."""
    layout = find_layout(options.dataset, calibration=options.calibration)
    count = sum(options.split in (None, entry.split) for entry in layout.entries())
    findings = check_dataset(
        options.dataset,
        split=options.split,
        calibration=options.calibration,
        poses_are=getattr(options, "poses_are", None),
        deep=options.deep,
        tolerated=options.tolerate,
        progress=console.progress,
    )
    for finding in findings:
        console.say(str(finding))
    checked = f"{plural(count, 'sweep')} of the {layout.kind} {options.dataset}."
    console.say(
        f"Found {plural(len(findings), 'problem')} in {checked}" if findings else f"Nothing is wrong: {checked}"
    )
    console.result(
        {
            "dataset": str(options.dataset),
            "layout": layout.kind,
            "sweeps": count,
            "deep": options.deep,
            "findings": [finding.as_json() for finding in findings],
        }
    )
    return not findings


def convert(options: Namespace, console: Console) -> None:
    """Write the sweeps as DualTrack files with their table."""
    calibration = [] if options.calibration is None else [options.calibration]
    require_apart([options.output, Path(options.output, TABLE_NAME)], [options.dataset, *calibration])
    poses_are = getattr(options, "poses_are", None)
    dataset = open_dataset(options.dataset, split=options.split, calibration=options.calibration, poses_are=poses_are)
    try:
        done = convert_dataset(
            dataset,
            options.output,
            on_bad=options.on_bad,
            tolerated=options.tolerate,
            default_split=options.default_split,
            progress=console.progress,
        )
    except KeyboardInterrupt:
        raise Cancelled(
            f"Cancelled; sweeps that are finished stay in {options.output}, and the same command continues from there."
        ) from None
    for finding in done.skipped:
        console.warn(f"Left out {finding.sweep}. {finding}")
    kept = f", kept {len(done.kept)} that an earlier run had written" if done.kept else ""
    skipped = f", left out {len({finding.sweep for finding in done.skipped})}" if done.skipped else ""
    console.say(f"Wrote {plural(len(done.written), 'sweep')}{kept}{skipped}; the table is {done.table}.")
    console.result(
        {
            "table": str(done.table),
            "written": list(done.written),
            "kept": list(done.kept),
            "skipped": [finding.as_json() for finding in done.skipped],
        }
    )
