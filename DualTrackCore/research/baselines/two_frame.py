"""Two neighbouring frames to one motion, each pair on its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from DualTrackCore.research.baselines.motion_network import MotionNetwork, State
from DualTrackCore.research.baselines.pair_encoder import convolution, map_side, pairs


class TwoFrameCNN(MotionNetwork):
    """Convolutions over two frames as channels, then two dense layers, to six numbers.

    Prevost, Salehi, Jagoda, Kumar, Sprung, Ladikos, Bauer, Zettinig and Wein 2018, "3D freehand ultrasound without
    external tracking using deep learning" (Med. Image Anal. 48: 187).

    From the description: the two frames are the channels of one image, a few convolutions that halve it lead to dense
    layers, and these to three translations and three rotations. Different: the optical flow between the frames, which
    the paper adds as two more channels, is left out, and so are the orientations of its inertial sensor; BatchNorm
    after every convolution; strides in place of pooling; the crop of the card in place of the whole frame; sizes.

    Args:
        crop_size: pixels a side of the crop; a multiple of 2 to the number of widths.
        widths: channels of the convolutions; the first is 5x5, the others 3x3, each halves rows and columns.
        hidden: numbers between the two dense layers.
        dropout: before the last layer, in training.
    """

    architecture = "two-frame"

    def __init__(
        self,
        crop_size: int = 64,
        widths: Sequence[int] = (16, 32, 64, 64),
        hidden: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(crop_size, locals())
        side = map_side(crop_size, len(widths))
        layers: list[nn.Module] = []
        for inputs, outputs in zip((2, *widths), widths, strict=False):
            layers += [*convolution(inputs, outputs, 3 if layers else 5, 2), nn.ReLU(inplace=True)]
        self.trunk = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.dense = nn.Sequential(nn.Linear(widths[-1] * side**2, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout))
        self.head = nn.Linear(hidden, 6)

    def outputs(self, images: Tensor, state: State = None) -> tuple[Tensor, State]:
        """See :meth:`MotionNetwork.outputs`; there is no state."""
        motions = self.head(self.dense(self.trunk(pairs(images)).flatten(1)))
        return motions.unflatten(0, (len(images), -1)), None
