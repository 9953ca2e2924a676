"""Ctrl-C and SIGTERM: heard soon, where the work can be left cleanly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from oracle import tiny_model

from DualTrackCore.cli import console as cli_console
from DualTrackCore.cli import main
from DualTrackCore.errors import Cancelled
from DualTrackCore.io import save_sweep
from DualTrackCore.network.model import save_model
from DualTrackCore.progress import Progress, Stage
from DualTrackCore.sweep import Sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep of many seconds of work, and a small untrained model."""
    folder = tmp_path_factory.mktemp("interruption")
    frames = np.random.default_rng(0).integers(0, 255, (600, 300, 300), dtype=np.uint8)
    save_sweep(Sweep(frames, 0.2), folder / "long.h5")
    model = tiny_model()
    save_model(model.network, model.card, folder / "tiny.safetensors")
    return folder


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `work(console)` as a command: (exit code, stderr)."""

    def run(work) -> tuple[int, str]:
        monkeypatch.setattr("DualTrackCore.cli.sweeps.info", lambda options, console: work(console))
        return main(["info", "sweep.h5"]), capsys.readouterr().err

    return run


#: A command whose work, `hang` below, is put in place of `dualtrack info`; `ready` is said once it has begun.
PROGRAM = """
import ctypes, subprocess, sys, time
import DualTrackCore.cli
import DualTrackCore.cli.sweeps as commands
from DualTrackCore.errors import Cancelled

def lock_for_ever(library):
    mutex = ctypes.create_string_buffer(256)
    library.pthread_mutex_init(mutex, None)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)  # which never returns, signals or not

def hang(options, console):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("ready", child.pid, flush=True)
    {work}

commands.info = hang
sys.argv = ["dualtrack", "info", "clip.mha"]
sys.exit(DualTrackCore.cli.main())
"""

LETS_OTHER_THREADS_RUN, HOLDS_THE_INTERPRETER = "lock_for_ever(ctypes.CDLL(None))", "lock_for_ever(ctypes.PyDLL(None))"


def hanging(work: str) -> tuple[subprocess.Popen, int]:
    """A command that does `work`, and the id of a child of it."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(work=work)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    said, child = process.stdout.readline().split()
    assert said == "ready"
    time.sleep(0.5)  # the native code has begun, and the watchdog
    return process, int(child)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")  # a child that nobody waits for any more stays as a zombie
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGTERM.")
@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]], ids=["SIGTERM", "Ctrl-C twice"])
@pytest.mark.parametrize("work", [LETS_OTHER_THREADS_RUN, HOLDS_THE_INTERPRETER], ids=["without lock", "with lock"])
def test_native_code_that_never_returns_is_ended_with_its_children(signals, work):
    process, child = hanging(work)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.3)
    try:
        _, err = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:  # on a busy machine two signals can count as one
        process.send_signal(signals[-1])
        _, err = process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)
    if work == HOLDS_THE_INTERPRETER:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + signals[0]
        assert "Ended at once" in err


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGTERM.")
def test_one_ctrl_c_waits_for_native_code():
    process, child = hanging(HOLDS_THE_INTERPRETER)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=3)
    os.kill(child, signal.SIGKILL)  # which has the pipes open, too
    process.kill()
    process.communicate()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGTERM.")
def test_clean_up_after_sigterm_takes_its_time():
    wait = "while not console.cancelled(): time.sleep(0.05)"
    process, _ = hanging(f"{wait}\n    child.kill(); time.sleep(4)\n    raise Cancelled('Cleaned up.')")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Cleaned up." in err


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.0, 0.6])
def test_a_signal_ends_a_run_cleanly_and_leaves_nothing(sent, delay, folder, tmp_path):
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "DualTrackCore.cli", "run", str(folder / "long.h5")),
            *("--model", str(folder / "tiny.safetensors"), "-o", str(tmp_path / "out"), "--voxel", "0.5"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not any(tmp_path.iterdir()) and time.monotonic() < deadline:  # the folder that stages the results
        time.sleep(0.02)
    time.sleep(delay)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "Cancelled; nothing was written." in err
    assert "Traceback" not in err
    assert os.listdir(tmp_path) == []


def test_work_is_left_at_its_next_report_and_not_within_a_library(command):
    reached = []

    def work(console):
        press_ctrl_c()
        reached.append("after the signal")
        assert console.cancelled()
        console.progress(Progress(Stage.NETWORK, 1, 2))
        reached.append("after the report")

    code, err = command(work)
    assert code == 1
    assert "Cancelled; nothing was written." in err
    assert reached == ["after the signal"]


def test_work_that_reports_nothing_is_left_after_a_while(command, monkeypatch):
    monkeypatch.setattr(cli_console, "GRACE_S", 0.2)
    started = time.monotonic()

    def work(console):
        press_ctrl_c()
        time.sleep(60)

    assert command(work)[0] == 1
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("hear", ["progress", "cancelled"])
def test_work_that_has_heard_takes_its_time_to_clean_up(hear, command, monkeypatch):
    monkeypatch.setattr(cli_console, "GRACE_S", 0.2)
    reached = []

    def work(console):
        press_ctrl_c()
        try:
            if hear == "progress":
                console.progress(Progress(Stage.NETWORK, 1, 2))
            elif console.cancelled():
                raise Cancelled("Cancelled; this is kept.")
        finally:
            time.sleep(1)
            reached.append("clean")

    assert command(work)[0] == 1
    assert reached == ["clean"]


def test_a_second_ctrl_c_is_heard_at_once(command):
    reached = []

    def work(console):
        press_ctrl_c()
        reached.append("first")
        press_ctrl_c()
        reached.append("second")

    assert command(work)[0] == 1
    assert reached == ["first"]


def test_a_question_is_left_at_once(command, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: press_ctrl_c())
    answers = []
    assert command(lambda console: answers.append(console.confirm("Download?")))[0] == 1
    assert answers == []


def test_signals_mean_afterwards_what_they_meant_before(command, monkeypatch):
    monkeypatch.setattr(cli_console, "GRACE_S", 0.2)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert command(lambda console: press_ctrl_c())[0] == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    time.sleep(0.5)  # no late signal comes
