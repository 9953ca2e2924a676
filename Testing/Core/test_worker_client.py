"""The worker process from its client: real processes, from the first job to the last trace."""

import dataclasses
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from oracle import noise_sweep
from worker_processes import LIGHT, comes_true, failure, finished, first_report, is_running, stand_in, tracked_sweep

from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.run import run
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.worker import WorkerClient

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="These journeys look at processes in ways Windows has not."),
    pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.engine.TrackingWarning"),
]
HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def warm_client():
    """A client whose process several tests use one after the other."""
    with WorkerClient() as client:
        yield client


def test_a_run_in_the_worker_gives_what_it_gives_here(warm_client, model_file):
    sweep = tracked_sweep(40)
    settings = RunSettings(model=str(model_file), first_frame=3, last_frame=30, voxel_mm=0.8)
    result = finished(warm_client.submit(sweep, settings)).result
    expected = run(sweep, settings)
    np.testing.assert_allclose(result.trajectory.poses, expected.trajectory.poses, atol=1e-5)
    assert result.grid.size == expected.grid.size
    assert np.mean(result.volume != expected.volume) < 1e-3
    np.testing.assert_allclose(result.coverage.sum(), expected.coverage.sum(), rtol=1e-5)
    assert result.first_frame == 3
    assert result.evaluation.keys() == expected.evaluation.keys()
    for name in ("gpe_mm", "lpe_mm", "final_drift_mm", "path_length_mm"):
        assert result.evaluation["metrics"][name] == pytest.approx(expected.evaluation["metrics"][name], rel=1e-4)
    assert result.warnings == expected.warnings
    assert result.report.settings == settings.as_dict()
    sources = [r.report.trajectory["source"] for r in (result, expected)]
    assert sources[0]["weights_sha256"] == sources[1]["weights_sha256"]


def test_progress_comes_in_the_order_of_the_work(warm_client, model_file):
    job = finished(warm_client.submit(tracked_sweep(40), RunSettings(model=str(model_file), voxel_mm=0.8)))
    reports = [report for report in job.poll() if report.stage != "starting"]
    stages = list(dict.fromkeys(report.stage for report in reports))
    assert stages[:7] == [
        "sending frames",
        "looking for repeated frames",
        "loading model",
        "network",
        "attention",
        "reconstructing",
        "filling holes",
    ]
    assert stages[7] == "measuring errors"
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
say(id=1, event="progress", stage="checking", done=child.pid, total=child.pid, detail="")
time.sleep(60)
"""
    with WorkerClient(stand_in(tmp_path, body)) as client:
        job = client.submit(tracked_sweep(3), LIGHT)
        reports = []
        assert comes_true(lambda: reports.extend(job.poll()) or any(r.stage == "checking" for r in reports))
        child = next(report.done for report in reports if report.stage == "checking")
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


def test_what_libraries_print_goes_to_the_log(temporary, tmp_path):
    body = """
import runpy
import DualTrackCore.worker.serve as serve
real = serve.run_frames
def loud(*arguments, **more):
    print("a library speaks")
    os.system("echo a program speaks")
    assert sys.stdin.read() == ""
    return real(*arguments, **more)
serve.run_frames = loud
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
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.worker import WorkerClient
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
    code = f"import sys, DualTrackCore.worker; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
