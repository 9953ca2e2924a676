"""Fixtures that several core tests share."""

import os
import sys

# On a busy machine, threads that spin while they wait cost several times the work itself; must precede torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from hypothesis import HealthCheck, settings
from oracle import ORACLE, published_model, tiny_model
from published_model_server import entry, nothing_ships, server  # noqa: F401 - fixtures
from worker_processes import temporary  # noqa: F401 - a fixture

from DualTrackCore.network import save_model

sys.path.insert(0, str(ORACLE))
# An example may take any time: machines that share their cores starve, and no test is timed.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
# Test processes that run side by side get one core each.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def oracle_model():
    """The published network with the reference weights of seed 1, built once."""
    return published_model()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    model = tiny_model()
    save_model(model.network, model.card, path)
    return path
