"""What one frame costs the published network in arithmetic and memory traffic, counted without running it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from DualTrackCore.network import DualTrack

#: Frames that are counted; the windows of the convolutions reach over frames, so one alone would not do.
FRAMES = 32


@dataclass(frozen=True)
class Work:
    """Of the local encoder, whose convolutions take nearly all of the time, for one frame.

    Attributes:
        flop: floating-point operations, a multiplication and an addition counted as two.
        traffic_bytes: fp32 outputs of all layers, written once and read once; weights, shared by many frames, are not
            counted.
    """

    flop: float
    traffic_bytes: float


def work_a_frame() -> Work:
    """Counted on tensors without content."""
    with torch.device("meta"):
        encoder = DualTrack().local.eval()
        images = torch.empty(1, FRAMES, 256, 256)
    outputs: list[int] = []

    def count(module: torch.nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            outputs.append(output.numel())

    leaves = [module for module in encoder.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder(images)
    for hook in hooks:
        hook.remove()
    return Work(counter.get_total_flops() / FRAMES, 4 * 2 * sum(outputs) / FRAMES)
