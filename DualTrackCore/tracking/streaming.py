"""The 3D trunk over a stream of frames, with the result of the whole sequence at once.

Every temporal convolution keeps its last two input frames, and every shortcut waits for the convolutions it goes
around, so nothing is computed twice and memory does not depend on the length of the sweep. An output frame appears once
the frames it depends on have been pushed: 17 frames behind the newest one for the published trunk.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from DualTrackCore.network.fast import FastStream, prepared
from DualTrackCore.network.trunk import Trunk


class StreamingTrunk:
    """Push frames in pieces of any length, get feature maps in order.

    A push either happens as a whole or, if it raises (out of memory), not at all: it can be repeated with fewer frames.
    The stream keeps to the weights that the trunk had at the first push. Under autocast it runs in that precision;
    nothing here has gradients.

    Args:
        trunk: in evaluation mode, on the device of the frames.
        consume: what is done with the feature maps [m, width, h, w] of a push; a failure of it undoes the push as well.
    """

    def __init__(self, trunk: Trunk, consume: Callable[[Tensor], Tensor] | None = None) -> None:
        self._trunk, self._consume = trunk, consume
        self._stream: FastStream | None = None

    @property
    def kept_bytes(self) -> int:
        """Memory of the frames kept for the next push."""
        return 0 if self._stream is None else self._stream.kept_bytes

    def push(self, images: Tensor, last: bool = False) -> Tensor:
        """Next frames of the sweep.

        Args:
            images: [n, crop, crop] float32 in 0 to 1.
            last: whether the sweep ends with these frames; the remaining maps are then returned as well.

        Returns:
            Feature maps [m, width, h, w] of the frames that have become complete, in order (m may be 0), or what
            `consume` makes of them.
        """
        if self._stream is None:
            self._stream = FastStream(prepared(self._trunk, images.device, _precision(images.device)))
        maps, kept = self._stream.step(images, last)
        result = maps if self._consume is None else self._consume(maps)
        self._stream.kept = kept
        return result


def _precision(device: torch.device) -> torch.dtype:
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32
