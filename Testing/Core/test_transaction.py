"""A result is all old or all new, whenever the process is killed and whatever the system refuses."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from DualTrackCore import staging
from DualTrackCore.errors import OutputError
from DualTrackCore.files import recorded_files, replacing, staged_folder
from DualTrackCore.io import load_sweep, save_sweep
from DualTrackCore.network.catalogue import installed_models
from DualTrackCore.staging import restore_interrupted
from DualTrackCore.sweep import Sweep

OLD = {"a.txt": "old", "b.txt": "old", "picture.png": "old"}
NEW = {"a.txt": "new", "b.txt": "new", "c.txt": "new"}
#: Of the user, in the same folder.
OWN = {"notes.txt": "mine", "deep/er/list.txt": "mine"}

#: Writes NEW over OLD and kills itself at a step on files that is counted by an audit hook; 0 for none.
WRITER = f"""
import os, signal, sys
from DualTrackCore import staging
from DualTrackCore.files import staged_folder
folder, way, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
steps = 0
def step(event, arguments):
    global steps
    if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod"):
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
exchange = staging._exchange
def watched(*paths):
    step("os.rename", ())
    if way == "moved":
        raise OSError(38, "no exchange here")
    exchange(*paths)
    step("os.rename", ())
staging._exchange = watched
sys.addaudithook(step)
with staged_folder(folder, {tuple(OLD)}) as new:
    for name in {tuple(NEW)}:
        (new / name).write_text("new")
last = 0
"""


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def earlier_result(folder: Path) -> Path:
    for name, text in {**OLD, **OWN}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def write_again(folder: Path) -> None:
    with staged_folder(folder, OLD) as new:
        for name, text in NEW.items():
            (new / name).write_text(text)


@pytest.fixture(params=["exchanged", "moved"])
def way(request, monkeypatch):
    """Both ways in which a folder takes its place."""
    if request.param == "moved":
        monkeypatch.setattr(staging, "_exchange", lambda *_: (_ for _ in ()).throw(OSError(38, "no exchange here")))
    elif sys.platform != "linux":
        pytest.skip("Only Linux exchanges folders in one step.")
    return request.param


def test_the_new_result_replaces_the_earlier_one_and_leaves_the_files_of_the_user(tmp_path, way):
    folder = earlier_result(tmp_path / "out")
    (folder / "link").symlink_to(folder / "notes.txt")
    write_again(folder)
    assert contents(folder) == {**NEW, **OWN, "link": "mine"}
    assert (folder / "link").is_symlink()
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no SIGKILL.")
def test_a_kill_at_any_step_leaves_all_old_or_all_new_and_the_next_run_leaves_nothing_else(tmp_path, way):
    states, last = set(), 0
    while True:
        last += 1
        folder = earlier_result(tmp_path / str(last) / "out")
        # Without the compiled files, whose writing would be counted.
        done = subprocess.run([sys.executable, "-B", "-c", WRITER, str(folder), way, str(last)], check=False)
        if way == "moved":
            restore_interrupted(folder)
        now = {name: text for name, text in contents(folder).items() if not name.startswith(".dualtrack-")}
        assert now in ({**OLD, **OWN}, {**NEW, **OWN}), f"killed at step {last}"
        states.add(now["a.txt"])
        write_again(folder)
        assert contents(folder) == {**NEW, **OWN}, f"killed at step {last}"
        assert os.listdir(folder.parent) == ["out"], f"killed at step {last}"
        if done.returncode == 0:
            break
    assert last > 10
    assert states == {"old", "new"}


@pytest.mark.parametrize("refused", ["a.txt", "b.txt", "c.txt", "picture.png"])
@pytest.mark.parametrize("part", ["old", "new"])
def test_one_file_that_cannot_be_moved_leaves_all_old(tmp_path, monkeypatch, refused, part):
    folder = earlier_result(tmp_path / "out")
    rename = os.rename

    def refusing(source, target, **options):
        if (Path(target).parent.name == "old") == (part == "old") and Path(target).name == refused:
            raise PermissionError(13, "Permission denied")
        rename(source, target, **options)

    monkeypatch.setattr(staging, "_exchange", lambda *_: (_ for _ in ()).throw(OSError(38, "no exchange here")))
    monkeypatch.setattr(os, "rename", refusing)
    exists = refused in (OLD if part == "old" else NEW)
    with pytest.raises(OutputError, match="Permission denied") if exists else contextlib.nullcontext():
        write_again(folder)
    assert contents(folder) == ({**OLD, **OWN} if exists else {**NEW, **OWN})
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("why", ["current", "mount", "closed parent"])
def test_a_folder_that_must_stay_itself_takes_results(tmp_path, monkeypatch, why):
    folder = earlier_result(tmp_path / "out")
    before = folder.stat().st_ino
    if why == "current":
        monkeypatch.chdir(folder)
    elif why == "mount":
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == folder)
    else:
        access = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode))
    write_again(Path(".") if why == "current" else folder)
    assert folder.stat().st_ino == before
    assert contents(folder) == {**NEW, **OWN}
    assert sorted(os.listdir(folder)) == ["a.txt", "b.txt", "c.txt", "deep", "notes.txt"]


def test_a_target_that_is_read_only_is_refused_before_the_work(tmp_path, monkeypatch):
    folder = earlier_result(tmp_path / "out")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "b.txt" and access(path, mode))
    with pytest.raises(OutputError, match=r"b\.txt.*read-only"), staged_folder(folder, OLD):
        pytest.fail("the work began")
    with pytest.raises(OutputError, match=r"b\.txt.*read-only"), replacing(folder / "b.txt"):
        pytest.fail("the work began")
    with pytest.raises(OutputError, match="it is a folder"), replacing(folder / "deep"):
        pytest.fail("the work began")
    assert contents(folder) == {**OLD, **OWN}


def test_temporary_files_of_a_living_process_stay_and_those_of_a_dead_one_go(tmp_path):
    script = (
        "import sys; from DualTrackCore.files import replacing\n"
        "with replacing(sys.argv[1]) as path:\n"
        "    path.write_text('done'); print('ready', flush=True); sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "other.txt")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as living:
        assert living.stdout.readline().strip() == b"ready"
        (tmp_path / ".dualtrack-0123456789abcdef").mkdir()
        (tmp_path / ".dualtrack-0123456789abcdef" / "half.txt").write_text("half")
        with replacing(tmp_path / "mine.txt") as path:
            path.write_text("mine")
        assert len([name for name in os.listdir(tmp_path) if name.startswith(".")]) == 1
        living.stdin.write(b"\n")
        living.stdin.flush()
        assert living.wait(60) == 0
    assert contents(tmp_path) == {"mine.txt": "mine", "other.txt": "done"}


def test_two_results_at_once_are_both_there(tmp_path, way):
    folder = tmp_path / "models"
    folder.mkdir()
    with staged_folder(folder) as one:
        (one / "a.txt").write_text("a")
        with staged_folder(folder) as other:
            (other / "b.txt").write_text("b")
    assert contents(folder) == {"a.txt": "a", "b.txt": "b"}


def test_a_record_names_only_files_that_results_can_have(tmp_path):
    record = tmp_path / "report.json"
    assert recorded_files(record, ["a.txt"]) == set()
    record.write_text('{"files": ["a.txt", "thesis.docx", "../b.txt", 1]}')
    assert recorded_files(record, ["a.txt", "c.txt"]) == {"a.txt"}
    record.write_text("[]")
    assert recorded_files(record, ["a.txt"]) == set()


def test_readers_bring_back_what_a_killed_process_had_moved_away(tmp_path):
    folder, half = tmp_path / "out", tmp_path / "out" / ".dualtrack-0123456789abcdef"
    for part in ("old", "new"):
        (half / part).mkdir(parents=True)
    save_sweep(Sweep(np.zeros((2, 8, 8), np.uint8)), half / "old" / "sweep.h5")
    (half / "old" / "own.pt").write_text("old")
    (folder / "own.pt").write_text("new")
    journal = json.dumps({"staging": half.name, "new": ["own.pt"]})
    (folder / ".dualtrack-journal.json").write_text(journal)
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert len(load_sweep(folder / "sweep.h5")) == 2
    assert [model.path.read_text() for model in installed_models(copy) if not model.ships] == ["old"]
    with replacing(folder / "b.txt") as path:
        path.write_text("b")
    assert sorted(os.listdir(folder)) == ["b.txt", "own.pt", "sweep.h5"]


def test_a_journal_leads_nowhere_but_into_its_own_folder(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "out"
    (outside / "old").mkdir(parents=True)
    (outside / "old" / "secret.txt").write_text("mine")
    folder.mkdir()
    (folder / ".dualtrack-link").symlink_to(outside)
    for name in ("../outside", "..", ".dualtrack-link", 1):
        (folder / ".dualtrack-journal.json").write_text(json.dumps({"staging": name, "new": ["../a.txt"]}))
        restore_interrupted(folder)
        assert contents(outside) == {"old/secret.txt": "mine"}


def test_a_temporary_folder_that_cannot_be_removed_at_once_is_no_result(tmp_path, monkeypatch):
    earlier_result(tmp_path / "out")
    remove, refused = staging._remove, []

    def refuse_for_one_file(folder):
        refused.append(folder) if folder.parent.name == "new" and len(refused) < len(NEW) else remove(folder)

    monkeypatch.setattr(staging, "_remove", refuse_for_one_file)
    with staged_folder(tmp_path / "out", OLD) as new:
        for name, text in NEW.items():
            with replacing(new / name) as path:
                path.write_text(text)
    assert len(refused) == len(NEW)
    assert contents(tmp_path / "out") == {**NEW, **OWN}
    assert not [name for name in os.listdir(tmp_path / "out") if name.startswith(".")]
