"""Which kernel computes which convolution: a rule that was measured, not a trial at run time."""

from __future__ import annotations

import os
from typing import Protocol

import torch

from DualTrackCore.compilation import Signatures, compile_kernels, kernel_module
from DualTrackCore.errors import InputError
from DualTrackCore.network.fast.folding import Folded, padded_channels
from DualTrackCore.network.fast.layers import Layer, TorchLayer
from DualTrackCore.progress import Reporter

#: Environment variable that switches the compiled kernels off where it is "torch".
ENGINE_VARIABLE = "DUALTRACK_ENGINE"
_BLOCKS, _VECTORS = (f"DualTrackCore.network.fast.{name}" for name in ("blocks", "vectors"))


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
        from DualTrackCore.network.fast.blocks import SIGNATURES
        from DualTrackCore.network.fast.compiled import LANES, Workers

        compile_kernels(SIGNATURES)
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
    """Return the compiled kernels; None where plain torch is chosen or the processor has no fused multiply-add.

    Raises:
        InputError: DUALTRACK_ENGINE has a value that it cannot have.
        MissingDependencyError: numba cannot be imported.
    """
    return NumbaBackend() if _has_kernels() else None


def prepare_engine(reporter: Reporter | None = None, more: Signatures | None = None) -> float:
    """Compile the kernels of the trunk ahead of their first use, or load them from disk where they are kept already.

    Args:
        reporter: receives `Stage.PREPARING` (kernels) after each kernel that had to be compiled.
        more: further kernels to compile, such as those of the volume.

    Returns:
        Seconds that compiling took; 0.0 where all kernels were kept on disk or compiled before.

    Raises:
        InputError, MissingDependencyError: as :func:`compiled_backend`.
    """
    own = kernel_module(_BLOCKS).SIGNATURES if _has_kernels() else {}
    return compile_kernels({**own, **(more or {})}, reporter)


def _has_kernels() -> bool:
    engine = os.environ.get(ENGINE_VARIABLE, "")
    if engine not in ("", "torch"):
        raise InputError(f"{ENGINE_VARIABLE} is {engine!r}; it must be 'torch', for plain torch, or not set.")
    return engine != "torch" and kernel_module(_VECTORS).HAS_FUSED_MULTIPLY_ADD
