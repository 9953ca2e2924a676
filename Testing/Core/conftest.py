"""Fixtures that several core tests share."""

import os
import sys

# On a busy machine, threads that spin while they wait cost several times the work itself; must precede torch.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from oracle import ORACLE, published_model

sys.path.insert(0, str(ORACLE))
torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def oracle_model():
    """The published network with the reference weights of seed 1, built once."""
    return published_model()
