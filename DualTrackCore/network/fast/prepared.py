"""The prepared weights of a trunk, made once and made again when its weights have changed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from DualTrackCore.network.fast.backend import Backend, TorchBackend, compiled_backend
from DualTrackCore.network.fast.folding import fold_trunk
from DualTrackCore.network.fast.trunk import FastTrunk
from DualTrackCore.network.trunk import Trunk

#: Name under which a trunk carries what was prepared of it.
_NAME = "_prepared_for_inference"


class _Prepared:
    """Prepared weights and what they were made of. A copy of the trunk, or one read from a file, starts without."""

    def __init__(self, made_of: tuple, trunk: FastTrunk) -> None:
        self.made_of, self.trunk = made_of, trunk

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def __reduce__(self) -> tuple:
        return (type(None), ())


def prepared(trunk: Trunk, device: torch.device, dtype: torch.dtype) -> FastTrunk:
    """The trunk's weights as inference wants them; the same object again while weights, device and precision stay.

    Preparing takes about as long as ten frames. Winograd's weights take five times the memory of the convolutions they
    belong to. The trunk carries them with it; its state dict, copies and saved files do not.

    Args:
        trunk: in evaluation mode.
        device: where the frames will be.
        dtype: of the convolutions; images come and maps leave in it.
    """
    made_of = (str(device), dtype, _fingerprint(trunk))
    known: _Prepared | None = trunk.__dict__.get(_NAME)
    if known is None or known.made_of != made_of:
        forget_prepared(trunk)  # before the new ones are made: they are large
        known = _Prepared(made_of, FastTrunk(fold_trunk(trunk), choose_backend(trunk, device, dtype)))
        trunk.__dict__[_NAME] = known
    return known.trunk


def forget_prepared(trunk: Trunk) -> None:
    """Give the memory of prepared weights back, on whatever device it is."""
    trunk.__dict__.pop(_NAME, None)


def choose_backend(trunk: Trunk, device: torch.device, dtype: torch.dtype) -> Backend:
    """Compiled kernels where they can be had and the narrowest stage fills a vector register, else torch's."""
    compiled = compiled_backend() if device.type == "cpu" and dtype == torch.float32 else None
    narrowest = min(block.conv1[0].out_channels for block in trunk.blocks)
    return TorchBackend(device, dtype) if compiled is None or narrowest < compiled.lanes else compiled


def _fingerprint(trunk: Trunk) -> tuple:
    """Changes with the weights: with the counters of torch, and with the numbers where `.data` went around them."""
    tensors = [*trunk.parameters(), *(b for b in trunk.buffers() if b.is_floating_point())]
    return tuple(_mark(tensor.detach()) for tensor in tensors)


def _mark(tensor: Tensor) -> tuple[int, int, int]:
    counter = -1 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), counter, int(tensor.contiguous().view(torch.int32).sum(dtype=torch.int64))
