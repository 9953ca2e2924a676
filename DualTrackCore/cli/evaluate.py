"""`dualtrack evaluate`: methods side by side on a data set, with tables, tests between them and a report."""

from __future__ import annotations

import os
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DualTrackCore.cli.console import Console, plural
from DualTrackCore.errors import Cancelled, CheckpointError, InputError, MissingDependencyError, OutputError
from DualTrackCore.files import recorded_files, require_apart, staged_folder
from DualTrackCore.network.catalogue import DEFAULT_MODEL

if TYPE_CHECKING:
    from DualTrackCore.research.comparison import Comparison, Method
    from DualTrackCore.research.datasets import Dataset

#: Folder of the finished items in the output folder.
ITEMS = "items"
_WORDS = ("held-out", "simulated", "acquisitions")
#: What an evaluation may leave in its folder beside the items.
FILES = (
    *("evaluation.json", "pairs.csv", "summary.csv", "sweeps.csv", "table.md"),
    *("report.html", "errors.png", "growth.png"),
)


def evaluate(options: Namespace, console: Console) -> None:
    """Run the methods, write tables and report, print the table."""
    from DualTrackCore.research.comparison import make_methods, run_methods
    from DualTrackCore.research.comparison.methods import SIMPLE, require_method_names
    from DualTrackCore.research.comparison.result_files import item_files

    target = Path(options.output)
    _require(options, target, console)
    require_method_names(options.method or ())
    dataset = _dataset(options.dataset, options, options.count, options.split)
    networks = _networks(options, console)
    try:
        methods = make_methods(
            list(dict.fromkeys(options.method or (*SIMPLE, *networks))),
            lambda: _dataset(options.calibrate, options, options.calibration_count, options.calibrate_split),
            networks=networks,
            device=options.device,
            progress=console.progress,
        )
        result = run_methods(
            methods,
            dataset,
            target / ITEMS,
            workers=options.workers,
            threads=options.threads,
            cluster=options.cluster,
            tls=_tls(options) if options.cluster_ca else None,
            resume=not options.fresh,
            on_bad=options.on_bad,
            tus_rec_pixels=options.tus_rec_pixels,
            progress=console.progress,
            cancelled=console.cancelled,
        )
        files = _write(result, dataset, options, target, console)
    except (Cancelled, KeyboardInterrupt):
        kept = len(item_files(target / ITEMS))
        raise Cancelled(
            f"Cancelled; {plural(kept, 'finished result')} of single sweeps are kept in {target / ITEMS}; run the same "
            "command again to go on."
        ) from None
    _say(result, dataset, target, files, console)


def _require(options: Namespace, target: Path, console: Console) -> None:
    """Raise for options that do not go together and for a folder that cannot be written, before the work starts."""
    for places, what in ((options.dataset, "DATASET"), (options.calibrate, "--calibrate")):
        if any(word in places for word in _WORDS) and len(places) > 1:
            raise InputError(f"{what} is either {' or '.join(_WORDS)}, or one or more places, not both.")
    if options.workers < 1 or (options.threads is not None and options.threads < 1):
        raise InputError("--workers and --threads must be at least 1.")
    if options.cluster and options.workers > 1:
        raise InputError("Give either --workers, for processes here, or --cluster, for workers elsewhere.")
    named = [method.partition(":")[2] for method in options.method or ()]
    inputs = [place for place in (*options.dataset, *options.calibrate) if place not in _WORDS]
    inputs += [path for path in (*named, options.calibration) if path and os.path.isfile(path)]
    require_apart([target, *(target / name for name in FILES)], inputs)
    _require_tls(options, console)
    if target.exists() and not target.is_dir():
        raise OutputError(f"Cannot write into {target}: it is a file; choose another folder.")
    existing = next(path for path in (target.absolute(), *target.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        raise OutputError(f"Cannot write into {target}: {existing} is not writable; choose another folder.")


def _require_tls(options: Namespace, console: Console) -> None:
    """Raise for a part of what TLS needs, and say what a cluster without it means."""
    given = [value is not None for value in _tls(options)]
    if any(given) and not (all(given) and (options.cluster or "").startswith("tls://")):
        raise InputError("TLS needs --cluster tls://..., --cluster-ca, --cluster-cert and --cluster-key together.")
    if options.cluster and not options.cluster.startswith("tls://"):
        console.warn(
            f"Whoever can reach the scheduler at {options.cluster} can run programs here and on its workers: use it "
            "only in a network that you trust, or with TLS (--cluster-ca, --cluster-cert, --cluster-key)."
        )


def _tls(options: Namespace) -> tuple[str | None, str | None, str | None]:
    return options.cluster_ca, options.cluster_cert, options.cluster_key


def _dataset(places: Sequence[str], options: Namespace, count: int, split: str | None) -> Dataset:
    """Return the data set at one place, or join those at several."""
    from DualTrackCore.research.datasets import open_dataset, simulated_dataset

    if places[0] in _WORDS:
        if split is not None:
            raise InputError(f"The {places[0]} sweeps have no splits; leave the option out.")
        width, height = options.size
        return simulated_dataset(
            places[0],
            count=count,
            frames=options.frames,
            frame_size=(height, width),
            spacing_mm=options.spacing * 2 if len(options.spacing) == 1 else options.spacing,
            folder=Path(options.cache) if options.cache else Path(options.output) / "sweeps",
        )
    calibration = None if options.calibration is None else Path(options.calibration)
    given = {"split": split, "calibration": calibration, "poses_are": getattr(options, "poses_are", None)}
    opened = [open_dataset(place, **given) for place in places]
    return opened[0] if len(opened) == 1 else _joined(opened)


def _joined(parts: Sequence[Dataset]) -> Dataset:
    """Several data sets as one; names that occur more than once get folders before them."""
    from DualTrackCore.research.comparison.methods import short_names
    from DualTrackCore.research.datasets import Dataset

    entries = [entry for part in parts for entry in part]
    uses = Counter(entry.name for entry in entries)
    short = short_names({str(entry.path) for entry in entries})
    entries = [replace(entry, name=short[str(entry.path)]) if uses[entry.name] > 1 else entry for entry in entries]
    return Dataset(f"{len(parts)} data sets", entries)


def _networks(options: Namespace, console: Console) -> dict[str, Method]:
    """The methods with weights, loaded first: a wrong name is found before anything is run."""
    from DualTrackCore.research.comparison.methods import load_networks

    if options.method is not None:
        return load_networks(options.method, options.device)
    try:
        return load_networks([f"model:{DEFAULT_MODEL}"], options.device)
    except CheckpointError as error:
        console.warn(f"The model {DEFAULT_MODEL!r} is left out: {error}")
        return {}


def _write(result: Comparison, dataset: Dataset, options: Namespace, target: Path, console: Console) -> list[str]:
    from DualTrackCore.research.comparison.table_files import write_tables

    about = _about(options, dataset, result)
    pairs = result.pairs()
    with staged_folder(target, recorded_files(target / "evaluation.json", FILES)) as folder:
        report = []
        try:
            from DualTrackCore.research.report import write_report

            report = write_report(result, pairs, dataset, folder, about, progress=console.progress)
        except MissingDependencyError as error:
            console.warn(f"No report was written: {error}")
        return write_tables(result, pairs, folder, about) + report


def _say(result: Comparison, dataset: Dataset, target: Path, files: Sequence[str], console: Console) -> None:
    from DualTrackCore.research.comparison.table_files import text_table

    console.say(text_table(result))
    console.say(f"\nMeans over sweeps of {dataset.name}, {plural(len(result.sweeps), 'sweep')}.")
    console.say(f"Written to {target}: {', '.join(files)}")
    if len(result.failures) == len(result.rows):
        raise InputError("No method gave a trajectory of any sweep; the reasons are in the table above.")
    for name, reason in result.skipped.items():
        console.warn(f"The sweep {name} was left out: {reason}")
    methods = [
        {"method": s.method, "uses": s.uses, "sweeps": s.sweeps, "failed": list(s.failed)} for s in result.summaries
    ]
    skipped = dict(result.skipped)
    console.result({"output": str(target), "files": list(files), "skipped": skipped, "methods": methods})


def _about(options: Namespace, dataset: Dataset, result: Comparison) -> dict[str, Any]:
    """What was run on what, for the files."""
    from DualTrackCore.research.comparison.table_files import SIMULATED_NOTICE

    about: dict[str, Any] = {"data_set": dataset.name, "sweeps_compared": plural(len(result.sweeps), "sweep")}
    if options.split is not None:
        about["split"] = options.split
    if options.tus_rec_pixels:
        about["pixels"] = "counted from 1 where the calibration is applied, as the code of TUS-REC does"
    if hasattr(options, "poses_are"):
        about["poses_are"] = f"{options.poses_are}, says the user, where the file does not say it"
    if options.dataset[0] in _WORDS:
        width, height = options.size
        spacing = " x ".join(f"{value:g}" for value in options.spacing)
        size = "pixels" if options.dataset[0] == "acquisitions" else f"{width} x {height} pixels"
        about["sweeps_compared"] += f" of {options.frames} frames, {size} of {spacing} mm, simulated"
        about["about_simulation"] = SIMULATED_NOTICE
        if options.dataset[0] == "held-out":
            about["held_out"] = "phantoms, paths and speckle that are not used in training"
        if options.dataset[0] == "acquisitions":
            about["held_out"] = "probes, persistence and tissue that are not drawn in training"
    return about
