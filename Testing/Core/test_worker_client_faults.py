"""The worker process from its client when something goes wrong: each time one sentence, and the next job runs."""

import os
import signal
from pathlib import Path

import pytest
from oracle import noise_sweep
from worker_processes import LIGHT, comes_true, failure, finished, first_report, is_running, stand_in, tracked_sweep

from DualTrackCore.run.settings import RunSettings
from DualTrackCore.worker import WorkerClient

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="These journeys look at processes in ways Windows has not."),
    pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.engine.TrackingWarning"),
]


@pytest.mark.parametrize(
    ("number", "kind", "words", "in_log"),
    [
        (signal.SIGKILL, "memory", "most likely because the memory ran out", ""),
        (signal.SIGSEGV, "crash", "crashed (SIGSEGV)", "Fatal Python error: Segmentation fault"),
    ],
)
def test_a_process_that_dies_in_a_run_is_a_sentence_with_its_log(temporary, model_file, number, kind, words, in_log):
    with WorkerClient() as client:
        job = client.submit(noise_sweep(4000), RunSettings(model=str(model_file), chunk_frames=4))
        assert first_report(job, "network")
        os.kill(client.pid, number)
        error = failure(job)
        assert error.kind == kind
        assert words in str(error)
        assert str(error.log_path) in str(error)
        assert in_log in error.log_path.read_text()
        assert in_log in error.details
        assert finished(client.submit(tracked_sweep(3), LIGHT)).state == "done"


def test_a_process_that_dies_between_runs_is_replaced(temporary):
    with WorkerClient() as client:
        finished(client.submit(tracked_sweep(3), LIGHT))
        pid = client.pid
        os.kill(pid, signal.SIGKILL)
        assert comes_true(lambda: not client.running)
        assert not is_running(pid)
        assert finished(client.submit(tracked_sweep(3), LIGHT)).state == "done"


def test_too_little_memory_is_a_sentence_and_the_process_lives_on(temporary, tmp_path):
    pytest.importorskip("resource", reason="Memory can be limited on POSIX systems only.")
    body = """
import resource, runpy
import numba, scipy.ndimage
import DualTrackCore.reconstruction.kernels, DualTrackCore.worker.serve
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 60_000_000,) * 2)
runpy.run_module("DualTrackCore.worker", run_name="__main__", alter_sys=True)
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("The memory of a process is read from /proc, which this system does not have.")
    large = tracked_sweep(100, 1000, 1000)
    with WorkerClient(stand_in(tmp_path, body)) as client:
        error = failure(client.submit(large, RunSettings(poses="tracked", voxel_mm=5.0)))
        assert error.kind == "memory", error
        assert str(error).startswith("The memory is too small for this run; use a smaller chunk")
        assert finished(client.submit(tracked_sweep(3), LIGHT)).state == "done"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("hello(version='99.0')\nasked()", "version", "is DualTrack 99.0 (protocol"),
        ("hello(protocol=2)\nasked()", "version", "(protocol 2)"),
        ("sys.exit('no module named numpy')", "start", "ended with code 1 (no module named numpy)"),
        ("hello()\nasked()\nos._exit(3)", "crash", "ended with code 3"),
        ("hello()\nasked()\nprint('nonsense', flush=True)\ntime.sleep(60)", "crash", "wrote something unreadable"),
        ("hello()\nasked()\nsay(event='done', id=99, result={})\ntime.sleep(60)", "crash", "something unreadable"),
        ("hello()\nasked()\nsay(event='done', id=1, result={})\ntime.sleep(60)", "fault", "A fault of the program"),
        (
            "hello()\nasked()\nsys.stdout.close()\nos.close(1)\ntime.sleep(60)",
            "crash",
            "closed its output and was ended",
        ),
    ],
)
def test_a_process_that_does_not_keep_to_the_protocol_is_a_sentence(temporary, tmp_path, body, kind, words):
    with WorkerClient(stand_in(tmp_path, body)) as client:
        error = failure(client.submit(tracked_sweep(3), LIGHT))
        assert words in str(error)
        assert error.kind == kind
        assert "\n" not in str(error)
        assert comes_true(lambda: not client.running)


def test_a_greeting_may_come_after_other_words(temporary, tmp_path):
    body = "print('Welcome to this Python.', flush=True)\nhello()\nasked()\nos._exit(3)"
    with WorkerClient(stand_in(tmp_path, body)) as client:
        assert "ended with code 3" in str(failure(client.submit(tracked_sweep(3), LIGHT)))


def test_a_process_that_never_answers_is_given_up(temporary, tmp_path, monkeypatch):
    monkeypatch.setattr("DualTrackCore.worker.client.HELLO_TIMEOUT_S", 0.5)
    with WorkerClient(stand_in(tmp_path, "time.sleep(60)")) as client:
        error = failure(client.submit(tracked_sweep(3), LIGHT))
        assert error.kind == "start"
        assert "did not answer within" in str(error)
        assert not client.running


def test_a_program_that_is_not_there_is_a_sentence(temporary):
    with WorkerClient(["no-such-python"]) as client:
        error = failure(client.preflight())
        assert error.kind == "start"
        assert str(error) == "The program no-such-python cannot be started: No such file or directory."


def test_a_full_disk_is_a_sentence_and_the_next_job_runs(temporary, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with WorkerClient() as client:
        with monkeypatch.context() as patch:
            patch.setattr("DualTrackCore.worker.client.write_sweep", full)
            error = failure(client.submit(tracked_sweep(3), LIGHT))
        assert error.kind == "disk"
        assert "No space left on device; free some space or set TMPDIR" in str(error)
        assert finished(client.submit(tracked_sweep(3), LIGHT)).state == "done"
