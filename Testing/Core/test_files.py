"""Outputs appear whole or not at all."""

import os

import pytest

from DualTrackCore.errors import InputError, OutputError
from DualTrackCore.files import replacing, staged_folder


def test_a_finished_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "new" / "a.igs.mha"
    for text in ("old", "new"):
        with replacing(path) as temporary:
            assert temporary.name == "a.igs.mha"
            temporary.write_text(text)
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["a.igs.mha"]


@pytest.mark.parametrize("error", [InputError("no"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_file_leaves_the_old_one(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("links", [True, False], ids=["links", "a disk without links"])
@pytest.mark.parametrize("another_was_quicker", [True, False])
def test_of_two_that_make_the_same_file_the_quicker_one_stays(tmp_path, monkeypatch, links, another_was_quicker):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links")))
    path = tmp_path / "made.txt"
    with replacing(path, keep=True) as temporary:
        temporary.write_text("later")
        if another_was_quicker:
            path.write_text("first")
    assert path.read_text() == ("first" if another_was_quicker else "later")
    assert [entry.name for entry in tmp_path.iterdir()] == ["made.txt"]


def test_a_folder_gets_all_files_and_keeps_others(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    (folder / "a.txt").write_text("old")
    with staged_folder(folder) as staging:
        (staging / "a.txt").write_text("new")
        (staging / "b.txt").write_text("b")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "a.txt": "new",
        "b.txt": "b",
        "mine.txt": "mine",
    }
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [InputError("no"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_folder_changes_nothing(tmp_path, error):
    folder = tmp_path / "out"

    def interrupted():
        with staged_folder(folder) as staging:
            (staging / "a.txt").write_text("half")
            raise error

    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="choose another folder"), replacing(tmp_path / "file" / "a.txt"):
        pass
    with pytest.raises(OutputError, match="it is a file"), staged_folder(tmp_path / "file"):
        pass
    with pytest.raises(OutputError, match="Cannot write into"), staged_folder(tmp_path / "file" / "out"):
        pass


def test_folders_made_for_an_output_go_when_it_does_not_come_about(tmp_path):
    with pytest.raises(InputError), replacing(tmp_path / "a" / "b" / "file.txt"):
        raise InputError("no")
    with pytest.raises(InputError), staged_folder(tmp_path / "a" / "b" / "out"):
        raise InputError("no")
    assert os.listdir(tmp_path) == []


def test_the_current_folder_can_take_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with staged_folder(".") as staging:
        (staging / "a.txt").write_text("a")
        assert staging.resolve().parents[1] == tmp_path.resolve()
    assert os.listdir(tmp_path) == ["a.txt"]
