"""The worker process from its client: real processes, from the first job to the last trace."""

import dataclasses
import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from oracle import noise_sweep, tiny_model
from worker_processes import LIGHT, comes_true, is_running, stand_in, tracked_sweep

from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.jobs import JobFailed, RunSettings
from DualTrackCore.network import save_model
from DualTrackCore.worker import run_job
from DualTrackCore.worker_client import WorkerClient

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="These journeys look at processes in ways Windows has not."),
    pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.engine.TrackingWarning"),
]
HERE = Path(__file__).resolve().parent


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, of this test alone; it must be empty in the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    model = tiny_model()
    save_model(model.network, model.card, path)
    return path


@pytest.fixture(scope="module")
def warm_client():
    """A client whose process several tests use one after the other."""
    with WorkerClient() as client:
        yield client


def finished(job, timeout_s: float = 60.0):
    job.wait(timeout_s)
    assert job.state != "running", "the job takes too long"
    return job


def failure(job) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        _ = finished(job).result
    assert job.state == "failed"
    return caught.value


def first_report(job, stage: str) -> bool:
    """Whether the job comes to a stage."""
    return comes_true(lambda: any(report.stage == stage and report.done for report in job.poll()), 60.0)


def test_a_run_in_the_worker_gives_what_it_gives_here(warm_client, model_file):
    sweep = tracked_sweep(40)
    settings = RunSettings(model=str(model_file), first_frame=3, last_frame=30, voxel_mm=0.8)
    result = finished(warm_client.submit(sweep, settings)).result
    expected = run_job(sweep, settings)
    np.testing.assert_allclose(result.trajectory.poses, expected.trajectory.poses, atol=1e-5)
    assert result.grid.size == expected.grid.size
    assert np.mean(result.volume != expected.volume) < 1e-3
    np.testing.assert_allclose(result.coverage.sum(), expected.coverage.sum(), rtol=1e-5)
    assert result.first_frame == 3
    assert result.evaluation.keys() == expected.evaluation.keys()
    for name in ("gpe_mm", "lpe_mm", "final_drift_mm", "path_length_mm"):
        assert result.evaluation["metrics"][name] == pytest.approx(expected.evaluation["metrics"][name], rel=1e-4)
    assert result.warnings == expected.warnings
    assert result.provenance["settings"] == settings.as_dict()
    assert result.provenance["trajectory"]["weights_sha256"] == expected.provenance["trajectory"]["weights_sha256"]


def test_progress_comes_in_the_order_of_the_work(warm_client, model_file):
    job = finished(warm_client.submit(tracked_sweep(40), RunSettings(model=str(model_file), voxel_mm=0.8)))
    reports = [report for report in job.poll() if report.stage != "starting"]
    stages = list(dict.fromkeys(report.stage for report in reports))
    assert stages[:6] == [
        "sending frames",
        "loading model",
        "network",
        "attention",
        "reconstructing",
        "filling holes",
    ]
    assert stages[6] == "Measuring errors"
    last = {report.stage: report for report in reports}
    assert all(report.done == report.total for report in last.values())
    assert job.poll() == []


def test_a_second_run_uses_the_process_and_the_model_of_the_first(warm_client, model_file):
    settings = RunSettings(model=str(model_file), reconstruct=False)
    finished(warm_client.submit(noise_sweep(20), settings))
    pid = warm_client.pid
    second = finished(warm_client.submit(noise_sweep(20), settings))
    assert warm_client.pid == pid
    assert second.result.seconds["model"] < 0.05
    assert second.result.seconds["waiting"] < 0.5
    assert not any(report.stage == "starting" for report in second.poll())


def test_preflight_says_what_the_worker_runs_on(warm_client):
    report = finished(warm_client.preflight("cpu")).result
    assert report["sentence"].startswith("Ready: torch ")
    assert report["diagnostics"]["executable"] == sys.executable


def test_a_run_that_cannot_be_is_one_sentence_and_leaves_the_process_alone(warm_client, model_file):
    finished(warm_client.submit(tracked_sweep(5), LIGHT))
    pid = warm_client.pid
    error = failure(warm_client.submit(noise_sweep(5, spacing_mm=None), RunSettings(model=str(model_file))))
    assert error.kind == "input"
    assert str(error).startswith("The pixel spacing of this sweep is unknown")
    assert "Traceback" in error.details
    assert "spacing of this sweep" in error.log_path.read_text()
    error = failure(warm_client.submit(noise_sweep(5), RunSettings(model="none of this name")))
    assert "'none of this name'" in str(error)
    assert warm_client.pid == pid


def test_a_model_is_found_from_another_folder(warm_client, model_file, monkeypatch):
    monkeypatch.chdir(model_file.parent)
    job = finished(warm_client.submit(noise_sweep(5), RunSettings(model=model_file.name, reconstruct=False)))
    assert len(job.result.trajectory) == 5


def test_jobs_wait_their_turn_and_may_come_from_any_thread(warm_client):
    jobs = []
    threads = [
        threading.Thread(target=lambda n=n: jobs.append((n, warm_client.submit(tracked_sweep(n), LIGHT))))
        for n in range(2, 8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {n: len(finished(job).result.trajectory) for n, job in jobs} == {n: n for n in range(2, 8)}


def test_submitting_does_not_wait_for_the_process(temporary, tmp_path):
    with WorkerClient(stand_in(tmp_path, "time.sleep(30)")) as client:
        start = time.monotonic()
        job = client.submit(noise_sweep(200), LIGHT)
        assert job.poll() is not None
        assert time.monotonic() - start < 0.2
        with pytest.raises(RuntimeError, match="still running"):
            _ = job.result
        start = time.monotonic()
        job.wait(0.3)
        assert 0.25 < time.monotonic() - start < 1.0
        assert job.state == "running"


def test_cancelling_ends_the_process_within_two_seconds_and_leaves_nothing(temporary, model_file):
    with WorkerClient() as client:
        job = client.submit(noise_sweep(4000), RunSettings(model=str(model_file), chunk_frames=4))
        assert first_report(job, "network")
        pid = client.pid
        assert is_running(pid)
        start = time.monotonic()
        job.cancel()
        assert time.monotonic() - start < 0.1
        finished(job, 5.0)
        assert time.monotonic() - start < 2.0
        assert job.state == "cancelled"
        assert not is_running(pid)
        assert not client.running
        assert not list(temporary.rglob("*.npy"))
        with pytest.raises(Cancelled):
            _ = job.result
        assert finished(client.submit(tracked_sweep(3), LIGHT)).state == "done"


def test_cancelling_ends_what_the_process_has_started(temporary, tmp_path):
    body = """
hello()
asked()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=sys.stdout)
say(id=1, event="progress", stage="child", done=child.pid, total=child.pid)
time.sleep(60)
"""
    with WorkerClient(stand_in(tmp_path, body)) as client:
        job = client.submit(tracked_sweep(3), LIGHT)
        reports = []
        assert comes_true(lambda: reports.extend(job.poll()) or any(r.stage == "child" for r in reports))
        child = next(report.done for report in reports if report.stage == "child")
        assert is_running(child)
        job.cancel()
        finished(job, 5.0)
        assert comes_true(lambda: not is_running(child), 2.0)


def test_cancelling_a_job_that_waits_leaves_the_running_one_alone(temporary, tmp_path):
    body = """
hello()
request = asked()
time.sleep(1.0)
say(id=request["id"], event="failed", kind="input", message="Ran to its end.", details="")
time.sleep(60)
"""
    with WorkerClient(stand_in(tmp_path, body)) as client:
        running, waiting = (client.submit(tracked_sweep(3), LIGHT) for _ in range(2))
        waiting.cancel()
        assert waiting.state == "cancelled"
        assert str(failure(running)) == "Ran to its end."


def test_cancelling_a_finished_job_changes_nothing(warm_client):
    job = finished(warm_client.submit(tracked_sweep(3), LIGHT))
    pid = warm_client.pid
    job.cancel()
    assert job.state == "done"
    assert len(job.result.trajectory) == 3
    assert warm_client.pid == pid


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


def test_a_job_that_is_over_lets_go_of_the_frames(temporary, tmp_path):
    class Frames(np.ndarray):
        """An array that can be watched."""

    with WorkerClient(stand_in(tmp_path, "hello()\nasked()\ntime.sleep(60)")) as client:
        sweep = tracked_sweep(3)
        frames = sweep.frames.view(Frames)
        gone = weakref.ref(frames)
        job = client.submit(dataclasses.replace(sweep, frames=frames), LIGHT)
        del frames
        assert comes_true(lambda: client.running)
        job.cancel()
        finished(job)
        gc.disable()
        try:
            assert comes_true(lambda: gone() is None, 5.0)
        finally:
            gc.enable()


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
import DualTrackCore.worker.serve
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 60_000_000,) * 2)
runpy.run_module("DualTrackCore.worker", run_name="__main__", alter_sys=True)
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("The memory of a process is read from /proc, which this system does not have.")
    large = tracked_sweep(100, 1000, 1000)
    with WorkerClient(stand_in(tmp_path, body)) as client:
        error = failure(client.submit(large, LIGHT))
        assert error.kind == "memory"
        assert str(error).startswith("The memory is too small for this run; use a smaller chunk")
        assert finished(client.submit(tracked_sweep(3), LIGHT)).state == "done"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("hello(version='99.0')\nasked()", "version", "is DualTrack 99.0 (protocol 1) and this is"),
        ("hello(protocol=2)\nasked()", "version", "(protocol 2)"),
        ("sys.exit('no module named numpy')", "start", "ended with code 1 (no module named numpy)"),
        ("hello()\nasked()\nos._exit(3)", "crash", "ended with code 3"),
        ("hello()\nasked()\nprint('nonsense', flush=True)\ntime.sleep(60)", "crash", "said something unreadable"),
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
    monkeypatch.setattr("DualTrackCore.worker.session.HELLO_TIMEOUT_S", 0.5)
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
            patch.setattr("DualTrackCore.worker_client.write_sweep", full)
            error = failure(client.submit(tracked_sweep(3), LIGHT))
        assert error.kind == "disk"
        assert "No space left on device; free some space or set TMPDIR" in str(error)
        assert finished(client.submit(tracked_sweep(3), LIGHT)).state == "done"


def test_what_libraries_print_goes_to_the_log(temporary, tmp_path):
    body = """
import runpy
import DualTrackCore.worker.serve as serve
real = serve.run_selected
def loud(*arguments, **more):
    print("a library speaks")
    os.system("echo a program speaks")
    assert sys.stdin.read() == ""
    return real(*arguments, **more)
serve.run_selected = loud
runpy.run_module("DualTrackCore.worker", run_name="__main__", alter_sys=True)
"""
    with WorkerClient(stand_in(tmp_path, body)) as client:
        assert finished(client.submit(tracked_sweep(3), LIGHT)).state == "done"
        log = next(temporary.rglob("*.log"))
        assert comes_true(lambda: "a program speaks" in log.read_text())


def test_a_wrong_range_of_frames_is_refused_before_anything_starts(temporary):
    with WorkerClient() as client:
        with pytest.raises(InputError, match="choose a smaller range"):
            client.submit(noise_sweep(5), RunSettings(last_frame=9))
        assert not client.running


def test_stopping_cancels_what_runs_and_the_client_can_be_used_again(temporary, tmp_path):
    client = WorkerClient(stand_in(tmp_path, "hello()\nasked()\ntime.sleep(60)"))
    jobs = [client.submit(tracked_sweep(3), LIGHT) for _ in range(2)]
    assert comes_true(lambda: client.running)
    pid = client.pid
    client.stop()
    assert [job.state for job in jobs] == ["cancelled"] * 2
    assert not is_running(pid)
    assert list(temporary.iterdir()) == []
    client.stop()
    again = client.submit(tracked_sweep(3), LIGHT)
    assert comes_true(lambda: client.running)
    client.stop()
    assert again.state == "cancelled"


def test_a_client_that_nobody_holds_takes_its_process_along(temporary):
    client = WorkerClient()
    finished(client.submit(tracked_sweep(3), LIGHT))
    pid = client.pid
    assert is_running(pid)
    del client
    gc.collect()
    assert comes_true(lambda: not is_running(pid), 5.0)
    assert comes_true(lambda: not list(temporary.iterdir()), 5.0)


PARENT = """
import os, sys, time
sys.path.insert(0, {here!r})
from worker_processes import LIGHT, tracked_sweep
from DualTrackCore.jobs import RunSettings
from DualTrackCore.worker_client import WorkerClient
client = WorkerClient()
job = client.submit(tracked_sweep(3), LIGHT)
job.wait()
assert job.state == "done"
if {model!r}:
    job = client.submit(tracked_sweep(4000), RunSettings(model={model!r}, chunk_frames=4))
    while not any(report.stage == "network" and report.done for report in job.poll()):
        time.sleep(0.02)
print(client.pid, flush=True)
if {waits!r}:
    time.sleep(60)
"""


def parent(temporary: Path, model: str, waits: bool) -> subprocess.Popen:
    """A process with a client, which works on a job of the model or waits for one."""
    code = PARENT.format(here=str(HERE), model=model, waits=waits)
    environment = {**os.environ, "TMPDIR": str(temporary)}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("busy", [False, True], ids=["while it waits", "in a run"])
def test_the_worker_goes_and_cleans_up_when_its_parent_is_killed(temporary, model_file, busy):
    process = parent(temporary, str(model_file) if busy else "", True)
    pid = int(process.stdout.readline())
    assert is_running(pid)
    assert list(temporary.iterdir())
    process.kill()
    process.communicate()
    assert comes_true(lambda: not is_running(pid), 5.0)
    assert comes_true(lambda: not list(temporary.iterdir()), 5.0)


def test_the_worker_goes_when_its_parent_ends_without_a_word(temporary):
    process = parent(temporary, "", False)
    pid = int(process.stdout.readline())
    assert process.wait(20) == 0
    process.stdout.close()
    assert not is_running(pid)
    assert list(temporary.iterdir()) == []


def test_the_process_is_not_for_people():
    done = subprocess.run(
        [sys.executable, "-m", "DualTrackCore.worker", "--folder"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "expected one argument" in done.stderr


def test_importing_the_client_loads_none_of_the_heavy_libraries():
    heavy = ["torch", "torchvision", "timm", "SimpleITK", "h5py", "pydicom", "matplotlib", "av"]
    code = f"import sys, DualTrackCore.worker_client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
