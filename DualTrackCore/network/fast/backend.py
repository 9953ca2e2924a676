"""Which kernel computes which convolution: a rule that was measured, not a trial at run time."""

from __future__ import annotations

import importlib.util
from typing import Protocol

import torch

from DualTrackCore.network.fast.folding import Folded, padded_channels
from DualTrackCore.network.fast.layers import Layer, TorchLayer


class Backend(Protocol):
    """Makes layers of folded convolutions, with as many channels as its kernels want.

    Attributes:
        device, dtype: of images, weights and frames.
    """

    device: torch.device
    dtype: torch.dtype

    def padded(self, folded: Folded, first: bool = False) -> Folded:
        """The convolution between as many channels as the layers use; `first` reads images of one channel."""
        ...

    def layer(self, folded: Folded) -> Layer:
        """The convolution, ready to run."""
        ...


class TorchBackend:
    """torch's own convolutions, on any device and in any precision."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype

    def padded(self, folded: Folded, first: bool = False) -> Folded:
        """As it is."""
        return folded

    def layer(self, folded: Folded) -> Layer:
        """See :class:`Backend`."""
        return TorchLayer(folded, self.device, self.dtype)


class NumbaBackend:
    """Kernels that numba compiles for this processor, single precision.

    Attributes:
        lanes: channels that a vector register holds.
    """

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        from DualTrackCore.network.fast.compiled import LANES, Workers

        self.lanes, self._workers = LANES, Workers()

    def padded(self, folded: Folded, first: bool = False) -> Folded:
        """Channels rounded up to whole vector registers."""
        outputs, inputs = (-(-size // self.lanes) * self.lanes for size in folded.weight.shape[:2])
        return padded_channels(folded, 1 if first else inputs, outputs)

    def layer(self, folded: Folded) -> Layer:
        """See :class:`Backend`."""
        from DualTrackCore.network.fast.compiled import DirectLayer, WinogradLayer

        padded = self.padded(folded)
        outputs, inputs, *kernel = padded.weight.shape
        if kernel == [3, 3, 3] and folded.stride == 1 and inputs == outputs:
            return WinogradLayer(padded, self._workers)
        return DirectLayer(padded, self._workers)


def compiled_backend() -> NumbaBackend | None:
    """The compiled kernels; None without numba or without fused multiply-add, which they live on."""
    if importlib.util.find_spec("numba") is None:
        return None
    try:
        from DualTrackCore.network.fast.vectors import HAS_FUSED_MULTIPLY_ADD

        return NumbaBackend() if HAS_FUSED_MULTIPLY_ADD else None
    except (ImportError, OSError):  # a numba that does not fit this Python or this numpy
        return None
