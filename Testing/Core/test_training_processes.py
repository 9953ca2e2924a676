"""Trainings on two processes: the weights of one, one voice, an orderly end of all, and the whole plan of the paper."""

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from oracle import TINY
from training_data import SPACING_MM, tiny_recipe, tiny_values, write_sweeps

from DualTrackCore.errors import Cancelled, InputError
from DualTrackCore.network import load_model
from DualTrackCore.network.model import read_weights
from DualTrackCore.research.training import train
from DualTrackCore.research.training.processes import _sentence

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
#: Weights do not depend on dropout here, nor on where a process is.
EXACT = {
    "model": {**TINY, "dropout": 0.0},
    "sampling": {"stored_crops": 1},
    "standardise": True,
    "weighting": "likelihood",
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_sweeps(tmp_path_factory.mktemp("sweeps"))


def write_recipe(path, stage, table, **changes):
    path.write_text(yaml.safe_dump(tiny_values(stage, table, **changes)), encoding="utf-8")
    return path


@contextlib.contextmanager
def running(*arguments, **environment):
    """A command with its own group of processes, none of which outlives the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "DualTrackCore.cli", "train", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, **environment},
    )
    try:
        yield process
    finally:
        for one in (*members(process), process.pid):
            with contextlib.suppress(OSError):
                os.kill(one, signal.SIGKILL)
        process.communicate()


def members(process):
    """Process ids of the training processes that a command started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"DualTrackCore.cli" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return sorted(found)


def said(*arguments, **environment):
    """(exit code, lines, what went to stderr) of a command."""
    with running(*arguments, **environment) as process:
        out, err = process.communicate(timeout=540)
    return process.returncode, out.splitlines(), err


def differences(one, other):
    """[n] of all weights of two trainings."""
    first, second = (read_weights(path / "model.safetensors")[0] for path in (one, other))
    assert first.keys() == second.keys()
    return torch.cat([(value.double() - second[name].double()).abs().ravel() for name, value in first.items()])


def assert_alike(one, other):
    # Where a gradient is next to nothing, AdamW makes a whole step of its rounding.
    assert differences(one, other).quantile(0.99) < 2e-4


def test_two_processes_train_as_one_and_one_of_them_speaks(table, tmp_path):
    path = write_recipe(tmp_path / "recipe.yaml", "local3", table, **EXACT)
    code, lines, err = said(path, "--runs", tmp_path / "two", "--devices", 2)
    assert code == 0, err
    assert [line.split("  ")[0] for line in lines if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert sum("2 items a change of the weights on 2 devices, 1 on each." in line for line in lines) == 1
    assert sum(line.split()[:1] == ["weights"] for line in lines) == 1
    train(tiny_recipe("local3", table, **EXACT), runs=tmp_path / "one", say=lambda line: None)
    summaries = [json.loads((tmp_path / n / "local3" / "summary.json").read_text()) for n in ("one", "two")]
    assert summaries[0]["items"] == summaries[1]["items"] == 8
    for name, value in summaries[0]["validations"][-1].items():
        assert summaries[1]["validations"][-1][name] == pytest.approx(value, abs=1e-4), name
    assert_alike(tmp_path / "one" / "local3", tmp_path / "two" / "local3")


def failure(exitcode, time_ns=0, message=""):
    return SimpleNamespace(exitcode=exitcode, message=message, error_file_data={"time_ns": time_ns})


def test_of_several_that_failed_the_killed_one_is_named_then_the_refusal_then_the_first():
    refused, late, early = failure(2, 9, "No data."), failure(1, 8, "lost"), failure(1, 7, "broke")
    killed = _sentence({0: early, 1: failure(-9), 2: refused}, 3)
    assert isinstance(killed, Cancelled)
    assert str(killed).startswith("Process 2 of 3 was ended from outside (signal 9), most likely because memory ran")
    assert (type(_sentence({0: early, 1: refused}, 2)), str(_sentence({0: early, 1: refused}, 2))) == (
        InputError,
        "No data.",
    )
    assert str(_sentence({0: late, 1: early}, 2)) == "broke"


@pytest.fixture(scope="module")
def killed(table, tmp_path_factory):
    """Folder of a training of which one process was killed, command, exit code, output, messages, who was left."""
    folder = tmp_path_factory.mktemp("cut")
    changes = {**EXACT, "model": dict(TINY), "epochs": 40, "save_every": 1}  # with dropout
    command = (write_recipe(folder / "recipe.yaml", "local3", table, **changes), "--devices", 2)
    with running(*command, "--runs", folder) as process:
        for line in process.stdout:
            if line.startswith("epoch 3/40"):
                os.kill(members(process)[1], signal.SIGKILL)
                break
        out, err = process.communicate(timeout=120)
        return folder, command, process.returncode, out, err, members(process)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_killed_process_ends_all_with_a_sentence(killed):
    folder, _, code, out, err, left = killed
    assert (code, left) == (1, [])
    assert "was ended from outside (signal 9), most likely because memory ran out, and all others with it" in err
    assert "Traceback" not in err + out
    assert not (folder / "local3" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_two_processes_go_on_to_the_very_weights_of_two_that_were_not_interrupted(killed, tmp_path):
    folder, command, *_ = killed
    assert said(*command, "--runs", folder, "--resume")[0] == 0
    assert said(*command, "--runs", tmp_path)[0] == 0
    assert differences(folder / "local3", tmp_path / "local3").max() == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_training_ends_all_processes_and_goes_on_with_another_number_of_them(table, tmp_path, number):
    path = write_recipe(tmp_path / "recipe.yaml", "local3", table, **EXACT, epochs=300, save_every=1)
    with running(path, "--runs", tmp_path, "--devices", 2) as process:
        for line in process.stdout:
            if line.startswith("epoch 2/300"):
                process.send_signal(number)
                break
        out, err = process.communicate(timeout=120)
        assert (process.returncode, members(process)) == (1, [])
        assert "dualtrack: Cancelled; the checkpoints stay, and the same command goes on from the last" in err
        assert "Traceback" not in err + out
    first = torch.load(tmp_path / "local3" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"]
    lines = []

    def stop(line):
        lines.append(line)
        if line.startswith("epoch"):
            raise RuntimeError("seen enough")

    with pytest.raises(RuntimeError, match="seen enough"):
        train(tiny_recipe("local3", table, **EXACT, epochs=300), runs=tmp_path, resume=True, say=stop)
    assert lines[-1].startswith(f"epoch {first + 2}/300")


@pytest.mark.slow
def test_bad_input_is_refused_once_with_its_exit_code(table, tmp_path):
    path = write_recipe(tmp_path / "recipe.yaml", "local3", tmp_path / "none.csv", **EXACT)
    code, lines, err = said(path, "--runs", tmp_path, "--devices", 2)
    assert code == 2
    assert err.count("There is no data set at") == 1
    assert lines == [f"Training stage local3; results go to {tmp_path}/local3."]
    code, _, err = said(path, "--devices", 2, "--nodes", 2)
    assert code == 2
    assert "by SLURM's srun or by torchrun" in err


@pytest.mark.slow
def test_tasks_of_slurm_train_together(table, tmp_path):
    path = write_recipe(tmp_path / "recipe.yaml", "local3", table, **EXACT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
    shared |= {"SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_JOB_NUM_NODES": "2"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    tasks = [{**shared, "SLURM_PROCID": str(i), "SLURM_NODEID": str(i), "SLURM_LOCALID": "0"} for i in range(2)]
    command = (path, "--runs", tmp_path / "two", "--nodes", 2)
    with running(*command, **tasks[0]) as first, running(*command, **tasks[1]) as second:
        out, err = first.communicate(timeout=540)
        quiet, also = second.communicate(timeout=60)
        assert (first.returncode, second.returncode) == (0, 0), err + also
    assert out.count("epoch 2/2") == 1
    assert quiet == ""
    train(tiny_recipe("local3", table, **EXACT), runs=tmp_path / "one", say=lambda line: None)
    assert_alike(tmp_path / "one" / "local3", tmp_path / "two" / "local3")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_one_command_trains_all_stages_of_the_paper_on_own_data_and_goes_on_after_a_kill(table, tmp_path):
    values = {
        "model": dict(TINY),
        "sampling.window": 8,
        "card.spacing_mm": list(SPACING_MM),
        "card.frame_size": [72, 80],
        "accelerator": "cpu",
        "precision": "fp32",
        "workers": 0,
        "batch_size": 2,
    }
    options = [word for key, value in values.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    command = ("paper", "--data", table, "--devices", 2, "--epochs", 2, "--runs", tmp_path, *options)
    with running(*command) as process:
        for line in process.stdout:
            if line.startswith("Stage 4"):
                os.kill(process.pid, signal.SIGKILL)
                break
    code, lines, err = said(*command)
    assert code == 0, err
    stages = [line for line in lines if line.startswith("Stage")]
    assert stages[:3] == [f"Stage {i} of 7, paper/local{i}: finished before." for i in (1, 2, 3)]
    assert [line.partition(": ")[2] for line in stages[4:]] == ["starts."] * 3
    rows = list(csv.DictReader((tmp_path / "paper" / "evaluation" / "sweeps.csv").open(encoding="utf-8")))
    assert {row["sweep"] for row in rows} == {"sweep 4", "sweep 5"}
    card = load_model(tmp_path / "paper").card
    assert card.training_fingerprint["sweeps"] == 4
    assert card.training_data.startswith("4 sweeps (96 frames) for training, 2 sweeps (48 frames) for validation")
