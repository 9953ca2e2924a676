"""Class tokens of whole sweeps in bounded memory, with the gradients of one pass over all frames.

The trunk in evaluation mode sees a fixed number of frames on either side, so pieces that carry this margin give exactly
what the whole sweep gives. Where gradients are wanted, a piece's activations are recomputed on the way back.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from DualTrackCore.network.dualtrack import LocalEncoder
from DualTrackCore.tracking.preprocessing import as_grey


def trunk_in_chunks(
    local: LocalEncoder, images: Callable[[int, int], Tensor], frames: int, size: int, head: Callable[[Tensor], Tensor]
) -> Tensor:
    """`head` of the trunk's feature maps, for all frames.

    Args:
        local: its trunk must be in evaluation mode.
        images: crops [B, n, crop, crop] of frames start to stop - 1.
        frames: number of frames of the sweep.
        size: frames a piece, without margins.
        head: feature maps [B, C, n, h, w] to [B, n, ...], frame by frame.

    Returns:
        [B, frames, ...].
    """
    margin = local.trunk.reach_frames

    def piece(crops: Tensor, first: int, count: int) -> Tensor:
        return head(local.trunk(as_grey(crops)[:, None])[:, :, first : first + count])

    parts = []
    for start in range(0, frames, size):
        stop = min(start + size, frames)
        low = max(start - margin, 0)
        crops = images(low, min(stop + margin, frames))
        if torch.is_grad_enabled() and size < frames:  # a single piece would be computed twice and save nothing
            parts.append(checkpoint(piece, crops, start - low, stop - start, use_reentrant=False))
        else:
            parts.append(piece(crops, start - low, stop - start))
    return torch.cat(parts, dim=1)
