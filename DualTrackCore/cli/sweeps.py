"""`dualtrack info`, `convert`, `run`, `track` and `reconstruct`: options to settings, and what came of it in words."""

from __future__ import annotations

import contextlib
import csv
import functools
import glob
import itertools
import traceback
import warnings
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from DualTrackCore.cli.console import Console, columns, plural
from DualTrackCore.cli.overview import info_rows, overview_facts
from DualTrackCore.cli.parser import given_settings
from DualTrackCore.cli.serve import models_of
from DualTrackCore.errors import Cancelled, DualTrackError, InputError, SweepWarning
from DualTrackCore.files import replacing, require_apart
from DualTrackCore.io import load_sweep, save_sweep, write_trajectory_csv
from DualTrackCore.memory import naming_memory
from DualTrackCore.path_error import CORRECTIONS
from DualTrackCore.progress import Reporter
from DualTrackCore.reconstruction import seen_text, spacing_text
from DualTrackCore.repeats import find_repeats
from DualTrackCore.run import run as run_clip
from DualTrackCore.run.pipeline import ModelSource, known_poses, settings_model
from DualTrackCore.run.preparation import Preparation, prepare
from DualTrackCore.run.results import RunReport, RunResult, result_paths, results_folder, sweep_facts
from DualTrackCore.run.settings import NOTICE, TRACKED, RunSettings
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import PoseOrigin


def info(options: Namespace, console: Console) -> None:
    """Say what a sweep holds, how it was read, and what a run still needs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SweepWarning)  # they stand among the rows
        prepared = _load(options)
    sweep, area = prepared.sweep, prepared.area
    repeats = find_repeats(sweep, Reporter(console.progress))
    facts = {**sweep_facts(sweep, repeats), **overview_facts(sweep, area)}
    console.say(str(options.sweep))
    console.say(columns(info_rows(sweep, area, repeats)))
    console.result(facts)


def convert(options: Namespace, console: Console) -> None:
    """Write a sweep in another format, with its own poses or those of a file."""
    sweep = _load(options).sweep
    require_apart([options.output], [*sweep.files, *([] if options.poses == TRACKED else [options.poses])])
    poses = None
    if sweep.tracked is not None or options.poses != TRACKED:
        said = RunSettings(**given_settings(options))
        poses = known_poses(sweep, options.poses, said.poses_are, said.direction)
    save_sweep(sweep, options.output, trajectory=poses, progress=console.progress)
    console.say(f"Wrote {plural(len(sweep), 'frame')} to {options.output}.")
    for note in sweep.provenance["prepared"]["done"] if sweep.has_images else ():
        console.say(note)
    if poses is not None and not poses.origin.is_truth:
        remedy = " If a tracker measured them, say --poses-are measured." * (poses.origin is PoseOrigin.UNKNOWN)
        console.warn(f"The poses in it are {poses.origin_text}: no errors are measured against them.{remedy}")
    console.result({"output": str(options.output), "sweep": sweep_facts(replace(sweep, tracked=poses))})


def run(options: Namespace, console: Console) -> bool:
    """Images to trajectory to volume, with pictures and a report; returns whether every sweep could be used.

    Several sweeps get a folder each and one table, summary.csv; none of them stops the others.
    """
    sweeps = _expanded(options.sweeps)
    output = _output(options, sweeps)
    outputs = result_paths(output)
    if len(sweeps) > 1:
        folders = [output / name for name in _folder_names(sweeps)]
        outputs = [output, output / "summary.csv", *itertools.chain(*map(result_paths, folders))]
    settings = settings_of(options, outputs)
    models = models_of(options, settings, console)
    if len(sweeps) > 1:
        sources = itertools.chain.from_iterable(_sources(sweep, settings) for sweep in sweeps)
        require_apart(outputs, itertools.chain(settings.files, sources))
        return _run_several(sweeps, settings, output, console, models)
    _run_into(output, sweeps[0], settings, console, models)
    return True


def reconstruct(options: Namespace, console: Console) -> None:
    """Known poses to volume."""
    output = _output(options, [options.sweep])
    _run_into(output, options.sweep, settings_of(options, result_paths(output)), console)


def _output(options: Namespace, sweeps: Sequence[str]) -> Path:
    """The folder for results that the user names, or one here that is named for the sweep."""
    if options.output is not None:
        return Path(options.output)
    if len(sweeps) > 1:
        raise InputError(f"{len(sweeps)} sweeps were given and no folder for their results; name one: -o DIR.")
    return Path(f"{_folder_names(sweeps)[0]}-result")


def correct(options: Namespace, console: Console) -> None:
    """The result in a folder, corrected by what is known, into another folder."""
    from DualTrackCore.run.correction import correct_result, result_in

    if options.propose_loops:
        _propose_loops(result_in(options.results)[0], console)
        return
    written = result_paths(options.output)
    with results_folder(options.output) as folder:
        given = given_settings(options)
        result = correct_result(options.results, given, Reporter(console.progress), outputs=written)
        report = result.write_files(folder, Reporter(console.progress))
    _say_written(report, result, options.output, console)


def _propose_loops(sweep: Sweep, console: Console) -> None:
    from DualTrackCore.corrections import propose_loops

    found = propose_loops(sweep, sweep.tracked)
    for place, alike in found:
        console.say(f"frames {place.frames[0]} and {place.frames[1]}: pictures alike to {alike:.0%}")
    if found:
        pairs = ";".join(f"{place.frames[0]},{place.frames[1]}" for place, _ in found)
        console.say(f'Look at both pictures of each pair; for those at the same place give --loops "{pairs}".')
    else:
        console.say("No far frames show alike pictures.")
    console.result({"loops": [{"frames": list(place.frames), "alike": alike} for place, alike in found]})


def track(options: Namespace, console: Console) -> None:
    """Images to trajectory."""
    output = Path(options.output)
    if output.suffix.lower() not in (".csv", ".mha", ".nrrd", ".mrb", ".h5", ".hdf5"):
        raise InputError(f"{output.name} is no trajectory file; choose .csv, .igs.mha, .seq.nrrd, .mrb or .h5.")
    settings = settings_of(options, [output], reconstruct=False, evaluate=False)
    models = models_of(options, settings, console)
    result = run_clip(options.sweep, settings, Reporter(console.progress), models=models, outputs=[output])
    sweep, trajectory = result.sweep, result.trajectory
    if output.suffix.lower() == ".csv":
        write_trajectory_csv(trajectory, output, sweep.timestamps_s)
    else:
        save_sweep(sweep, output, trajectory=trajectory, progress=console.progress)
    error = result.report.trajectory["error"]
    sure = "" if error is None else f", {error['text']}"
    console.say(f"The path of {plural(len(sweep), 'frame')} is {trajectory.path_length_mm:.1f} mm long{sure}: {output}")
    console.result({"output": str(output), "trajectory": dict(trajectory.provenance)})


def _load(options: Namespace) -> Preparation:
    settings = RunSettings(**given_settings(options) | {"poses": TRACKED})
    return prepare(load_sweep(options.sweep, **settings.reading), settings)


def _sources(sweep: str, settings: RunSettings) -> list[str]:
    """The files that a sweep is read from; the one that is named where it cannot be read, which its turn will say."""
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [sweep, *load_sweep(sweep, **settings.reading).files]
    return [sweep]


def settings_of(options: Namespace, outputs: Iterable[Path], **fixed: Any) -> RunSettings:
    """The settings of the file given with --config, which no output replaces, with the given options over them."""
    require_apart(outputs, [] if options.config is None else [options.config])
    given = {**given_settings(options), **fixed}
    return RunSettings(**given) if options.config is None else RunSettings.from_yaml(options.config, given)


def _expanded(sweeps: Sequence[str]) -> list[str]:
    """The sweeps, with patterns replaced by what they match, for shells that do not do so."""
    paths = []
    for sweep in sweeps:
        matches = sorted(glob.glob(sweep)) if glob.has_magic(sweep) and not Path(sweep).exists() else [sweep]
        if not matches:
            raise InputError(f"No sweep matches {sweep}; check folder and pattern.")
        paths += matches
    return paths


def _run_into(
    output: Path, sweep: str, settings: RunSettings, console: Console, models: ModelSource = settings_model
) -> None:
    with results_folder(output) as folder:
        written = result_paths(output)
        result = run_clip(sweep, settings, Reporter(console.progress), models=models, outputs=written)
        report = result.write_files(folder, Reporter(console.progress))
    _say_written(report, result, output, console)


def _say_written(report: RunReport, result: RunResult, output: str | Path, console: Console) -> None:
    for note in report.warnings[len(result.report.warnings) :]:
        console.warn(note)
    console.say(_summary(report, Path(output)))
    console.result({"output": str(output), **report.as_dict()})


def _summary(report: RunReport, target: Path) -> str:
    trajectory = report.trajectory
    rows = [("trajectory", f"{trajectory['path_length_mm']:.1f} mm path over {plural(trajectory['poses'], 'frame')}")]
    if trajectory["error"] is not None:
        rows.append(("length", f"{trajectory['path_length_mm']:.1f} mm, {trajectory['error']['text']}"))
    if trajectory["trust"] is not None:
        rows.append(("trust", trajectory["trust"]["text"]))
    if trajectory["direction"] is not None:
        rows.append(("direction", trajectory["direction"]))
    rows += [("corrected", entry["text"]) for entry in trajectory["source"].get(CORRECTIONS, ())]
    if (found := trajectory["source"].get("model_input")) and found["said_by"] != "card":
        rows.append(("input", found["sentence"]))
    if views := trajectory["source"].get("test_time_augmentation"):
        left_out = trajectory["source"]["views_left_out"]
        rows.append(("augmentation", f"mean of the sweep {', '.join(view for view in views if view not in left_out)}"))
        rows.append(("views apart", f"{trajectory['source']['views_apart_mm']:.3g} mm on average"))
    rows += [("pictures", note) for note in (report.sweep["prepared"] or {}).get("done", ())]
    if report.volume is not None:
        rows.append(("volume", _volume_text(report.volume)))
    if report.evaluation is not None:
        rows += _error_rows(report.evaluation)
    rows.append(("results", str(target)))
    rows += [("", name) for name in report.files]
    return f"{columns(rows)}\n{report.notice}"


def _volume_text(volume: dict[str, Any]) -> str:
    size, spacing = " x ".join(str(n) for n in volume["size"]), spacing_text(volume["spacing_mm"])
    used = plural(volume["frames_used"], "frame")
    if volume["frames_skipped"]:
        used += f", {volume['frames_skipped']} skipped as invalid"
    seen = seen_text(volume["covered_fraction"], volume["filled_fraction"])
    return f"{size} voxels of {spacing} from {used}; {seen}"


def _error_rows(evaluation: dict[str, Any]) -> list[tuple[str, str]]:
    own, no_motion = evaluation["metrics"], evaluation["baselines"]["identity"]

    def against(name: str, unit: str) -> str:
        values = [figures.get(name) for figures in (own, no_motion)]
        return " against ".join("undefined" if v is None else f"{v:.3g} {unit}" for v in values)

    return [
        ("mean error", f"{against('gpe_mm', 'mm')} for no motion at all (all pixels, against the tracking)"),
        ("final drift", f"{against('final_drift_mm', 'mm')} for no motion at all"),
    ]


def _run_several(
    sweeps: Sequence[str], settings: RunSettings, output: Path, console: Console, models: ModelSource
) -> bool:
    """Run every sweep into a folder of its own below `output`; returns whether all could be used."""
    models = functools.cache(models)
    rows = []
    for number, (sweep, name) in enumerate(zip(sweeps, _folder_names(sweeps), strict=True), 1):
        console.say(f"[{number}/{len(sweeps)}] {sweep}")
        row = {"sweep": str(sweep), "folder": name, "status": "done"}
        try:
            with naming_memory(str(sweep)), results_folder(output / name) as folder:
                written = result_paths(output / name)
                result = run_clip(sweep, settings, Reporter(console.progress), models=models, outputs=written)
                report = result.write_files(folder)
            trust = report.trajectory["trust"]
            row |= {
                "frames": report.trajectory["poses"],
                "path_mm": report.trajectory["path_length_mm"],
                "gpe_mm": None if report.evaluation is None else report.evaluation["metrics"].get("gpe_mm"),
                "trust": "" if trust is None else trust["level"],
                "warnings": len(report.warnings),
            }
        except (Cancelled, KeyboardInterrupt):
            raise
        except DualTrackError as error:
            row |= {"status": "failed", "error": str(error)}
        except Exception as error:
            console.warn(traceback.format_exc())
            row |= {"status": "failed", "error": f"A fault of the program: {error}; please report it."}
        if row["status"] == "failed":
            console.warn(f"{sweep}: {row['error']}")
        rows.append(row)
    _write_table(rows, output / "summary.csv")
    failed = sum(row["status"] == "failed" for row in rows)
    console.say(_table(rows))
    console.say(f"{len(rows) - failed} of {len(rows)} sweeps are in {output}, with summary.csv. {NOTICE}")
    console.result({"output": str(output), "sweeps": rows, "failed": failed})
    return not failed


def _folder_names(sweeps: Sequence[str]) -> list[str]:
    """A folder name for each sweep: its file name without suffixes, with a number where that is taken."""
    names: list[str] = []
    for sweep in sweeps:
        path = Path(sweep).resolve()
        stem = path.stem.removesuffix(".igs").removesuffix(".seq") if path.is_file() else path.name
        stem = stem or "sweep"
        name, number = stem, 1
        while name.lower() in {taken.lower() for taken in names}:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


def _write_table(rows: list[dict[str, Any]], path: Path) -> None:
    names = ("sweep", "folder", "status", "frames", "path_mm", "gpe_mm", "trust", "warnings", "error")
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _table(rows: list[dict[str, Any]]) -> str:
    """The summary as aligned columns."""
    texts = [("sweep", "frames", "path", "error (GPE)", "trust", "warnings")]
    for row in rows:
        if row["status"] == "failed":
            texts.append((row["folder"], "failed", "", "", "", ""))
            continue
        gpe = "" if row["gpe_mm"] is None else f"{row['gpe_mm']:.3g} mm"
        path, warned = f"{row['path_mm']:.1f} mm", str(row["warnings"])
        texts.append((row["folder"], str(row["frames"]), path, gpe, row["trust"], warned))
    return columns(texts)
