"""The dualtrack command as a user meets it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from oracle import tiny_model
from shared_files import shared_path

from DualTrackCore.cli import main
from DualTrackCore.files import file_sha256
from DualTrackCore.io import load_sweep, read_trajectory_csv, save_sweep
from DualTrackCore.network.installation import import_file
from DualTrackCore.network.model import load_model, save_model
from DualTrackCore.research.simulation import rendered, simulated_sweep
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

RESULTS = {
    "coverage.nrrd",
    "motion.png",
    "report.json",
    "settings.yaml",
    "slices.png",
    "sweep.igs.mha",
    "trajectory.csv",
    "trajectory.png",
    "volume.nrrd",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tracked sweep, the same without tracking, and a small untrained model."""
    folder = tmp_path_factory.mktemp("cli")
    sweep = rendered(simulated_sweep(0, frames=20, frame_size=(60, 80), spacing_mm=0.4))
    save_sweep(sweep, folder / "tracked.igs.mha")
    save_sweep(Sweep(sweep.frames, 0.4, sweep.timestamps_s), folder / "plain.h5")
    save_sweep(Sweep(sweep.window(0, 1), 0.4), folder / "single.h5")
    invalid = Trajectory(sweep.tracked.poses, np.zeros(20, bool), origin="measured")
    save_sweep(Sweep(sweep.frames, 0.4, tracked=invalid), folder / "invalid.igs.mha")
    save_sweep(Sweep(sweep.frames), folder / "unknown.h5")
    model = tiny_model()
    save_model(model.network, model.card, folder / "tiny.safetensors")
    return folder


@pytest.fixture
def dualtrack(capsys):
    """Run a command in this process: (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def test_info_says_what_a_sweep_holds(dualtrack, folder):
    code, out, _ = dualtrack("info", folder / "tracked.igs.mha")
    assert code == 0
    assert "20 of 80 x 60 pixels" in out
    assert "0.4 x 0.4 mm" in out
    assert "20 of 20 frames, path" in out


def test_info_says_why_tracking_cannot_be_used(dualtrack):
    code, out, _ = dualtrack("info", shared_path("data/seq/SpinePhantomFreehand.igs.mha"))
    assert code == 0
    assert "a calibration (Image to Probe) is needed" in out


def test_info_for_machines_is_one_json_object(dualtrack, folder):
    code, out, _ = dualtrack("info", folder / "plain.h5", "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["frames"], facts["frame_size"], facts["tracked_frames"]) == (20, [60, 80], None)


def test_run_writes_poses_volume_coverage_pictures_and_report(dualtrack, folder, tmp_path):
    code, out, err = dualtrack(
        "run", folder / "tracked.igs.mha", "--model", folder / "tiny.safetensors", "-o", tmp_path / "out"
    )
    assert code == 0, err
    assert {path.name for path in (tmp_path / "out").iterdir()} == RESULTS
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["trajectory"]["source"]["model"] == "tiny"
    assert report["trajectory"]["source"]["model_trained"] is False
    assert any("untrained" in warning for warning in report["warnings"])
    assert "untrained" in err
    assert set(report["files"]) == RESULTS
    assert report["evaluation"]["metrics"]["gpe_mm"] > 0
    assert report["evaluation"]["baselines"]["identity"]["gpe_mm"] > 0
    assert "mean error" in out
    trajectory = read_trajectory_csv(tmp_path / "out" / "trajectory.csv")
    written = load_sweep(tmp_path / "out" / "sweep.igs.mha")
    np.testing.assert_allclose(written.tracked.poses, trajectory.poses, atol=1e-9)
    volume = sitk.ReadImage(str(tmp_path / "out" / "volume.nrrd"))
    assert list(volume.GetSize()) == report["volume"]["size"]
    assert sitk.ReadImage(str(tmp_path / "out" / "coverage.nrrd")).GetSize() == volume.GetSize()


def test_without_a_folder_results_lie_in_one_named_for_the_clip(dualtrack, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = folder / "tracked.igs.mha"
    code, out, _ = dualtrack("reconstruct", sweep, "--no-pictures", "--voxel", 1)
    assert code == 0
    assert "tracked-result" in out
    assert (tmp_path / "tracked-result" / "volume.nrrd").is_file()
    code, _, err = dualtrack("run", sweep, folder / "plain.h5")
    assert code == 2
    assert "2 sweeps were given and no folder for their results; name one: -o DIR." in err


def test_a_second_run_replaces_results_and_keeps_other_files(dualtrack, folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for _ in range(2):
        code, *_ = dualtrack("reconstruct", folder / "tracked.igs.mha", "-o", tmp_path, "--no-pictures", "--voxel", 1)
        assert code == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == RESULTS - {"slices.png", "trajectory.png", "motion.png"} | {"notes.txt"}


def test_estimated_poses_can_be_reconstructed_later(dualtrack, folder, tmp_path):
    code, *_ = dualtrack(
        "track", folder / "plain.h5", "--model", folder / "tiny.safetensors", "-o", tmp_path / "poses.csv"
    )
    assert code == 0
    code, out, _ = dualtrack(
        "reconstruct", folder / "plain.h5", "--poses", tmp_path / "poses.csv", "-o", tmp_path / "out", "--json"
    )
    assert code == 0
    assert json.loads(out)["volume"]["frames_used"] == 20


@pytest.mark.parametrize("name", ["estimate.igs.mha", "estimate.seq.nrrd", "estimate.h5"])
def test_an_estimate_is_never_taken_for_tracking_when_it_is_read_again(dualtrack, folder, tmp_path, name):
    model = folder / "tiny.safetensors"
    dualtrack("track", folder / "plain.h5", "--model", model, "-o", tmp_path / name)
    _, out, _ = dualtrack("info", tmp_path / name)
    assert "estimated poses" in out
    assert "errors cannot be measured against them" in out
    options = ("--model", model, "-o", tmp_path / "out", "--no-pictures", "--voxel", "1", "--json")
    code, out, _ = dualtrack("run", tmp_path / name, *options)
    assert code == 0
    assert json.loads(out)["evaluation"] is None


def test_reconstruct_obeys_its_options(dualtrack, folder, tmp_path):
    code, out, _ = dualtrack(
        *("reconstruct", folder / "tracked.igs.mha", "-o", tmp_path, "--no-pictures", "--json"),
        *("--voxel", "1,1.5,2", "--interpolation", "nearest", "--compounding", "maximum", "--clip", "10,5,40,30"),
        *("--hole-filling", "nearest", "--axes", "principal", "--frame", "reference", "--reject-below", 5),
    )
    volume = json.loads(out)["volume"]
    assert code == 0
    assert volume["spacing_mm"] == [1, 1.5, 2]
    assert volume["settings"]["interpolation"] == "nearest"
    assert volume["settings"]["compounding"] == "maximum"
    assert volume["settings"]["pixel_rectangle"] == [10, 5, 50, 35]
    assert volume["settings"]["reject_below"] == 5


@pytest.mark.parametrize("name", ["out.igs.mha", "out.seq.nrrd", "out.h5"])
def test_convert_writes_every_format_with_poses(dualtrack, folder, tmp_path, name):
    code, *_ = dualtrack("convert", folder / "tracked.igs.mha", tmp_path / name)
    original, converted = load_sweep(folder / "tracked.igs.mha"), load_sweep(tmp_path / name)
    assert code == 0
    np.testing.assert_array_equal(converted.window(0, 20), original.window(0, 20))
    np.testing.assert_allclose(converted.tracked.poses, original.tracked.poses, atol=1e-9)
    assert converted.spacing_mm == pytest.approx(original.spacing_mm)


def test_models_can_be_imported_listed_used_and_verified(dualtrack, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DUALTRACK_MODELS", str(tmp_path / "models"))
    assert dualtrack("models", "import", "my-tiny", folder / "tiny.safetensors")[0] == 0
    code, out, _ = dualtrack("models", "list")
    assert code == 0
    assert "my-tiny: installed" in out
    assert "dualtrack-tusrec2024: not installed" in out
    assert "CC BY-NC-SA 4.0" in out
    assert dualtrack("models", "verify", "my-tiny")[0] == 0
    assert dualtrack("track", folder / "plain.h5", "--model", "my-tiny", "-o", tmp_path / "poses.csv")[0] == 0
    with (tmp_path / "models" / "my-tiny.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    code, _, err = dualtrack("models", "verify", "my-tiny")
    assert code == 2
    assert "has changed since it was installed" in err


def test_the_list_says_what_is_known_of_checksums(dualtrack, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DUALTRACK_MODELS", str(tmp_path / "models"))
    model = load_model(folder / "tiny.safetensors")
    own = tmp_path / "own.pt"
    torch.save(model.network.state_dict(), own)
    own.with_suffix(".json").write_text(model.card.to_json())
    code, out, _ = dualtrack("models", "import", "own", own)
    assert code == 0
    assert f"It was made of a PyTorch file with the SHA-256 {file_sha256(own)}." in out
    import_file("dualtrack-tusrec2024", folder / "tiny.safetensors", check=lambda path: None)
    _, out, _ = dualtrack("models", "list")
    assert f"a PyTorch file with the SHA-256 {file_sha256(own)}" in out
    digest = file_sha256(folder / "tiny.safetensors")
    assert f"The makers state no checksum; the SHA-256 of this file is {digest}." in out
    assert dualtrack("models", "verify", "own")[0] == 0


def test_nothing_is_fetched_without_a_yes(dualtrack, tmp_path, monkeypatch):
    monkeypatch.setenv("DUALTRACK_MODELS", str(tmp_path / "models"))
    code, out, err = dualtrack("models", "fetch", "dualtrack-tusrec2024")
    assert code == 2
    assert "CC BY-NC-SA 4.0" in out
    assert "408" in out
    assert "only after you agree" in err
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["info", "{nowhere}"], "There is no sweep at"),
        (["run", "{tracked}", "--model", "no-such-model", "-o", "{out}"], "no file and no model 'no-such-model'"),
        (["run", "{tracked}", "--model", "{tracked}", "-o", "{out}"], "is not a weights file"),
        (["run", "{tracked}", "--model", "{tiny}", "-o", "{tracked}"], "it is a file"),
        (["run", "{tracked}", "--model", "{tiny}", "-o", "{out}", "--device", "cuda:99"], "not available"),
        (["track", "{tracked}", "--model", "{tiny}", "-o", "{out}.txt"], "no trajectory file"),
        (["run", "{single}", "--model", "{tiny}", "-o", "{out}"], "one frame; a trajectory needs at least two"),
        (["run", "{unknown}", "--model", "{tiny}", "-o", "{out}"], "pixel spacing of this sweep is unknown"),
        (["reconstruct", "{invalid}", "-o", "{out}"], "pose"),
        (["reconstruct", "{plain}", "-o", "{out}"], "no tracking"),
        (["reconstruct", "{tracked}", "-o", "{out}", "--voxel", "0.0001"], "spacing"),
        (["reconstruct", "{tracked}", "-o", "{out}", "--poses", "{nowhere}"], "nowhere"),
        (["reconstruct", "{tracked}", "-o", "{out}", "--voxel", "one"], "'one' is not a number of mm"),
        (["convert", "{tracked}", "{out}.docx"], ".igs.mha, .igs.nrrd, .seq.nrrd, .mrb or .h5"),
        (["models", "fetch", "no-such-model", "--yes"], "no model 'no-such-model' to fetch"),
        (["models", "verify", "no-such-model"], "no-such-model"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(dualtrack, folder, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.setenv("DUALTRACK_MODELS", str(tmp_path / "models"))
    places = {
        "tracked": folder / "tracked.igs.mha",
        "plain": folder / "plain.h5",
        "tiny": folder / "tiny.safetensors",
        "single": folder / "single.h5",
        "unknown": folder / "unknown.h5",
        "invalid": folder / "invalid.igs.mha",
        "nowhere": folder / "nowhere",
        "out": tmp_path / "out",
    }
    code, _, err = dualtrack(*[argument.format(**places) for argument in arguments])
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err
    assert os.listdir(tmp_path) == []


def test_an_error_for_machines_is_json_too(dualtrack, tmp_path):
    code, out, _ = dualtrack("info", tmp_path / "nowhere", "--json")
    assert code == 2
    assert "There is no sweep" in json.loads(out)["error"]


def test_help_needs_no_heavy_import():
    script = (
        "import sys\nfrom DualTrackCore.cli import main\n"
        "try:\n    main(['run', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'scipy', 'numba', 'SimpleITK', 'h5py', 'matplotlib', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--hole-filling" in done.stdout


def test_the_vertebra_sweep_is_reconstructed_from_its_tracking(dualtrack, tmp_path):
    code, out, err = dualtrack(
        *("reconstruct", shared_path("data/seq/SpinePhantomFreehand.igs.mha"), "--poses", "tracked", "-o", tmp_path),
        *(
            "--calibration",
            shared_path("data/config/PlusDeviceSet_SpinePhantomFreehandReconstructionOnly.xml"),
            "--json",
        ),
    )
    assert code == 0, err
    report = json.loads(out)
    assert report["volume"]["frames_used"] == 21
    assert report["trajectory"]["path_length_mm"] == pytest.approx(33.6, abs=0.05)
    volume = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "volume.nrrd")))
    assert volume.max() > 200


def test_a_fault_of_the_program_is_told_apart_from_bad_input(dualtrack, folder, monkeypatch):
    monkeypatch.setattr("DualTrackCore.cli.sweeps.sweep_facts", lambda *_: 1 / 0)
    code, out, err = dualtrack("info", folder / "plain.h5", "--json")
    assert code == 1
    assert "division by zero" in json.loads(out)["error"]
    assert "Traceback" in err


def test_wrong_arguments_for_machines_are_json_too(dualtrack):
    code, out, _ = dualtrack("info", "x", "--spacing", "wide", "--json")
    assert code == 2
    assert "'wide' is not a number of mm" in json.loads(out)["error"]
