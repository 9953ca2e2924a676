"""No output replaces an input of the same command, by whatever name it is called."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from oracle import tiny_model
from training_data import tiny_recipe, tiny_values, tracked_sweep, write_sweeps

from DualTrackCore.cli import main
from DualTrackCore.errors import InputError
from DualTrackCore.files import require_apart
from DualTrackCore.io import load_sweep, save_sweep, write_trajectory_csv
from DualTrackCore.network import save_model
from DualTrackCore.research.training import train
from DualTrackCore.run import RunSettings, run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Inputs under the names of results, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUALTRACK_MODELS", str(tmp_path / "models"))
    sweep = tracked_sweep(0, 10, (40, 48))
    save_sweep(sweep, tmp_path / "sweep.igs.mha")
    save_sweep(sweep, tmp_path / "a.h5")
    write_trajectory_csv(sweep.tracked, tmp_path / "trajectory.csv")
    (tmp_path / "settings.yaml").write_text("voxel_mm: 3\npictures: false\nposes: tracked\n")
    save_model(tiny_model().network, tiny_model().card, tmp_path / "tiny.safetensors")
    os.link("sweep.igs.mha", "hard.igs.mha")
    os.symlink("sweep.igs.mha", "soft.igs.mha")
    os.symlink(".", "here")
    return tmp_path


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command",
    [
        "run sweep.igs.mha -o .",
        "run sweep.igs.mha -o here",
        "run hard.igs.mha -o {folder}",
        "run soft.igs.mha a.h5 -o one/..",
        "run a.h5 --config settings.yaml -o here",
        "reconstruct a.h5 --poses here/trajectory.csv -o .",
        "track sweep.igs.mha -o sweep.igs.mha",
        "track sweep.igs.mha -o soft.igs.mha",
        "track hard.igs.mha -o here/sweep.igs.mha",
        "convert sweep.igs.mha hard.igs.mha",
        "convert a.h5 here/a.h5",
        "convert a.h5 trajectory.csv.h5 --poses trajectory.csv",
        "dataset convert . -o here",
        "evaluate a.h5 here -o . --method identity",
        "models import own models/own.json",
    ],
)
def test_a_command_refuses_to_replace_its_input_before_it_works(folder, capsys, monkeypatch, command):
    monkeypatch.setattr("DualTrackCore.cli.sweeps.settings_model", lambda *_: pytest.fail("the work began"))
    if "trajectory.csv.h5" in command:
        os.link("trajectory.csv", "trajectory.csv.h5")
    (folder / "one").mkdir()
    if "a.h5 -o one/.." in command:  # several sweeps get a folder each
        (folder / "sweep").mkdir()
        os.link("a.h5", "sweep/volume.nrrd")
    if command.startswith("models"):
        (folder / "models").mkdir()
        shutil.copy("tiny.safetensors", "models/own.json")
    before = everything(folder)
    assert main(command.format(folder=folder).split()) == 2
    said = capsys.readouterr().err.strip()
    assert " is the input " in said
    assert len(said.splitlines()) == 1
    assert everything(folder) == before


@pytest.mark.parametrize(
    "command",
    [
        "run a.h5 --model tiny.safetensors -o {name}",
        "reconstruct a.h5 -o {name}",
        "track a.h5 --model tiny.safetensors -o {name}.csv",
        "convert a.h5 {name}.igs.mha",
        "dataset convert a.h5 -o {name}",
        "evaluate a.h5 --calibrate a.h5 -o {name} --method identity",
        "simulate --frames 4 --size 48,40 -o {name}.h5",
        "info {name}.h5",
        "run {name}.h5 -o out",
        "run a.h5 --model {name}.safetensors -o out",
        "run a.h5 --config {name}.yaml -o out",
        "models import own {name}.safetensors",
        "demo -o {name}",
    ],
)
def test_a_name_that_is_too_long_is_refused_in_one_sentence(folder, capsys, command):
    before = everything(folder)
    assert main(command.format(name="n" * 300).split()) == 2
    said = [line for line in capsys.readouterr().err.strip().splitlines() if not line.startswith("Note: ")]
    assert len(said) == 1
    assert "too long" in said[0] or "There is no" in said[0]
    assert "Errno" not in said[0]
    assert everything(folder) == before


def test_pixels_beside_a_header_and_frames_in_a_folder_are_inputs(folder, capsys):
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 255, (6, 40, 48), dtype=np.uint8))
    sitk.WriteImage(image, "clip.mhd")
    os.rename("clip.raw", "volume.nrrd")
    header = Path("clip.mhd").read_text().replace("clip.raw", "volume.nrrd")
    Path("clip.mhd").write_text(header)
    before = everything(folder)
    assert main(["run", "clip.mhd", "--spacing", "0.4", "-o", "."]) == 2
    assert "volume.nrrd is the input" in capsys.readouterr().err
    os.mkdir("frames")
    for number in range(3):
        sitk.WriteImage(image[:, :, number], f"frames/{number}.png")
    os.link("frames/0.png", "slices.png")
    assert main(["run", "frames", "--spacing", "0.4", "-o", "."]) == 2
    assert main(["run", "frames", "--spacing", "0.4", "-o", "here/frames"]) == 2
    assert capsys.readouterr().err.count(" is the input ") == 2
    assert before.items() <= everything(folder).items()


def test_python_refuses_to_save_a_sweep_or_a_result_over_its_source(folder):
    sweep = load_sweep("sweep.igs.mha")
    before = everything(folder)
    for part in (sweep, sweep.slice(2, 6), replace(sweep, frames=sweep.window(0, 10))):
        with pytest.raises(InputError, match="is the input"):
            save_sweep(part, "hard.igs.mha")
    result = run(sweep, RunSettings(poses="tracked", voxel_mm=3, pictures=False))
    with pytest.raises(InputError, match="is the input"):
        result.write("here")
    assert everything(folder) == before
    result.write("results")
    assert load_sweep("results/sweep.igs.mha").files == (str(folder / "results" / "sweep.igs.mha"),) * 2


def test_a_training_refuses_to_replace_the_weights_that_it_starts_from(tmp_path):
    table = write_sweeps(tmp_path / "data", 1, 1)
    (tmp_path / "fusion").mkdir()
    save_model(tiny_model().network, tiny_model().card, tmp_path / "fusion" / "model.safetensors")
    recipe = tiny_recipe("fusion", table, initial={"all": str(tmp_path / "fusion" / "model.safetensors")})
    with pytest.raises(InputError, match="is the input"):
        train(recipe, runs=tmp_path)
    with pytest.raises(InputError, match="is the input"):
        train(tiny_recipe("fusion", table, output="data", initial={"all": str(tmp_path / "data")}), runs=tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["data", "fusion"]


@pytest.mark.parametrize("base", [False, True])
def test_a_training_refuses_to_replace_its_own_recipe(tmp_path, capsys, base):
    table = write_sweeps(tmp_path / "data", 1, 1)
    own = tmp_path / "runs" / "own" / "recipe.json"  # JSON is YAML too
    own.parent.mkdir(parents=True)
    own.write_text(json.dumps(tiny_values("local1", table, output="own")))
    given = tmp_path / "above.yaml" if base else own
    if base:
        given.write_text("base: runs/own/recipe.json\n")
    before = everything(tmp_path)
    assert main(["train", str(given), "--runs", str(tmp_path / "runs")]) == 2
    assert f"{own} is the input" in capsys.readouterr().err
    assert everything(tmp_path) == before


def test_several_sweeps_are_compared_with_all_outputs_before_the_first_one_is_read(folder, capsys, monkeypatch):
    """The pixels of the second sweep lie where a result of the first goes."""
    monkeypatch.setattr("DualTrackCore.cli.sweeps.run_clip", lambda *_, **__: pytest.fail("the work began"))
    (folder / "out" / "a").mkdir(parents=True)
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 255, (6, 40, 48), dtype=np.uint8))
    sitk.WriteImage(image, "clip.mhd")
    os.rename("clip.raw", "out/a/volume.nrrd")
    Path("clip.mhd").write_text(Path("clip.mhd").read_text().replace("clip.raw", "out/a/volume.nrrd"))
    Path("broken.igs.mha").write_text("nothing")  # is said in its turn, and keeps the others from nothing
    before = everything(folder)
    assert main(["run", "a.h5", "broken.igs.mha", "clip.mhd", "--spacing", "0.4", "-o", "out"]) == 2
    said = capsys.readouterr().err.strip()
    assert "volume.nrrd is the input" in said
    assert len(said.splitlines()) == 1
    assert everything(folder) == before


def test_outputs_that_are_not_there_yet_are_apart(tmp_path):
    (tmp_path / "a").write_text("a")
    require_apart([tmp_path / "b", tmp_path / "none" / "c"], [tmp_path / "a", tmp_path / "missing"])
    with pytest.raises(InputError, match="is the input"):
        require_apart([tmp_path / "b", tmp_path / "." / "a"], [tmp_path])
