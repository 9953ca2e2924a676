"""Which sweeps training and validation draw."""

import pytest
from training_data import tiny_recipe, tracked_sweep

from DualTrackCore.network import ModelCard
from DualTrackCore.progress import Reporter
from DualTrackCore.research.simulation import simulator
from DualTrackCore.research.simulation.simulator import Simulation, store_missing
from DualTrackCore.research.training import sweeps
from DualTrackCore.research.training.recipe import Data
from DualTrackCore.research.training.sweeps import simulating_processes, training_sweeps


def test_validation_sweeps_never_share_speckle_or_seed_with_training_sweeps(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(Simulation, "sweep", lambda self: made.append(self) or tracked_sweep(self.seed, 4))
    data = Data(
        kind="simulated", seeds=(0, 9), validation_seeds=(100, 109), frames=4, speckles=4, store=False, families=None
    )
    training, validation = training_sweeps(data, ModelCard(name="tiny"), tmp_path, 1, Reporter())
    assert (len(training), len(validation)) == (9, 9)
    speckles = [{job.speckle_seed for job in jobs} for jobs in (made[:9], made[9:])]
    assert speckles[0] == {0, 1, 2, 3}
    assert len(speckles[1]) == 4
    assert not speckles[0] & speckles[1]
    assert not {job.seed for job in made[:9]} & {job.seed for job in made[9:]}


@pytest.mark.parametrize(("missing", "processes"), [(0, 0), (15, 1), (17, 2), (80, 4)])
def test_a_process_is_started_for_eight_missing_sweeps_or_more(tmp_path, monkeypatch, missing, processes):
    asked = []
    monkeypatch.setattr(simulator, "_in_parallel", lambda work, jobs, workers, reporter: asked.append((jobs, workers)))
    jobs = [(Simulation(seed, 4, None, seed % 3, (8, 8), (1.0, 1.0)), tmp_path / str(seed)) for seed in range(90)]
    for _, path in jobs[missing:]:
        path.touch()
    store_missing(jobs, 4, Reporter())
    ((chosen, workers),) = asked
    assert sorted(path.name for _, path in chosen) == sorted(path.name for _, path in jobs[:missing])
    assert workers == processes
    assert [job.speckle_seed for job, _ in chosen] == sorted(job.speckle_seed for job, _ in chosen)


def test_one_process_of_a_training_simulates_on_the_cores_of_all(monkeypatch):
    monkeypatch.setattr(sweeps, "free_cores", lambda: 3)  # of each process
    assert simulating_processes(tiny_recipe("fusion", devices=2)) == 6
    assert simulating_processes(tiny_recipe("fusion", workers=8)) == 8
