"""One memory budget for evaluations, data sets and training, in this process and in those that they start."""

import re

import numpy as np
import pytest
from evaluation_sets import Given, straight_sweep
from oracle import tiny_model
from training_data import tiny_recipe, write_sweeps

from DualTrackCore.cli import main
from DualTrackCore.errors import InputError
from DualTrackCore.memory import memory_limit, share_of_limit
from DualTrackCore.progress import Reporter
from DualTrackCore.research import training
from DualTrackCore.research.comparison import Identity, run_methods, runner
from DualTrackCore.research.comparison.measure import measure_sweep
from DualTrackCore.research.training import image_store
from DualTrackCore.research.training.image_store import ready_sweeps
from DualTrackCore.research.training.initial import recipe_card

EVALUATE = ("evaluate", "-o", "out", "--method", "identity")


@pytest.mark.parametrize("command", [EVALUATE, ("dataset", "check"), ("dataset", "convert", "-o", "out")])
def test_the_option_memory_limits_data_sets(tmp_path, capsys, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    write_sweeps(tmp_path, train=1, val=1)
    assert main([*command, "metadata.csv", "--memory", "0.001"]) == 2
    printed = capsys.readouterr()
    assert re.search(r"needs .* of memory and .* may be taken", printed.err + printed.out)


def test_processes_on_this_machine_share_the_memory_that_the_user_allows(tmp_path, monkeypatch):
    seen = []

    class Asking(Identity):
        def estimate(self, sweep, **options):
            seen.append(share_of_limit(1))
            return super().estimate(sweep, **options)

    def measured(work, *_):
        return (measure_sweep(name, work, save=None) for name in work.dataset.names)

    monkeypatch.setattr(runner, "_outcomes_of_workers", measured)
    with memory_limit(6):
        for workers in (1, 2):
            run_methods([Asking()], Given(a=straight_sweep(0.5)), tmp_path, workers=workers, resume=False)
    run_methods([Asking()], Given(a=straight_sweep(0.5)), tmp_path, workers=2, resume=False)
    assert seen == [6, 2, None]


def test_the_processes_of_a_training_keep_no_more_frames_in_memory_than_is_allowed_and_half_of_what_is_free(
    tmp_path, monkeypatch
):
    table = write_sweeps(tmp_path)  # of 138 kB each

    def kept(processes, allowed=4.0):
        data = {"kind": "dualtrack_h5", "csv": str(table), "memory_gb": allowed}
        recipe = tiny_recipe("local1", devices=processes, data=data)
        sets = ready_sweeps(recipe, tiny_model().network, recipe_card(recipe), tmp_path, Reporter())
        return [sum(isinstance(sweep.frames, np.ndarray) for sweep in part.sweeps) for part in sets]

    assert kept(processes=1) == kept(processes=2) == [4, 2]
    assert kept(processes=1, allowed=0.0006) == [3, 1]
    assert kept(processes=2, allowed=0.0006) == [1, 0]
    monkeypatch.setattr(image_store, "available_memory_bytes", lambda: 400_000)
    assert kept(processes=1) == [1, 0]
    assert kept(processes=2) == [0, 0]


def test_the_option_memory_limits_training(tmp_path, monkeypatch, capsys):
    def train(*arguments, **options):
        raise InputError(f"It may hold {share_of_limit(1)} GB.")

    monkeypatch.setattr(training, "train", train)
    assert main(["train", "mini/local1", "--memory", "2.5", "--runs", str(tmp_path)]) == 2
    assert "It may hold 2.5 GB." in capsys.readouterr().err
