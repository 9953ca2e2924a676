"""Options of the `dualtrack` command. Nothing heavy is imported here: --help takes a moment."""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any, Literal, NoReturn

from DualTrackCore import __version__
from DualTrackCore.cli.server_options import SERVING, add_server, add_serving
from DualTrackCore.cli.shell import COMPLETION, add_completion
from DualTrackCore.corrections import CORRECTIONS_GROUP, Corrections
from DualTrackCore.errors import InputError
from DualTrackCore.run.settings import (
    FRAMES,
    INPUT,
    NETWORK,
    NOTICE,
    PICTURES,
    POSES,
    RESULTS,
    TRACKED,
    VOLUME,
    RunSettings,
)
from DualTrackCore.settings import setting_of, value_of_text

#: What stands before the names of Corrections' fields among the options.
_KNOWN = "corrections."
_GRID = {"action": argparse.BooleanOptionalAction, "help": "count pixels from 1, as the official code of TUS-REC does"}


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
    _add_clip_commands(commands)
    _add_measure(commands)
    add_serving(_command(commands, "serve", "serve:serve", SERVING))
    _add_models(_group(commands, "models", "list, fetch, verify, import and remove models"))
    _add_profiles(_group(commands, "profile", "make, show, list and remove scanner profiles"))
    _add_train(commands)
    _add_simulate(commands)
    _add_dataset(_group(commands, "dataset", "examine and convert data sets of tracked sweeps"))
    _add_evaluate(commands)
    _add_submit(commands)
    add_completion(_command(commands, "completion", "shell:completion", COMPLETION))
    text = "track and reconstruct the sample sweep, and measure it against its true poses"
    _add_output(_command(commands, "demo", "demo:demo", text), "DIR", "folder for the results")
    return parser


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of a run that the user gave as options."""
    names = [field.name for field in dataclasses.fields(RunSettings)]
    given = {name: getattr(options, name) for name in names if hasattr(options, name)}
    names = [field.name for field in dataclasses.fields(Corrections)]
    known = {name: getattr(options, _KNOWN + name) for name in names if hasattr(options, _KNOWN + name)}
    return {**given, "corrections": known} if known else given


def _group(commands: argparse._SubParsersAction, name: str, text: str) -> argparse._SubParsersAction:
    """A command that is followed by an action."""
    return _described(commands, name, text).add_subparsers(title="actions", metavar="ACTION", required=True)


def _command(commands: argparse._SubParsersAction, name: str, function: str, text: str) -> argparse.ArgumentParser:
    """A command whose code is imported when it runs; `function` is "module:name" in DualTrackCore.cli."""
    parser = _described(commands, name, text)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of sentences")
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")
    parser.set_defaults(
        command=lambda *arguments: resolve_name(f"DualTrackCore.cli.{function}")(*arguments), command_name=parser.prog
    )
    return parser


def _described(commands: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=NOTICE)


def _add_clip_commands(commands: argparse._SubParsersAction) -> None:
    info = _command(
        commands, "info", "sweeps:info", "say what a sweep holds, and what the pictures' settings make of it"
    )
    _add_sweep(info, INPUT)
    _add_prepared(info)
    text = "estimate the trajectory of a sweep and reconstruct its volume, with a report"
    run = _command(commands, "run", "sweeps:run", text)
    run.add_argument("sweeps", metavar="SWEEP", nargs="+", help="files or folders of frames; several share settings")
    _add_output(run, "DIR", "folder for the results, or for those of each sweep", is_needed=False)
    _add_settings(run, INPUT, FRAMES, PICTURES, POSES, NETWORK, VOLUME, RESULTS)
    add_server(run)
    _add_corrections(run)
    track = _command(commands, "track", "sweeps:track", "estimate the trajectory of a sweep")
    _add_output(track, "FILE", "trajectory .csv, or the sweep with its poses: .igs.mha, ...")
    _add_sweep(track, INPUT, FRAMES, PICTURES, NETWORK)
    add_server(track)
    _add_named(track, "direction")
    _add_corrections(track)
    text = "reconstruct a volume from poses that are known"
    reconstruct = _command(commands, "reconstruct", "sweeps:reconstruct", text)
    _add_output(reconstruct, "DIR", "folder for the results", is_needed=False)
    _add_poses(reconstruct, "the sweep's own tracking, or a trajectory .csv")
    _add_sweep(reconstruct, INPUT, FRAMES, PICTURES, POSES, VOLUME, RESULTS)
    _add_corrections(reconstruct)
    text = "correct the path of a result by what is known, and make its volume anew without tracking again"
    correct = _command(commands, "correct", "sweeps:correct", text)
    correct.add_argument("results", metavar="RESULTS", help="folder that `dualtrack run` or `correct` wrote")
    where = correct.add_mutually_exclusive_group(required=True)
    where.add_argument("-o", "--output", metavar="DIR", help="folder for the new results")
    text = "correct nothing; say which far frames show alike pictures, for --loops"
    where.add_argument("--propose-loops", action="store_true", help=text)
    _add_corrections(correct)
    for group in (VOLUME, RESULTS):
        _add_settings(correct, group)
    _add_named(correct, "memory_gb")
    convert = _command(commands, "convert", "sweeps:convert", "write a sweep in another format")
    _add_sweep(convert, INPUT)
    text = ".igs.mha or .igs.nrrd (as PLUS), .seq.nrrd or .mrb (for Slicer: images, a scene), or .h5"
    convert.add_argument("output", metavar="OUTPUT", help=text)
    _add_poses(convert, "poses to write along")
    _add_settings(convert, POSES)
    _add_prepared(convert)


def _add_measure(commands: argparse._SubParsersAction) -> None:
    text = "measure a length in the result of a run, with how far it may be off"
    parser = _command(commands, "measure", "measure:measure", text)
    parser._negative_number_matcher = re.compile(r"-[\d.]")  # a point may begin with a minus
    parser.add_argument("folder", metavar="FOLDER", help="folder that a run wrote")
    for name, end in (("start", "from"), ("end", "to")):
        where = "begins" if end == "from" else "ends"
        text = f"where the length {where}: right, anterior, superior in mm, as Slicer shows them"
        parser.add_argument(f"--{end}", dest=name, metavar="R,A,S", type=_numbers(3, 3), help=text)
    text = "points of a line or a curve in their place: markups of Slicer (.mrk.json), or a table (.csv)"
    parser.add_argument("--points", metavar="FILE", help=text)


def _add_output(parser: argparse.ArgumentParser, metavar: str, text: str, is_needed: bool = True) -> None:
    text += "" if is_needed else "; left out, that of one sweep lies here and is named for it: SWEEP-result"
    parser.add_argument("-o", "--output", metavar=metavar, required=is_needed, help=text)


def _add_sweep(parser: argparse.ArgumentParser, *groups: str) -> None:
    parser.add_argument("sweep", metavar="SWEEP", help="file or folder of frames")
    _add_settings(parser, *groups)


def _add_prepared(parser: argparse.ArgumentParser) -> None:
    """Options that prepare a clip, for commands without the settings of a run."""
    _add_frame_range(parser)
    _add_settings(parser, PICTURES)


class _FrameRange(argparse.Action):
    """First and last frame in one option."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: Any, option: object = None) -> None:
        namespace.first_frame, namespace.last_frame = values


def _add_frame_range(section: argparse._ActionsContainer) -> None:
    text = "first and last frame that are used, counted from 0; --first-frame and --last-frame in one"
    kind = {"action": _FrameRange, "type": _numbers(2, 2, int), "default": argparse.SUPPRESS}
    section.add_argument("--frames", metavar="FIRST,LAST", help=text, **kind)


def _add_poses(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--poses", metavar="tracked|FILE", default=TRACKED, help=f"{text} (default: %(default)s)")


def _add_settings(parser: argparse.ArgumentParser, *groups: str) -> None:
    """Options from the fields of RunSettings, and a file of them for commands that run something."""
    hints = typing.get_type_hints(RunSettings)
    for group in groups:
        section = parser.add_argument_group(group)
        if group == FRAMES:
            _add_frame_range(section)
        for field in dataclasses.fields(RunSettings):
            if setting_of(field).group == group:
                _add_setting(section, field, hints[field.name])
    if len(groups) > 1:
        parser.add_argument("--config", metavar="FILE", help="settings (YAML), as a run writes them; options go first")


def _add_named(parser: argparse._ActionsContainer, *names: str) -> None:
    """Options from single fields of RunSettings."""
    hints = typing.get_type_hints(RunSettings)
    for field in dataclasses.fields(RunSettings):
        if field.name in names:
            _add_setting(parser, field, hints[field.name])


def _add_corrections(parser: argparse.ArgumentParser) -> None:
    """Options from the fields of Corrections."""
    hints, section = typing.get_type_hints(Corrections), parser.add_argument_group(CORRECTIONS_GROUP)
    for field in dataclasses.fields(Corrections):
        _add_setting(section, field, hints[field.name], _KNOWN)
    _add_named(section, "profile")


def _add_setting(section: argparse._ActionsContainer, field: dataclasses.Field, hint: Any, prefix: str = "") -> None:
    facts = setting_of(field)
    unit = f", {facts.unit}" if facts.unit else ""
    default = "" if field.default in (None, ()) or hint is bool else f" (default: {field.default})"
    text = f"{facts.help}{unit}{default}".replace("%", "%%")  # argparse wants percent signs doubled
    name = "--" + (facts.option or field.name.replace("_", "-"))
    common = {"dest": prefix + field.name, "default": argparse.SUPPRESS, "help": text}
    if hint is bool:
        section.add_argument(name, action=argparse.BooleanOptionalAction, **common)
        return

    def parse(value: str) -> Any:
        try:
            return value_of_text(field, hint, value)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    choices = f"{{{','.join(map(str, typing.get_args(hint)))}}}" if typing.get_origin(hint) is Literal else "VALUE"
    section.add_argument(name, metavar=facts.metavar or choices, type=parse, **common)


def _add_models(actions: argparse._SubParsersAction) -> None:
    _command(actions, "list", "models:list_models", "list published and installed models")
    fetch = _command(actions, "fetch", "models:fetch", "download published weights after showing size and licence")
    fetch.add_argument("name", metavar="NAME")
    fetch.add_argument("--yes", action="store_true", help="agree to the licence without being asked")
    verify = _command(actions, "verify", "models:verify", "check that an installed model is undamaged and loads")
    verify.add_argument("name", metavar="NAME")
    import_ = _command(actions, "import", "models:import_model", "install weights from a local file")
    import_.add_argument("name", metavar="NAME")
    import_.add_argument("file", metavar="FILE")
    remove = _command(actions, "remove", "models:remove", "delete a downloaded or imported model from the disk")
    remove.add_argument("name", metavar="NAME")


def _add_profiles(actions: argparse._SubParsersAction) -> None:
    text = "measure the scale of a probe and preset on sweeps of known length, and keep it"
    make = _command(actions, "make", "profiles:make", text)
    make.add_argument("sweeps", metavar="SWEEP", nargs="+", help="one or more, recorded at one preset; three are well")
    make.add_argument("--name", metavar="NAME", required=True, help="of a to z, 0 to 9, '.', '_', '-'")
    text = "length of the way, one number for all sweeps or one for each; tracked sweeps tell it themselves"
    make.add_argument("--length-mm", metavar="MM,...", type=_numbers(1, 1000), default=(), help=text)
    text = "delay of the pictures behind the tracking, where it is known; kept in the profile"
    make.add_argument("--latency-ms", metavar="MS", type=float, help=text)
    _add_settings(make, INPUT, FRAMES, PICTURES, NETWORK)
    _add_named(make, "poses_are")
    show = _command(actions, "show", "profiles:show", "say what a profile holds")
    show.add_argument("name", metavar="NAME", help="name or file")
    _command(actions, "list", "profiles:list_profiles", "list the profiles that were made")
    remove = _command(actions, "remove", "profiles:remove", "delete a profile from the disk")
    remove.add_argument("name", metavar="NAME")


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "train", "research:train", "train a whole model or one stage of it, from recipes")
    text = "paper, mini, own, or one stage: a file, mini/local1, ... (backbones/medsam and /usfm are experimental)"
    parser.add_argument("recipe", metavar="RECIPE", help=text)
    text = "tracked sweeps in place of the recipe's: a table that says which are for training and which for validation"
    parser.add_argument("--data", metavar="PLACE", help=text)
    parser.add_argument("--validation", metavar="PLACE", help="of validation, where --data is for training alone")
    parser.add_argument("--splits", metavar="FILE", help="CSV file that divides --data: sweep_id or subject, and split")
    parser.add_argument("--devices", metavar="N", type=int, help="of each machine; they share each batch (default: 1)")
    parser.add_argument("--nodes", metavar="N", type=int, help="machines, started by srun or torchrun (default: 1)")
    text = "change a setting of the recipe: optimiser.lr=0.001"
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", help=text)
    parser.add_argument("--epochs", metavar="N", type=int, help="of every stage; 1 shows whether everything works")
    parser.add_argument("--runs", metavar="DIR", default="runs", help="folder of all runs (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of an interrupted run")
    _add_named(parser, "memory_gb")


def _add_simulate(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "simulate", "research:simulate", "simulate a freehand sweep with its true poses")
    _add_output(parser, "FILE", ".igs.mha, .igs.nrrd, .seq.nrrd, .mrb or .h5")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="another number, another sweep (default: 0)")
    parser.add_argument("--frames", metavar="N", type=int, help="number of frames (default: drawn from 200 to 600)")
    parser.add_argument("--family", metavar="NAME", help="path: Per_L_DtP, Par_S_PtD, rotation, ... (default: drawn)")
    parser.add_argument("--geometry", choices=["linear", "curvilinear"], default="linear", help="of the probe")
    parser.add_argument("--frequency", metavar="MHZ", type=float, help="of the probe (default: drawn)")
    size, spacing = "of a frame (default: 320,240)", "of the pixels (default: 0.2)"
    parser.add_argument("--size", metavar="W,H", type=_numbers(2, 2, int), default=(320, 240), help=size)
    parser.add_argument("--spacing", metavar="MM", type=_numbers(1, 2), default=(0.2,), help=spacing)


def _add_dataset(actions: argparse._SubParsersAction) -> None:
    check = _command(actions, "check", "research:check", "name files that are missing, cut short or inconsistent")
    convert = _command(actions, "convert", "research:convert", "write all sweeps as DualTrack HDF5 with their table")
    dealt = "; by-subject: all, and deal the subjects to training and validation"
    for parser, more in ((check, ""), (convert, dealt)):
        _add_place(parser, "DIR", more)
        text = "of a sweep's frames may lack a pose or an image (default: %(default)s)"
        parser.add_argument("--tolerate", metavar="FRACTION", type=float, default=0.0, help=text)
    check.add_argument("--deep", action="store_true", help="read every frame, not three of each sweep")
    _add_named(convert, "mask")
    _add_output(convert, "DIR", "folder; finished sweeps in it are kept")
    _add_on_bad(convert, "sweeps that cannot be used: write nothing, or leave them out and name them")
    text = "where nothing else says one (default: %(default)s)"
    convert.add_argument("--default-split", metavar="NAME", default="train", help=text)
    text = "CSV file of sweep_id or subject, and split: who is for training (train), validation (val) and test"
    convert.add_argument("--splits", metavar="FILE", help=text)
    text = "parts of the subjects, each once the validation; a table for each (default: %(default)s)"
    convert.add_argument("--folds", metavar="N", type=int, default=5, help=text)
    convert.add_argument("--seed", metavar="N", type=int, default=0, help="of the dealing (default: %(default)s)")


def _add_place(parser: argparse.ArgumentParser, metavar: str, more: str = "") -> None:
    """A data set and what is to be known of it."""
    text = "TUS-REC folder, metadata CSV or its folder, folder of tracked recordings"
    parser.add_argument("dataset", metavar=metavar, help=text)
    parser.add_argument("--split", metavar="NAME", help=f"only the sweeps of this split of a table{more}")
    parser.add_argument("--calibration", metavar="FILE", help="of all sweeps, where none lies beside them")
    _add_named(parser, "memory_gb", "poses_are")


def _add_on_bad(parser: argparse.ArgumentParser, text: str) -> None:
    text += " (default: %(default)s)"
    parser.add_argument("--on-bad", choices=["refuse", "skip"], default="refuse", help=text)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    text = "measure methods on tracked sweeps, with tables, tests and a report"
    parser = _command(commands, "evaluate", "evaluate:evaluate", text)
    text = "folders or files of tracked sweeps (TUS-REC, DualTrack, PLUS), or held-out, acquisitions or simulated"
    parser.add_argument("dataset", metavar="DATASET", nargs="+", help=text)
    _add_output(parser, "DIR", "folder for tables and report")
    text = (
        "identity, calibrated-mean-motion, own-mean-motion, decorrelation, decorrelation-oracle-direction, "
        "model:M, tta4:M (run with --tta 4), local:M (encoder alone), global:M, baseline:B; M is a model's name or a "
        "weights file, B a trained baseline's; repeat for several (default: those without weights and model:mini)"
    )
    parser.add_argument("--method", metavar="NAME", action="append", help=text)
    parser.add_argument("--split", metavar="NAME", help="only the sweeps of this split: train, val, ...")
    text = "image-to-probe calibration: PLUS XML, .tfm, .h5, 4x4 text, or calib_matrix.csv"
    parser.add_argument("--calibration", metavar="FILE", help=text)
    text = "tracked sweeps from which calibrated-mean-motion and decorrelation are calibrated (default: simulated)"
    parser.add_argument("--calibrate", metavar="DATASET", nargs="+", default=["simulated"], help=text)
    parser.add_argument("--calibrate-split", metavar="NAME", help="only the sweeps of this split")
    _add_on_bad(parser, "what to do with a sweep that cannot be used: stop and name it, or leave it out and name it")
    parser.add_argument("--device", default="auto", help="of the networks (default: %(default)s)")
    parser.add_argument("--tus-rec-pixels", default=False, **_GRID)
    _add_named(parser, "memory_gb", "poses_are")
    many = parser.add_argument_group("many sweeps")
    many.add_argument("--workers", metavar="N", type=int, default=1, help="processes here (default: %(default)s)")
    many.add_argument("--threads", metavar="N", type=int, help="of each process (default: cores / workers)")
    text = "of a Dask scheduler that you trust: tls://host:8786, or tcp:// in a closed network"
    many.add_argument("--cluster", metavar="ADDRESS", help=text)
    many.add_argument("--cluster-ca", metavar="FILE", help="TLS: certificate authority of the cluster (PEM)")
    many.add_argument("--cluster-cert", metavar="FILE", help="TLS: own certificate (PEM)")
    many.add_argument("--cluster-key", metavar="FILE", help="TLS: its private key (PEM)")
    many.add_argument("--fresh", action="store_true", help="compute everything again instead of using finished results")
    made = parser.add_argument_group("simulated sweeps")
    made.add_argument("--cache", metavar="DIR", help="where they are kept for the next time (default: DIR/sweeps)")
    made.add_argument("--count", metavar="N", type=int, default=28, help="to compare on (default: %(default)s)")
    made.add_argument("--calibration-count", metavar="N", type=int, default=28, help="(default: %(default)s)")
    made.add_argument("--frames", metavar="N", type=int, default=200, help="of each (default: %(default)s)")
    made.add_argument("--size", metavar="W,H", type=_numbers(2, 2, int), default=(160, 128), help="(default: 160,128)")
    made.add_argument("--spacing", metavar="MM", type=_numbers(1, 2), default=(0.25,), help="(default: 0.25)")


def _add_submit(commands: argparse._SubParsersAction) -> None:
    text = "write the displacement fields of all pixels and landmarks that TUS-REC asks for, read back and measured"
    parser = _command(commands, "submit", "research:submit", text)
    _add_place(parser, "DATASET")
    _add_output(parser, "OUT", "folder; a file of 24 bytes a pixel for each sweep, whose poses may be unknown")
    _add_named(parser, "model", "test_time_augmentation", "device")
    parser.add_argument("--tus-rec-pixels", default=True, **_GRID)
    parser.add_argument("--check", action="store_true", help="write nothing; read and measure what lies in OUT")


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
