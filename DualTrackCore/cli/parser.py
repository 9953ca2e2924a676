"""Options of the `dualtrack` command. Nothing heavy is imported here: --help takes a moment."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import NoReturn

from DualTrackCore.cli.options import add_settings
from DualTrackCore.errors import InputError
from DualTrackCore.run.results import NOTICE
from DualTrackCore.run.settings import FRAMES, INPUT, NETWORK, RESULTS, TRACKED, VOLUME, RunSettings
from DualTrackCore.version import __version__


class _Parser(argparse.ArgumentParser):
    """Wrong arguments end as every other bad input does."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing and leaving."""
        raise InputError(f"{message[0].upper()}{message[1:]}; see `{self.prog} --help`.")


def build_parser() -> argparse.ArgumentParser:
    """The parser; `options.command` is called with the options and a console."""
    parser = _Parser(
        prog="dualtrack",
        description="Sensorless freehand 3D ultrasound: from a plain 2D clip to the probe's trajectory and a volume.",
        epilog=NOTICE,
    )
    parser.add_argument("--version", action="version", version=f"dualtrack {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_info(commands)
    _add_run(commands)
    _add_track(commands)
    _add_reconstruct(commands)
    _add_convert(commands)
    _add_models(commands)
    _add_train(commands)
    _add_simulate(commands)
    _add_dataset(commands)
    _add_evaluate(commands)
    _add_demo(commands)
    return parser


def _command(commands: argparse._SubParsersAction, name: str, function: str, text: str) -> argparse.ArgumentParser:
    """A command whose code is imported when it runs; `function` is "module:name" in DualTrackCore.cli."""
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=NOTICE)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of sentences")
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")
    parser.set_defaults(command=_lazily(function))
    return parser


def _lazily(function: str) -> Callable[..., object]:
    module, name = function.split(":")

    def run(*arguments: object) -> object:
        return getattr(import_module(f"DualTrackCore.cli.{module}"), name)(*arguments)

    return run


def _add_info(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "info", "sweeps:info", "say what a sweep holds")
    _add_sweep(parser, INPUT)


def _add_run(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands, "run", "runs:run", "estimate the trajectory of a sweep and reconstruct its volume, with a report"
    )
    parser.add_argument("sweeps", metavar="SWEEP", nargs="+", help="files or folders of frames; several share settings")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        required=True,
        help="folder for the results, or for those of each sweep",
    )
    _add_settings(parser, INPUT, NETWORK, FRAMES, VOLUME, RESULTS)


def _add_track(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "track", "runs:track", "estimate the trajectory of a sweep")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help="trajectory .csv, or the sweep with its poses: .igs.mha, ...",
    )
    _add_sweep(parser, INPUT, NETWORK, FRAMES)


def _add_reconstruct(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "reconstruct", "runs:reconstruct", "reconstruct a volume from poses that are known")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder for the results")
    _add_poses(parser, "the sweep's own tracking, or a trajectory .csv")
    _add_sweep(parser, INPUT, FRAMES, VOLUME, RESULTS)


def _add_convert(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "convert", "sweeps:convert", "write a sweep in another format")
    _add_sweep(parser, INPUT)
    parser.add_argument("output", metavar="OUTPUT", help=".igs.mha, .seq.nrrd or .h5")
    _add_poses(parser, "poses to write along")


def _add_sweep(parser: argparse.ArgumentParser, *groups: str) -> None:
    parser.add_argument("sweep", metavar="SWEEP", help="file or folder of frames")
    _add_settings(parser, *groups)


def _add_settings(parser: argparse.ArgumentParser, *groups: str) -> None:
    """Options from the fields of RunSettings, and a file of them for commands that run something."""
    add_settings(parser, RunSettings, groups)
    if len(groups) > 1:
        parser.add_argument("--config", metavar="FILE", help="settings (YAML), as a run writes them; options go first")


def _add_poses(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--poses", metavar="tracked|FILE", default=TRACKED, help=f"{text} (default: %(default)s)")


def _add_models(commands: argparse._SubParsersAction) -> None:
    text = "list, fetch, verify and import models"
    group = commands.add_parser("models", help=text, description=text[0].upper() + text[1:] + ".", epilog=NOTICE)
    actions = group.add_subparsers(title="actions", metavar="ACTION", required=True)
    _command(actions, "list", "models:list_models", "list published and installed models")
    fetch = _command(actions, "fetch", "models:fetch", "download published weights after showing size and licence")
    fetch.add_argument("name", metavar="NAME")
    fetch.add_argument("--yes", action="store_true", help="agree to the licence without being asked")
    verify = _command(actions, "verify", "models:verify", "check that an installed model is undamaged and loads")
    verify.add_argument("name", metavar="NAME")
    import_ = _command(actions, "import", "models:import_model", "install weights from a local file")
    import_.add_argument("name", metavar="NAME")
    import_.add_argument("file", metavar="FILE")


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "train", "train:train", "train one stage of a model from a recipe")
    parser.add_argument("recipe", metavar="RECIPE", help="YAML file, or one that ships: mini/local1, paper/fusion, ...")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", help="change a setting of the recipe: optimiser.lr=0.001"
    )
    parser.add_argument("--runs", metavar="DIR", default="runs", help="folder of all runs (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of an interrupted run")


def _add_simulate(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "simulate", "simulate:simulate", "simulate a freehand sweep with its true poses")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help=".igs.mha, .seq.nrrd or .h5")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="another number, another sweep (default: 0)")
    parser.add_argument("--frames", metavar="N", type=int, help="number of frames (default: drawn from 200 to 600)")
    parser.add_argument("--family", metavar="NAME", help="path: Per_L_DtP, Par_S_PtD, rotation, ... (default: drawn)")
    parser.add_argument("--geometry", choices=["linear", "curvilinear"], default="linear", help="of the probe")
    parser.add_argument("--frequency", metavar="MHZ", type=float, help="of the probe (default: drawn)")
    parser.add_argument(
        "--size", metavar="W,H", type=_numbers(2, 2, int), default=(320, 240), help="of a frame (default: 320,240)"
    )
    parser.add_argument(
        "--spacing", metavar="MM", type=_numbers(1, 2), default=(0.2,), help="of the pixels (default: 0.2)"
    )


def _add_dataset(commands: argparse._SubParsersAction) -> None:
    text = "examine and convert data sets of tracked sweeps"
    group = commands.add_parser("dataset", help=text, description=text[0].upper() + text[1:] + ".", epilog=NOTICE)
    actions = group.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = _command(actions, "check", "dataset:check", "name files that are missing, cut short or inconsistent")
    convert = _command(actions, "convert", "dataset:convert", "write all sweeps as DualTrack HDF5 with their table")
    for parser in (check, convert):
        parser.add_argument(
            "dataset", metavar="DIR", help="TUS-REC folder, metadata CSV or its folder, folder of tracked recordings"
        )
        parser.add_argument("--split", metavar="NAME", help="only the sweeps of this split (TUS-REC: train, val)")
        parser.add_argument("--calibration", metavar="FILE", help="of all sweeps, where none lies beside them")
        parser.add_argument(
            "--tolerate",
            metavar="FRACTION",
            type=float,
            default=0.0,
            help="of a sweep's frames may lack a pose or an image (default: %(default)s)",
        )
    check.add_argument("--deep", action="store_true", help="read every frame, not three of each sweep")
    convert.add_argument("-o", "--output", metavar="DIR", required=True, help="folder; finished sweeps in it are kept")
    convert.add_argument(
        "--on-bad",
        choices=["refuse", "skip"],
        default="refuse",
        help="sweeps that cannot be used: write nothing, or leave them out and name them (default: %(default)s)",
    )
    convert.add_argument(
        "--default-split", metavar="NAME", default="train", help="where the data set has none (default: %(default)s)"
    )


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands, "evaluate", "evaluate:evaluate", "measure methods on tracked sweeps, with tables, tests and a report"
    )
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        nargs="+",
        help="folders or files of tracked sweeps (TUS-REC, DualTrack, PLUS), or held-out or simulated",
    )
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder for tables and report")
    parser.add_argument(
        "--method",
        metavar="NAME",
        action="append",
        help="identity, calibrated-mean-motion, own-mean-motion, decorrelation, decorrelation-oracle-direction, "
        "model:M, tta4:M (run with --tta 4), local:M (encoder alone), global:M, baseline:B; M is a model's name or a "
        "weights file, B a trained baseline's; repeat for several (default: those without weights and model:mini)",
    )
    parser.add_argument("--split", metavar="NAME", help="only the sweeps of this split: train, val, ...")
    parser.add_argument(
        "--calibration", metavar="FILE", help="image-to-probe calibration: PLUS XML, 4x4 text, or calib_matrix.csv"
    )
    parser.add_argument(
        "--calibrate",
        metavar="DATASET",
        nargs="+",
        default=["simulated"],
        help="tracked sweeps from which calibrated-mean-motion and decorrelation are calibrated (default: simulated)",
    )
    parser.add_argument("--calibrate-split", metavar="NAME", help="only the sweeps of this split")
    parser.add_argument(
        "--on-bad",
        choices=["refuse", "skip"],
        default="refuse",
        help="what to do with a sweep that cannot be used: stop and name it, or leave it out and name it "
        "(default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="of the networks (default: %(default)s)")
    many = parser.add_argument_group("many sweeps")
    many.add_argument("--workers", metavar="N", type=int, default=1, help="processes here (default: %(default)s)")
    many.add_argument("--threads", metavar="N", type=int, help="of each process (default: cores / workers)")
    many.add_argument("--cluster", metavar="ADDRESS", help="of a Dask scheduler: tcp://host:8786")
    many.add_argument("--fresh", action="store_true", help="compute everything again instead of using finished results")
    made = parser.add_argument_group("simulated sweeps")
    made.add_argument("--cache", metavar="DIR", help="where they are kept for the next time (default: DIR/sweeps)")
    made.add_argument("--count", metavar="N", type=int, default=28, help="to compare on (default: %(default)s)")
    made.add_argument("--calibration-count", metavar="N", type=int, default=28, help="(default: %(default)s)")
    made.add_argument("--frames", metavar="N", type=int, default=200, help="of each (default: %(default)s)")
    made.add_argument("--size", metavar="W,H", type=_numbers(2, 2, int), default=(160, 128), help="(default: 160,128)")
    made.add_argument("--spacing", metavar="MM", type=_numbers(1, 2), default=(0.25,), help="(default: 0.25)")


def _add_demo(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands, "demo", "demo:demo", "track and reconstruct the sample sweep, and measure it against its true poses"
    )
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder for the results")


def _numbers(least: int, most: int, kind: type = float) -> Callable[[str], tuple]:
    def parse(text: str) -> tuple:
        try:
            values = tuple(kind(part) for part in text.replace("x", ",").split(","))
        except ValueError:
            values = ()
        if not least <= len(values) <= most:
            count = str(least) if least == most else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not {count} numbers separated by commas")
        return values

    return parse
