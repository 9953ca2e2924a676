"""Addresses of servers, the user's word before frames go there, keys, and what a server refuses to be started with."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from worker_processes import tracked_sweep

from DualTrackCore.cli import main
from DualTrackCore.errors import InputError, MissingDependencyError
from DualTrackCore.remote import Server, consent, wire
from DualTrackCore.run.pipeline import settings_model
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.serving import ServerSettings, host

FAR = "https://gpu.example:8765"


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    """Nothing of the user of this computer; and a far address leads nowhere."""
    monkeypatch.setenv("DUALTRACK_MODELS", str(tmp_path / "models"))
    for name in [name for name in os.environ if name.startswith("DUALTRACK_SERVER")]:
        monkeypatch.delenv(name)

    def nowhere(self):
        raise InputError("The far server was asked.")

    monkeypatch.setattr(Server, "offer", nowhere)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("https://gpu.lab", "https://gpu.lab:8765"),
        ("HTTP://127.0.0.1:80/", "http://127.0.0.1:80"),
        (" https://[::1]:9 ", "https://[::1]:9"),
    ],
)
def test_an_address_is_remembered_in_one_way(given, address):
    assert consent.checked_address(given) == address
    assert Server(given).address == address


@pytest.mark.parametrize(
    "given",
    [
        *("gpu.lab", "gpu.lab:8765", "ftp://gpu.lab", "https://", "https://gpu.lab:99999", "https://gpu.lab/path"),
        *("https://me:secret@gpu.lab", "https://gpu lab", "https://gpu.lab?key=1", "://", "https://[::1"),
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated_whole(given):
    with pytest.raises(InputError, match="is not the address of a server; write it as https://host:8765"):
        consent.checked_address(given)


def test_only_other_computers_need_the_word_of_the_user():
    for here in ("http://127.0.0.1:1", "http://localhost:1", "http://127.8.9.1:1", "http://[::1]:1"):
        assert consent.is_agreed(here)
    for far in (FAR, "http://192.168.0.7:8765", "http://localhost.example:1", "http://127.0.0.1.example:1"):
        assert not consent.is_agreed(far)


def test_what_is_said_tells_whether_the_way_is_encrypted():
    assert "they are sent to https://gpu.example:8765, encrypted" in consent.notice(FAR)
    assert "NOT encrypted" in consent.notice("http://gpu.example:8765")


def test_the_word_of_the_user_is_remembered_for_each_address(tmp_path):
    consent.remember(FAR)
    assert consent.is_agreed("https://gpu.example")
    assert not consent.is_agreed("http://gpu.example")
    consent.remember("http://other.example:1")
    assert consent.is_agreed(FAR)
    (tmp_path / "models" / "servers.json").write_text("[]")
    assert not consent.is_agreed(FAR)


def test_no_frame_leaves_the_computer_before_the_user_has_agreed(monkeypatch):
    def never(self):
        raise AssertionError("A connection was made.")

    monkeypatch.setattr(Server, "_connection", never)
    with pytest.raises(InputError, match=r"leave this computer.*Agree once: agreed=True"):
        Server(FAR).track(tracked_sweep(3), {"model": "mini"})


def clip(folder: Path) -> str:
    np.save(folder / "clip.npy", tracked_sweep(3).frames)
    return str(folder / "clip.npy")


def test_the_command_line_says_it_once_and_asks_before_anything_is_read(tmp_path, capsys):
    command = ["run", clip(tmp_path), "--spacing", "0.2", "--quiet", "--server", "https://gpu.example", "-o"]
    assert main([*command, str(tmp_path / "one")]) == 2
    assert "leave this computer" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "one"), "--yes"]) == 2
    said = capsys.readouterr().err
    assert "Note: The frames of your clips leave this computer" in said
    assert "The far server was asked." in said
    assert main([*command, str(tmp_path / "one")]) == 2
    said = capsys.readouterr().err
    assert "leave this computer" not in said
    assert "The far server was asked." in said
    assert not (tmp_path / "one").exists()


def test_a_key_comes_from_a_file_or_a_variable_and_is_never_shown(tmp_path, monkeypatch):
    file = tmp_path / "key"
    file.write_text("secret-of-the-lab\n")
    assert Server.at(FAR, file).key == "secret-of-the-lab"
    monkeypatch.setenv("DUALTRACK_SERVER_KEY_FILE", str(file))
    assert Server.at(FAR).key == "secret-of-the-lab"
    assert "secret" not in repr(Server.at(FAR))
    monkeypatch.setenv("DUALTRACK_SERVER_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match="cannot be read: No such file"):
        Server.at(FAR)
    file.write_text(" \n")
    with pytest.raises(InputError, match="is empty"):
        Server.at(FAR, file)
    with pytest.raises(InputError, match="characters that no key has"):
        Server(FAR, "zwei\nZeilen")


def test_a_certificate_that_is_none_is_a_sentence(tmp_path):
    (tmp_path / "c.pem").write_text("nonsense")
    for name in ("c.pem", "none.pem"):
        with pytest.raises(InputError, match=r"cannot be read .* give a PEM file"):
            Server(FAR, certificate=str(tmp_path / name))._trusted()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "0.0.0.0"}, "so it needs a key: add key_file"),
        ({"host": "192.168.0.7", "insecure": True}, "so it needs a key"),
        ({"host": "::", "key_file": "k"}, "could be read on their way: add certificate and"),
        ({"host": "gpu.example", "key_file": "k"}, "or insecure=True"),
        ({"certificate": "c"}, "TLS needs both files"),
        ({"device": FAR}, "computes on its own device"),
        ({"places": 0}, "places, gigabytes and minutes are above 0"),
        ({"port": 70_000}, "between 0 and 65535"),
    ],
)
def test_a_server_does_not_start_where_others_could_read_or_send(settings, words):
    with pytest.raises(InputError, match=words):
        ServerSettings(**settings)


def test_what_a_server_needs_is_looked_at_before_it_starts(tmp_path, capsys):
    (tmp_path / "short").write_text("abc")
    for options, words in [
        (["--key-file", str(tmp_path / "short")], "has 3 characters and must have at least 16"),
        (["--models", "mini,nothing"], "no model 'nothing' on this computer"),
        (["--host", "0.0.0.0"], "needs a key"),
        (["--host", "no.such.host.invalid", "--key-file", str(tmp_path / "new"), "--insecure"], "cannot listen on"),
        (["--certificate", str(tmp_path / "short"), "--private-key", str(tmp_path / "short")], "cannot be used"),
    ]:
        assert main(["serve", "--port", "0", *options]) == 2
        assert words in capsys.readouterr().err
    assert len((tmp_path / "new").read_text().strip()) > 40


def test_a_port_of_another_program_is_a_sentence(capsys):
    with host._listening(ServerSettings(port=0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen on 127.0.0.1, port" in capsys.readouterr().err


def test_settings_tell_a_server_from_a_device():
    assert RunSettings(device=FAR).server == FAR
    assert RunSettings(device="cuda:0").server == ""
    with pytest.raises(InputError, match="leave out card"):
        settings_model(RunSettings(device=FAR, card="card.json"))


def test_what_a_client_may_choose_are_settings_of_a_run():
    names = set(RunSettings().as_dict())
    assert {*wire.TRACKING_SETTINGS, *wire.VOLUME_SETTINGS} <= names
    assert not {"device", "card", "poses", "calibration", "profile"} & {*wire.TRACKING_SETTINGS, *wire.VOLUME_SETTINGS}


def test_arrays_come_back_as_they_were_sent():
    for array in (np.arange(12.0).reshape(3, 4), np.array([True, False]), np.zeros((2, 0, 3), np.uint8)):
        block = wire.block_of("name", array)
        line = wire.head_line({"fact": 1}, [block])
        head, (again,) = wire.read_head(line)
        assert head == {"fact": 1}
        sent = b"".join(wire.pieces(array))
        assert len(sent) == again.size
        np.testing.assert_array_equal(again.array(sent), array)


def test_what_is_not_installed_is_named_with_its_extra():
    code = (
        "import sys; sys.modules['httpx'] = sys.modules['uvicorn'] = None\n"
        "from DualTrackCore.errors import MissingDependencyError\n"
        "for name in ('remote.Server', 'serving.start'):\n"
        "    room, name = name.split('.')\n"
        "    try: getattr(__import__(f'DualTrackCore.{room}', fromlist=[room]), name)\n"
        "    except MissingDependencyError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [
        "DualTrackCore.remote needs the package httpx: pip install 'dualtrack[client]'.",
        "DualTrackCore.serving needs the package uvicorn: pip install 'dualtrack[server]'.",
    ]
    assert issubclass(MissingDependencyError, ImportError)
