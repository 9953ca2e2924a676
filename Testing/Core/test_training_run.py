"""Whole runs: weights that come out, interruption and going on, the command."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import yaml
from oracle import TINY
from torch.torch_version import TorchVersion
from training_data import tiny_recipe, tiny_values, write_sweeps

from DualTrackCore.errors import Cancelled, CheckpointError, InputError
from DualTrackCore.evaluation import evaluate
from DualTrackCore.io import load_sweep
from DualTrackCore.network import load_model
from DualTrackCore.network.model import read_weights
from DualTrackCore.progress import Stage
from DualTrackCore.research.training import lightning_task, train
from DualTrackCore.tracking import estimate_trajectory

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_sweeps(tmp_path_factory.mktemp("sweeps"))


def command(path, runs, *changes):
    options = [option for change in changes for option in ("--set", change)]
    return [sys.executable, "-m", "DualTrackCore.cli", "train", str(path), "--runs", str(runs), *options]


def epochs(lines):
    return [line for line in lines if line.startswith("epoch")]


def same_tensors(one, other):
    first, second = read_weights(one)[0], read_weights(other)[0]
    assert first.keys() == second.keys()
    return [key for key in first if not torch.equal(first[key], second[key])]


#: Stages that draw something of their own: windows and BatchNorm, dropout and stored tokens, thinned sweeps.
INTERRUPTED = {
    "local1": {
        "augmentation": {"hflip": 0.5, "reverse": 0.5, "crop": True},
        "standardise": True,
        "weighting": "likelihood",
    },
    "fusion": {"sampling": {"stored_crops": 2}, "augmentation": {"reverse": 0.5, "crop": True}, "at_once": 1},
    "finetune2": {"augmentation": {"drop": 0.5}, "batch_size": 1, "validation": {"every": 2}},
}


@pytest.mark.parametrize("stage", INTERRUPTED)
def test_a_run_that_died_before_saving_goes_on_to_the_same_weights(stage, table, tmp_path):
    recipe = tiny_recipe(stage, table, epochs=4, warmup_epochs=1, **INTERRUPTED[stage])
    whole = train(recipe, runs=tmp_path / "whole", say=lambda line: None)

    def die(line):
        if line.startswith("epoch 3/4"):
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(recipe, runs=tmp_path / "cut", say=die)
    lines = []
    rest = train(recipe, runs=tmp_path / "cut", resume=True, say=lines.append)
    assert [line.split()[1] for line in epochs(lines)] == ["3/4", "4/4"]
    assert same_tensors(whole.weights, rest.weights) == []
    assert whole.items == rest.items
    last = [
        torch.load(tmp_path / run / stage / "checkpoints" / "last.ckpt", weights_only=True) for run in ("whole", "cut")
    ]
    for name, value in last[0]["state_dict"].items():
        assert torch.equal(value, last[1]["state_dict"][name]), name


@pytest.mark.parametrize("stage", ["heads", "direction"])
def test_the_epoch_of_a_head_is_chosen_by_the_loss_of_that_head(stage, table, tmp_path, monkeypatch):
    monkeypatch.setattr(lightning_task, "_LEAST_THROUGH", 0.0)  # these sweeps run to and fro
    heads = {**TINY, "uncertainty": True, "direction": True}
    recipe = tiny_recipe(stage, table, epochs=3, model=heads, one_way=True, optimiser={"lr": 1e-3})
    lines = []
    result = train(recipe, runs=tmp_path, say=lines.append)
    losses = [float(line.split("validation loss ")[1].split()[0]) for line in epochs(lines)]
    assert len(set(losses)) == 3  # the motions, and with them all other figures, stay as they are
    assert len({line.split("GPE ")[1].split()[0] for line in epochs(lines)}) == 1
    assert result.best["val_loss"] == pytest.approx(min(losses), abs=1e-4)
    kept = tmp_path / stage / "checkpoints"
    epoch = {name: torch.load(kept / f"{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last")}
    assert epoch == {"best": losses.index(min(losses)), "last": 2}


def test_a_cancelled_run_says_what_stays_and_goes_on_to_the_same_weights(table, tmp_path):
    recipe = tiny_recipe("local1", table, epochs=3)
    with pytest.raises(Cancelled, match="Cancelled"):
        train(recipe, runs=tmp_path / "cut", say=lambda line: None, cancelled=lambda: True)
    whole = train(recipe, runs=tmp_path / "whole", say=lambda line: None)
    said = []
    with pytest.raises(Cancelled, match=r"the checkpoints stay in .*local1, and resume=True"):
        train(recipe, runs=tmp_path / "cut", say=said.append, cancelled=lambda: len(epochs(said)) == 2)
    rest = train(recipe, runs=tmp_path / "cut", resume=True, say=said.append, cancelled=lambda: False)
    assert [line.split()[1] for line in epochs(said)] == ["1/3", "2/3", "3/3"]
    assert same_tensors(whole.weights, rest.weights) == []


@pytest.mark.parametrize("bars", [False, True])
def test_an_epoch_reports_how_far_it_is_unless_a_bar_shows_it(table, tmp_path, bars):
    reports = []
    recipe = tiny_recipe("local1", table, epochs=2, batch_size=1)
    train(recipe, runs=tmp_path, say=lambda line: None, progress=reports.append, bars=bars)
    told = [(report.text, report.done, report.total) for report in reports if report.stage is Stage.TRAINING]
    batches = len(told) // 2
    assert (batches == 0) if bars else (batches > 1)
    steps = [(epoch, batch) for epoch in (1, 2) for batch in range(1, batches + 1)]
    assert told == [(f"Training, epoch {epoch}/2, batches", batch, batches) for epoch, batch in steps]


def test_a_run_that_ends_early_follows_the_schedule_of_the_whole_run(table, tmp_path):
    lines = {}
    for end in (None, 2):
        lines[end] = []
        recipe = tiny_recipe("local1", table, epochs=4, end_epoch=end)
        train(recipe, runs=tmp_path / str(end), say=lines[end].append)
    without_seconds = {end: [line.split("  ")[1:-1] for line in epochs(said)] for end, said in lines.items()}
    assert without_seconds[2] == without_seconds[None][:2]
    assert "lr 0.00e+00" in lines[None][-1]


def test_a_killed_command_goes_on_to_the_same_weights(table, tmp_path):
    values = tiny_values("global", table, epochs=5, augmentation={"hflip": 0.5, "reverse": 0.5})
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    process = subprocess.Popen(command(path, tmp_path / "cut"), stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    with process:
        for line in process.stdout:
            if line.startswith("epoch 2/5"):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "global" / "model.safetensors").exists()
    recipe = tiny_recipe("global", table, epochs=5, augmentation={"hflip": 0.5, "reverse": 0.5})
    rest = train(recipe, runs=tmp_path / "cut", resume=True, say=lambda line: None)
    whole = train(recipe, runs=tmp_path / "whole", say=lambda line: None)
    assert same_tensors(whole.weights, rest.weights) == []


def test_the_stages_lead_from_one_to_the_next_to_a_model_that_tracks(table, tmp_path):
    def stage(name, **changes):
        recipe = tiny_recipe(name, table, epochs=1, standardise=True, **changes)
        return train(recipe, runs=tmp_path, say=lambda line: None).weights

    before = {}
    before["local1"] = stage("local1")
    before["local2"] = stage("local2", initial={"local_encoder": "local1"})
    before["local3"] = stage("local3", initial={"local_encoder": "local2"})
    before["global"] = stage("global")
    stage("fusion", initial={"local_encoder": "local3", "global_encoder": "global"})
    last = stage("finetune2", initial={"all": "fusion"})
    model = load_model(last)
    assert model.card.name == "tiny"
    assert "temporary_head.weight" not in read_weights(before["local1"])[0]
    trajectory = estimate_trajectory(load_sweep(table.parent / "0.h5"), model)
    assert len(trajectory) == 24
    trunk = "local_encoder.0.backbone.module.backbone.module.backbone.stem.0.weight"
    weights = {name: read_weights(path)[0] for name, path in before.items()}
    assert torch.equal(weights["local1"][trunk], weights["local3"][trunk])
    assert not torch.equal(weights["local1"][trunk], read_weights(last)[0][trunk])


def test_the_result_is_the_best_epoch_in_millimetres(table, tmp_path):
    recipe = tiny_recipe("finetune1", table, epochs=4, optimiser={"lr": 3e-2}, standardise=True)
    result = train(recipe, runs=tmp_path, say=lambda line: None)
    summary = json.loads((tmp_path / "finetune1" / "summary.json").read_text())
    errors = [v["val_gpe_five_point_mm"] for v in summary["validations"]]
    assert len(errors) == 4
    assert result.best["val_gpe_five_point_mm"] == min(errors)
    model, found = load_model(result.weights), []
    for name in ("4.h5", "5.h5"):
        sweep = load_sweep(table.parent / name)
        found.append(evaluate(estimate_trajectory(sweep, model), sweep).metrics["gpe_five_point_mm"])
    assert sum(found) / 2 == pytest.approx(min(errors), rel=1e-3)


def test_the_last_epoch_is_validated_and_only_validated_weights_come_out(table, tmp_path):
    recipe = tiny_recipe("global", table, epochs=5, validation={"every": 3})
    train(recipe, runs=tmp_path, say=lambda line: None)
    summary = json.loads((tmp_path / "global" / "summary.json").read_text())
    assert [v["epoch"] for v in summary["validations"]] == [3, 5]
    assert summary["best"] in summary["validations"]
    assert sorted(path.name for path in (tmp_path / "global" / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    best = torch.load(tmp_path / "global" / "checkpoints" / "best.ckpt", weights_only=True)
    assert "optimizer_states" not in best


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a computer without a graphics card")
def test_devices_that_are_not_there_are_refused(table, tmp_path):
    with pytest.raises(InputError, match=r"1 devices on each of 1 machines \(cuda\) cannot be used; change devices"):
        train(tiny_recipe("global", table, accelerator="cuda"), runs=tmp_path)


def test_nothing_comes_out_where_no_epoch_could_be_validated(table, tmp_path):
    recipe = tiny_recipe("global", table, epochs=1, output="diverged", optimiser={"lr": 1e30})
    with pytest.raises(InputError, match="No epoch of diverged has a finite gpe_five_point_mm"):
        train(recipe, runs=tmp_path, say=lambda line: None)
    assert not (tmp_path / "diverged" / "model.safetensors").exists()


def test_the_mean_with_the_start_is_what_is_validated_and_comes_out(table, tmp_path):
    train(tiny_recipe("fusion", table, epochs=1, output="start"), runs=tmp_path, say=lambda line: None)
    shared = {"initial": {"all": "start"}, "optimiser": {"lr": 3e-3}, "standardise": True}
    for name, share in (("end", 0.0), ("mean", 0.25)):
        recipe = tiny_recipe("finetune2", table, epochs=1, output=name, start_share=share, **shared)
        train(recipe, runs=tmp_path, say=lambda line: None)
    start, end, mean = (read_weights(tmp_path / name / "model.safetensors")[0] for name in ("start", "end", "mean"))
    name = "head.fc.weight"
    assert not torch.allclose(start[name], end[name], atol=1e-4)
    torch.testing.assert_close(mean[name], 0.75 * end[name] + 0.25 * start[name], atol=1e-6, rtol=1e-5)
    best, sweeps = json.loads((tmp_path / "mean" / "summary.json").read_text())["best"], []
    assert best["start_share"] == 0.25
    model = load_model(tmp_path / "mean")
    for path in ("4.h5", "5.h5"):
        sweep = load_sweep(table.parent / path)
        sweeps.append(evaluate(estimate_trajectory(sweep, model), sweep).metrics["gpe_five_point_mm"])
    assert sum(sweeps) / 2 == pytest.approx(best["val_gpe_five_point_mm"], rel=1e-3)


def test_pieces_of_a_batch_give_the_weights_of_the_whole(table, tmp_path):
    shared = {"model": {**TINY, "dropout": 0.0}, "weighting": "likelihood", "standardise": True, "batch_size": 4}
    made = {}
    for at_once in (None, 1):
        recipe = tiny_recipe("local3", table, output=f"by-{at_once}", at_once=at_once, **shared)
        made[at_once] = train(recipe, runs=tmp_path, say=lambda line: None)
    assert made[None].items == made[1].items == 8
    first, second = (read_weights(result.weights)[0] for result in made.values())
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=2e-4, rtol=0, msg=name)


def test_the_card_holds_the_fingerprint_of_the_training_sweeps(table, tmp_path):
    lines = []
    card = load_model(train(tiny_recipe("global", table, epochs=1), runs=tmp_path, say=lines.append).weights).card
    found = card.training_fingerprint
    assert (found["sweeps"], found["frames"], found["frame_sizes"]) == (4, 96, {"72 x 80": 4})
    assert lines[0].startswith("Data: 4 sweeps of 24 frames, 72 x 80 pixels of 0.5 x 0.4 mm, steps of ")


def test_a_loss_goes_down_on_a_sweep_that_is_seen_again_and_again(table, tmp_path):
    lines = []
    recipe = tiny_recipe("global", table, epochs=30, optimiser={"lr": 3e-3}, standardise=True, batch_size=4)
    recipe = replace(recipe, data=replace(recipe.data, limit=4), validation=replace(recipe.validation, every=30))
    recipe = replace(
        recipe, model={**recipe.model, "dropout": 0.0}, sampling=replace(recipe.sampling, random_frames=24)
    )
    train(recipe, runs=tmp_path, say=lines.append)
    losses = [float(line.split("loss ")[1].split()[0]) for line in epochs(lines)]
    assert losses[-1] < 0.7 * losses[0]


def test_a_folder_with_a_run_is_not_overwritten_and_one_without_cannot_go_on(table, tmp_path):
    recipe = tiny_recipe("global", table, epochs=1)
    with pytest.raises(InputError, match="holds no checkpoint"):
        train(recipe, runs=tmp_path, resume=True)
    train(recipe, runs=tmp_path, say=lambda line: None)
    with pytest.raises(InputError, match="holds a run already"):
        train(recipe, runs=tmp_path)
    changed = replace(recipe, epochs=2, optimiser=replace(recipe.optimiser, lr=0.5))
    with pytest.raises(InputError, match=r"differs from that of the interrupted run in epochs, optimiser\.lr"):
        train(changed, runs=tmp_path, resume=True)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_a_checkpoint_that_would_run_code_is_not_opened(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tiny_recipe("global", table, epochs=1)
    train(recipe, runs=tmp_path, say=lambda line: None)
    last = tmp_path / "global" / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    torch.save({**content, "extra": Bomb()}, last)
    with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged, or holds more than tensors"):
        train(recipe, runs=tmp_path, resume=True, say=lambda line: None)
    assert not (tmp_path / "exploded").exists()
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1"))
    with pytest.raises(CheckpointError, match=r"last\.ckpt was not opened: torch 2\.9\.1 has known holes"):
        train(recipe, runs=tmp_path, resume=True, say=lambda line: None)


def test_sweeps_without_poses_and_tables_without_sweeps_are_refused(table, tmp_path):
    with pytest.raises(InputError, match=r"data\.csv of the recipe is .*There is no data set at .*none\.csv"):
        train(tiny_recipe("global", tmp_path / "none.csv"), runs=tmp_path)
    bare = tmp_path / "bare.csv"
    bare.write_text("sweep_id,split\n1,train\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"bare\.csv lacks the columns processed_sweep_path"):
        train(tiny_recipe("global", bare), runs=tmp_path)
    tusrec = {"data": {"kind": "tusrec", "folder": str(tmp_path / "no"), "validation_folder": str(tmp_path / "none")}}
    with pytest.raises(InputError, match=r"data\.folder of the recipe is .*There is no data set at .*no;"):
        train(tiny_recipe("global", **tusrec), runs=tmp_path)


def test_simulated_sweeps_are_made_once_and_found_again(tmp_path):
    data = {"kind": "simulated", "seeds": [0, 2], "validation_seeds": [9, 10], "frames": 8, "speckles": 1}
    changes = {"data": data, "epochs": 1, "card": {"name": "t", "spacing_mm": [0.5, 0.5], "frame_size": [64, 64]}}
    train(tiny_recipe("global", **changes), runs=tmp_path, say=lambda line: None)
    stored = sorted((tmp_path / "cache" / "sweeps").iterdir())
    assert len(stored) == 3
    times = [path.stat().st_mtime_ns for path in stored]
    train(tiny_recipe("global", **changes, output="again"), runs=tmp_path, say=lambda line: None)
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "cache" / "sweeps").iterdir())] == times
    assert same_tensors(tmp_path / "global" / "model.safetensors", tmp_path / "again" / "model.safetensors") == []


def test_tus_rec_folders_are_found_with_poses_apart_or_together(tmp_path):
    import h5py
    import numpy as np

    def write(path, frames, poses):
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            if frames:
                file["frames"] = np.random.default_rng(len(list(tmp_path.rglob("*.h5")))).integers(
                    0, 255, (12, 72, 80), dtype=np.uint8
                )
            if poses:
                file["tforms"] = np.tile(np.eye(4), (12, 1, 1))

    write(tmp_path / "train" / "frames_transfs" / "000" / "RH_Per_L_DtP.h5", True, True)
    write(tmp_path / "train" / "frames_transfs" / "001" / "LH_Par_C_PtD.h5", True, True)
    write(tmp_path / "val" / "frames" / "050" / "RH_Per_S_DtP.h5", True, False)
    write(tmp_path / "val" / "transfs" / "050" / "RH_Per_S_DtP.h5", False, True)
    write(tmp_path / "val" / "landmarks" / "landmark_050.h5", False, True)
    rows = "\n".join(",".join(str(v) for v in row) for row in np.diag([0.5, 0.4, 1, 1]))
    rigid = "\n".join(",".join(str(v) for v in row) for row in np.eye(4))
    for part in ("train", "val"):
        (tmp_path / part / "calib_matrix.csv").write_text(f"scale\n{rows}\nrigid\n{rigid}\n", encoding="utf-8")
    data = {"kind": "tusrec", "folder": str(tmp_path / "train"), "validation_folder": str(tmp_path / "val")}
    result = train(tiny_recipe("local1", data=data, epochs=1), runs=tmp_path, say=lambda line: None)
    assert result.items == 2
