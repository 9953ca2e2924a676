"""`dualtrack compare`: methods side by side on simulated held-out sweeps or on tracked files."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from DualTrackCore.cli.console import Console, plural
from DualTrackCore.errors import CheckpointError, InputError
from DualTrackCore.files import staged_folder
from DualTrackCore.network.shipped import DEFAULT_MODEL
from DualTrackCore.sweep import Sweep

SIMULATED = "simulated"
_BASELINES = ("identity", "mean-motion", "own-mean-motion", "decorrelation", "decorrelation-told")
_HEADS = {"model": "fusion", "local": "local", "global": "global"}


def compare(options: Namespace, console: Console) -> None:
    """Run the methods, print the table, write it."""
    # Threads that wait for each other by spinning cost another program its core; read when torch is loaded, below.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from DualTrackCore.comparison.report import NOTICE, text_table, write_comparison
    from DualTrackCore.comparison.table import compare as compare_methods

    _require_known(options)
    target = Path(options.output)
    with staged_folder(target) as folder:
        models = _models(options, console)
        sweeps = _sweeps(options, console)
        methods = _methods(options, models, console)
        result = compare_methods(methods, sweeps, progress=console.progress)
        files = write_comparison(result, folder, _about(options, len(sweeps)))
    console.say(text_table(result))
    simulated = _is_simulated(options.sweeps)
    console.say(f"\nMeans over {plural(len(sweeps), 'sweep')}.{' ' + NOTICE if simulated else ''}")
    console.say(f"Written to {target}: {', '.join(files)}")
    if len(result.failures) == len(result.rows):
        raise InputError("No method gave a trajectory of any sweep; the reasons are in the table above.")
    summaries = [{"method": s.method, "uses": s.uses, "sweeps": s.sweeps, "failed": s.failed} for s in result.summaries]
    console.result({"output": str(target), "files": files, "methods": summaries})


def _require_known(options: Namespace) -> None:
    for name in options.method or ():
        kind, _, path = name.partition(":")
        if name not in _BASELINES and not (kind in _HEADS and path):
            raise InputError(
                f"The method {name!r} is unknown; choose {', '.join(_BASELINES)}, model:M, local:M or global:M, "
                "where M is the name of a model or a weights file."
            )
    for given, what in ((options.sweeps, "--sweeps"), (options.calibrate, "--calibrate")):
        if SIMULATED in given and len(given) > 1:
            raise InputError(f"{what} is either {SIMULATED} or a list of files, not both.")


def _models(options: Namespace, console: Console) -> dict[str, Any]:
    """The networks among the methods, loaded first: a wrong name is found before anything is simulated."""
    from DualTrackCore.comparison import Network
    from DualTrackCore.network import load_model

    if options.method is None:
        try:
            return {f"model:{DEFAULT_MODEL}": Network(load_model(DEFAULT_MODEL), device=options.device)}
        except CheckpointError as error:
            console.warn(f"The model {DEFAULT_MODEL!r} is left out: {error}")
            return {}
    networks, labels = {}, _labels(list(dict.fromkeys(options.method)))
    for name in options.method:
        kind, _, path = name.partition(":")
        if kind in _HEADS:
            networks[name] = Network(load_model(path), _HEADS[kind], labels[name], options.device)
    return networks


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Headings of methods: a weights file goes by its name without folder and suffix, where that is unmistakable."""
    short = {name: f"{name.partition(':')[0]}:{Path(name.partition(':')[2]).stem}" for name in names if ":" in name}
    return {name: label if list(short.values()).count(label) == 1 else name for name, label in short.items()}


def _methods(options: Namespace, models: dict[str, Any], console: Console) -> list[Any]:
    """The methods in the order in which they were asked for; the baselines are calibrated where one needs it."""
    from DualTrackCore.comparison import Decorrelation, Identity, MeanMotion, OwnMeanMotion

    wanted = list(dict.fromkeys(options.method or (*_BASELINES, *models)))
    made: dict[str, Any] = {"identity": Identity(), "own-mean-motion": OwnMeanMotion(), **models}
    if {"mean-motion", "decorrelation", "decorrelation-told"} & set(wanted):
        calibration = _calibration(options, console)
    if "mean-motion" in wanted:
        made["mean-motion"] = MeanMotion.calibrated(open_() for _, open_ in calibration)
    if {"decorrelation", "decorrelation-told"} & set(wanted):
        fitted = Decorrelation.calibrated((open_() for _, open_ in calibration), progress=console.progress)
        made |= {"decorrelation": fitted, "decorrelation-told": fitted.told()}
    return [made[name] for name in wanted]


Named = list[tuple[str, Callable[[], Sweep]]]


def _sweeps(options: Namespace, console: Console) -> Named:
    from DualTrackCore.comparison import held_out_simulations

    if not _is_simulated(options.sweeps):
        return _files(options.sweeps)
    return _simulated(held_out_simulations(options.count, *_geometry(options)), options, console)


def _calibration(options: Namespace, console: Console) -> Named:
    from DualTrackCore.comparison import calibration_simulations

    if not _is_simulated(options.calibrate):
        return _files(options.calibrate)
    return _simulated(calibration_simulations(options.calibration_count, *_geometry(options)), options, console)


def _simulated(simulations: list[Any], options: Namespace, console: Console) -> Named:
    from DualTrackCore.comparison import simulate_all

    cache = Path(options.cache) if options.cache else Path(options.output) / "sweeps"
    made = simulate_all(simulations, cache, progress=console.progress)
    return [(name, partial(_given, sweep)) for name, sweep in made]


def _files(paths: Sequence[str]) -> Named:
    from DualTrackCore.io import load_sweep

    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        raise InputError(f"There is no sweep {missing[0]}.")
    return [(path, partial(load_sweep, path)) for path in paths]


def _given(sweep: Sweep) -> Sweep:
    return sweep


def _geometry(options: Namespace) -> tuple[int, tuple[int, int], tuple[float, float]]:
    """Frames, frame size (rows, columns) and spacing of simulated sweeps."""
    width, height = options.size
    spacing = options.spacing * 2 if len(options.spacing) == 1 else options.spacing
    return options.frames, (height, width), spacing


def _is_simulated(given: Sequence[str]) -> bool:
    return list(given) == [SIMULATED]


def _about(options: Namespace, count: int) -> dict[str, Any]:
    """What the table is of, for the files."""
    if not _is_simulated(options.sweeps):
        return {"sweeps_compared": f"{plural(count, 'tracked file')}"}
    width, height = options.size
    spacing = " x ".join(f"{value:g}" for value in options.spacing)
    return {
        "sweeps_compared": f"{plural(count, 'simulated sweep')} of {options.frames} frames, {width} x {height} pixels "
        f"of {spacing} mm, phantoms, paths and speckle not used in training"
    }
