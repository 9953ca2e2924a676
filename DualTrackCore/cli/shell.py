"""What a shell shows: the first help, for whoever types the name of the program alone, and the names of options."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator

from DualTrackCore.cli.console import Console
from DualTrackCore.corrections import Corrections
from DualTrackCore.errors import MissingDependencyError
from DualTrackCore.run.settings import NOTICE, RunSettings
from DualTrackCore.settings import setting_of

#: Shown for `dualtrack` alone: the four commonest commands.
FIRST_HELP = f"""\
From a plain 2D ultrasound clip to the probe's trajectory and a volume, without a tracker.

  dualtrack demo -o DIR        the whole way on a sample sweep, measured against the truth
  dualtrack info CLIP          what was understood of a clip, and what a run still needs
  dualtrack run CLIP -o DIR    trajectory, volume, pictures and report of a clip
  dualtrack measure DIR --from R,A,S --to R,A,S
                               a length in the result of a run, and how far it may be off

`dualtrack --help` lists all commands, `dualtrack COMMAND --help` says what one of them takes.
{NOTICE}"""
#: What the command `completion` does.
COMPLETION = "print what lets a shell complete commands and options; its --help says how to use it"
_INSTALL = (
    """\
bash:  dualtrack completion bash > ~/.local/share/bash-completion/completions/dualtrack
zsh:   dualtrack completion zsh > a folder of $fpath, as _dualtrack
tcsh:  dualtrack completion tcsh >> ~/.tcshrc
Then open a new shell.

"""
    + NOTICE
)
#: Options and arguments that take files or folders, by the word that stands for their value.
_FILES, _FOLDERS = ("FILE", "SWEEP", "OUTPUT", "CLIP", "PATH"), ("DIR", "DATASET", "OUT", "RESULTS", "FOLDER")


#: Options whose names are not those of the settings in Python, which no field states.
_OPTIONS = {"consent": "yes", "agreed": "yes", "lengths_mm": "length-mm"}


def option_of(setting: str, value: object = None) -> str:
    """The option of a setting, with a value where there is one: `--poses-are measured`."""
    facts = [
        setting_of(field)
        for kind in (RunSettings, Corrections)
        for field in dataclasses.fields(kind)
        if field.name == setting
    ]
    name = _OPTIONS.get(setting) or (facts[0].option if facts else "") or setting.replace("_", "-")
    return f"--{name}" if value is None or value is True else f"--{name} {value}"


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command `completion`."""
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="the shell that is to complete")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _INSTALL


def completion(options: argparse.Namespace, console: Console) -> None:
    """Print the script of a shell. Raises MissingDependencyError: shtab is not installed."""
    try:
        import shtab
    except ImportError:
        raise MissingDependencyError(
            "Completion needs the package shtab: pip install 'dualtrack[completion]'."
        ) from None
    from DualTrackCore.cli.parser import build_parser

    parser = build_parser()
    for action in _actions(parser):
        word = str(action.metavar or "")
        if word.startswith(_FILES + _FOLDERS):
            action.complete = shtab.FILE if word.startswith(_FILES) else shtab.DIRECTORY
    script = shtab.complete(parser, shell=options.shell)
    console.say(script)
    console.result({"shell": options.shell, "script": script})


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All options and arguments of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)
