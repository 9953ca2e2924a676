"""A sentence names a setting as its reader gives it: Python's name, an option, or the label of a widget."""

import argparse
import ast
import re
from pathlib import Path

import numpy as np
import pytest
from oracle import noise_sweep, tiny_model

from DualTrackCore import Sweep, estimate_trajectory
from DualTrackCore.cli import main
from DualTrackCore.cli.parser import build_parser
from DualTrackCore.cli.shell import option_of
from DualTrackCore.errors import InputError, call_settings, labelled, named, settings_called
from DualTrackCore.run import RunSettings

ROOT = Path(__file__).resolve().parents[2]
CLI = ROOT / "DualTrackCore" / "cli"
#: Every source whose sentences a user of Python, of the command line and of the panel may read.
CORE = sorted(path for path in (ROOT / "DualTrackCore").rglob("*.py") if CLI not in path.parents)
MODULE = sorted((ROOT / "DualTrackSlicer").rglob("*.py"))
OPTION, KEYWORD = re.compile(r"--[a-z]"), re.compile(r"\b[a-z]+(_[a-z]+)*=(?!=)")
#: Texts that are no sentences (markup, commands, what makes the sample), and those that only a script can meet.
NO_SENTENCE = re.compile(r"^<|<img|<tr>|<div|^pip install |^simulate |Sweep\.from_array\(")


def texts(source: str) -> list[tuple[int, str]]:
    """(line, text) of each text of several words in a source that is not its documentation."""
    tree = ast.parse(source)
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    words = [(node.lineno, node.value) for node in found if id(node) not in said and " " in node.value.strip()]
    return [(line, text) for line, text in words if not NO_SENTENCE.search(text)]


def of_another(source: str, *patterns: re.Pattern) -> list[tuple[int, str]]:
    """The texts that name a setting as another front end does."""
    return [(line, text) for line, text in texts(source) if any(pattern.search(text) for pattern in patterns)]


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_sentence_of_the_core_names_an_option_or_an_argument_by_itself(path):
    assert of_another(path.read_text(encoding="utf-8"), OPTION, KEYWORD) == []


@pytest.mark.parametrize("path", sorted(CLI.glob("*.py")), ids=lambda path: path.name)
def test_no_sentence_of_the_command_line_names_an_argument_of_python(path):
    assert of_another(path.read_text(encoding="utf-8"), re.compile(r"\b[a-z]+_[a-z_]+=(?!=)")) == []


@pytest.mark.parametrize("path", MODULE, ids=lambda path: path.name)
def test_no_sentence_of_the_panel_names_an_option(path):
    assert of_another(path.read_text(encoding="utf-8"), OPTION) == []


@pytest.mark.parametrize(
    "line", ['raise InputError("Give it (--spacing).")', 'f"load it with spacing_mm={x} or not"', 'warn("use a=1 now")']
)
def test_the_check_sees_options_and_arguments_in_sentences(line):
    assert of_another(line, OPTION, KEYWORD)
    assert not of_another(f'"""{line!r} is documentation."""', OPTION, KEYWORD)


def options(parser: argparse.ArgumentParser) -> set[str]:
    """All options of a command and of those below it."""
    found = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found |= set().union(*map(options, action.choices.values()))
    return found


def named_settings() -> set[str]:
    """The settings that sentences name."""
    calls = [
        node
        for path in CORE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "named"
    ]
    return {call.args[0].value for call in calls}


def test_every_setting_that_a_sentence_names_is_an_option_of_the_command_line():
    settings = named_settings()
    assert {"spacing_mm", "poses_are", "on_bad", "known_length_mm"} <= settings
    assert {option_of(setting) for setting in settings} - options(build_parser()) == set()


def test_a_setting_is_called_as_its_reader_gives_it():
    assert (named("poses_are"), named("poses_are", "measured")) == ("poses_are", "poses_are='measured'")
    with settings_called(option_of):
        assert (named("spacing_mm"), named("poses_are", "measured")) == ("--spacing", "--poses-are measured")
        assert named("resume", True) == "--resume"
    call_settings(labelled({"direction": "Direction"}))
    try:
        assert (named("direction"), named("tracker", "clip")) == ("“Direction”", "“tracker”: clip")
    finally:
        call_settings(None)
    assert named("direction") == "direction"


def test_the_same_fault_is_told_in_the_words_of_python_and_of_the_command_line(tmp_path, capsys):
    frames = noise_sweep(4).frames
    with pytest.raises(InputError, match=r"give it in mm \(spacing_mm\) or give a calibration \(calibration\)"):
        estimate_trajectory(Sweep(frames, None), tiny_model())
    np.save(tmp_path / "clip.npy", frames)
    assert main(["track", str(tmp_path / "clip.npy"), "-o", str(tmp_path / "poses.csv"), "--quiet"]) == 2
    assert "give it in mm (--spacing) or give a calibration (--calibration)" in capsys.readouterr().err
    both = {"depth_mm": 40, "spacing_mm": 0.2}
    with pytest.raises(InputError, match=r"^depth_mm and spacing_mm both"):  # and the command line has left no trace
        RunSettings(**both)
    assert main(["info", str(tmp_path / "clip.npy"), "--depth-mm", "40", "--spacing", "0.2"]) == 2
    assert "--depth-mm and --spacing both give the pixel size" in capsys.readouterr().err
