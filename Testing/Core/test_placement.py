"""Threads that share a model: nobody takes the network away from a device while another computes there."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from oracle import noise_sweep, tiny_model
from torch import nn

from DualTrackCore.errors import InputError
from DualTrackCore.progress import Stage
from DualTrackCore.tracking import LiveTracker, estimate_trajectory
from DualTrackCore.tracking.device import on_device

#: A device that every torch has and that computes nothing.
AWAY = torch.device("meta")


class Network(nn.Linear):
    """Notes where it is sent and stays where it is."""

    def __init__(self):
        super().__init__(2, 2)
        self.sent_to = []

    def to(self, device):
        self.sent_to.append(torch.device(device).type)


def test_only_the_last_to_leave_takes_the_network_back():
    network = Network()
    with on_device(network, AWAY):
        with on_device(network, AWAY):
            pass
        assert "cpu" not in network.sent_to
    assert network.sent_to[-1] == "cpu"


def test_nobody_moves_the_network_away_from_one_who_computes_with_it():
    network = Network()
    with on_device(network, AWAY):
        with (
            pytest.raises(InputError, match="in use on meta and cannot run on cpu meanwhile; wait"),
            on_device(network, torch.device("cpu")),
        ):
            pass
        assert network.sent_to == ["meta"]
    with on_device(network, torch.device("cpu")):
        assert network.sent_to == ["meta", "cpu", "cpu"]


def test_a_network_that_does_not_fit_on_the_device_is_free_again(monkeypatch):
    network = Network()
    monkeypatch.setattr(Network, "to", lambda self, device: 1 / 0 if device == AWAY else self.sent_to.append("cpu"))
    with pytest.raises(ZeroDivisionError), on_device(network, AWAY):
        pass
    assert network.sent_to == ["cpu"]
    with on_device(network, torch.device("cpu")):
        assert network.sent_to == ["cpu", "cpu"]


def test_copies_of_a_network_in_use_are_on_no_device():
    network = Network()
    with on_device(network, AWAY):
        for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            with on_device(other, torch.device("cpu")):
                assert other.sent_to[-1] == "cpu"


def test_a_run_that_ends_takes_nothing_from_another_thread_and_both_give_what_one_gives(monkeypatch):
    model, sweep = tiny_model(), noise_sweep(20)
    alone = estimate_trajectory(sweep, model, device="cpu").poses
    sent_to, first_is_in, second_is_done = [], threading.Event(), threading.Event()
    monkeypatch.setattr(type(model.network), "to", lambda self, device: sent_to.append(device) or self)

    def wait(progress):
        if progress.stage is Stage.NETWORK:  # earlier reports come before the network is used
            first_is_in.set()
            assert second_is_done.wait(60)

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(estimate_trajectory, sweep, model, device="cpu", progress=wait)
        assert first_is_in.wait(60)
        try:
            second = estimate_trajectory(sweep, model, device="cpu").poses
            arrivals = len(sent_to)
        finally:
            second_is_done.set()
        np.testing.assert_array_equal(first.result().poses, alone)
    np.testing.assert_array_equal(second, alone)
    assert (arrivals, len(sent_to)) == (2, 3)  # both came, and the last to leave took it back


def test_a_live_tracker_keeps_its_model_while_a_finished_sweep_is_tracked(monkeypatch):
    model, sweep = tiny_model(), noise_sweep(20)
    sent_to = []
    monkeypatch.setattr(type(model.network), "to", lambda self, device: sent_to.append(device) or self)
    with LiveTracker(model, sweep.frame_size, sweep.spacing_mm, device="cpu") as tracker:
        tracker.push(sweep.window(0, 8))
        whole = estimate_trajectory(sweep, model, device="cpu")
        assert len(sent_to) == 2
        tracker.push(sweep.window(8, 20))
        np.testing.assert_allclose(tracker.finish().poses, whole.poses, atol=1e-4)
    assert len(sent_to) == 3
