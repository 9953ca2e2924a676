"""The worker process from outside, spoken to by its protocol: runs, what it prints, and how it goes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from named_clips import named_sweep
from oracle import noise_sweep
from worker_processes import LIGHT, Driver, comes_true, is_running, stand_in, tracked_sweep

from DualTrackCore.run import run
from DualTrackCore.run.preparation import looked_at, prepare
from DualTrackCore.run.settings import RunSettings

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="These journeys look at processes in ways Windows has not."),
    pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.engine.TrackingWarning"),
]
HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def worker():
    """A process that several tests use one after the other."""
    with Driver() as driver:
        yield driver


@pytest.mark.parametrize(
    "choice",
    [{}, {"rotate": 90, "mirror": True, "crop": (5, 12, 140, 160), "depth_mm": 30, "first_frame": 3}, {"mask": "none"}],
    ids=str,
)
def test_area_and_text_that_the_worker_found_give_the_same_clip(worker, choice):
    sweep, settings = named_sweep(frames=60, spacing_mm=None, tracked=None), RunSettings(**choice)
    once, again = prepare(sweep, settings), prepare(sweep, settings, worker.parts(sweep, settings))
    assert again.area is not None
    assert (again.area, again.regions) == (once.area, once.regions)
    assert again.sweep.provenance == once.sweep.provenance
    assert again.sweep.spacing_mm == once.sweep.spacing_mm
    np.testing.assert_array_equal(again.sweep.window(0, 20), once.sweep.window(0, 20))
    assert len(looked_at(sweep, settings)) == 24


def test_a_run_in_the_worker_gives_what_it_gives_here(worker, model_file):
    sweep = tracked_sweep(40)
    settings = RunSettings(model=str(model_file), first_frame=3, last_frame=30, voxel_mm=0.8)
    result = worker.run(sweep, settings)
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


def test_progress_comes_in_the_order_of_the_work(worker, model_file):
    worker.run(tracked_sweep(40), RunSettings(model=str(model_file), voxel_mm=0.8))
    stages = list(dict.fromkeys(report.stage for report in worker.reports))
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
    last = {report.stage: report for report in worker.reports}
    assert all(report.done == report.total for report in last.values())


def test_a_second_run_uses_the_model_of_the_first(worker, model_file):
    settings = RunSettings(model=str(model_file), reconstruct=False)
    worker.run(noise_sweep(20), settings)
    assert worker.run(noise_sweep(20), settings).seconds["model"] < 0.05


def test_preflight_says_what_the_worker_runs_on(worker):
    report = worker.preflight("cpu")
    assert report["sentence"].startswith("Ready: torch ")
    assert report["diagnostics"]["executable"] == sys.executable


def test_a_run_that_cannot_be_is_one_sentence_and_leaves_the_process_alone(worker, model_file):
    failed = worker.run(noise_sweep(5, spacing_mm=None), RunSettings(model=str(model_file)))
    assert failed["kind"] == "input"
    assert failed["message"].startswith("The pixel spacing of this sweep is unknown")
    assert "Traceback" in failed["details"]
    assert "spacing of this sweep" in worker.log_path.read_text()
    failed = worker.run(noise_sweep(5), RunSettings(model="none of this name"))
    assert "'none of this name'" in failed["message"]
    assert len(worker.run(tracked_sweep(3), LIGHT).trajectory) == 3


def test_what_libraries_print_goes_to_the_log(tmp_path):
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
    with Driver(stand_in(tmp_path, body)) as worker:
        assert len(worker.run(tracked_sweep(3), LIGHT).trajectory) == 3
        assert comes_true(lambda: "a program speaks" in worker.log_path.read_text())


def test_too_little_memory_is_a_sentence_and_the_process_lives_on(tmp_path):
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
    with Driver(stand_in(tmp_path, body)) as worker:
        failed = worker.run(large, RunSettings(poses="tracked", voxel_mm=5.0))
        assert failed["kind"] == "memory", failed
        assert failed["message"].startswith("The memory is too small for this run; use a smaller chunk")
        assert len(worker.run(tracked_sweep(3), LIGHT).trajectory) == 3


def test_a_process_that_is_spoken_to_no_more_goes_and_takes_its_folder_along(temporary):
    worker = Driver()
    worker.run(tracked_sweep(3), LIGHT)
    assert is_running(worker.pid)
    worker.process.stdin.close()
    worker.process.wait(20)
    worker.process.stdout.close()
    assert not is_running(worker.pid)
    assert list(temporary.iterdir()) == []


PARENT = """
import sys, time
sys.path.insert(0, {here!r})
from worker_processes import LIGHT, Driver, tracked_sweep
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.worker.job import RunTask
worker = Driver()
worker.run(tracked_sweep(3), LIGHT)
if {model!r}:
    worker.start(RunTask(tracked_sweep(4000), RunSettings(model={model!r}, chunk_frames=4)))
    next(event for event in worker.events() if event["stage"] == "network" and event["done"])
print(worker.pid, flush=True)
if {waits!r}:
    time.sleep(60)
"""


def parent(temporary: Path, model: str, waits: bool) -> subprocess.Popen:
    """A process with a worker, which runs the model or waits for a request."""
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
    assert comes_true(lambda: not is_running(pid), 5.0)
    assert comes_true(lambda: not list(temporary.iterdir()), 5.0)


def test_the_process_is_not_for_people():
    done = subprocess.run(
        [sys.executable, "-m", "DualTrackCore.worker", "--folder"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "expected one argument" in done.stderr


def test_importing_what_a_client_needs_loads_none_of_the_heavy_libraries():
    heavy = ["torch", "torchvision", "timm", "SimpleITK", "h5py", "pydicom", "matplotlib", "av"]
    code = "import sys, DualTrackCore.worker.job, DualTrackCore.worker.process, DualTrackCore.worker.protocol; "
    code += f"print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
