"""Which sweeps training and validation draw."""

from training_data import tracked_sweep

from DualTrackCore.network import ModelCard
from DualTrackCore.progress import Reporter
from DualTrackCore.research.simulation.simulator import Simulation
from DualTrackCore.research.training.recipe import Data
from DualTrackCore.research.training.sweeps import training_sweeps


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
