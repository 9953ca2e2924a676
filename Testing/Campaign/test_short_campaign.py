"""A short pass of each campaign, and the parts of them that decide what is a fault."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from mutations import mutate
from results import OWN_FILE, References, snapshot
from steps import in_child

HERE = Path(__file__).resolve().parent
SECONDS = 14
#: Quick ones of each kind: a folder, several files that belong together, one file.
KILLED = ("reconstruct", "models import, other suffix", "models import", "convert to .h5")
REFUSED = ("volume.write", "models import", "reconstruct", "convert to .igs.mha")


def campaign(script: str, folder: Path, *options: str) -> tuple[dict, str]:
    """The figures of a short run, and what it printed."""
    target = folder / "figures.json"
    given = ["--minutes", str(SECONDS / 60), "--seed", "1", "--json", str(target), *options]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    own["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), own.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(HERE / script), *given], env=own, capture_output=True, text=True, timeout=400, check=False
    )
    assert target.exists(), done.stderr
    return json.loads(target.read_text(encoding="utf-8")), done.stdout + done.stderr


def commands(names: tuple[str, ...]) -> list[str]:
    """Options that choose these commands."""
    return [word for name in names for word in ("--command", name)]


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork, by which the trials are made.")


@pytest.mark.slow
def test_no_faulty_file_crashes_or_confuses_a_reader(tmp_path):
    figures, said = campaign("fuzz_readers.py", tmp_path)
    assert figures["inputs"] > len(figures["formats"])
    assert figures["faulty"] == 0, said


@needs_fork
def test_a_command_that_hangs_is_killed_and_says_where_it_was(tmp_path):
    def waits() -> int:
        time.sleep(60)
        return 0

    ending = in_child(waits, tmp_path, limit_s=1)
    assert ending.hung
    assert ending.code == -signal.SIGKILL
    assert "in waits" in ending.err


@needs_fork
@pytest.mark.slow
def test_a_kill_leaves_the_old_result_or_the_new_one_and_the_next_run_cleans_up(tmp_path):
    figures, said = campaign("kill_runs.py", tmp_path, *commands(KILLED))
    assert figures["total"]["kills"] >= len(KILLED)
    assert figures["faulty"] == 0, said


@needs_fork
@pytest.mark.slow
def test_writing_that_fails_leaves_the_old_result_and_says_one_sentence(tmp_path):
    figures, said = campaign("write_faults.py", tmp_path, *commands(REFUSED))
    assert figures["total"]["faults tried"] >= len(REFUSED)
    assert figures["faulty"] == 0, said


def test_the_same_seed_makes_the_same_faulty_file():
    made = [mutate(b"size = 3 4 5\n" * 9, b"other", True, random.Random("1 text 7")) for _ in range(2)]
    assert made[0] == made[1]
    assert len({mutate(b"size = 3 4 5\n" * 9, b"other", True, random.Random(n)) for n in range(20)}) > 10


def written(folder: Path, **texts: str) -> dict[str, str]:
    """What a folder holds with these texts; in names, "__" stands for a slash and "_" for a dot."""
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return snapshot(folder)


@pytest.fixture
def references(tmp_path):
    """Two texts of a result and a picture that only the old one has; the new one removes it."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "old" / "out").mkdir()
    (tmp_path / "old" / "out" / OWN_FILE).write_text("mine")
    old = written(tmp_path / "old", out__a_txt="old", out__b_txt="old", out__picture_png="old")
    new = written(tmp_path / "new", out__a_txt="new", out__b_txt="new")
    return References(old, new, {**new, f"out/{OWN_FILE}": old[f"out/{OWN_FILE}"]}, ("out/*",))


def test_a_result_is_old_or_new_as_a_whole(references):
    old, new = references.old, references.after
    assert references.state(old)[0] == "old"
    assert references.state(new)[0] == "new"
    assert references.state({**old, "out/a.txt": new["out/a.txt"]})[0] == "mixed"
    assert references.state({**new, "out/picture.png": old["out/picture.png"]})[0] == "mixed"
    assert references.state({path: value for path, value in new.items() if path != "out/b.txt"})[0] == "mixed"
    assert references.state({**new, "out/b.txt": "half"})[0] == "mixed"


def test_a_file_that_states_measured_times_is_new_whatever_it_says_but_never_old(references):
    new = {**references.after, "out/b.txt": "new, but 0.7 ms a frame"}
    assert references.state(new)[0] == "mixed"
    timed = replace(references, measured=("out/b.txt",))
    assert timed.state(new)[0] == "new"
    assert timed.state({**new, "out/b.txt": references.old["out/b.txt"]})[0] == "mixed"
    assert timed.state({path: value for path, value in new.items() if path != "out/b.txt"})[0] == "mixed"


def test_leftovers_and_lost_files_are_found(references):
    assert references.leftovers(references.after) == []
    assert references.leftovers({**references.after, "out/.1234-out": "folder"}) == ["out/.1234-out"]
    assert references.lost(references.old) == []
    assert references.lost(references.new) == [f"out/{OWN_FILE}"]


def test_times_are_no_difference(tmp_path):
    first = written(tmp_path, report_json='{"created": "2020-01-01T10:00:00+00:00", "wall_seconds": 1.5, "n": 1}')
    again = written(tmp_path, report_json='{"created": "2021-02-03T11:12:13+00:00", "wall_seconds": 2.25, "n": 1}')
    other = written(tmp_path, report_json='{"created": "2021-02-03T11:12:13+00:00", "wall_seconds": 2.25, "n": 2}')
    assert first == again
    assert again != other
