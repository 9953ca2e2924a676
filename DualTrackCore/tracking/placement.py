"""A network on a device for as long as somebody computes with it: several threads may share one model."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import nn

from DualTrackCore.errors import InputError
from DualTrackCore.network.blocks import Trunk
from DualTrackCore.network.fast import forget_prepared
from DualTrackCore.tracking.device import release_memory

#: Attribute under which a network carries its placement.
_PLACEMENT = "_placement"


class _Placement:
    """Where a network is and how many compute with it there; copies of the network start anew."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.device, self.users = torch.device("cpu"), 0

    def __reduce__(self) -> tuple[type, tuple]:
        return _Placement, ()


@contextlib.contextmanager
def on_device(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Keep a network on a device; the last one to leave takes it back to the processor and frees the device's memory.

    Raises:
        InputError: another thread, or a live tracker, computes with the network on another device.
    """
    place: _Placement = network.__dict__.setdefault(_PLACEMENT, _Placement())
    device = torch.empty(0, device=device).device  # "cuda" is the current one of several
    with place.lock:
        if place.users and place.device != device:
            raise InputError(
                f"The model is in use on {place.device} and cannot run on {device} meanwhile; wait for that run, or "
                "load the model a second time."
            )
        try:
            network.to(device)
        except BaseException:
            if not place.users:
                _take_back(network, device)
            raise
        place.device, place.users = device, place.users + 1
    try:
        yield
    finally:
        with place.lock:
            place.users -= 1
            if not place.users:
                _take_back(network, device)


def _take_back(network: nn.Module, device: torch.device) -> None:
    if device.type != "cpu":
        for trunk in (module for module in network.modules() if isinstance(module, Trunk)):
            forget_prepared(trunk)
    network.to("cpu")
    release_memory(device)
