"""What a shell shows: help for the name of the program alone, and completion of commands, options and files."""

import shlex
import shutil
import subprocess
import sys

import pytest

from DualTrackCore.cli import main
from DualTrackCore.cli.parser import build_parser
from DualTrackCore.cli.shell import FIRST_HELP
from DualTrackCore.sample import sample_path


def test_the_name_alone_says_the_commonest_commands(capsys):
    assert main([]) == 0
    assert capsys.readouterr().out == FIRST_HELP + "\n"


def test_the_commands_that_the_first_help_names_are_there():
    values = {"DIR": "out", "CLIP": "clip.mp4", "R,A,S": "1,2,3"}
    lines = [line for line in FIRST_HELP.splitlines() if line.startswith("  dualtrack")]
    assert len(lines) == 4
    for line in lines:
        words = line.strip().split("    ")[0].split()[1:]
        options = build_parser().parse_args([values.get(word, word) for word in words])
        assert options.command_name == f"dualtrack {words[0]}"


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """What bash offers for the last of some words, in a folder with a file and a folder."""
    if shutil.which("bash") is None:
        pytest.skip("There is no bash on this computer.")
    folder = tmp_path_factory.mktemp("completion")
    (folder / "clip.mha").touch()
    (folder / "results").mkdir()
    command = [sys.executable, "-m", "DualTrackCore.cli", "completion", "bash"]
    (folder / "dualtrack.bash").write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)

    def offered(*words):
        typed = " ".join(map(shlex.quote, words))
        script = (
            f"source dualtrack.bash; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; COMP_LINE='{typed}'; "
            "COMP_POINT=${#COMP_LINE}; $(complete -p dualtrack | sed 's/.*-F \\([^ ]*\\).*/\\1/') "
            f"dualtrack {shlex.quote(words[-1])} {shlex.quote(words[-2])}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    return offered


def test_a_shell_completes_commands_and_their_actions(complete):
    assert {"reconstruct"} == complete("dualtrack", "rec")
    assert {"run"} == complete("dualtrack", "ru")
    assert {"fetch"} == complete("dualtrack", "models", "fe")


def test_a_shell_completes_options_and_their_choices(complete):
    assert "--hole-filling" in complete("dualtrack", "run", "--ho")
    assert {"--tta"} == complete("dualtrack", "run", "--tt")


def test_a_shell_completes_files_and_folders(complete):
    assert "clip.mha" in complete("dualtrack", "info", "cl")
    assert "results" in complete("dualtrack", "correct", "res")


def test_a_missing_package_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "zsh"]) == 2
    assert capsys.readouterr().err.strip().endswith("pip install 'dualtrack[completion]'.")


def test_a_terminal_shows_a_sign_of_life_first_and_every_long_stage_has_a_bar(tmp_path, monkeypatch, capsys):
    from DualTrackCore.cli.console import Console

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    stages = []
    monkeypatch.setattr(Console, "progress", lambda console, report: stages.append((str(report.stage), report)))
    assert main(["run", str(sample_path()), "--frames", "0,23", "--no-evaluate", "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err.startswith("Starting …\r          \r")
    assert list(dict.fromkeys(name for name, _ in stages if "once per" not in name)) == [
        "reading",
        "looking for repeated frames",
        "loading model",
        "network",
        "attention",
        "reconstructing",
        "filling holes",
        "writing frames",
        "pictures",
        "writing the volume",
    ]
    assert all(report.done == report.total for report in dict(stages).values())


def test_no_sign_of_life_gets_into_what_a_program_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for option in ("--json", "--quiet"):
        main(["info", str(tmp_path / "none.mha"), option])
        assert "Starting" not in capsys.readouterr().err
    monkeypatch.undo()
    main(["info", str(tmp_path / "none.mha")])
    assert "Starting" not in capsys.readouterr().err


def test_a_bar_counts_up_in_a_terminal_and_goes_when_it_is_full(monkeypatch, capsys):
    from DualTrackCore.cli.console import Console
    from DualTrackCore.progress import Progress, Stage

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    console = Console(False, False)
    for done in (1, 4):
        console.progress(Progress(Stage.READING, done, 4))
    console.close()
    shown = capsys.readouterr().err
    assert "0/4" in shown
    assert shown.endswith("\r")


def test_a_log_gets_a_line_every_five_minutes_in_place_of_a_bar(monkeypatch, capsys):
    from DualTrackCore.cli.console import Console
    from DualTrackCore.progress import Progress, Stage

    for quiet in (False, True):
        now = 1000.0
        monkeypatch.setattr("DualTrackCore.cli.console.time.monotonic", lambda: now)  # noqa: B023
        console = Console(False, quiet)
        for done in range(120):  # ten minutes
            console.progress(Progress(Stage.SWEEPS, done, 120))
            now += 5
        printed, shown = capsys.readouterr()
        assert shown == ("" if quiet else "Sweeps: 60 of 120\n")
        assert not printed  # what a program reads stays as it is


@pytest.mark.parametrize("option", ["--json", "--quiet", ""])
def test_without_a_terminal_a_command_makes_no_bar_with_its_thread_and_shared_lock(tmp_path, option):
    command = ["convert", str(sample_path()), str(tmp_path / "copy.h5"), *([option] if option else [])]
    lines = (
        "import sys, threading; from DualTrackCore.cli import main\n"
        f"assert main({command!r}) == 0\n"
        "assert 'tqdm' not in sys.modules and threading.active_count() == 1, threading.enumerate()"
    )
    subprocess.run([sys.executable, "-c", lines], check=True, capture_output=True)
    assert (tmp_path / "copy.h5").exists()
