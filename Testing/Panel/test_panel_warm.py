"""What is split off from the warm Python of these tests is as what is started: streams, variables, and how it ends."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from worker_processes import comes_true, is_running

from DualTrackCore.worker.process import core_environment

WORKER = "DualTrackCore.worker"


@pytest.fixture
def start(warm_python, monkeypatch):
    """Starts a module with pipes, as the host does."""
    if warm_python is None:
        pytest.skip("Processes are split off on Linux alone.")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    begun = []

    def begin(module, *arguments, **variables):
        command, pipe = [str(warm_python), "-m", module, *arguments], subprocess.PIPE
        environment = core_environment({**os.environ, **variables})
        begun.append(subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        with process:
            pass


def greeted(process) -> tuple[int, bool]:
    """(id of the worker that greets, whether it is split off: torch is there before anything has asked for it)."""
    pid = json.loads(process.stdout.readline())["pid"]
    return pid, "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def test_a_command_says_what_it_says_and_ends_as_it_ends(start, tmp_path):
    process = start("DualTrackCore.cli", "models", "list", "--json", DUALTRACK_MODELS=str(tmp_path))
    said, complaint = process.communicate()
    assert (process.returncode, complaint) == (0, "")
    assert str(tmp_path) in said
    process = start("DualTrackCore.cli", "run", "nothing.mha", "-o", str(tmp_path / "out"))
    said, complaint = process.communicate()
    assert (process.returncode, said) == (2, "")
    assert "nothing.mha" in complaint


def test_a_worker_ends_with_its_client_and_by_a_signal_as_one_that_is_started(start):
    process = start(WORKER)
    pid, is_warm = greeted(process)
    assert is_warm
    os.kill(pid, signal.SIGSEGV)
    assert process.wait() == -signal.SIGSEGV  # its input stays open: by the end of that it would end as well
    assert "Segmentation fault" in process.stderr.read()
    process = start(WORKER)
    pid, _ = greeted(process)
    process.kill()
    assert comes_true(lambda: not is_running(pid))
    process = start(WORKER)
    greeted(process)
    process.stdin.close()
    assert process.wait() == 0


def test_clients_that_end_before_they_are_answered_do_no_harm(start, warm_python, tmp_path):
    folder = tmp_path / "client"
    folder.mkdir()
    asked = [[WORKER, "--folder", str(folder)], str(tmp_path), core_environment(os.environ)]
    nothing = os.open(os.devnull, os.O_RDWR)
    for request in (b"", json.dumps(asked).encode()):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(str(warm_python.with_name("warm")))
            if request:
                socket.send_fds(client, [request], [nothing] * 3)
    os.close(nothing)
    assert greeted(start(WORKER))[1]
    assert folder.is_dir()


def test_a_client_of_nobody_is_started_as_usual(start, warm_python, tmp_path):
    alone = tmp_path / "python-real"
    alone.write_text(warm_python.read_text().replace(str(warm_python.with_name("warm")), str(tmp_path / "warm")))
    alone.chmod(0o755)
    variables = core_environment(os.environ)
    command = [str(alone), "-m", WORKER]
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert not greeted(process)[1]
        process.stdin.close()
        assert process.wait() == 0


def test_what_takes_other_variables_as_it_starts_is_started_anew(start):
    assert [greeted(start(WORKER, **variables))[1] for variables in ({}, {"OMP_NUM_THREADS": "2"})] == [True, False]
