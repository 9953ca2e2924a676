"""Fixtures that several core tests share."""

import sys

import pytest
import torch
from oracle import ORACLE, published_model

sys.path.insert(0, str(ORACLE))
torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def oracle_model():
    """The published network with the reference weights of seed 1, built once."""
    return published_model()
