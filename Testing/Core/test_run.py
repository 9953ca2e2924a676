"""One run: the same from Python, from the command line and in the worker process; one sweep or several."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch
import yaml
from oracle import noise_sweep, tiny_model
from worker_processes import Driver

from DualTrackCore.cli import main
from DualTrackCore.errors import InputError
from DualTrackCore.files import plain_values
from DualTrackCore.io import load_sweep, read_trajectory_csv, save_sweep
from DualTrackCore.network import save_model
from DualTrackCore.reconstruction import Fan
from DualTrackCore.research.simulation import rendered, simulated_sweep
from DualTrackCore.run import RunResult, RunSettings, run
from DualTrackCore.sweep import Sweep

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")

#: What differs between two runs of the same: when they were, and who else was there.
MOMENTS = ("created", "files")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two tracked sweeps, a file that is none, and a small untrained model."""
    folder = tmp_path_factory.mktemp("run")
    for seed in (0, 1):
        sweep = rendered(simulated_sweep(seed, frames=16, frame_size=(60, 80), spacing_mm=0.4))
        save_sweep(sweep, folder / f"clip{seed}.igs.mha")
    (folder / "broken.igs.mha").write_bytes(b"ObjectType = Image\nnonsense")
    model = tiny_model()
    save_model(model.network, model.card, folder / "tiny.safetensors")
    return folder


def figures(report) -> str:
    """The report as JSON text, without the moments at which it was made."""
    values = {name: value for name, value in plain_values(report).items() if name not in MOMENTS}
    source = values["trajectory"]["source"]
    source.pop("estimated_at", None)
    return json.dumps(values, sort_keys=True)


SETTINGS = {
    "defaults": {},
    "volume": {"voxel_mm": 1.0, "axes": "principal", "reject_below": 9, "compounding": "maximum"},
    "frames and fan": {"first_frame": 2, "last_frame": 12, "fan": Fan((39.5, -20.0), (-25.0, 25.0), (20.0, 75.0))},
    "pictures": {"rotate": 90, "mirror": True, "crop": (4, 10, 50, 60), "mask": ((5, 12, 9, 9),), "last_frame": 12},
    "tracked": {"poses": "tracked", "frame": "reference"},
    "augmented": {"test_time_augmentation": 2, "reconstruct": False},
}


@pytest.fixture(scope="module")
def worker():
    """A worker with as many threads as there are here: sums of another number of threads differ in the last bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
        with Driver() as driver:
            yield driver


@pytest.mark.parametrize("name", SETTINGS)
def test_command_line_worker_and_python_give_the_same_report_to_the_byte(folder, tmp_path, worker, name):
    settings = RunSettings(model=str(folder / "tiny.safetensors"), device="cpu", pictures=False, **SETTINGS[name])
    path = folder / "clip0.igs.mha"
    here = run(path, settings)
    (tmp_path / "own.yaml").write_text(settings.to_yaml())
    assert main(["run", str(path), "-o", str(tmp_path / "out"), "--config", str(tmp_path / "own.yaml")]) == 0
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    result = worker.run(load_sweep(path, spacing_mm=settings.spacing_mm), settings)
    assert figures(written) == figures(here.report)
    assert figures(result.report) == figures(here.report)
    np.testing.assert_array_equal(result.trajectory.poses, here.trajectory.poses)
    if settings.reconstruct:
        np.testing.assert_array_equal(result.volume, here.volume)
        np.testing.assert_array_equal(result.reconstruction.filled, here.reconstruction.filled)


def test_a_report_names_files_and_no_temporary_folder_that_stays(folder, tmp_path, monkeypatch):
    result = run(folder / "clip0.igs.mha", RunSettings(model=str(folder / "tiny.safetensors"), pictures=False))
    monkeypatch.setattr("DualTrackCore.staging._remove", lambda _: None)
    report = result.write(tmp_path / "out")
    names = os.listdir(tmp_path / "out")
    assert sorted(report.files) == sorted(name for name in names if not name.startswith("."))


def test_what_the_worker_gave_can_be_written_like_any_result(folder, tmp_path, worker):
    settings = RunSettings(model=str(folder / "tiny.safetensors"), first_frame=3, voxel_mm=1.0)
    report = worker.run(load_sweep(folder / "clip0.igs.mha"), settings).write(tmp_path)
    assert set(report.files) == {path.name for path in tmp_path.iterdir()}
    assert len(load_sweep(tmp_path / "sweep.igs.mha")) == len(read_trajectory_csv(tmp_path / "trajectory.csv")) == 13


def test_the_settings_beside_the_results_give_the_same_results_again(folder, tmp_path):
    words = ["run", str(folder / "clip0.igs.mha"), "--model", str(folder / "tiny.safetensors"), "--voxel", "1,1.5,2"]
    words += ["--fan", "39.5,-20,-25,25,20,75", "--no-pictures"]
    assert main([*words, "-o", str(tmp_path / "one")]) == 0
    again = ["run", words[1], "--config", str(tmp_path / "one" / "settings.yaml"), "-o", str(tmp_path / "two")]
    assert main(again) == 0
    for name in ("volume.nrrd", "trajectory.csv", "settings.yaml"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert yaml.safe_load((tmp_path / "two" / "settings.yaml").read_text())["voxel_mm"] == [1, 1.5, 2]


def test_an_option_goes_before_the_file_of_settings(folder, tmp_path):
    (tmp_path / "own.yaml").write_text(f"model: {folder / 'tiny.safetensors'}\nvoxel_mm: 1\npictures: false\n")
    words = ["run", str(folder / "clip0.igs.mha"), "--config", str(tmp_path / "own.yaml"), "--voxel", "2"]
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["volume"]["spacing_mm"] == [2, 2, 2]
    assert report["settings"]["pictures"] is False


def test_a_run_from_an_array_needs_no_file():
    sweep = Sweep.from_array(noise_sweep(12).window(0, 12), spacing_mm=0.3, frame_rate_hz=20)
    result = run(sweep, RunSettings(poses="estimate", voxel_mm=1.0))
    assert isinstance(result, RunResult)
    assert result.volume.shape == result.grid.shape
    assert result.report.trajectory["source"]["model"] == "mini"


def test_a_calibration_is_for_files_only():
    with pytest.raises(InputError, match="calibration is for files"):
        run(noise_sweep(3), RunSettings(calibration="calib.xml"))


def rows_of(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_several_sweeps_get_a_folder_each_and_a_bad_one_does_not_stop_the_others(folder, tmp_path, capsys):
    sweeps = [str(folder / name) for name in ("clip0.igs.mha", "broken.igs.mha", "clip1.igs.mha")]
    words = ["--model", str(folder / "tiny.safetensors"), "--voxel", "1", "--no-pictures"]
    assert main(["run", *sweeps, "-o", str(tmp_path / "out"), *words]) == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"clip0", "clip1", "summary.csv"}
    rows = rows_of(tmp_path / "out" / "summary.csv")
    assert [(row["folder"], row["status"]) for row in rows] == [
        ("clip0", "done"),
        ("broken", "failed"),
        ("clip1", "done"),
    ]
    assert rows[1]["error"].endswith(".")
    report = json.loads((tmp_path / "out" / "clip1" / "report.json").read_text())
    assert float(rows[2]["path_mm"]) == report["trajectory"]["path_length_mm"]
    printed = capsys.readouterr()
    assert "2 of 3 sweeps" in printed.out
    assert "broken.igs.mha" in printed.err


def test_sweeps_of_one_name_get_folders_of_different_names(folder, tmp_path, capsys):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        shutil.copy(folder / "clip0.igs.mha", tmp_path / place / "clip.igs.mha")
    pattern = str(tmp_path / "*" / "clip.igs.mha")
    words = ["--model", str(folder / "tiny.safetensors"), "--voxel", "2", "--no-pictures", "--json"]
    assert main(["run", pattern, "-o", str(tmp_path / "out"), *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["folder"] for row in result["sweeps"]] == ["clip", "clip-2"]
    assert (tmp_path / "out" / "clip-2" / "volume.nrrd").is_file()


def test_a_pattern_that_matches_nothing_is_named(tmp_path, capsys):
    assert main(["run", str(tmp_path / "*.mp4"), "-o", str(tmp_path / "out")]) == 2
    assert "No sweep matches" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
