"""`dualtrack dataset`, `simulate` and `train`: data sets of tracked sweeps, simulated sweeps, and training on them."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np

from DualTrackCore.cli.console import Console, columns, plural
from DualTrackCore.cli.sweeps import sweep_facts
from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.files import require_apart
from DualTrackCore.io import save_sweep
from DualTrackCore.research.datasets import check_dataset, convert_dataset, open_dataset, with_said_splits
from DualTrackCore.research.datasets.opening import TABLE_NAME, find_layout
from DualTrackCore.research.datasets.splits import BY_SUBJECT
from DualTrackCore.research.simulation import FAMILIES, Probe, simulated_sweep


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
    given = [path for path in (options.calibration, options.splits) if path is not None]
    require_apart([options.output, Path(options.output, TABLE_NAME)], [options.dataset, *given])
    poses_are, deal = getattr(options, "poses_are", None), options.split == BY_SUBJECT
    split = None if deal else options.split
    dataset = open_dataset(options.dataset, split=split, calibration=options.calibration, poses_are=poses_are)
    if options.splits is not None:
        dataset = with_said_splits(dataset, options.splits)
    try:
        done = convert_dataset(
            dataset,
            options.output,
            on_bad=options.on_bad,
            tolerated=options.tolerate,
            default_split=options.default_split,
            folds=options.folds if deal else 0,
            seed=options.seed,
            mask=getattr(options, "mask", "auto"),
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


def submit(options: Namespace, console: Console) -> None:
    """Write the fields of the challenge and say what they measure."""
    from DualTrackCore.network import load_model
    from DualTrackCore.network.catalogue import DEFAULT_MODEL
    from DualTrackCore.research.submission import FIELDS, submit_dataset
    from DualTrackCore.tracking import estimate_trajectory

    dataset = open_dataset(
        options.dataset,
        split=options.split,
        calibration=options.calibration,
        poses_are=getattr(options, "poses_are", None),
    )
    outputs = [Path(options.output, f"{name}.h5") for name in dataset.names]
    require_apart([] if options.check else outputs, [entry.path for entry in dataset])
    model = None if options.check else load_model(getattr(options, "model", DEFAULT_MODEL))
    given = {name: getattr(options, name) for name in ("device", "test_time_augmentation") if hasattr(options, name)}
    done = submit_dataset(
        dataset,
        options.output,
        lambda sweep: estimate_trajectory(sweep, model, progress=console.progress, **given),
        tus_rec_pixels=options.tus_rec_pixels,
        check_only=options.check,
        progress=console.progress,
        cancelled=console.cancelled,
    )
    names = [*FIELDS.values(), "tus_rec_score"]
    means = {name: float(np.mean([figures[name] for figures in done.values()])) for name in names}
    rows = [("sweep", *names), *((name, *(f"{figures[key]:.4g}" for key in names)) for name, figures in done.items())]
    console.say(columns([*rows, ("mean", *(f"{means[key]:.4g}" for key in names))], right=range(1, len(names) + 1)))
    console.say(f"Fields of {plural(len(done), 'sweep')} lie in {options.output}, whole and finite.")
    console.result({"output": str(options.output), "sweeps": done, "means": means})


def simulate(options: Namespace, console: Console) -> None:
    """Write simulated frames with the true poses."""
    if options.seed < 0:
        raise InputError(f"The seed is {options.seed}; it must be 0 or more.")
    if options.family is not None and options.family not in FAMILIES:
        raise InputError(f"The family {options.family!r} is unknown; choose one of {', '.join(FAMILIES)}.")
    width, height = options.size
    spacing = options.spacing * 2 if len(options.spacing) == 1 else options.spacing
    random = np.random.default_rng([options.seed, 0x9B0B])
    pitch_mm = float(np.clip(width * spacing[0] / 192, 0.05, 1.0))
    probe = Probe.drawn(random, options.geometry, elements=192, pitch_mm=pitch_mm, frequency_mhz=options.frequency)
    sweep = simulated_sweep(
        options.seed,
        frames=options.frames,
        family=options.family,
        probe=probe,
        frame_size=(height, width),
        spacing_mm=spacing,
    )
    save_sweep(sweep, options.output, trajectory=sweep.tracked, progress=console.progress)
    console.say(
        f"Wrote {plural(len(sweep), 'simulated frame')} of a {sweep.tracked.path_length_mm:.1f} mm long "
        f"{sweep.provenance['family']} sweep with their true poses to {Path(options.output)}."
    )
    console.result({"output": str(options.output), "sweep": sweep_facts(sweep)})


def train(options: Namespace, console: Console) -> None:
    """Train the stage that a recipe describes, or all stages of a plan, on one device or several."""
    from DualTrackCore.research.training.recipe_files import load_plan, load_recipe, plan_names

    changes = _changes(options)
    plan = load_plan(options.recipe, changes) if options.recipe in plan_names() else None
    recipe = load_recipe(options.recipe, changes) if plan is None else plan.stages[0]
    if recipe.devices * recipe.nodes > 1:
        from DualTrackCore.research.training.processes import is_member, rank, run_processes

        if not is_member():
            return run_processes(recipe.devices, recipe.nodes, console.arguments)
        if rank() > 0:
            console.mute()
    from DualTrackCore.research.plan import train_plan
    from DualTrackCore.research.training import train as train_stage

    def say(line: str) -> None:
        console.say(line)
        sys.stdout.flush()  # a log file must show the line now, not when the buffer is full

    shared = {
        "runs": options.runs,
        "say": say,
        "bars": sys.stderr.isatty() and not options.quiet,
        "progress": console.progress,
        "cancelled": console.cancelled,
    }
    if plan is not None:  # goes on by itself
        result = train_plan(plan, **shared)
    else:
        console.say(f"Training stage {recipe.stage}; results go to {options.runs}/{recipe.output}.")
        result = train_stage(recipe, resume=options.resume, **shared)
    weights, items = str(result.weights), result.items
    rows = [("weights", weights), ("items seen", str(items)), ("wall time", f"{result.seconds:.0f} s")]
    console.say(columns(rows))
    console.result({"weights": weights, "items": items, "seconds": result.seconds})
    return None


def _changes(options: Namespace) -> list[str]:
    """What the options change in a recipe; `--set` comes last and wins."""
    given: dict[str, object] = {"epochs": options.epochs, "devices": options.devices, "nodes": options.nodes}
    changes = [f"{key}={value}" for key, value in given.items() if value is not None]
    if options.data is None:
        if options.validation or options.splits:
            raise InputError("--validation and --splits say how --data is divided; give --data, too.")
    elif options.validation and options.splits:
        raise InputError("--validation and --splits both say which sweeps are for validation; give one of them.")
    else:
        divided = bool(options.validation or options.splits)
        data = {
            "kind": "tusrec" if divided else "dualtrack_h5",
            "csv": None if divided else options.data,
            "folder": options.data if divided else None,
            "validation_folder": options.validation,
            "splits": options.splits,
        }
        changes += [f"data.{key}={json.dumps(value)}" for key, value in data.items()]
    return [*changes, *(options.set or ())]
