"""The parts of the worker, each in this process: the run, readiness, endings, protocol, folder, kept model."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from importlib import metadata

import numpy as np
import pytest
import torch
from oracle import noise_sweep, tiny_model
from worker_processes import LIGHT, tracked_sweep

from DualTrackCore import __version__
from DualTrackCore.errors import Cancelled, InputError, MissingDependencyError, OutOfMemoryError
from DualTrackCore.network import save_model
from DualTrackCore.progress import Progress, Reporter, Stage
from DualTrackCore.reconstruction import Fan, plan_grid, reconstruct_volume
from DualTrackCore.run import run
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.tracking import estimate_trajectory
from DualTrackCore.worker import preflight
from DualTrackCore.worker.job import write_sweep
from DualTrackCore.worker.process import described_ending, session_folder
from DualTrackCore.worker.protocol import PROTOCOL, decoded_event, encoded, hello, mismatch
from DualTrackCore.worker.serve import Speaker, WarmModel, Worker, described_failure

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.engine.TrackingWarning")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    model = tiny_model()
    save_model(model.network, model.card, path)
    return path


def test_a_run_does_what_its_parts_do(model_file):
    sweep = tracked_sweep(24)
    settings = RunSettings(model=str(model_file), voxel_mm=0.8, compounding="maximum", hole_filling="none")
    result = run(sweep, settings)
    trajectory = estimate_trajectory(sweep, tiny_model())
    grid = plan_grid(sweep, trajectory, spacing_mm=0.8)
    expected = reconstruct_volume(sweep, trajectory, grid, compounding="maximum", hole_filling="none")
    np.testing.assert_array_equal(result.trajectory.poses, trajectory.poses)
    np.testing.assert_array_equal(result.volume, expected.volume)
    np.testing.assert_array_equal(result.coverage, expected.coverage)
    np.testing.assert_array_equal(result.grid.mm_from_voxel, grid.mm_from_voxel)
    assert result.evaluation["metrics"]["path_length_mm"] == pytest.approx(11.5)
    assert any("untrained" in warning for warning in result.warnings)
    report = result.report
    assert report.settings == settings.as_dict()
    assert report.trajectory["source"]["model"] == "tiny"
    assert report.volume["covered_fraction"] == expected.covered_fraction
    assert json.loads(report.to_json()) == report.as_dict()
    assert {"model", "trajectory", "volume", "evaluation", "total"} == set(result.seconds)


def test_a_run_uses_only_the_frames_asked_for(model_file):
    sweep = tracked_sweep(24)
    settings = RunSettings(model=str(model_file), first_frame=4, last_frame=15, reconstruct=False)
    result = run(sweep, settings)
    expected = estimate_trajectory(sweep.slice(4, 16), tiny_model())
    np.testing.assert_array_equal(result.trajectory.poses, expected.poses)
    assert (result.first_frame, len(result.trajectory)) == (4, 12)
    assert result.evaluation["frames"] == 12


def test_a_run_with_tracked_poses_needs_no_model_and_measures_nothing():
    sweep = tracked_sweep(20, frame_valid=np.arange(20) != 7)
    result = run(sweep, RunSettings(model="none of this name", poses="tracked", voxel_mm=0.5))
    np.testing.assert_array_equal(result.trajectory.poses, sweep.tracked.poses)
    assert result.evaluation is None
    assert result.volume.shape == result.grid.shape
    assert "1 of 20 frames have no valid image or pose" in result.warnings[0]


def test_only_the_fan_goes_into_the_volume():
    sweep = tracked_sweep(6)
    fan = Fan((63.5, -20), (-25, 25), (25, 110), aspect=0.22097969 / 0.22938919)
    settings = RunSettings(poses="tracked", voxel_mm=0.5, hole_filling="none", fan=fan)
    result = run(sweep, RunSettings.from_dict(settings.as_dict()))
    grid = plan_grid(sweep, sweep.tracked, spacing_mm=0.5, fan=fan)
    expected = reconstruct_volume(sweep, sweep.tracked, grid, fan=fan, hole_filling="none")
    np.testing.assert_array_equal(result.volume, expected.volume)
    np.testing.assert_array_equal(result.coverage, expected.coverage)
    seen = result.coverage.max(axis=(0, 1)) > 0
    top = result.coverage[:, result.coverage.shape[1] // 4].max(axis=0) > 0
    assert top.sum() < 0.8 * seen.sum()
    assert result.report.settings["fan"]["radii_pixel"] == [25, 110]


@pytest.mark.parametrize(
    ("sweep", "settings", "words"),
    [
        (noise_sweep(5), RunSettings(poses="tracked"), "holds no tracking. Give a trajectory .csv as poses"),
        (noise_sweep(5, spacing_mm=None), RunSettings(), "spacing of this sweep is unknown"),
        (noise_sweep(5), RunSettings(last_frame=5), "which has the frames 0 to 4"),
        (noise_sweep(5), RunSettings(model="none of this name"), "no model 'none of this name'"),
    ],
)
def test_a_run_that_cannot_be_says_why(sweep, settings, words):
    with pytest.raises(InputError, match=words):
        run(sweep, settings)


def test_a_run_can_be_cancelled_between_pieces_of_work(model_file):
    reports: list[Progress] = []
    with pytest.raises(Cancelled):
        run(
            noise_sweep(24),
            RunSettings(model=str(model_file)),
            Reporter(reports.append, lambda: any(report.stage == "network" and report.done for report in reports)),
        )
    assert {report.stage for report in reports} == {
        "reading",
        "loading model",
        "looking for repeated frames",
        "network",
    }


def test_a_kept_model_is_loaded_again_only_when_it_changed(model_file, tmp_path):
    path = tmp_path / "own.safetensors"
    path.write_bytes(model_file.read_bytes())
    models = WarmModel()
    first = models.load(RunSettings(model=str(path)))
    assert models.load(RunSettings(model=str(path), voxel_mm=2.0)) is first
    os.utime(path, (1, 1))
    second = models.load(RunSettings(model=str(path)))
    assert second is not first
    assert models.load(RunSettings(model=str(model_file))) is not second


def test_this_machine_is_ready_and_says_on_what():
    report = preflight("cpu")
    assert report["ready"]
    assert report["sentence"].startswith(f"Ready: torch {torch.__version__} on CPU with ")
    assert report["sentence"].endswith(" free.")
    assert report["diagnostics"]["packages"]["torch"] == metadata.version("torch")
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_missing_packages_are_named_with_the_remedy(monkeypatch):
    for name in ("torch", "timm"):
        monkeypatch.setitem(sys.modules, name, None)
    report = preflight()
    assert not report["ready"]
    assert report["missing"] == ["torch", "timm"]
    assert report["sentence"].startswith("Not ready: torch and timm are missing;")
    assert report["sentence"].endswith("-m pip install torch timm")
    assert "torch" not in report["diagnostics"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_a_torch_that_does_not_load_is_a_sentence(monkeypatch):
    def broken(name):
        raise OSError("libcuda_of_yesterday.so: cannot open shared object file\nmore")

    monkeypatch.setattr("DualTrackCore.worker.readiness.importlib.import_module", broken)
    report = preflight()
    assert not report["ready"]
    assert "torch is installed and does not load (libcuda_of_yesterday.so: cannot open" in report["sentence"]
    assert "more" not in report["sentence"]


def test_a_device_that_is_not_there_is_not_ready():
    report = preflight("cuda:77")
    assert not report["ready"]
    assert "'cuda:77' is not available" in report["sentence"]


def test_little_memory_and_disk_are_noted(monkeypatch):
    monkeypatch.setattr("DualTrackCore.worker.readiness.available_memory_bytes", lambda: 800_000_000)
    monkeypatch.setattr("DualTrackCore.worker.readiness.LEAST_DISK_BYTES", 1 << 60)
    report = preflight("cpu")
    assert report["ready"]
    assert report["notes"][0].startswith("Only 800 MB of memory is free")
    assert "disk is free" in report["notes"][1]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals; its codes are tested below.")
@pytest.mark.parametrize(
    ("code", "log", "kind", "words"),
    [
        (-signal.SIGKILL, "", "memory", "most likely because the memory ran out; use a smaller chunk"),
        (128 + signal.SIGKILL, "", "memory", "most likely because the memory ran out"),
        (-signal.SIGSEGV, "", "crash", r"crashed \(SIGSEGV\); try the device cpu"),
        (128 + signal.SIGSEGV, "", "crash", r"crashed \(SIGSEGV\)"),
        (-signal.SIGABRT, "terminate called after throwing 'std::bad_alloc'", "memory", "the memory ran out"),
        (-signal.SIGTERM, "", "crash", r"ended from outside \(SIGTERM\)"),
        (3, "one\nModuleNotFoundError: No module named 'numpy'\n", "crash", r"ended with code 3 \(ModuleNotFound.*\)"),
        (3, "", "crash", "ended with code 3$"),
    ],
)
def test_an_exit_code_becomes_words(code, log, kind, words):
    found, text = described_ending(code, log)
    assert found == kind
    assert re.search(words, text)


def test_the_exit_codes_of_windows_become_words():
    assert described_ending(0xC0000005, "")[1].startswith("crashed (an access violation)")
    assert described_ending(0xC0000017, "")[0] == "memory"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (InputError("The input is bad."), "input", "The input is bad."),
        (OutOfMemoryError("The device is small."), "memory", "The device is small."),
        (MemoryError(), "memory", "The memory is too small for this run; use"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory", "The memory is too small"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory", "The memory is too small"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory", "The memory is too small"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk", "is full; free some space or set TMPDIR"),
        (MissingDependencyError("av is needed."), "missing", "av is needed."),
        (ModuleNotFoundError("No module named 'timm'"), "missing", "No module named 'timm'"),
        (ZeroDivisionError("division by zero\nmore"), "fault", "(ZeroDivisionError: division by zero); please report"),
    ],
)
def test_an_error_of_a_run_becomes_one_sentence(error, kind, words):
    found, sentence = described_failure(error)
    assert found == kind
    assert words in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


@pytest.fixture
def conversation():
    """(a worker in this process, what it has said so far as a function)."""
    answers = io.BytesIO()
    worker = Worker(Speaker(answers), threading.Lock())
    return worker, lambda: [decoded_event(line) for line in answers.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"nonsense\n", "was sent no request: b'nonsense"),
        (b"[1]\n", "was sent no request"),
        (b'{"id": 4, "do": "dance"}\n', "asked for 'dance'"),
        (b'{"id": 4, "do": "run", "folder": ".", "settings": {"modle": 1}}\n', "modle in the settings is no known key"),
    ],
)
def test_a_request_that_is_none_is_answered_with_a_sentence(conversation, line, words):
    worker, said = conversation
    worker.answer(line)
    assert said()[-1]["event"] == "failed"
    assert said()[-1]["kind"] == "input"
    assert words in said()[-1]["message"]


def test_a_request_is_answered_with_progress_and_one_result(conversation, model_file, tmp_path):
    worker, said = conversation
    list(write_sweep(tmp_path, noise_sweep(20)))
    settings = RunSettings(model=str(model_file), reconstruct=False).as_dict()
    worker.answer(encoded({"id": 7, "do": "run", "folder": str(tmp_path), "settings": settings}))
    events = said()
    assert {event["id"] for event in events} == {7}
    assert [event["event"] for event in events[:-1]] == ["progress"] * (len(events) - 1)
    assert events[-1]["event"] == "done"
    assert events[-1]["result"] == {"folder": str(tmp_path / "result")}


def test_progress_is_said_now_and_then_but_never_without_its_end():
    answers = io.BytesIO()
    speaker = Speaker(answers)
    for done in range(1001):
        speaker.progress(1, Progress(Stage.CHECKING, done, 1000))
    said = [decoded_event(line)["done"] for line in answers.getvalue().splitlines()]
    assert (said[0], said[-1]) == (0, 1000)
    assert len(said) < 100


def test_the_greeting_of_this_version_fits_and_others_do_not():
    assert mismatch(decoded_event(encoded(hello()))) is None
    assert mismatch({**hello(), "protocol": 99}).count("protocol 99") == 1
    sentence = mismatch({**hello(), "version": "99.0"})
    assert f"is DualTrack 99.0 (protocol {PROTOCOL}) and this is {__version__}" in sentence


@pytest.mark.parametrize(
    "line",
    [b"", b"null", b"3", b"\xff\xfe", b'{"event": "dance"}', b'{"event": "done", "id": 1}', b'{"event": ["done"]}'],
)
def test_a_line_that_is_no_event_is_refused(line):
    with pytest.raises(InputError, match="not an event"):
        decoded_event(line)


def test_a_session_folder_removes_what_a_dead_client_left_but_not_what_a_living_one_uses(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    other = tmp_path / "of-another-program"
    other.mkdir()
    with session_folder() as living:
        if os.name != "nt":
            assert living.stat().st_mode & 0o777 == 0o700
        dead = living.with_name(f"{living.name}-dead")
        dead.mkdir()
        (dead / "frames.npy").write_bytes(b"0" * 100)
        with session_folder() as third:
            assert set(tmp_path.iterdir()) == {living, third, other}
    assert set(tmp_path.iterdir()) == {other}


def test_a_light_run_loads_no_torch_in_a_fresh_python():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import numpy as np\n"
        "from DualTrackCore.run import run; from DualTrackCore.run.settings import RunSettings\n"
        "from DualTrackCore.sweep import Sweep; from DualTrackCore.trajectory import Trajectory\n"
        "sweep = Sweep(np.zeros((3, 4, 5), np.uint8), 0.2, tracked=Trajectory(np.tile(np.eye(4), (3, 1, 1))))\n"
        f"run(sweep, RunSettings.from_dict({LIGHT.as_dict()!r})); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, "."], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
