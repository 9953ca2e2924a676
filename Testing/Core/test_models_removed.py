"""Models that were downloaded or imported go by name, whole; what ships stays."""

import json

import pytest
from published_model_server import CONTENT, fetch

from DualTrackCore.cli import main
from DualTrackCore.errors import Cancelled, InputError, OutputError
from DualTrackCore.network import catalogue, installation

OTHER = ["other.json", "other.safetensors", "other.safetensors.sha256"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A models folder with an imported model and something of the user's."""
    monkeypatch.setenv(catalogue.FOLDER_VARIABLE, str(tmp_path / "models"))
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(CONTENT[:1000])
    (tmp_path / "w.json").write_text(next(iter(catalogue.published_models().values())).card.to_json())
    installation.import_file("other", weights, check=lambda path: None)
    (tmp_path / "models" / "notes.txt").write_text("mine")
    return tmp_path / "models"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_model_goes_with_its_card_and_checksum_and_nothing_else_does(entry, folder):
    fetch(entry, folder)
    used = installation.removable()
    assert list(used) == [entry.name, "other"]
    before = sum(path.stat().st_size for path in folder.iterdir())
    freed = installation.remove(entry.name)
    assert freed == used[entry.name] == before - sum(path.stat().st_size for path in folder.iterdir()) > len(CONTENT)
    assert names(folder) == sorted([*OTHER, "notes.txt"])
    assert list(installation.removable()) == ["other"]


def test_what_is_left_of_a_cancelled_download_goes_too(entry, folder):
    calls = []

    def stop():
        calls.append(None)
        return len(calls) > 20

    with pytest.raises(Cancelled):
        fetch(entry, folder, cancelled=stop)
    left = [name for name in names(folder) if name.startswith(entry.name)]
    assert left == [f"{entry.name}.part", f"{entry.name}.part.json"]
    assert installation.removable()[entry.name] > 0
    assert installation.remove(entry.name) > 0
    assert names(folder) == sorted([*OTHER, "notes.txt"])


@pytest.mark.parametrize("name", ["mini", "none", "notes", "../models/other", ""])
def test_what_ships_or_is_no_model_is_refused_with_a_sentence(folder, capsys, name):
    with pytest.raises(InputError, match="ships with DualTrack and stays" if name == "mini" else "there are: other"):
        installation.remove(name)
    assert main(["models", "remove", name]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert names(folder) == sorted([*OTHER, "notes.txt"])
    assert catalogue.installed_path("mini").is_file()


def test_the_command_asks_nothing_and_says_what_became_free(folder, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    (folder / "half.part").write_bytes(bytes(5000))
    assert main(["models", "list"]) == 0
    told = capsys.readouterr().out
    assert "disk used" in told
    assert "5 kB of an unfinished download" in told
    assert f"kept in {folder}: " in told
    assert main(["models", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    used = listed["disk_bytes"]
    assert (listed["folder"], list(used), used["half"]) == (str(folder), ["half", "other"], 5000)
    assert main(["models", "remove", "half"]) == 0
    assert "Removed half from" in capsys.readouterr().out
    assert main(["models", "remove", "other", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["name"], said["folder"], said["freed_bytes"]) == ("other", str(folder), used["other"])
    assert names(folder) == ["notes.txt"]


def test_a_file_that_is_in_use_is_told_and_the_model_can_be_removed_later(folder, monkeypatch):
    unlink = type(folder).unlink

    def refuse(path, missing_ok=False):
        if path.suffix == ".safetensors":
            raise PermissionError(13, "in use")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(type(folder), "unlink", refuse)
    with pytest.raises(OutputError, match=r"other\.safetensors: in use; end the programs"):
        installation.remove("other")
    monkeypatch.undo()
    assert installation.remove("other", folder) >= 1000
    assert names(folder) == ["notes.txt"]
