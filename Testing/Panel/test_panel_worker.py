"""The panel's client of the worker process: its jobs, and one sentence for whatever goes wrong."""

import dataclasses
import gc
import os
import signal
import time
import weakref

import numpy as np
import pytest
from oracle import noise_sweep
from worker_processes import LIGHT, comes_true, is_running, stand_in, temporary, tracked_sweep  # noqa: F401

from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.worker import JobFailed

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="Looks at processes in ways Windows has not.")


@pytest.fixture
def client(host, temporary):  # noqa: F811
    """Makes a client of a command, that of the worker where none is given; it is stopped in the end."""
    from DualTrackSlicerLib.process import slicerPython
    from DualTrackSlicerLib.worker import Worker

    made = []

    def make(command=None):
        made.append(Worker(command or (slicerPython(), "-m", "DualTrackCore.worker"), os.environ))
        return made[-1]

    yield make
    for worker in made:
        worker.stop()


def finished(host, job):
    host.wait_until(lambda: job.state != "running", 60)
    return job


def failure(host, job):
    with pytest.raises(JobFailed) as caught:
        _ = finished(host, job).result
    assert job.state == "failed"
    return caught.value


def wait_for(host, job, stage):
    """Wait until a job comes to a stage; returns the report of it."""
    reports = []
    job.onProgress = lambda report: reports.append(report) if report.stage == stage and report.done else None
    host.wait_until(lambda: reports, 60)
    return reports[0]


def test_a_model_is_found_from_another_folder(host, client, tiny_model_file, monkeypatch):
    monkeypatch.chdir(tiny_model_file.parent)
    job = client().submit(noise_sweep(5), RunSettings(model=tiny_model_file.name, reconstruct=False))
    assert len(finished(host, job).result.trajectory) == 5


def test_jobs_wait_their_turn_and_share_one_process(host, client):
    worker = client()
    stages, ended = [], []
    jobs = [worker.submit(tracked_sweep(frames), LIGHT) for frames in range(2, 8)]
    for job in jobs:
        job.onProgress = lambda report: stages.append(report.stage)
        job.onEnd = lambda job: ended.append((job, worker.pid))
    host.wait_until(lambda: len(ended) == len(jobs), 60)
    assert [len(job.result.trajectory) for job in jobs] == list(range(2, 8))
    assert [job for job, _ in ended] == jobs
    assert len({pid for _, pid in ended}) == 1
    assert stages.count("starting") == 1


def test_submitting_does_not_wait_for_the_process(host, client, tmp_path):
    start = time.monotonic()
    job = client(stand_in(tmp_path, "time.sleep(30)")).submit(noise_sweep(200), LIGHT)
    assert time.monotonic() - start < 0.2
    with pytest.raises(RuntimeError, match="still running"):
        _ = job.result
    host.process()
    assert job.state == "running"


def test_cancelling_ends_the_process_within_two_seconds_and_leaves_nothing(
    host,
    client,
    temporary,  # noqa: F811
    tiny_model_file,
    python_of_its_own,
):
    worker = client()
    job = worker.submit(noise_sweep(4000), RunSettings(model=str(tiny_model_file), chunk_frames=4))
    wait_for(host, job, "network")
    pid = worker.pid
    assert is_running(pid)
    start = time.monotonic()
    job.cancel()
    assert time.monotonic() - start < 0.1
    finished(host, job)
    assert time.monotonic() - start < 2.0
    assert job.state == "cancelled"
    assert not is_running(pid)
    assert worker.pid is None
    assert not list(temporary.rglob("*.npy"))
    with pytest.raises(Cancelled):
        _ = job.result
    assert finished(host, worker.submit(tracked_sweep(3), LIGHT)).state == "done"


def test_cancelling_while_frames_are_sent_stops_the_writing(host, client, temporary):  # noqa: F811
    job = client().submit(noise_sweep(400), LIGHT)
    sent = []

    def note(report):
        sent.append(report)
        if report.total == 400 and report.done:
            job.cancel()

    job.onProgress = note
    assert finished(host, job).state == "cancelled"
    assert sent[-1].done < 400
    assert not list(temporary.rglob("*.npy"))


def test_cancelling_ends_what_the_process_has_started(host, client, tmp_path):
    body = """
hello()
asked()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=sys.stdout)
say(id=1, event="progress", stage="checking", done=child.pid, total=child.pid, detail="")
time.sleep(60)
"""
    job = client(stand_in(tmp_path, body)).submit(tracked_sweep(3), LIGHT)
    child = wait_for(host, job, "checking").done
    assert is_running(child)
    job.cancel()
    finished(host, job)
    assert comes_true(lambda: not is_running(child), 2.0)


def test_cancelling_a_job_that_waits_leaves_the_running_one_alone(host, client, tmp_path):
    body = """
hello()
request = asked()
time.sleep(1.0)
say(id=request["id"], event="failed", kind="input", message="Ran to its end.", details="")
time.sleep(60)
"""
    worker = client(stand_in(tmp_path, body))
    running, waiting = (worker.submit(tracked_sweep(3), LIGHT) for _ in range(2))
    host.process()
    waiting.cancel()
    assert waiting.state == "cancelled"
    assert str(failure(host, running)) == "Ran to its end."


def test_cancelling_a_finished_job_changes_nothing(host, client):
    worker = client()
    job = finished(host, worker.submit(tracked_sweep(3), LIGHT))
    pid = worker.pid
    job.cancel()
    host.process()
    assert job.state == "done"
    assert len(job.result.trajectory) == 3
    assert worker.pid == pid


def test_a_job_that_is_over_lets_go_of_the_frames(host, client, tmp_path):
    class Frames(np.ndarray):
        """An array that can be watched."""

    worker = client(stand_in(tmp_path, "hello()\nasked()\ntime.sleep(60)"))
    sweep = tracked_sweep(3)
    frames = sweep.frames.view(Frames)
    gone = weakref.ref(frames)
    job = worker.submit(dataclasses.replace(sweep, frames=frames), LIGHT)
    del frames
    host.wait_until(lambda: worker.pid, 60)
    job.cancel()
    finished(host, job)
    gc.disable()
    try:
        host.wait_until(lambda: gone() is None, 5)
    finally:
        gc.enable()


def test_a_wrong_range_of_frames_is_refused_before_anything_starts(client, temporary):  # noqa: F811
    worker = client()
    with pytest.raises(InputError, match="choose a smaller range"):
        worker.submit(noise_sweep(5), RunSettings(last_frame=9))
    assert worker.pid is None
    assert list(temporary.iterdir()) == []


def test_stopping_cancels_what_runs_and_the_client_can_be_used_again(host, client, temporary, tmp_path):  # noqa: F811
    worker = client(stand_in(tmp_path, "hello()\nasked()\ntime.sleep(60)"))
    jobs = [worker.submit(tracked_sweep(3), LIGHT) for _ in range(2)]
    host.wait_until(lambda: worker.pid, 60)
    pid = worker.pid
    worker.stop()
    assert [job.state for job in jobs] == ["cancelled"] * 2
    assert not is_running(pid)
    assert list(temporary.iterdir()) == []
    worker.stop()
    again = worker.submit(tracked_sweep(3), LIGHT)
    host.wait_until(lambda: worker.pid, 60)
    worker.stop()
    assert again.state == "cancelled"


@pytest.mark.parametrize(
    ("number", "kind", "words", "in_log"),
    [
        (signal.SIGKILL, "memory", "most likely because the memory ran out", ""),
        (signal.SIGSEGV, "crash", "crashed (SIGSEGV)", "Fatal Python error: Segmentation fault"),
    ],
)
def test_a_process_that_dies_in_a_run_is_a_sentence_with_its_log(
    host, client, tiny_model_file, python_of_its_own, number, kind, words, in_log
):
    worker = client()
    job = worker.submit(noise_sweep(4000), RunSettings(model=str(tiny_model_file), chunk_frames=4))
    wait_for(host, job, "network")
    os.kill(worker.pid, number)
    error = failure(host, job)
    assert error.kind == kind
    assert words in str(error)
    assert str(error.log_path) in str(error)
    assert in_log in error.log_path.read_text()
    assert in_log in error.details
    assert finished(host, worker.submit(tracked_sweep(3), LIGHT)).state == "done"


def test_a_process_that_dies_between_runs_is_replaced(host, client, python_of_its_own):
    worker = client()
    finished(host, worker.submit(tracked_sweep(3), LIGHT))
    pid = worker.pid
    os.kill(pid, signal.SIGKILL)
    host.wait_until(lambda: worker.pid is None, 60)
    assert not is_running(pid)
    assert finished(host, worker.submit(tracked_sweep(3), LIGHT)).state == "done"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("hello(version='99.0')\nasked()", "version", "is DualTrack 99.0 (protocol"),
        ("hello(protocol=2)\nasked()", "version", "(protocol 2)"),
        ("sys.exit('no module named numpy')", "start", "ended with code 1 (no module named numpy)"),
        ("hello()\nasked()\nos._exit(3)", "crash", "ended with code 3"),
        ("hello()\nasked()\nprint('nonsense', flush=True)\ntime.sleep(60)", "crash", "wrote something unreadable"),
        ("hello()\nasked()\nsay(event='done', id=99, result={})\ntime.sleep(60)", "crash", "something unreadable"),
        ("hello()\nasked()\nsay(event='done', id=1, result={})\ntime.sleep(60)", "fault", "results cannot be read"),
    ],
)
def test_a_process_that_does_not_keep_to_the_protocol_is_a_sentence(host, client, tmp_path, body, kind, words):
    worker = client(stand_in(tmp_path, body))
    error = failure(host, worker.submit(tracked_sweep(3), LIGHT))
    assert words in str(error)
    assert error.kind == kind
    assert "\n" not in str(error)
    host.wait_until(lambda: worker.pid is None, 60)


def test_a_process_that_closed_its_output_can_be_cancelled(host, client, tmp_path):
    body = "hello()\nasked()\nsay(id=1, event='progress', stage='checking', done=1, total=9, detail='')\n"
    worker = client(stand_in(tmp_path, f"{body}sys.stdout.close()\nos.close(1)\ntime.sleep(60)"))
    job = worker.submit(tracked_sweep(3), LIGHT)
    wait_for(host, job, "checking")
    job.cancel()
    assert finished(host, job).state == "cancelled"
    assert worker.pid is None


def test_a_greeting_may_come_after_other_words(host, client, tmp_path):
    body = "print('Welcome to this Python.', flush=True)\nhello()\nasked()\nos._exit(3)"
    job = client(stand_in(tmp_path, body)).submit(tracked_sweep(3), LIGHT)
    assert "ended with code 3" in str(failure(host, job))


def test_a_process_that_never_answers_is_given_up(host, client, tmp_path, monkeypatch):
    from DualTrackSlicerLib import worker as module

    monkeypatch.setattr(module, "HELLO_TIMEOUT_S", 0.5)
    worker = client(stand_in(tmp_path, "time.sleep(60)"))
    error = failure(host, worker.submit(tracked_sweep(3), LIGHT))
    assert error.kind == "start"
    assert "did not answer within" in str(error)
    assert worker.pid is None


def test_a_program_that_is_not_there_is_a_sentence(host, client):
    error = failure(host, client(["no-such-python"]).preflight("auto"))
    assert error.kind == "start"
    assert str(error).startswith("The program no-such-python cannot be started: ")
    assert "No such file or directory" in str(error)


def test_a_full_disk_is_a_sentence_and_the_next_job_runs(host, client, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    worker = client()
    with monkeypatch.context() as patch:
        patch.setattr("DualTrackCore.worker.job.write_sweep", full)
        error = failure(host, worker.submit(tracked_sweep(3), LIGHT))
    assert error.kind == "disk"
    assert "No space left on device; free some space or set TMPDIR" in str(error)
    assert finished(host, worker.submit(tracked_sweep(3), LIGHT)).state == "done"
