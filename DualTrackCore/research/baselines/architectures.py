"""The networks by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from DualTrackCore.errors import DualTrackError, InputError
from DualTrackCore.research.baselines.cnn_lstm import CnnLstm
from DualTrackCore.research.baselines.hybrid import HybridTransformer
from DualTrackCore.research.baselines.motion_network import MotionNetwork
from DualTrackCore.research.baselines.resnext import WindowResNeXt
from DualTrackCore.research.baselines.two_frame import TwoFrameCNN

#: Name to network.
ARCHITECTURES: Mapping[str, type[MotionNetwork]] = MappingProxyType(
    {network.architecture: network for network in (TwoFrameCNN, WindowResNeXt, CnnLstm, HybridTransformer)}
)


def build_baseline(kind: str, **arguments: Any) -> MotionNetwork:
    """A network with random weights.

    Args:
        kind: a key of :data:`ARCHITECTURES`.
        arguments: those of the network; sizes that are not given are its own.

    Raises:
        InputError: an unknown kind or argument, or sizes that make no network.
    """
    if kind not in ARCHITECTURES:
        raise InputError(f"The baseline kind {kind!r} is unknown; choose {', '.join(ARCHITECTURES)}.")
    try:
        return ARCHITECTURES[kind](**arguments)
    except (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError) as error:
        if isinstance(error, DualTrackError):
            raise
        raise InputError(f"These sizes make no {kind} network: {error}.") from None
